"""What is asked for so often that it is worth a stream, and since when nobody asks.

Pure bookkeeping: no clock, no sleep, no I/O; the caller passes `now` (monotonic seconds).
"""

from __future__ import annotations

from collections import deque

from upbit_backbone.protocol import Priority
from upbit_backbone.routing.exchange import StreamKind

Key = tuple[StreamKind, str]

REQUESTS_TO_SUBSCRIBE = 3
REQUESTS_WITHIN_S = 10.0
IDLE_S = 300.0
MOST_KEYS = 400
"""Tickers of all KRW markets (289 in 2026) and the books of those that a screen shows."""
MOST_REMEMBERED = 2_000
"""Keys asked for lately that have no stream: all markets and kinds there are."""
CHANGE_SPACING_S = 1.0


class Interest:
    """Streams that the system subscribes by itself, and gives up by itself.

    Three requests in ten seconds earn a key its stream, one of CRITICAL does at once; five
    minutes without a request lose it. `keys` is what is wanted now: whoever sends
    subscriptions adds it to what readers want.

    On the hot path, where memory answers for a key that has a stream, the caller writes
    ``interest.touched[key] = now`` and nothing else: one dict write. Every other request,
    those that memory answers for keys without a stream included, calls `asked`.

    Bounded: at most `limit` keys have a stream; beyond, the one that was not asked for
    longest gives way, unless even that was asked within ten seconds (then the new one has
    to go without). The newest 2,000 keys without a stream are remembered.

    Args:
        limit: The most keys that have a stream by this.
    """

    def __init__(self, *, limit: int = MOST_KEYS) -> None:
        self.touched: dict[Key, float] = {}
        """When keys were last answered from memory, since `idle` was last asked."""
        self._limit = limit
        self._last_asked: dict[Key, float] = {}
        self._asked: dict[Key, deque[float]] = {}
        """When keys without a stream were asked for, oldest key first; the newest times only."""
        self._gave_way: list[Key] = []

    @property
    def keys(self) -> frozenset[Key]:
        """What is worth a stream."""
        return frozenset(self._last_asked)

    def __contains__(self, key: Key) -> bool:
        return key in self._last_asked

    def asked(self, kind: StreamKind, symbol: str, priority: Priority, now: float) -> bool:
        """Count a request.

        Returns:
            True when this one makes the key worth a stream: it is among `keys` from now on.
        """
        key = (kind, symbol)
        if key in self._last_asked:
            self._last_asked[key] = now
            return False
        if priority is not Priority.CRITICAL and not self._often_enough(key, now):
            return False
        if len(self._last_asked) >= self._limit and not self._make_room(now):
            return False
        self._asked.pop(key, None)
        self._last_asked[key] = now
        return True

    def idle(self, now: float) -> list[Key]:
        """The keys whose stream is to be given up; they are among `keys` no more.

        Asked about once a second; a key is named once.
        """
        self._take_touched()
        gave_way = dict.fromkeys(self._gave_way)  # one may have come back and gone again
        given_up = [key for key in gave_way if key not in self._last_asked]
        self._gave_way.clear()
        for key in [key for key, asked in self._last_asked.items() if now - asked >= IDLE_S]:
            del self._last_asked[key]
            given_up.append(key)
        return given_up

    def forget(self, key: Key) -> None:
        """The exchange has no such stream (any more): it has to be asked for anew."""
        self._last_asked.pop(key, None)
        self._asked.pop(key, None)
        self.touched.pop(key, None)

    def _often_enough(self, key: Key, now: float) -> bool:
        # Taken out and put back: the dict's order is then that of the newest request.
        times = self._asked.pop(key, None)
        if times is None:
            times = deque(maxlen=REQUESTS_TO_SUBSCRIBE)
            if len(self._asked) >= MOST_REMEMBERED:
                del self._asked[next(iter(self._asked))]
        times.append(now)
        self._asked[key] = times
        return len(times) == REQUESTS_TO_SUBSCRIBE and now - times[0] <= REQUESTS_WITHIN_S

    def _make_room(self, now: float) -> bool:
        self._take_touched()
        key = min(self._last_asked, key=self._last_asked.__getitem__, default=None)
        if key is None or now - self._last_asked[key] <= REQUESTS_WITHIN_S:
            return False
        del self._last_asked[key]
        self._gave_way.append(key)
        return True

    def _take_touched(self) -> None:
        for key, at in self.touched.items():
            if key in self._last_asked:
                self._last_asked[key] = max(self._last_asked[key], at)
        self.touched.clear()


class ChangePace:
    """When a connection may be sent the next change that nobody asked for explicitly.

    One a second, so that they never use up the messages a connection may send (5 a second,
    100 a minute, https://docs.upbit.com/kr/reference/rate-limits). Explicit streams do not
    ask here; what they send carries the others along.
    """

    def __init__(self) -> None:
        self._changed_s = float("-inf")

    def due_in(self, now: float) -> float:
        """Seconds until an automatic change may be sent; 0.0: now."""
        return max(0.0, self._changed_s + CHANGE_SPACING_S - now)

    def changed(self, now: float) -> None:
        """A whole subscription was sent, with all automatic changes up to now."""
        self._changed_s = now
