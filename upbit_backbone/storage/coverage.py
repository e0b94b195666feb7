"""What is known of one series, and by what evidence. Plain values, no I/O.

A span is proved (`complete`, `empty`, `before_listing`, `after_delisting`) or `unknown` with a
reason; what no span covers was never asked. The unknown spans are the ledger of gaps.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from upbit_backbone.models import SpanState
from upbit_backbone.storage.spans import SpanSet

BEGINNING_MS = -62_135_596_800_000
"""The year 1, where the calendar begins: what is said of all that lies below begins here."""
FOREVER_MS = 253_370_764_800_000
"""The year 9999: what holds from now on ends here."""

REST = "rest"
"""Read from the exchange at least 5 s after the end: settled."""
LIVE = "live"
"""Seen on the stream: to be settled by one reading more."""
UNCONFIRMED = "unconfirmed"
"""The exchange showed nothing there, once."""
CONTRADICTED = "the exchange did not show what is stored there"
"""A page was short although candles are stored that it had room for."""
NOT_ASKED = "not asked yet"
BUILT = "built from "
"""Of smaller candles, which follow: they are built again when one of those changes."""
REVISED = "a late trade"
"""The reason of what a stream told of a candle that was over: a page that was asked before does not
settle it, be it another program's; so it stays apart from what else the stream told."""
IMPORTED = "imported"
"""The reason of what a file said; so it stays apart from what was read, until it is read too."""


class KnownSpan(NamedTuple):
    """One stretch of open times and what is known of it."""

    start_ms: int
    end_ms: int
    state: SpanState
    reason: str
    evidence: str
    known_at_ms: int

    @property
    def proved(self) -> bool:
        """Whether it need not be asked again."""
        return self.state != "unknown"

    @property
    def unsettled(self) -> bool:
        """Whether the stream alone says so."""
        return self.proved and self.evidence == LIVE

    def overlaps(self, start_ms: int, end_ms: int) -> bool:
        return self.start_ms < end_ms and self.end_ms > start_ms

    def cut(self, start_ms: int, end_ms: int) -> KnownSpan:
        """The part of it in a range that it overlaps."""
        return self._replace(start_ms=max(self.start_ms, start_ms), end_ms=min(self.end_ms, end_ms))

    def _continues(self, other: KnownSpan) -> bool:
        return (
            other.end_ms == self.start_ms
            and (self.state, self.reason) == (other.state, other.reason)
            and (self.evidence == LIVE) == (other.evidence == LIVE)
            and self.evidence.startswith(BUILT) == other.evidence.startswith(BUILT)
        )

    def _yields_to(self, new: KnownSpan) -> bool:
        """Whether `new` says more: proof more than none, a reading more than the stream."""
        by_stream = self.evidence == LIVE
        if not new.proved:
            # A loss that the stream tells later takes back what it had proved, and no more.
            return not self.proved or (by_stream and new.evidence == LIVE)
        # A candle that the stream saw is one, wherever there was said to be none.
        is_seen = new.state == "complete" and self.state != "complete"
        return not self.proved or by_stream or new.evidence != LIVE or is_seen


class Unknown(NamedTuple):
    """A stretch of which nothing is known, and why."""

    start_ms: int
    end_ms: int
    reason: str


