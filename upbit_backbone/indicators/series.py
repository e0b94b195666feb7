"""The values of an indicator, beside the candles that they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import overload

import msgspec
import numpy as np
import numpy.typing as npt

from upbit_backbone.indicators.indicator import NO_VALUE
from upbit_backbone.models import CandleSeries


class IndicatorSeries(msgspec.Struct, frozen=True, eq=False):
    """A column of values, one for each candle; ``float(series)`` is the latest.

    ``series[i]`` is a value, ``series[a:b]`` a view that copies nothing. The last value is
    that of a forming candle while ``candles.closed[-1]`` is False, and changes with it.
    """

    name: str
    """E.g. ``"RSI"``."""
    parameters: dict[str, int]
    """All of them, the defaults too."""
    candles: CandleSeries
    values: npt.NDArray[np.float64]
    """Read-only; NaN where too few candles lie before."""

    def __post_init__(self) -> None:
        self.values.setflags(write=False)

    @property
    def latest(self) -> float:
        """The value of the newest candle; NaN if there is none."""
        return float(self.values[-1]) if len(self.values) else NO_VALUE

    def __float__(self) -> float:
        return self.latest

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[float]:
        return iter(self.values.tolist())

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> IndicatorSeries: ...
    def __getitem__(self, index: int | slice) -> float | IndicatorSeries:
        if isinstance(index, slice):
            return IndicatorSeries(
                self.name, self.parameters, self.candles[index], self.values[index]
            )
        return float(self.values[index])

    def __repr__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.parameters.items())
        return f"<{self.name} ({settings}) {self.latest:.6g} of {self.candles!r}>"
