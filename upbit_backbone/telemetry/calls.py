"""Every call of the service, measured: latencies by kind, rates, errors, and what else is counted.

An answered call costs one append to a bounded queue; everything else happens in `drain`, once
a second. Plain bookkeeping: the caller passes `now`, monotonic seconds.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Mapping
from random import Random
from typing import NamedTuple, cast
from weakref import ref

import numpy as np

from upbit_backbone.protocol import (
    CallStats,
    DataType,
    LatencyStats,
    Priority,
    Tier,
    WindowStats,
)
from upbit_backbone.telemetry.windows import (
    WINDOWS,
    LatencyScale,
    RollingCounts,
    RollingHistogram,
    Window,
)

SAMPLED_A_SECOND = 5_000
"""Above so many quick calls in one drain they are sampled."""
SLOW_S = 0.001
"""From here on a call is slow: CRITICAL has less than this for what is in memory."""
MAX_WAITING = 65_536
"""Calls that wait for `drain`, of each of quick, slow and failed ones; the oldest fall out."""
MAX_HITS = 1 << 17
"""The same of hits of one priority and data type; they are counted all the same, and the newest
are the sample. A second of nothing but hits has ten times as many."""
MAX_KINDS = 64
PEEK = "peek"
"""The path of an answer from memory."""
OTHER_PATH = "other"
"""Calls of the kinds beyond `MAX_KINDS` are counted under this path: memory is bounded."""
TIERS: tuple[Tier, ...] = ("memory", "storage", "exchange")
COUNTED = (
    "coalesced",
    "retried",
    "shed",
    "http_429",
    "http_418",
    "reconnects",
    "gaps",
    "revisions",
    "cancelled",
)
"""The names of `WindowStats.counts`."""
ENDED_LATE = ("DeadlineError", "SystemOverloadedError")
"""Errors of calls whose time was over."""


class Kind(NamedTuple):
    """What calls are told apart by."""

    priority: Priority
    data_type: DataType
    path: str


class _Failure(NamedTuple):
    """The key under which failed calls of a kind are counted; answered ones: the kind itself."""

    kind: Kind


class HitQueue:
    """Latencies of hits since the last look: the newest of them, and how many there were.

    A hit pays for the deque's own `append` and nothing else. How many a full deque has dropped is
    known all the same, by a mark that lies in it: when the mark falls out, as many hits have come
    after it as the deque holds, and another one is put behind them.
    """

    def __init__(self, kept: int = MAX_HITS) -> None:
        """Begin empty; so many hits are held at most."""
        self._kept = kept
        self._held: deque[float | _Mark] = deque(maxlen=kept)
        self._before_mark = 0
        """How many came before the mark."""
        self.append: Callable[[float], None] = self._held.append
        """Tell of a hit: how long the caller waited, seconds."""
        self._held.append(_Mark(self))

    def __len__(self) -> int:
        """How many came since the last `take`."""
        return self._before_mark + len(self._held) - self._place() - 1

    def take(self) -> tuple[list[float], int]:
        """The newest hits, and how many there were; the queue is empty then."""
        count, place = len(self), self._place()
        held = list(self._held)
        mark = held.pop(place)
        assert isinstance(mark, _Mark)
        mark.disarm()
        self._held.clear()
        self._before_mark = 0
        self._held.append(_Mark(self))
        return cast("list[float]", held), count

    def overflow(self) -> None:
        """The mark fell out."""
        self._before_mark += self._kept
        self._held.append(_Mark(self))

    def _place(self) -> int:
        """Of the mark: at the left end, unless one has fallen out."""
        return next(place for place, one in enumerate(self._held) if one.__class__ is _Mark)


class _Mark:
    """Tells its queue when it falls out: nothing else holds it."""

    __slots__ = ("_queue",)

    def __init__(self, queue: HitQueue) -> None:
        # Not held: a queue that nobody needs any more must end, with this in it.
        self._queue: ref[HitQueue] | None = ref(queue)

    def disarm(self) -> None:
        """It is taken out, and does not fall."""
        self._queue = None

    def __del__(self) -> None:
        queue = None if self._queue is None else self._queue()
        if queue is not None:
            queue.overflow()


_Name = tuple[Priority, DataType, str]
_Answer = tuple[Priority, DataType, str, Tier | None, float]


class CallRecorder:
    """Latencies per priority, data type and path, and counters, of ten seconds to an hour.

    A latency is of a call that was answered, or that ended because its time was over: then it is
    the whole time that its caller waited in vain. Calls that ended by other errors, or were given
    up by their caller, are counted alone.

    Memory: for each kind of calls 31 kB a window, and 6 bytes for each step of the scale that
    its calls fell on in each of 60 closed intervals. A kind that was silent for an hour is
    dropped. Kinds are at most `MAX_KINDS`, and one for each priority and data type beyond.
    """

    def __init__(self, rng: Random, now: float) -> None:
        """Begin to count.

        Args:
            rng: Chooses the sample while there are too many calls.
            now: Monotonic seconds.
        """
        self._rng = rng
        self._scale = LatencyScale()
        self._drained_s = now
        self._hits = {
            (priority, data_type): HitQueue() for data_type in DataType for priority in Priority
        }
        self._quick: deque[_Answer] = deque(maxlen=MAX_WAITING)
        self._tell_quick = self._quick.append  # looked up once: each hit pays for it
        self._slow: deque[_Answer] = deque(maxlen=MAX_WAITING)
        self._failed: deque[tuple[Priority, DataType, str, str, float | None]] = deque(
            maxlen=MAX_WAITING
        )
        self._quick_told = self._slow_told = self._failed_told = 0
        self._happened: dict[str, int] = {}
        self._seen: dict[str, float] = {}
        self._histograms: dict[Kind, tuple[RollingHistogram, ...]] = {}
        self._told_s: dict[Kind, float] = {}
        self._counts = tuple(RollingCounts(window, now) for window in WINDOWS)
        self._totals: dict[Hashable, float] = {}

    def answered(
        self, priority: Priority, data_type: DataType, path: str, tier: Tier | None, taken_s: float
    ) -> None:
        """Tell of a call that returned an answer.

        Args:
            priority: Of the call.
            data_type: What it asked for.
            path: Which way it went: ``"peek"``, or as in `BackboneMetadata.path`.
            tier: Where the answer was found; None: it says nothing of how well others are served,
                as a part of a long load does not.
            taken_s: How long the caller waited.
        """
        if taken_s < SLOW_S:
            self._quick_told += 1
            self._tell_quick((priority, data_type, path, tier, taken_s))
        else:
            self._slow_told += 1
            self._slow.append((priority, data_type, path, tier, taken_s))

    def hits_of(self, data_type: DataType) -> tuple[Callable[[float], None], ...]:
        """What to tell of answers from memory: for each priority a queue's own `append`.

        It takes how long the caller waited, seconds (`HitQueue`). Nothing stands between, because
        each hit pays for it, and a number alone is nothing that the garbage collector has to look
        at.
        """
        return tuple(self._hits[priority, data_type].append for priority in Priority)

    def failed(
        self,
        priority: Priority,
        data_type: DataType,
        path: str,
        error: str,
        taken_s: float | None = None,
    ) -> None:
        """Tell of a call that raised.

        Args:
            priority: Of the call.
            data_type: What it asked for.
            path: As far as it came.
            error: The name of its type.
            taken_s: How long the caller waited; it counts if the call was `ENDED_LATE`.
        """
        self._failed_told += 1
        self._failed.append((priority, data_type, path, error, taken_s))

    def happened(self, name: str, times: int = 1) -> None:
        """Tell of something of `COUNTED`, e.g. ``"shed"``."""
        assert name in COUNTED, name
        self._happened[name] = self._happened.get(name, 0) + times

    def observe(self, totals: Mapping[str, float]) -> dict[str, int]:
        """Take what layers have counted since they were made; return what is new in it.

        A total that is lower than before is a new layer's, which began at zero.
        """
        new: dict[str, int] = {}
        for name, total in totals.items():
            before = self._seen.get(name, 0.0)
            self._seen[name] = total
            times = round(total - before if total >= before else total)
            if times:
                self.happened(name, times)
                new[name] = times
        return new

    def drain(self, now: float) -> None:
        """Count what was told since the last drain; once a second, and before one looks."""
        quick, quick_told = list(self._quick), self._quick_told
        slow, slow_told = list(self._slow), self._slow_told
        self._quick.clear()
        self._slow.clear()
        self._quick_told = self._slow_told = 0
        most = SAMPLED_A_SECOND * max(1.0, now - self._drained_s)
        self._drained_s = now
        tiers: Counter[Tier | None] = Counter()
        brief, long = _by_kind(quick, tiers), _by_kind(slow, tiers)
        counts = {name: len(taken) for name, taken in brief.items()}
        for kind, told in self._hits.items():
            if told:
                (taken, count), name = told.take(), (*kind, PEEK)
                tiers["memory"] += count
                if max(taken) >= SLOW_S:
                    late = [taken_s for taken_s in taken if taken_s >= SLOW_S]
                    taken = [taken_s for taken_s in taken if taken_s < SLOW_S]
                    long.setdefault(name, []).extend(late)
                    slow_told += len(late)
                    count -= len(late)
                quick_told += count
                brief.setdefault(name, []).extend(taken)
                counts[name] = counts.get(name, 0) + count
        measured = sum(map(len, long.values()))
        weights = _weights(counts, most)
        for name, taken in brief.items():
            weight = weights[name]
            if weight > 1:
                # By chance, not every nth: callers have rhythms too.
                taken = self._rng.choices(taken, k=round(counts[name] / weight)) if taken else []
            measured += len(taken)
            self._record(name, taken, weight, now)
        for name, taken in long.items():
            self._record(name, taken, 1, now)
        self._count("answered", quick_told + slow_told, now)
        self._count("measured", measured, now)
        for tier, times in tiers.items():
            if tier is not None:
                self._count(f"answers.{tier}", times, now)
        self._record_failures(now)
        happened, self._happened = self._happened, {}
        for event, times in happened.items():
            self._count(event, times, now)
        self._advance(now)

    def windows(self, now: float) -> dict[str, WindowStats]:
        """The figures of each window, by its name; drains first."""
        self.drain(now)
        return {
            window.name: self._window_stats(index, window, now)
            for index, window in enumerate(WINDOWS)
        }

    def kinds(self, window: str, now: float) -> tuple[CallStats, ...]:
        """Every kind of calls of a window, as of the last drain."""
        index = [known.name for known in WINDOWS].index(window)
        return self._kinds(index, max(self._counts[index].covered_s(now), 1.0))

    def latency(
        self, window: str = "5m", wanted: Callable[[Kind], bool] = lambda kind: True
    ) -> dict[Priority, LatencyStats]:
        """Of all wanted kinds of a priority together, as of the last drain."""
        index = [known.name for known in WINDOWS].index(window)
        return {priority: self._merged(priority, index, wanted) for priority in Priority}

    def answers(self, window: str) -> dict[Tier, int]:
        """Answered calls of a window by where the answer was found, as of the last drain."""
        counts = self._counts[[known.name for known in WINDOWS].index(window)]
        return {tier: round(counts[f"answers.{tier}"]) for tier in TIERS}

    @property
    def requests(self) -> int:
        """Calls that were answered, raised or given up by their caller, since the start."""
        waiting = self._quick_told + self._slow_told + sum(map(len, self._hits.values()))
        waiting += self._happened.get("cancelled", 0)
        ended = self._totals.get("answered", 0.0) + self._totals.get("cancelled", 0.0)
        return round(ended) + waiting + self.errors

    @property
    def errors(self) -> int:
        """Calls that raised, since the start."""
        return round(self._totals.get("failed", 0.0)) + self._failed_told

    @property
    def hits(self) -> int:
        """Answers from memory or the store, as of the last drain."""
        return round(
            self._totals.get("answers.memory", 0.0) + self._totals.get("answers.storage", 0.0)
        )

    @property
    def totals(self) -> dict[str, float]:
        """`COUNTED`, ``"errors.<name>"`` and ``"answers.<tier>"``, as of the last drain."""
        names = (*COUNTED, *(f"answers.{tier}" for tier in TIERS))
        errors = [key for key in self._totals if isinstance(key, str) and key.startswith("errors.")]
        return {name: self._totals.get(name, 0.0) for name in (*names, *errors)}

    @property
    def size_bytes(self) -> int:
        """Of the histograms."""
        return sum(
            histogram.size_bytes
            for histograms in self._histograms.values()
            for histogram in histograms
        )

    def _record(
        self, name: _Name, taken_s: list[float], weight: int, now: float, *, answered: bool = True
    ) -> None:
        """Take latencies of one kind, each of which stands for `weight` calls."""
        if not taken_s:
            return
        kind, steps = self._kind(*name), Counter[int]()
        for units, times in Counter(self._scale.rounded(taken_s)).items():
            steps[self._scale.step(units)] += times * weight
        where = np.fromiter(steps.keys(), np.intp, len(steps))
        counted = np.fromiter(steps.values(), np.uint32, len(steps))
        for histogram in self._histograms[kind]:
            histogram.add(where, counted, now)
        if answered:
            self._count(kind, len(taken_s) * weight, now)

    def _record_failures(self, now: float) -> None:
        failed, told = list(self._failed), self._failed_told
        self._failed.clear()
        self._failed_told = 0
        self._count("failed", told, now)
        for priority, data_type, path, error, taken_s in failed:
            self._count(_Failure(self._kind(priority, data_type, path)), 1, now)
            self._count(f"errors.{error}", 1, now)
            if error in ENDED_LATE and taken_s is not None:
                self._record((priority, data_type, path), [taken_s], 1, now, answered=False)

    def _kind(self, priority: Priority, data_type: DataType, path: str) -> Kind:
        """The kind that a call is counted under; it has histograms from now on."""
        kind = Kind(priority, data_type, path)
        if kind not in self._histograms:
            if len(self._histograms) >= MAX_KINDS:
                kind = Kind(priority, data_type, OTHER_PATH)
            self._histograms.setdefault(
                kind, tuple(RollingHistogram(window, self._scale.steps) for window in WINDOWS)
            )
        self._told_s[kind] = self._drained_s
        return kind

    def _count(self, key: Hashable, times: float, now: float) -> None:
        if times:
            self._totals[key] = self._totals.get(key, 0.0) + times
            for counts in self._counts:
                counts.add(key, times, now)

    def _advance(self, now: float) -> None:
        """Let time pass for what nothing was told of, and drop what was silent for too long."""
        for counts in self._counts:
            counts.advance(now)
        longest_s = WINDOWS[-1].span_s
        for kind in [kind for kind, told_s in self._told_s.items() if told_s < now - longest_s]:
            del self._told_s[kind], self._histograms[kind]
        for histograms in self._histograms.values():
            for histogram in histograms:
                histogram.advance(now)

    def _merged(
        self, priority: Priority, index: int, wanted: Callable[[Kind], bool]
    ) -> LatencyStats:
        total = np.zeros(self._scale.steps, dtype=np.uint32)
        for kind, histograms in self._histograms.items():
            if kind.priority is priority and wanted(kind):
                total += histograms[index].counts
        return self._scale.stats(total)

    def _window_stats(self, index: int, window: Window, now: float) -> WindowStats:
        counts = self._counts[index]
        # Right after the start a rate would be of nothing.
        covered_s = max(counts.covered_s(now), 1.0)
        answered, failed = counts["answered"], counts["failed"]
        answers = self.answers(window.name)
        return WindowStats(
            window_s=window.span_s,
            covered_s=covered_s,
            requests_per_s=(answered + failed + counts["cancelled"]) / covered_s,
            error_rate=_share(failed, answered + failed),
            errors={
                key.removeprefix("errors."): round(counts[key])
                for key in counts.counted
                if isinstance(key, str) and key.startswith("errors.")
            },
            answers=answers,
            hit_rate=hit_rate(answers),
            counts={name: counts[name] for name in COUNTED},
            measured=_share(counts["measured"], answered) if answered else 1.0,
            calls=self._kinds(index, covered_s),
            latency=self.latency(window.name),
        )

    def _kinds(self, index: int, covered_s: float) -> tuple[CallStats, ...]:
        counts = self._counts[index]
        return tuple(
            self._call_stats(kind, histograms[index], counts, covered_s)
            for kind, histograms in sorted(self._histograms.items(), key=_order)
            if counts[kind] or counts[_Failure(kind)]
        )

    def _call_stats(
        self, kind: Kind, histogram: RollingHistogram, counts: RollingCounts, covered_s: float
    ) -> CallStats:
        answered, failed = counts[kind], counts[_Failure(kind)]
        return CallStats(
            *kind,
            latency=self._scale.stats(histogram.counts),
            requests_per_s=(answered + failed) / covered_s,
            error_rate=_share(failed, answered + failed),
            requests=round(answered + failed),
        )


def layer_totals(counters: Mapping[str, float]) -> dict[str, float]:
    """What `CallRecorder.observe` takes, out of the counters of all layers.

    Args:
        counters: As in `PerformanceMetrics.counters`, e.g. ``"layer_1.joined"``.
    """
    return {
        "coalesced": counters.get("layer_1.joined", 0.0),
        "retried": counters.get("layer_3.retries", 0.0),
        "http_429": counters.get("layer_1.http_429", 0.0),
        "http_418": counters.get("layer_1.blocks", 0.0),
        "reconnects": counters.get("layer_1.reconnects", 0.0),
        "gaps": counters.get("layer_1.gaps_opened", 0.0),
        "revisions": counters.get("layer_2.revisions", 0.0),
    }


def _by_kind(answers: list[_Answer], tiers: Counter[Tier | None]) -> dict[_Name, list[float]]:
    """Latencies by kind; the tiers are added to those given."""
    alike: defaultdict[tuple[Priority, DataType, str, Tier | None], list[float]]
    alike = defaultdict(list)
    for answer in answers:
        alike[answer[:4]].append(answer[4])
    taken: dict[_Name, list[float]] = {}
    for (priority, data_type, path, tier), times_s in alike.items():
        tiers[tier] += len(times_s)
        taken.setdefault((priority, data_type, path), []).extend(times_s)
    return taken


def _weights(counts: Mapping[_Name, int], most: float) -> dict[_Name, int]:
    """For how many calls of each kind one stands that is measured.

    Rare kinds are measured whole; what they leave of `most`, the others share evenly.
    """
    if sum(counts.values()) <= most:
        return dict.fromkeys(counts, 1)
    weights, left = {}, most
    for taken, (name, count) in enumerate(sorted(counts.items(), key=lambda kind: kind[1])):
        weights[name] = max(1, math.ceil(count * (len(counts) - taken) / left))
        left -= count / weights[name]
    return weights


def hit_rate(answers: Mapping[Tier, float]) -> float:
    """Answers from memory and the store, of all; 0.0 when there were none."""
    found = sum(answers.values())
    return _share(found - answers["exchange"], found)


def _order(entry: tuple[Kind, object]) -> tuple[int, str, str]:
    priority, data_type, path = entry[0]
    return priority, data_type.value, path


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
