"""How often one caller may ask, as the exchange counts it (upbit-api, sections 4 and 9).

Pure bookkeeping: the caller passes the time, in seconds of the exchange's clock. Callers
are told apart by their address. Who was not heard of for a while is forgotten, and of very
many the one longest not heard of, so a million addresses need no more room than ten
thousand.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from upbit_backbone.simulator.settings import SimulatorSettings, WindowKind


class Limit(NamedTuple):
    """So many calls in each window."""

    calls: int
    window_s: float


QUOTATION = Limit(10, 1.0)
LIMITS: Mapping[str, Limit] = {
    "market": QUOTATION,
    "candles": QUOTATION,
    "trades": QUOTATION,
    "ticker": QUOTATION,
    "orderbook": QUOTATION,
    "origin": Limit(1, 10.0),
    "websocket": Limit(5, 1.0),
}
"""By the group's name in the `remaining-req` header (upbit-api, section 4)."""

MESSAGE_LIMITS = (Limit(5, 1.0), Limit(100, 60.0))
"""Messages of one WebSocket connection; both hold (upbit-api, section 4)."""

MOST_CALLERS = 10_000
"""Beyond, the caller longest not heard of starts afresh, its ban forgotten too."""
HIGHEST_PEAK = 10_000
"""A peak rate beyond is told as this."""
PEAK_WINDOW_S = 1.0

_LONGEST_WINDOW_S = max(limit.window_s for limit in LIMITS.values())


class Window(Protocol):
    """The allowance of one caller in one group."""

    def left(self, now: float) -> int:
        """How many more calls it allows."""
        ...

    def add(self, now: float) -> None:
        """Count a call."""
        ...


class FixedWindow:
    """Seconds of the clock, the same for all callers."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._number = -1
        self._calls = 0

    def left(self, now: float) -> int:
        number = int(now // self._limit.window_s)
        if number != self._number:
            self._number, self._calls = number, 0
        return max(self._limit.calls - self._calls, 0)

    def add(self, now: float) -> None:
        self._calls += 1


class FirstRequestWindow:
    """Opens with the first call after the former one ended."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._ends = float("-inf")
        self._calls = 0

    def left(self, now: float) -> int:
        if now >= self._ends:
            self._calls = 0
        return max(self._limit.calls - self._calls, 0)

    def add(self, now: float) -> None:
        if self._calls == 0:
            self._ends = now + self._limit.window_s
        self._calls += 1


