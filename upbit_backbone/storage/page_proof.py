"""What one page of candles proves. Pure functions of the page and of what is known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from upbit_backbone.clock import DAY_MS, SECOND_MS
from upbit_backbone.models import CandleSeries, SpanState, Timeframe
from upbit_backbone.storage.coverage import (
    BEGINNING_MS,
    CONTRADICTED,
    REST,
    UNCONFIRMED,
    Coverage,
    KnownSpan,
)

PROOF_MARGIN_MS = 5 * SECOND_MS
"""A candle is proved only when read this long after its end: its last trades come late."""
AGREES_AFTER_MS = 60 * SECOND_MS
"""A second reading that shows nothing counts this long after the first: the same fault of the
exchange may last for seconds."""
SECONDS_KEPT_MS = 88 * DAY_MS
"""Candles of a second are kept for three months, the shortest of which have 89 days
(https://docs.upbit.com/kr/reference/list-candles-seconds): that older ones are not shown says
nothing."""


class Doubt(NamedTuple):
    """A page that ended below the newest of the candles that are stored where it was asked for."""

    shown_ms: int
    """When the newest candle opens that it showed."""
    stored_ms: int
    """When the newest one opens that it had to show."""
    asked_ms: int


class NewestShown(NamedTuple):
    """What is to be known of a page to judge its newer end."""

    open_ms: int
    """When its newest candle opens."""
    asked_ms: int
    told_ms: int | None = None
    """When the newest candle opens that a stream has told, stored or not."""
    earlier: Doubt | None = None
    """An earlier page of the series that was doubted."""

    def doubt(self, stored_ms: int | None) -> Doubt | None:
        """Whether a node that lags may have answered.

        Args:
            stored_ms: When the newest of the proved candles opens that it had to show.

        Returns:
            None: it shows the newest there is, or a second page agrees a minute later.
        """
        newest_ms = max((at for at in (stored_ms, self.told_ms) if at is not None), default=None)
        if newest_ms is None or newest_ms <= self.open_ms:
            return None
        before = self.earlier
        if before is None or before.shown_ms != self.open_ms or newest_ms > before.stored_ms:
            return Doubt(self.open_ms, newest_ms, self.asked_ms)
        return before if self.asked_ms - before.asked_ms < AGREES_AFTER_MS else None


def up_to_shown(proofs: Iterable[KnownSpan], timeframe: Timeframe, doubt: Doubt) -> list[KnownSpan]:
    """What a doubted page proves: nothing beyond its newest candle."""
    end_ms = timeframe.next_ms(doubt.shown_ms)
    found: list[KnownSpan] = []
    for proof in proofs:
        if proof.state != "complete" or proof.end_ms <= end_ms:
            found.append(proof)
            continue
        if proof.start_ms < end_ms:
            found.append(proof.cut(proof.start_ms, end_ms))
        beyond = proof.cut(end_ms, proof.end_ms)
        found.append(
            beyond._replace(
                state="unknown", reason=CONTRADICTED, evidence="a page without the newest of them"
            )
        )
    return found


def proofs_of_page(
    known: Coverage,
    timeframe: Timeframe,
    page: CandleSeries,
    *,
    end_ms: int,
    count: int,
    asked_ms: int,
) -> list[KnownSpan]:
    """What is known after a page, in the order in which it is to be put.

    Args:
        known: What was known before.
        timeframe: Of the page.
        page: What came, ascending.
        end_ms: What was asked: the latest that open before it; aligned.
        count: How many.
        asked_ms: When, by the exchange's time.
    """
    top_ms = min(end_ms, timeframe.floor_ms(asked_ms - PROOF_MARGIN_MS))
    proofs: list[KnownSpan] = []
    low_ms = top_ms
    if len(page):
        oldest_ms = int(page.time[0])
        if oldest_ms < top_ms:
            proofs.append(KnownSpan(oldest_ms, top_ms, "complete", "", REST, asked_ms))
        low_ms = min(oldest_ms, top_ms)
    if len(page) < count:
        below = _below_short_page(known, timeframe, low_ms, len(page), asked_ms)
        proofs += [] if below is None else [below]
    return proofs


def _below_short_page(
    known: Coverage, timeframe: Timeframe, low_ms: int, rows: int, asked_ms: int
) -> KnownSpan | None:
    """What follows from it that the exchange shows nothing below `low_ms`."""
    traded_to_ms = known.last_complete_end_ms(low_ms)
    start_ms = BEGINNING_MS
    if timeframe is Timeframe.S1:
        start_ms = timeframe.ceil_ms(asked_ms - SECONDS_KEPT_MS)
    evidence = "an empty page" if rows == 0 else f"a short page of {rows}"
    if traded_to_ms is not None and traded_to_ms > start_ms:
        # There was room for candles that are stored: such a page cannot be right.
        if traded_to_ms == low_ms:
            return None
        return KnownSpan(traded_to_ms, low_ms, "unknown", CONTRADICTED, evidence, asked_ms)
    if start_ms >= low_ms:
        return None
    first = known.at(low_ms - 1)
    if first is not None and first.unsettled and first.state == "empty":
        # The stream saw no trade there, and the exchange shows none.
        start_ms = max(start_ms, first.start_ms)
        return KnownSpan(start_ms, low_ms, "empty", "two readings agree", REST, asked_ms)
    agrees = (
        first is not None
        and first.reason == UNCONFIRMED
        # Candles where the first reading had shown none are no agreement.
        and (rows == 0 or low_ms >= first.end_ms)
    )
    if first is None or not agrees:
        return KnownSpan(start_ms, low_ms, "unknown", UNCONFIRMED, evidence, asked_ms)
    if asked_ms - first.known_at_ms < AGREES_AFTER_MS:
        return None
    start_ms = max(start_ms, first.start_ms)
    state: SpanState = "before_listing" if start_ms == BEGINNING_MS else "empty"
    evidence = f"{first.evidence}, then {evidence}"
    return KnownSpan(start_ms, low_ms, state, "two readings agree", evidence, asked_ms)
