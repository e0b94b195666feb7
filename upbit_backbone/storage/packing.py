"""Columns of candles as bytes, in as few as hold them exactly. Plain values, no I/O.

Times lie on a grid and prices are multiples of a tick, so that small integers say them: a value is
``(base + step · n) / 10^exponent`` with n in one, two or four bytes. Integers below 2^53 are exact
as float64 and the division is rounded correctly, so the same bits come back; what is packed is
unpacked once and compared, and stays as it is where that does not hold. Half the bytes are read
and checked in half the time.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

Columns = npt.NDArray[np.int64]
"""Seven rows of one length: open times, then the bits of open, high, low, close, volume, value."""

COLUMNS = 7
PACK_AT_LEAST = 512
"""Shorter ones stay as they are: they are joined to others soon, and packing takes a while."""
_STORED: np.dtype[Any] = np.dtype("<i8")
_WIDTHS: dict[int, np.dtype[Any]] = {width: np.dtype(f"<u{width}") for width in (1, 2, 4)}
_EXACT = 2.0**53
_GROUPS = (slice(0, 1), slice(1, 5), slice(5, 6), slice(6, 7))
"""Time, prices, volume, value: each with one base, step and exponent."""
_EXPONENTS: tuple[tuple[int, ...], ...] = ((0,), (0, 4, 8), (8,), ())
"""Those worth a try; a value in the quote asset has too many digits."""
_HEADER = struct.Struct("<16q")


class _Group(NamedTuple):
    width: int
    """Bytes a number; 8: the bits as they are."""
    exponent: int
    base: int
    step: int


_AS_IT_IS = _Group(8, 0, 0, 0)


def pack_columns(columns: Columns) -> bytes:
    """The bytes of columns; `Packed` reads them."""
    rows = columns.shape[1]
    whole: bytes = np.ascontiguousarray(columns, _STORED).tobytes()
    if rows < PACK_AT_LEAST:
        return whole
    header: list[int] = []
    parts: list[bytes] = []
    for place, exponents in zip(_GROUPS, _EXPONENTS, strict=True):
        group, part = _packed(columns[place], exponents, is_time=place.start == 0)
        header += group
        parts.append(part)
    packed = b"".join((_HEADER.pack(*header), *parts))
    packed += bytes(_filling(len(packed)))
    return packed if len(packed) < len(whole) else whole


class Packed:
    """Columns as they were packed, any part of which can be copied out."""

    __slots__ = ("_groups", "_parts", "rows")

    def __init__(self, rows: int, groups: list[_Group], parts: list[npt.NDArray[Any]]) -> None:
        self.rows = rows
        self._groups = groups
        self._parts = parts

    @classmethod
    def of(cls, data: bytes, rows: int) -> Self | None:
        """Read what `pack_columns` made; None when it did not make this."""
        packed = bool(len(data) % 8)
        if rows < 1 or (packed and len(data) < _HEADER.size):
            return None
        header = _HEADER.unpack_from(data) if packed else _AS_IT_IS * len(_GROUPS)
        groups = [_Group(*header[low : low + 4]) for low in range(0, len(header), 4)]
        at = _HEADER.size if packed else 0
        parts: list[npt.NDArray[Any]] = []
        for group, place in zip(groups, _GROUPS, strict=True):
            kind = _WIDTHS.get(group.width, _STORED)
            shape = (place.stop - place.start, rows)
            length = shape[0] * rows * kind.itemsize
            if group.width not in (*_WIDTHS, 8) or at + length > len(data):
                return None
            parts.append(np.ndarray(shape, kind, data, at))
            at += length
        at += _filling(at) if packed else 0
        return cls(rows, groups, parts) if at == len(data) else None

    def places(self, start_ms: int, end_ms: int) -> tuple[int, int]:
        """Which of the rows have ``start_ms <= open time < end_ms``."""
        times = np.empty((1, self.rows), np.int64)
        self._copy_group(0, times, 0, self.rows)
        low, high = np.searchsorted(times[0], (start_ms, end_ms))
        return int(low), int(high)

    def copy_to(self, out: Columns, low: int, high: int) -> None:
        """Unpack the rows ``low <= row < high`` into columns of just so many."""
        for number, place in enumerate(_GROUPS):
            self._copy_group(number, out[place], low, high)

    def columns(self) -> Columns:
        """All of it."""
        out = np.empty((COLUMNS, self.rows), np.int64)
        self.copy_to(out, 0, self.rows)
        return out

    def _copy_group(self, number: int, out: Columns, low: int, high: int) -> None:
        _unpack(self._groups[number], self._parts[number][:, low:high], out, is_time=number == 0)


def _filling(length: int) -> int:
    """So many bytes follow what is packed: a length that eight divides says that nothing is."""
    return 0 if length % 8 else 1


def _unpack(
    group: _Group, numbers: npt.NDArray[Any], out: npt.NDArray[np.int64], *, is_time: bool
) -> None:
    if group.width == 8:
        out[...] = numbers
    elif is_time:
        np.multiply(numbers, group.step, out=out, dtype=np.int64)
        out += group.base
    else:
        values = out.view(np.float64)
        np.multiply(numbers, float(group.step), out=values, dtype=np.float64)
        values += float(group.base)
        if group.exponent:
            values /= 10.0**group.exponent


def _packed(
    bits: npt.NDArray[np.int64], exponents: tuple[int, ...], *, is_time: bool
) -> tuple[_Group, bytes]:
    for exponent in exponents:
        whole = bits if is_time else _whole_numbers(bits.view(np.float64), exponent)
        if whole is None:
            continue
        base = int(whole.min())
        beyond = whole - base
        step = int(np.gcd.reduce(beyond.ravel())) or 1
        numbers = beyond // step
        width = next((one for one in _WIDTHS if int(numbers.max()) < 1 << 8 * one), None)
        if width is None:
            break
        group, narrow = _Group(width, exponent, base, step), numbers.astype(_WIDTHS[width])
        again = np.empty_like(bits)
        _unpack(group, narrow, again, is_time=is_time)
        if np.array_equal(again, bits):
            return group, narrow.tobytes()
    return _AS_IT_IS, np.ascontiguousarray(bits, _STORED).tobytes()


def _whole_numbers(values: npt.NDArray[np.float64], exponent: int) -> Columns | None:
    """The values in units of ``10^-exponent``; None where they are no whole numbers of it."""
    with np.errstate(all="ignore"):
        scaled = np.rint(values * 10.0**exponent)
        if not bool((np.abs(scaled) < _EXACT).all()):
            return None
        return scaled.astype(np.int64) if np.array_equal(scaled / 10.0**exponent, values) else None
