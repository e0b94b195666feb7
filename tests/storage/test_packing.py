"""Columns as bytes: the same bits come back, whatever they are, and nothing else is accepted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from upbit_backbone.clock import MINUTE_MS
from upbit_backbone.storage.packing import COLUMNS, PACK_AT_LEAST, Columns, Packed, pack_columns

RAW_BYTES = 8 * COLUMNS
ROWS = st.integers(PACK_AT_LEAST, PACK_AT_LEAST + 40)
AWKWARD = st.sampled_from(
    [0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1.7e308, -1.7e308, 2.0**53, 2.0**53 + 2, 0.1, 1e-9]
)
"""Among them those that compare equal, or unequal, without having the same bits or other ones."""
DECIMALS = st.tuples(st.integers(0, 10**11), st.integers(0, 10)).map(lambda n: n[0] / 10 ** n[1])


def columns_of(times: Any, numbers: Any) -> Columns:
    columns = np.empty((COLUMNS, len(times)), np.int64)
    columns[0] = times
    columns[1:].view(np.float64)[:] = numbers
    return columns


@st.composite
def any_columns(draw: st.DrawFn) -> Columns:
    """Candles as an exchange has them, here and there with bits that no exchange sends."""
    rows = draw(ROWS)
    first_ms = draw(st.integers(0, 2**45))
    steps = draw(arrays.arrays(np.int64, rows, elements=st.integers(1, 1_440), fill=st.just(1)))
    times = first_ms + np.cumsum(steps) * draw(st.sampled_from([1, 1_000, MINUTE_MS]))
    tick = 10.0 ** -draw(st.integers(-3, 8))
    walk = draw(arrays.arrays(np.int64, (COLUMNS - 1, rows), elements=st.integers(0, 2**33)))
    numbers = np.rint(walk % draw(st.sampled_from([200, 60_000, 2**33]))) * tick
    for at in draw(st.lists(st.integers(0, numbers.size - 1), max_size=4)):
        numbers.flat[at] = draw(st.one_of(AWKWARD, DECIMALS))
    return columns_of(times, numbers)


@settings(max_examples=150)
@given(columns=any_columns(), data=st.data())
def test_the_same_bits_come_back_whole_and_in_part(columns: Columns, data: st.DataObject) -> None:
    rows = columns.shape[1]
    packed = Packed.of(pack_columns(columns), rows)
    assert packed is not None
    assert np.array_equal(packed.columns(), columns)
    low, high = sorted((data.draw(st.integers(0, rows)), data.draw(st.integers(0, rows))))
    part = np.full((COLUMNS, high - low), -1, np.int64)
    packed.copy_to(part, low, high)
    assert np.array_equal(part, columns[:, low:high])
    start_ms = data.draw(st.integers(int(columns[0, 0]) - 5, int(columns[0, -1]) + 5))
    inside = (columns[0] >= start_ms) & (columns[0] < start_ms + 9 * MINUTE_MS)
    low, high = packed.places(start_ms, start_ms + 9 * MINUTE_MS)
    assert np.array_equal(np.flatnonzero(inside), np.arange(low, high))


@settings(max_examples=100)
@given(columns=any_columns(), rows=st.integers(0, 3 * PACK_AT_LEAST), cut=st.integers(0, 200))
def test_bytes_of_another_length_are_not_read(columns: Columns, rows: int, cut: int) -> None:
    data = pack_columns(columns)
    assert (Packed.of(data, rows) is not None) == (rows == columns.shape[1])
    if cut:
        assert Packed.of(data[:-cut], columns.shape[1]) is None


@pytest.mark.parametrize("width", [0, 3, 9, -1, 1 << 40])
def test_a_width_that_no_packing_has_is_not_read(width: int) -> None:
    times = np.arange(PACK_AT_LEAST) * MINUTE_MS
    data = bytearray(pack_columns(columns_of(times, np.ones((COLUMNS - 1, PACK_AT_LEAST)))))
    assert len(data) % 8, "it was packed"
    data[:8] = width.to_bytes(8, "little", signed=True)
    assert Packed.of(bytes(data), PACK_AT_LEAST) is None


def test_few_rows_stay_as_they_are() -> None:
    columns = columns_of(np.arange(60) * MINUTE_MS, np.ones((COLUMNS - 1, 60)))
    assert pack_columns(columns) == columns.tobytes()
