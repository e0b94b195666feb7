"""When a trade reaches the stream.

REST has a trade as soon as it is done; the stream tells it a little later, and now and then
after a trade that was done later.
"""

from __future__ import annotations

from upbit_backbone.simulator.random_numbers import key_of, one_draw
from upbit_backbone.simulator.regime import Trade

MOST_LATE_MS = 460
"""No trade takes longer."""

_QUICKEST_MS, _USUAL_SPREAD_MS = 20, 40
"""26 to 38 ms lie between a trade and its message in samples of 2023 to 2026."""
_LATE_OF_64 = 7
_LATE_BY_MS, _LATE_SPREAD_MS = 100, 300
"""In a recording of 2021, 6 of 299 trades came 32 to 196 ms after a trade of a later second
(field.md, section 2). Seven in 64, this much later than others, come to 2 % on a market
with 40 trades a minute; a trade is out of order only if another one follows at once."""


class Delivery:
    """The delay of each trade of a market: a function of the seed and the trade's id.

    Args:
        seed: Of the exchange.
        symbol: The market's.
        late: False if every trade is told as soon as it is done.
    """

    def __init__(self, seed: int, symbol: str, *, late: bool) -> None:
        self._key = key_of(seed, "delivery", symbol)
        self._late = late

    def due_ms(self, trade: Trade) -> int:
        """When the stream tells of a trade."""
        if not self._late:
            return trade.time_ms
        bits = one_draw(self._key, trade.sequential_id)
        delay_ms = _QUICKEST_MS + (bits & 0xFFFF) % (_USUAL_SPREAD_MS + 1)
        if bits >> 16 & 63 < _LATE_OF_64:
            delay_ms += _LATE_BY_MS + (bits >> 32) % _LATE_SPREAD_MS
        return trade.time_ms + delay_ms
