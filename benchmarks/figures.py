"""What benchmarks measure, and how it is printed beside what was promised."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec
import psutil


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured promise, or (`met` is None) a figure for comparison."""

    name: str
    """Of the measurement that it belongs to."""
    what: str
    measured: float
    unit: str
    promise: str = ""
    floor: float | None = None
    """What the bare libraries take for the same, in the same run."""
    floor_is: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The figure as a multiple of its floor."""
        return None if not self.floor else self.measured / self.floor

    def __str__(self) -> str:
        verdict = {None: "      ", True: "kept  ", False: "MISSED"}[self.met]
        promise = f"({self.promise})" if self.promise else ""
        return f"{verdict} {self.what:62} {self.measured:9.3f} {self.unit:3} {promise}  {self.note}"


def at_most(
    limit: float, *, name: str, what: str, measured: float, unit: str, note: str = ""
) -> Figure:
    """A figure that must not be larger."""
    return Figure(
        name=name, what=what, measured=measured, unit=unit, note=note,
        promise=f"≤ {limit:g}", met=measured <= limit,
    )  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all lies below."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def show(figures: Sequence[Figure], *, decimals: int = 1) -> None:
    """Print a table."""
    load = psutil.getloadavg()[0] / (psutil.cpu_count() or 1)
    print(f"\n{figures[0].name} (load of the machine {load:.1f} a core)")
    for figure in figures:
        measured = f"{figure.measured:,.{decimals}f} {figure.unit}".strip()
        verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
        promise = f"{figure.promise}: {verdict}" if figure.promise else ""
        print(f"{figure.what:<76}{measured:>14}  {promise}")
        if figure.note:
            print(f"    {figure.note}")
    sys.stdout.flush()