class Coverage:
    """Disjoint spans, ascending; equal ones that touch are one."""

    def __init__(self, spans: Iterable[KnownSpan] = ()) -> None:
        self._spans: list[KnownSpan] = []
        self.version = 0
        """Raised by all that is learnt or forgotten."""
        self.proved = SpanSet()
        """What need not be asked again, of whatever state."""
        for span in spans:
            self.put(span)

    def __iter__(self) -> Iterator[KnownSpan]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def __repr__(self) -> str:
        return f"Coverage({self._spans})"

    def put(self, span: KnownSpan, *, over_all: bool = False) -> None:
        """Take what was learned, wherever it says more than what is known.

        Args:
            span: An empty one changes nothing.
            over_all: It holds whatever is known: a late trade came for a candle read before.
        """
        if span.start_ms >= span.end_ms:
            return
        self.version += 1
        if self._spans and span.proved and span._continues(self._spans[-1]):
            # A candle that closes, after those before it.
            self._spans[-1] = _one(self._spans[-1], span)
            self.proved.add(span.start_ms, span.end_ms)
            return
        first = bisect_left(self._spans, span.start_ms, key=lambda one: one.end_ms)
        last = bisect_right(self._spans, span.end_ms, key=lambda one: one.start_ms)
        kept: list[KnownSpan] = []
        stay = SpanSet()
        for old in self._spans[first:last]:
            if not old.overlaps(span.start_ms, span.end_ms):
                kept.append(old)
                continue
            if old.start_ms < span.start_ms:
                kept.append(old.cut(old.start_ms, span.start_ms))
            if not (over_all or old._yields_to(span)):
                inside = old.cut(span.start_ms, span.end_ms)
                kept.append(inside)
                stay.add(inside.start_ms, inside.end_ms)
            if old.end_ms > span.end_ms:
                kept.append(old.cut(span.end_ms, old.end_ms))
        taken = stay.missing(span.start_ms, span.end_ms)
        kept += [span.cut(*part) for part in taken]
        self._spans[first:last] = _joined(sorted(kept))
        for part in taken:
            if span.proved:
                self.proved.add(*part)
            else:
                self.proved.remove(*part)

    def forget(self, start_ms: int, end_ms: int) -> None:
        """Know nothing of a range any more."""
        gone = KnownSpan(start_ms, end_ms, "unknown", NOT_ASKED, "", 0)
        self.put(gone, over_all=True)
        self._spans = [
            part
            for span in self._spans
            for part in (
                [span]
                if not span.overlaps(start_ms, end_ms)
                else [
                    span.cut(low, high)
                    for low, high in ((span.start_ms, start_ms), (end_ms, span.end_ms))
                    if low < high
                ]
            )
        ]

    def become(self, other: Coverage) -> None:
        """Know what another one knows, and no more."""
        self.version += 1
        self._spans = list(other._spans)
        self.proved.become(other.proved)

    def same(self, other: Coverage) -> bool:
        """Whether both know the same, by the same evidence, since the same time."""
        return self._spans == other._spans

    def at(self, at_ms: int) -> KnownSpan | None:
        """The span that holds a moment."""
        index = bisect_right(self._spans, at_ms, key=lambda one: one.end_ms)
        if index < len(self._spans) and self._spans[index].start_ms <= at_ms:
            return self._spans[index]
        return None

    def between(self, start_ms: int, end_ms: int) -> list[KnownSpan]:
        """What is known of a range, ascending."""
        first = bisect_right(self._spans, start_ms, key=lambda one: one.end_ms)
        found = []
        for span in self._spans[first:]:
            if span.start_ms >= end_ms:
                break
            found.append(span.cut(start_ms, end_ms))
        return found

    def unknown(self, start_ms: int, end_ms: int) -> list[Unknown]:
        """What of a range is not proved, ascending, each stretch with its reasons.

        A stretch that a short page left is not joined to others: one more page settles it.
        """
        found: list[Unknown] = []
        for hole in self.proved.missing(start_ms, end_ms):
            at_ms = hole.start_ms
            for span in self.between(*hole):
                _append(found, Unknown(at_ms, span.start_ms, NOT_ASKED))
                _append(found, Unknown(span.start_ms, span.end_ms, span.reason))
                at_ms = span.end_ms
            _append(found, Unknown(at_ms, hole.end_ms, NOT_ASKED))
        return found

    def unsettled(self) -> list[KnownSpan]:
        """What the stream alone proves, ascending."""
        return [span for span in self._spans if span.unsettled]

    def last_complete_end_ms(self, below_ms: int) -> int | None:
        """Where the nearest span with candles below a moment ends; at most at that moment."""
        index = bisect_left(self._spans, below_ms, key=lambda one: one.start_ms)
        for span in reversed(self._spans[:index]):
            if span.state == "complete":
                return min(span.end_ms, below_ms)
        return None


def _append(found: list[Unknown], new: Unknown) -> None:
    if new.start_ms >= new.end_ms:
        return
    last = found[-1] if found else None
    if last is None or last.end_ms != new.start_ms:
        found.append(new)
    elif last.reason == new.reason:
        found[-1] = last._replace(end_ms=new.end_ms)
    elif UNCONFIRMED in (last.reason, new.reason):
        found.append(new)
    else:
        reasons = [one for one in (last.reason, new.reason) if one != NOT_ASKED]
        reason = reasons[0] if reasons else NOT_ASKED
        found[-1] = Unknown(last.start_ms, new.end_ms, reason)


def _one(span: KnownSpan, next_one: KnownSpan) -> KnownSpan:
    """Both together; of the whole it is known since the later of the two."""
    known_at_ms = max(span.known_at_ms, next_one.known_at_ms)
    return next_one._replace(start_ms=span.start_ms, known_at_ms=known_at_ms)


def _joined(spans: list[KnownSpan]) -> list[KnownSpan]:
    joined: list[KnownSpan] = []
    for span in spans:
        if joined and span._continues(joined[-1]):
            joined[-1] = _one(joined[-1], span)
        else:
            joined.append(span)
    return joined