class SlidingWindow:
    """Every window of this length, its two ends included, has at most so many calls."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._calls_at: deque[float] = deque(maxlen=limit.calls)

    def left(self, now: float) -> int:
        while self._calls_at and now - self._calls_at[0] > self._limit.window_s:
            self._calls_at.popleft()
        return self._limit.calls - len(self._calls_at)

    def add(self, now: float) -> None:
        self._calls_at.append(now)


def window_of(kind: WindowKind, limit: Limit) -> Window:
    """An untouched window."""
    if kind == "sliding":
        return SlidingWindow(limit)
    return FixedWindow(limit) if kind == "fixed" else FirstRequestWindow(limit)


class MessageLimit:
    """Counts the messages of one WebSocket connection; refused ones use up nothing."""

    def __init__(self, kind: WindowKind = "fixed") -> None:
        self._windows = [window_of(kind, limit) for limit in MESSAGE_LIMITS]

    def take(self, now: float) -> bool:
        """Count a message at `now`; False: over the limit."""
        if any(window.left(now) == 0 for window in self._windows):
            return False
        for window in self._windows:
            window.add(now)
        return True


class PeakRate:
    """The most events that any second, its two ends included, has seen."""

    def __init__(self) -> None:
        self.peak = 0
        self._at: deque[float] = deque(maxlen=HIGHEST_PEAK)

    def add(self, now: float) -> None:
        """Count an event."""
        self._at.append(now)
        while now - self._at[0] > PEAK_WINDOW_S:
            self._at.popleft()
        self.peak = max(self.peak, len(self._at))


class CallCounter:
    """Counts calls per group and caller, and bans callers that do not stop.

    A ban holds for all groups. Calls during a ban change nothing about its length. Each ban
    is longer than the one before, until the caller was not banned for
    `SimulatorSettings.ban_forgotten_after_s`.

    Attributes:
        served: Calls let through, per group.
        refused: Calls refused as too fast, per group.
        banned: Calls refused during a ban, per group.
    """

    def __init__(self, settings: SimulatorSettings | None = None) -> None:
        self._settings = settings or SimulatorSettings()
        self.served: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.banned: Counter[str] = Counter()
        self._peaks: dict[str, PeakRate] = {}
        self._callers: OrderedDict[str, _Caller] = OrderedDict()

    def take(self, group: str, caller: str, now: float) -> int | None:
        """Count one call at `now`.

        Returns:
            How many more the window allows, or None: refused or banned (`banned_s` told
            which before).
        """
        self._peaks.setdefault(group, PeakRate()).add(now)
        known = self._caller(caller, now)
        if known.banned_until > now:
            self.banned[group] += 1
            return None
        window = known.windows.get(group)
        if window is None:
            window = known.windows[group] = window_of(self._settings.window, LIMITS[group])
        left = window.left(now)
        if left == 0:
            if self._settings.refused_count:
                window.add(now)
            self._refuse(group, known, now)
            return None
        window.add(now)
        self.served[group] += 1
        return left - 1

    def refuse(self, group: str, caller: str, now: float) -> None:
        """Count a call that is refused whatever its caller has left."""
        self._peaks.setdefault(group, PeakRate()).add(now)
        self._refuse(group, self._caller(caller, now), now)

    def ban(self, caller: str, seconds: float, now: float) -> None:
        """Ban a caller; its next own ban is no longer for it."""
        known = self._caller(caller, now)
        known.banned_until = max(known.banned_until, now + seconds)

    def banned_s(self, caller: str, now: float) -> float:
        """Seconds until the caller's ban ends; 0 without a ban."""
        known = self._callers.get(caller)
        return 0.0 if known is None else max(known.banned_until - now, 0.0)

    def bans(self, now: float) -> dict[str, float]:
        """Seconds left of all bans in force, by caller."""
        return {
            caller: known.banned_until - now
            for caller, known in self._callers.items()
            if known.banned_until > now
        }

    def peaks(self) -> dict[str, int]:
        """The most calls, answered or not, that any second has seen, per group."""
        return {group: rate.peak for group, rate in self._peaks.items()}

    def reset(self) -> None:
        """Forget all counts, callers and bans."""
        for counter in (self.served, self.refused, self.banned, self._peaks, self._callers):
            counter.clear()

    def _refuse(self, group: str, known: _Caller, now: float) -> None:
        self.refused[group] += 1
        settings = self._settings
        if settings.ban_after == 0:
            return
        if known.refused_at is None:
            known.refused_at = deque(maxlen=settings.ban_after)
        known.refused_at.append(now)
        enough = len(known.refused_at) == settings.ban_after
        if enough and now - known.refused_at[0] <= settings.ban_within_s:
            if now - known.banned_until >= settings.ban_forgotten_after_s:
                known.bans = 0
            lengths_s = settings.ban_lengths_s
            known.banned_until = now + lengths_s[min(known.bans, len(lengths_s) - 1)]
            known.bans += 1
            known.refused_at.clear()

    def _caller(self, caller: str, now: float) -> _Caller:
        known = self._callers.get(caller)
        if known is None:
            known = self._callers[caller] = _Caller()
            self._forget_some(now)
        else:
            self._callers.move_to_end(caller)
        known.seen_at = now
        return known

    def _forget_some(self, now: float) -> None:
        remember_s = max(_LONGEST_WINDOW_S, self._settings.ban_within_s)
        while len(self._callers) > 1:
            idlest = next(iter(self._callers.values()))
            remembered = now - idlest.seen_at <= remember_s or (
                now - idlest.banned_until < self._settings.ban_forgotten_after_s
            )
            if remembered and len(self._callers) <= MOST_CALLERS:
                return
            self._callers.popitem(last=False)


class _Caller:
    """What is known of one address."""

    __slots__ = ("banned_until", "bans", "refused_at", "seen_at", "windows")

    def __init__(self) -> None:
        self.windows: dict[str, Window] = {}
        self.refused_at: deque[float] | None = None  # few are ever refused
        self.bans = 0
        self.banned_until = float("-inf")
        self.seen_at = float("-inf")
