"""What the programs of one user on one machine tell each other about their requests.

Pure bookkeeping: no clock, no file. The caller passes `now`, in seconds of `time.monotonic`:
Python has that clock system-wide, so all processes of one boot read the same on Linux, macOS
and Windows (https://docs.python.org/3/library/time.html#time.monotonic, "Changed in version
3.5", and 3.10 for macOS). A stamp that lies ahead is of another boot, and is ignored; one of
another boot that happens to lie in the last second only makes a program wait for it.
"""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import Annotated, NamedTuple

import msgspec

FORMAT = 1
DEMAND_GRACE_S = 0.25
"""A program asks again when the window has moved on, and so much later on a busy machine."""
LONGEST_BAN_S = 86_400.0
"""A longer one is not believed: a clock was wrong when it was noted, or is now."""

_Whole = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class DamagedSheetError(Exception):
    """A text that is no sheet."""


class ForeignSheetError(Exception):
    """The sheet of a program that keeps it in another format."""


class Rule(NamedTuple):
    """So many requests in any window, and how many of them need not be CRITICAL."""

    limit: int
    shared: int
    window_s: float


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """The right to send one request, taken at a time by one program."""

    at: float
    owner: _Whole
    critical: bool


class Demand(msgspec.Struct, frozen=True, array_like=True):
    """So many requests of one program, not CRITICAL, wait for their turn."""

    owner: _Whole
    requests: _Whole
    until: float
    """It has not been heard of for long enough then: it ended, or thought better of it."""


class Ban(msgspec.Struct, frozen=True, array_like=True):
    """The end of a block by the exchange (418), by two clocks."""

    until_s: float
    until_ms: int

    def left_s(self, now: float, now_ms: int) -> float:
        """Seconds until it is over, 0.0: it is.

        The earlier end counts: one that another boot noted is told by the wall clock, and a
        wall clock that was set back does not make it longer.
        """
        left_s = min(self.until_s - now, (self.until_ms - now_ms) / 1_000)
        return left_s if 0 < left_s <= LONGEST_BAN_S else 0.0


class GroupSheet(msgspec.Struct):
    """The last grants of one rate group, in order, and who waits for more."""

    grants: list[Grant] = msgspec.field(default_factory=list)
    demands: list[Demand] = msgspec.field(default_factory=list)

    def forget(self, now: float, window_s: float) -> None:
        """Drop what no longer counts, and what never did: stamps of another boot."""
        self.grants = [grant for grant in self.grants if now - window_s < grant.at <= now]
        longest_s = window_s + DEMAND_GRACE_S
        self.demands = [one for one in self.demands if now < one.until <= now + longest_s]

    def add(self, grants: tuple[Grant, ...]) -> None:
        """Take up grants that were made while the sheet was not to be had."""
        unknown = [grant for grant in grants if grant not in self.grants]
        if unknown:
            self.grants = sorted((*self.grants, *unknown), key=_at)

    def take(
        self, now: float, owner: int, rule: Rule, *, critical: bool, waiting: int = 0
    ) -> float:
        """Record a grant at `now` if the rule allows it, else that it is wanted.

        Args:
            now: Not before that of any earlier call.
            owner: Who asks.
            rule: What holds for all programs together.
            critical: Whether it may take what is kept for CRITICAL.
            waiting: How many further requests of the owner wait that are not.

        Returns:
            0.0, or seconds until it is worth asking again.
        """
        self.forget(now, rule.window_s)
        wait_s = self._wait_s(now, owner, rule, critical=critical)
        if wait_s == 0:
            self.grants.append(Grant(now, owner, critical))
        elif not critical:
            waiting += 1
        self._want(now, owner, rule, waiting)
        return wait_s

    def withdraw(self, grant: Grant) -> None:
        """Take back a grant: its request was never sent."""
        if grant in self.grants:
            self.grants.remove(grant)

    def _wait_s(self, now: float, owner: int, rule: Rule, *, critical: bool) -> float:
        counted = [(self.grants, rule.limit)]
        if not critical:
            others = [grant for grant in self.grants if not grant.critical]
            ours = [grant for grant in others if grant.owner == owner]
            counted += [(others, rule.shared), (ours, self._fair_share(owner, rule.shared))]
        # Between now and then lies a float's rounding at worst, and never nothing.
        return max(
            (
                max(grants[-limit].at + rule.window_s - now, 1e-6)
                for grants, limit in counted
                if len(grants) >= limit
            ),
            default=0.0,
        )

    def _want(self, now: float, owner: int, rule: Rule, requests: int) -> None:
        self.demands = [one for one in self.demands if one.owner != owner]
        if requests:
            until = now + rule.window_s + DEMAND_GRACE_S
            self.demands.append(Demand(owner, min(requests, rule.shared), until))

    def _fair_share(self, owner: int, shared: int) -> int:
        """How many of the shared grants of a window an owner may have.

        All that the others neither have nor want; where they want more than there is, an
        equal part (max-min fairness, rounded up so that nothing is left unused).
        """
        wanted: Counter[int] = Counter()
        for grant in self.grants:
            if not grant.critical and grant.owner != owner:
                wanted[grant.owner] += 1
        for demand in self.demands:
            if demand.owner != owner:
                wanted[demand.owner] += demand.requests
        left, sharers = shared, len(wanted) + 1
        for requests in sorted(wanted.values()):
            if requests * sharers > left:
                break
            left, sharers = left - requests, sharers - 1
        return max(1, ceil(left / sharers))


class Sheet(msgspec.Struct):
    """All that the programs of one user know together about one exchange."""

    format: int = FORMAT
    groups: dict[str, GroupSheet] = msgspec.field(default_factory=dict)
    ban: Ban | None = None
    quiet_until: float = 0.0
    """Nothing is granted before: what the last window saw was lost with an earlier sheet."""

    def group(self, name: str) -> GroupSheet:
        """One rate group's part."""
        return self.groups.setdefault(name, GroupSheet())

    def quiet_s(self, now: float, window_s: float) -> float:
        """Seconds until anything is granted; of another boot's stamp, none."""
        left_s = self.quiet_until - now
        return left_s if 0 < left_s <= window_s else 0.0

    def note_ban(self, now: float, now_ms: int, seconds: float) -> None:
        """Note a ban, if no longer one is noted."""
        seconds = min(seconds, LONGEST_BAN_S)
        if self.ban is None or self.ban.left_s(now, now_ms) < seconds:
            self.ban = Ban(now + seconds, now_ms + round(seconds * 1_000))


class _Format(msgspec.Struct):
    format: int


_read_format = msgspec.json.Decoder(_Format)
_read_sheet = msgspec.json.Decoder(Sheet)
_write_sheet = msgspec.json.Encoder()


def decode_sheet(text: bytes) -> Sheet:
    """Read a sheet; an empty text is an empty one.

    Raises:
        ForeignSheetError: it is kept in another format, and not to be touched.
        DamagedSheetError: it is none.
    """
    if not text:
        return Sheet()
    try:
        if _read_format.decode(text).format != FORMAT:
            raise ForeignSheetError("another version of this program keeps it in its own format")
        sheet = _read_sheet.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedSheetError(f"it was damaged: {error}") from error
    for group in sheet.groups.values():
        group.grants.sort(key=_at)
    return sheet


def encode_sheet(sheet: Sheet) -> bytes:
    """Write a sheet down."""
    return _write_sheet.encode(sheet)


def _at(grant: Grant) -> float:
    return grant.at
