"""Candles that late trades changed a short while ago. Plain bookkeeping, no I/O.

A page that was asked before such a trade came does not know of it, however late it arrives: of
these candles it proves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from upbit_backbone.models import Candle, Timeframe
from upbit_backbone.storage.candle_tables import SeriesKey
from upbit_backbone.storage.coverage import KnownSpan
from upbit_backbone.storage.spans import Range, SpanSet

KEPT_S = 600.0
"""No page is under way for so long."""


class LateTrades:
    """Which candles were revised, and when; the caller passes monotonic time."""

    def __init__(self) -> None:
        self._revised: dict[SeriesKey, dict[int, tuple[float, Candle]]] = {}

    def note(self, key: SeriesKey, open_ms: int, candle: Candle, now_s: float) -> None:
        """A stream revised a candle of a period that was over."""
        revised = self._revised.setdefault(key, {})
        for old_ms in [old for old, (at_s, _) in revised.items() if at_s < now_s - KEPT_S]:
            del revised[old_ms]
        revised[open_ms] = now_s, candle

    def since(self, key: SeriesKey, asked_s: float) -> dict[int, Candle]:
        """What was revised after a page was asked, by open time."""
        return {
            open_ms: candle
            for open_ms, (at_s, candle) in sorted(self._revised.get(key, {}).items())
            if at_s >= asked_s
        }


def without(
    proofs: Iterable[KnownSpan], timeframe: Timeframe, open_times: Collection[int]
) -> list[KnownSpan]:
    """What proofs say of all other candles."""
    return outside(proofs, SpanSet(Range(at_ms, timeframe.next_ms(at_ms)) for at_ms in open_times))


def outside(proofs: Iterable[KnownSpan], left: SpanSet) -> list[KnownSpan]:
    """What proofs say of all but some ranges."""
    return [
        proof.cut(*part)
        for proof in proofs
        for part in (
            left.missing(proof.start_ms, proof.end_ms)
            if proof.proved
            else [Range(proof.start_ms, proof.end_ms)]
        )
    ]
