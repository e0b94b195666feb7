"""One market as a function of time: its regimes, one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from upbit_backbone.clock import DAY_MS
from upbit_backbone.simulator.markets import TILE_START_MS, Listing
from upbit_backbone.simulator.regime import Cut, Regime, Span, Trade, lines_of
from upbit_backbone.simulator.table import MinuteTable, Totals


class Market:
    """One listed market.

    Args:
        listing: What the exchange says about it.
        regimes: In order of time, without overlap; all write prices in the same unit. In a
            hole between two nothing is traded.
    """

    def __init__(self, listing: Listing, regimes: Sequence[Regime]) -> None:
        self.listing = listing
        self.symbol = listing.symbol
        self.scale = regimes[0].scale
        """Of the first regime; the unit is that of all."""
        self.table = regimes[0].table
        """Of the first regime: what the market is like while no script changes it."""
        self.regimes = tuple(regimes)
        self._starts = [regime.from_ms for regime in regimes]
        self._offsets = _offsets(regimes)

    def grid_at(self, ms: int) -> int:
        """The tick in units of the scale."""
        return self.regimes[self._number(ms)].scale.grid

    def cut(self, before_ms: int) -> Cut:
        """Part the trades before an instant from the others."""
        number = self._number(before_ms - 1)
        cut = self.regimes[number].cut(before_ms)
        if number == 0:
            return cut
        offset = self._offsets[number]
        totals = Totals(*(all_ + some for all_, some in zip(offset, cut.totals, strict=True)))
        return cut._replace(regime=number, totals=totals)

    def last_trade(self, cut: Cut) -> Trade | None:
        """The newest trade before a cut; None before the first."""
        return self.regimes[cut.regime].last_trade(cut) or self._last_before_regime(cut.regime)

    def last_trade_before(self, ms: int) -> Trade | None:
        """`last_trade` of the cut at an instant, without the sums that a cut costs."""
        number = self._number(ms - 1)
        return self.regimes[number].last_trade_before(ms) or self._last_before_regime(number)

    def next_trades(self, after_ms: int) -> list[Trade]:
        """The trades after an instant in the first minute that has any; [] if none follow."""
        for regime in self.regimes[self._number(after_ms) :]:
            if trades := regime.next_trades(after_ms):
                return trades
        return []

    def trades_back(
        self, *, from_ms: int, before_ms: int, before_id: int | None, count: int
    ) -> list[Trade]:
        """At most `count` trades in [from_ms, before_ms), newest first.

        Args:
            from_ms: Start, inclusive.
            before_ms: End, exclusive.
            before_id: Only trades with a smaller `sequential_id`.
            count: At least 1.
        """
        found: list[Trade] = []
        for regime in reversed(self.regimes[: self._number(before_ms - 1) + 1]):
            found += regime.trades_back(
                from_ms=from_ms,
                before_ms=before_ms,
                before_id=before_id,
                count=count - len(found),
            )
            if len(found) == count or regime.from_ms <= from_ms:
                break
        return found

    def span(self, from_ms: int, cut: Cut) -> Span | None:
        """What was traded from a full minute to a cut, within one UTC day; None if nothing."""
        if cut.regime == 0:
            return self.regimes[0].span(from_ms, cut)
        return joined_spans(
            span
            for number in range(max(self._number(from_ms), 0), cut.regime + 1)
            if (span := self._span_within(number, from_ms, cut)) is not None
        )

    def close_before(self, ms: int) -> int | None:
        """The last price before a full minute, in units; None before the first trade."""
        for regime in reversed(self.regimes[: self._number(ms - 1) + 1]):
            if (close := regime.close_before(ms)) is not None:
                return close
        return None

    def previous_close(self, ms: int) -> int:
        """The close of the UTC day before an instant; on the first day that day's open.

        Asked of an instant from the first trade on.
        """
        close = self.close_before(ms // DAY_MS * DAY_MS)
        return self.next_trades(self.regimes[0].from_ms - 1)[0].price if close is None else close

    def _last_before_regime(self, number: int) -> Trade | None:
        for regime in reversed(self.regimes[:number]):
            assert regime.until_ms is not None, "another one follows"
            if (last := regime.last_trade_before(regime.until_ms)) is not None:
                return last
        return None

    def _number(self, ms: int) -> int:
        """Of the regime that an instant lies in, or of the last one that began before it."""
        if len(self._starts) == 1:
            return 0
        return max(bisect_right(self._starts, ms) - 1, 0)

    def _span_within(self, number: int, from_ms: int, cut: Cut) -> Span | None:
        regime = self.regimes[number]
        if number == cut.regime:
            own = (
                all_ - before
                for all_, before in zip(cut.totals, self._offsets[number], strict=True)
            )
            return regime.span(from_ms, cut._replace(totals=Totals(*own)))
        assert regime.until_ms is not None, "another one follows"
        return regime.span(from_ms, regime.cut(regime.until_ms))


def whole_regime(listing: Listing, table: MinuteTable, *, repeats: bool) -> Regime:
    """What a market follows from its listing on, while no script changes it."""
    return Regime(
        table,
        listing.scale,
        origin_ms=TILE_START_MS - listing.shift_days * DAY_MS,
        from_ms=listing.listed_ms,
        repeats=repeats,
    )


def joined_spans(spans: Iterable[Span]) -> Span | None:
    """One span of several that follow each other; None of none."""
    whole: Span | None = None
    for span in spans:
        whole = (
            span
            if whole is None
            else Span(
                open=whole.open,
                high=max(whole.high, span.high),
                low=min(whole.low, span.low),
                close=span.close,
                volume=whole.volume + span.volume,
                value=whole.value + span.value,
                sold=whole.sold + span.sold,
                last_trade_ms=span.last_trade_ms,
            )
        )
    return whole


def prepare(markets: Sequence[Market], instants_ms: Sequence[int]) -> None:
    """Split the minutes around some instants for many markets of one table at once.

    Answers are the same without; asked one by one, each market would cost as much as all.
    """
    table = markets[0].table
    regimes = [regime for market in markets for regime in market.regimes if regime.table is table]
    wanted = [(regime, near) for regime in regimes for near in regime.missing(instants_ms)]
    if wanted:
        block = table.trades(np.array([position % table.live for _, position in wanted]))
        for (regime, position), line in zip(wanted, lines_of(block), strict=True):
            regime.keep(position, regime.line(position, line))


def _offsets(regimes: Sequence[Regime]) -> list[Totals]:
    """What to add to the totals of each regime, so that they go on from the one before."""
    offsets = [Totals(0, 0, 0)]
    for before, after in pairwise(regimes):
        assert before.until_ms is not None, "another one follows"
        ended, began = before.cut(before.until_ms).totals, after.totals(after.first)
        offsets.append(
            Totals(
                *(
                    offset + end - begin
                    for offset, end, begin in zip(offsets[-1], ended, began, strict=True)
                )
            )
        )
    return offsets
