"""Requests for candles: the stored part, the pages of the rest, and one answer made of both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec

from upbit_backbone.candle_checks import check_series
from upbit_backbone.clock import SECOND_MS, Clock, epoch_ms, utc_datetime
from upbit_backbone.coordinator.pages import Pages
from upbit_backbone.coordinator.plan import (
    NOT_ASKED,
    TOO_OLD_SECONDS,
    UNCONFIRMED,
    CandlePlan,
    Page,
    counted,
    plan_candles,
)
from upbit_backbone.coordinator.ranges import Range, joined, periods_between, unknown
from upbit_backbone.coordinator.walk import CandleWalk
from upbit_backbone.errors import (
    BackboneError,
    DataUnavailableError,
    DeadlineError,
    InvalidRequestError,
    ProtocolError,
    UnknownSymbolError,
)
from upbit_backbone.models import CandleSeries, Source, Span, Timeframe
from upbit_backbone.protocol import (
    MAX_PAGE_CANDLES,
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataSource,
    Reach,
)

MAX_WINDOW = 20 * MAX_PAGE_CANDLES
"""Periods asked of the store at once for a number of candles: where history ends is not known
before."""
NO_CANDLE_BEFORE_MS = -62_135_596_800_000
"""The year 1, where the calendar begins: a walk for more candles than there are ends here."""
SURE_AFTER_MS = 5_000
"""So long after its end a period is what it was, by what a page of the exchange says of it."""
_STORED_WINDOWS = (400, 3_200, 25_600) + 16 * (204_800,)
"""In how many periods at once the newest stored candle is looked for, from the end down: of 1m
that is six years. A window without one costs next to nothing, one with candles is read whole."""
_NO_STORED_BEFORE_MS = 0
"""The exchange opened long after 1970."""
_FARTHER: tuple[Source, ...] = ("cache", "storage", "rest")


class Gathered:
    """What a request collected so far; the first part is the store's answer."""

    def __init__(self) -> None:
        self.parts: list[CandleSeries] = []
        self.missing: list[Span] = []
        self.silent: dict[Span, None] = {}
        """Where there is none, as told with each part."""
        self.error: BackboneError | None = None
        self.asked = False
        self.pages = 0
        """How many were answered."""
        self.source: Source = "cache"
        self.seen_s: float | None = None
        """When the oldest part that may have changed since was current; None: all is proved."""
        self.periods_a_page = MAX_PAGE_CANDLES
        """As the last walk found it."""
        self.unshown: list[Span] = []
        """Where the last walk's pages ended below candles that are stored: not proved."""

    @property
    def rows(self) -> int:
        return len(self.merged()) if self.parts else 0

    def merged(self) -> CandleSeries:
        """One series of all parts.

        Raises:
            BackboneError: there is none, and why.
        """
        if not self.parts:
            assert self.error is not None
            self.error.missing = tuple(self.missing)
            raise self.error
        if len(self.parts) > 1:
            self.parts = [CandleSeries.merged(self.parts)]
        return self.parts[0]

    def take(self, response: BackboneResponse, seen_s: float | None) -> None:
        """Add the rows of an answer: the farthest part gives the whole its source, the oldest
        its age.

        Args:
            response: Of the layer below.
            seen_s: When its newest part was current; None: it does not change any more.
        """
        metadata = response.metadata
        self.parts.append(response.data)
        self.silent |= dict.fromkeys(metadata.silent)
        if metadata.source is not None:
            self.source = max(self.source, metadata.source, key=_FARTHER.index)
        if seen_s is not None:
            self.seen_s = seen_s if self.seen_s is None else min(self.seen_s, seen_s)

    def renew(self, newest: Gathered) -> None:
        """Put what was asked once more in the place of what had become old."""
        self.parts.append(newest.merged())
        self.silent |= newest.silent
        self.source = max(self.source, newest.source, key=_FARTHER.index)
        self.pages += newest.pages
        self.asked |= newest.asked
        self.seen_s = newest.seen_s

    def cut(self, start_ms: int | None, end_ms: int | None) -> None:
        """Keep the rows of a range."""
        self.parts = [self.merged().between(start_ms, end_ms)]

    def lack(self, start_ms: int | None, end_ms: int | None, error: BackboneError) -> None:
        """Take that an error ends it, and what is missing by that."""
        self.error = error
        self.missing = [unknown(start_ms, end_ms, str(error))]


class CandleGatherer:
    """Answers a request for candles of any size."""

    def __init__(self, below: DataSource, pages: Pages, clock: Clock) -> None:
        self._below = below
        self._pages = pages
        self._clock = clock
        self.splits = 0

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """As `Coordinator.fetch`, for candles."""
        started = self._clock.monotonic()
        timeframe = request.timeframe
        if timeframe is None:
            raise InvalidRequestError("a request for candles names a timeframe, was None")
        start_ms, end_ms = self.aligned(request, timeframe)
        gathered = Gathered()
        if request.count is None:
            if start_ms is None:
                raise InvalidRequestError("a request for candles has a start or a count")
            await self._gather_range(gathered, request, timeframe, start_ms, end_ms)
            end_ms = await self._renewed(gathered, request, timeframe, end_ms)
            series = gathered.merged().between(start_ms, end_ms)
        elif start_ms is None:
            if request.reach is Reach.STORED:
                await self._gather_stored(gathered, request, timeframe, end_ms, request.count)
            else:
                await self._gather_latest(gathered, request, timeframe, end_ms, request.count)
                end_ms = await self._renewed(gathered, request, timeframe, end_ms)
            series = gathered.merged().between(None, end_ms)
            series = series[max(0, len(series) - request.count) :]
        else:
            await self._gather_first(gathered, request, timeframe, start_ms, end_ms, request.count)
            series = gathered.merged().between(start_ms, end_ms)[: request.count]
        check_series(series, f"candles of {request.symbols[0]} {timeframe}, merged")
        return self._response(request, gathered, series, started)

    def aligned(self, request: BackboneRequest, timeframe: Timeframe) -> tuple[int | None, int]:
        """Both ends of a request on the timeframe's grid; without an end, the forming candle's."""
        now_ms = self._clock.now_ms()
        end_ms = timeframe.ceil_ms(now_ms + 1 if request.end_ms is None else request.end_ms)
        start_ms = None if request.start_ms is None else timeframe.ceil_ms(request.start_ms)
        return start_ms, end_ms

    async def stored(
        self, request: BackboneRequest, start_ms: int | None, end_ms: int, count: int | None = None
    ) -> BackboneResponse:
        """What the store has of a range, and what it misses; causes no request.

        Raises:
            DeadlineError: the request's deadline came while the file was busy.
        """
        asked = msgspec.structs.replace(
            request,
            start_time=None if start_ms is None else utc_datetime(start_ms),
            end_time=utc_datetime(end_ms),
            count=count,
            reach=Reach.STORED,
        )
        async with self._pages.within_deadline(request):
            return await self._below.fetch(asked)

    def plan(self, stored: BackboneResponse, timeframe: Timeframe) -> CandlePlan:
        """What to ask for beside a stored answer."""
        return plan_candles(timeframe, stored.metadata.missing, now_ms=self._clock.now_ms())

    async def unconfirmed(
        self, request: BackboneRequest, walk: CandleWalk, *, settled: bool
    ) -> list[Range]:
        """Where the exchange showed nothing and the store has no proof of that; ascending.

        Args:
            request: What was asked.
            walk: The walk that met short pages.
            settled: Whether the store took one of them for the second reading that proves it:
                then it is asked how far the proof goes.
        """
        if not settled:
            return walk.unshown
        left: list[Range] = []
        for unshown in walk.unshown:
            try:
                stored = await self.stored(request, *unshown)
            except DeadlineError:
                return walk.unshown  # what the answer has is told all the same
            left += [
                Range(epoch_ms(span.start), epoch_ms(span.end))
                for span in stored.metadata.missing
                if span.start is not None and span.end is not None
            ]
        return left

    async def _walk(
        self,
        gathered: Gathered,
        request: BackboneRequest,
        plan: CandlePlan,
        walk: CandleWalk,
        taken: Callable[[CandleSeries], None] = lambda _: None,
    ) -> bool:
        """Ask for the pages of a walk. True: the store took a short one for a second reading."""
        settled = False
        answers: list[tuple[Page, BackboneResponse, float | None]] = []

        def take(page: Page, response: BackboneResponse) -> None:
            nonlocal settled
            answers.append((page, response, self._seen_s(response, page.end_ms)))
            gathered.pages += 1
            settled |= len(response.data) < page.rows and not response.metadata.missing
            gathered.unshown += _beyond(response)
            taken(response.data)

        gathered.unshown = []
        if plan.holes:
            gathered.asked = True
            gathered.error = await self._pages.run(request, walk, take, most=plan.pages)
        gathered.periods_a_page = walk.periods_a_page
        self.splits += len(answers) > 1
        # Of equal candles the one of the newest page is kept, in whatever order they arrived.
        answers.sort(key=lambda answer: answer[0].end_ms)
        for _, response, seen_s in answers:
            gathered.take(response, seen_s)
        return settled

    def _seen_s(self, response: BackboneResponse, end_ms: int) -> float | None:
        """When the newest part of an answer was current; None: it does not change any more."""
        age_s = response.metadata.age_s
        if age_s is None or end_ms <= self._clock.now_ms() - SURE_AFTER_MS:
            return None
        return self._clock.monotonic() - age_s

    async def _renewed(
        self, gathered: Gathered, request: BackboneRequest, timeframe: Timeframe, end_ms: int
    ) -> int:
        """Ask once more for the newest end, if it became too old while pages were under way.

        Returns:
            Where the answer ends: a request up to now means when it is answered.
        """
        seen_s, max_age_s = gathered.seen_s, request.max_age
        if seen_s is None or max_age_s is None or gathered.missing or gathered.error is not None:
            return end_ms
        age_s = self._clock.monotonic() - seen_s
        if age_s <= max_age_s:
            return end_ms
        seen_ms = self._clock.now_ms() - int(age_s * SECOND_MS)
        changes_from_ms = timeframe.floor_ms(seen_ms - SURE_AFTER_MS)
        start_ms, fresh_end_ms = self.aligned(request, timeframe)
        if start_ms is not None:
            changes_from_ms = max(changes_from_ms, start_ms)
        newest = Gathered()
        await self._gather_range(newest, request, timeframe, changes_from_ms, fresh_end_ms)
        if newest.missing or newest.error is not None:
            return end_ms  # what there is, with its age
        gathered.renew(newest)
        return fresh_end_ms

    async def _gather_range(
        self,
        gathered: Gathered,
        request: BackboneRequest,
        timeframe: Timeframe,
        start_ms: int,
        end_ms: int,
        *,
        newest: int | None = None,
    ) -> None:
        """All of a range; with `newest`, from its end down until so many are gathered."""
        try:
            stored = await self.stored(request, start_ms, end_ms)
        except DeadlineError as error:
            gathered.lack(start_ms, end_ms, error)
            return
        gathered.take(stored, self._seen_s(stored, end_ms))
        plan = self.plan(stored, timeframe)
        walk = CandleWalk(plan, periods_a_page=gathered.periods_a_page)
        found = [gathered.merged()]

        def has_enough() -> bool:
            return newest is not None and _are(newest, found, _whole_from_ms(plan, walk), None)

        def stop_when_enough(page: CandleSeries) -> None:
            found.append(page)
            if has_enough():
                walk.stop()

        settled = await self._walk(gathered, request, plan, walk, stop_when_enough)
        if plan.holes and has_enough():
            # What was not asked, or could not be had, lies below the answer.
            gathered.cut(_whole_from_ms(plan, walk), None)
            gathered.error = None
            return
        failed = walk.unreached
        if not failed:
            # The page that failed is covered by its neighbours.
            gathered.error = None
        elif gathered.error is None:
            raise ProtocolError(f"the pages left out a part of the plan ({plan}): {failed[0]}")
        spans = [
            (*span, UNCONFIRMED) for span in await self.unconfirmed(request, walk, settled=settled)
        ]
        spans += [(*span, str(gathered.error)) for span in failed]
        if newest is None:
            spans += _unshown(gathered.unshown, plan)
        spans += [(*span, TOO_OLD_SECONDS) for span in plan.beyond]
        if plan.beyond and gathered.error is None:
            gathered.error = DataUnavailableError(TOO_OLD_SECONDS)
        gathered.missing += [unknown(*span) for span in sorted(spans)]

    async def _gather_latest(
        self,
        gathered: Gathered,
        request: BackboneRequest,
        timeframe: Timeframe,
        end_ms: int,
        count: int,
    ) -> None:
        """From the end down: what is stored, then a window below it, until there are enough."""
        at_ms, oldest_ms = end_ms, timeframe.ceil_ms(NO_CANDLE_BEFORE_MS)
        while gathered.rows < count:
            try:
                stored = await self.stored(request, None, at_ms, count - gathered.rows)
            except DeadlineError as error:
                gathered.lack(None, at_ms, error)
                return
            gathered.take(stored, self._seen_s(stored, at_ms))
            if not stored.metadata.missing:
                return
            hole_end = stored.metadata.missing[0].end
            assert hole_end is not None
            high_ms = epoch_ms(hole_end)
            if high_ms <= oldest_ms:
                return
            window = min(count - gathered.rows, MAX_WINDOW)
            # Thin times need as many periods more as their pages were found to reach further.
            window = max(1, window * gathered.periods_a_page // MAX_PAGE_CANDLES)
            at_ms = max(oldest_ms, timeframe.back_ms(high_ms, window))
            await self._gather_range(gathered, request, timeframe, at_ms, high_ms, newest=count)
            if gathered.missing:
                # What lies below the newest unknown span is not part of the answer.
                newest = gathered.missing[-1]
                assert newest.end is not None
                gathered.cut(epoch_ms(newest.end), None)
                if newest.reason == UNCONFIRMED:
                    gathered.error = None
                gathered.missing = []
                if gathered.rows >= count:
                    gathered.error = None
                elif gathered.rows or gathered.error is None:
                    gathered.missing = [unknown(None, epoch_ms(newest.end), newest.reason)]
                else:
                    # Nothing up to the end could be had: rather what is stored farther below.
                    with suppress(DeadlineError):
                        await self._gather_stored(gathered, request, timeframe, end_ms, count)
                return
            if gathered.rows:
                # Pages reach below their window, and leave no hole down to their oldest row.
                at_ms = min(at_ms, int(gathered.merged().time[0]))

    async def _gather_stored(
        self,
        gathered: Gathered,
        request: BackboneRequest,
        timeframe: Timeframe,
        end_ms: int,
        count: int,
    ) -> None:
        """The newest stretch that is stored below an end, wherever it ends; asks for nothing."""
        reason = str(gathered.error) if gathered.error else NOT_ASKED
        gathered.missing = [unknown(None, end_ms, reason)]
        high_ms = end_ms
        stored = await self.stored(request, None, end_ms, count)
        if not len(stored.data):
            found_ms = await self._newest_stored_ms(request, timeframe, end_ms)
            if found_ms is not None:
                high_ms = found_ms
                stored = await self.stored(request, None, high_ms, count)
        gathered.parts = []
        gathered.take(stored, self._seen_s(stored, high_ms))
        gathered.missing = [
            unknown(None, epoch_ms(span.end), reason)
            for span in stored.metadata.missing
            if span.end is not None
        ]
        if high_ms < end_ms:
            gathered.missing.append(unknown(high_ms, end_ms, reason))
        if not gathered.missing:
            gathered.error = None  # another caller has loaded it meanwhile

    async def _newest_stored_ms(
        self, request: BackboneRequest, timeframe: Timeframe, end_ms: int
    ) -> int | None:
        """Where the newest proved stretch with candles ends; None: there is none."""
        high_ms = end_ms
        for periods in _STORED_WINDOWS:
            low_ms = max(
                timeframe.back_ms(high_ms, periods), timeframe.ceil_ms(_NO_STORED_BEFORE_MS)
            )
            if low_ms >= high_ms:
                break
            stored = await self.stored(request, low_ms, high_ms)
            if len(stored.data):
                newest_ms = int(stored.data.time[-1])
                starts = (epoch_ms(one.start) for one in stored.metadata.missing if one.start)
                return min((at for at in starts if at > newest_ms), default=high_ms)
            high_ms = low_ms
        return None

    async def _gather_first(
        self,
        gathered: Gathered,
        request: BackboneRequest,
        timeframe: Timeframe,
        start_ms: int,
        end_ms: int,
        count: int,
    ) -> None:
        """The first `count` candles from a start: windows upward, doubled while they are thin."""
        at_ms, window = start_ms, min(count, MAX_WINDOW)
        unconfirmed: list[Range] = []
        while True:
            left = periods_between(timeframe, at_ms, end_ms)
            high_ms = timeframe.back_ms(at_ms, -min(window, left))
            try:
                stored = await self.stored(request, at_ms, high_ms)
            except DeadlineError as error:
                gathered.error = error
                break
            gathered.take(stored, self._seen_s(stored, high_ms))
            plan = self.plan(stored, timeframe)
            if plan.beyond:
                # The first candles that are kept are not the first ones from the start.
                at_ms = plan.beyond[0].start_ms
                gathered.cut(start_ms, at_ms)
                gathered.error = DataUnavailableError(TOO_OLD_SECONDS)
                break
            walk = CandleWalk(plan, newest_first=False, periods_a_page=gathered.periods_a_page)
            found = [gathered.merged()]

            def stop_when_enough(
                page: CandleSeries, walk: CandleWalk = walk, found: list[CandleSeries] = found
            ) -> None:
                found.append(page)
                if _are(count, found, start_ms, walk.frontier_ms):
                    walk.stop()

            settled = await self._walk(gathered, request, plan, walk, stop_when_enough)
            unconfirmed += await self.unconfirmed(request, walk, settled=settled)
            reached_ms = high_ms if walk.frontier_ms is None else walk.frontier_ms
            gathered.cut(start_ms, reached_ms)
            at_ms = reached_ms
            if at_ms >= end_ms or gathered.rows >= count or gathered.error is not None:
                break
            window = window * 2 if gathered.rows == 0 else min(window * 2, MAX_WINDOW)
        gathered.missing = [unknown(*span, UNCONFIRMED) for span in joined(unconfirmed)]
        if gathered.error is not None:
            if gathered.rows >= count:
                gathered.error = None
            else:
                gathered.missing = [
                    span
                    for span in gathered.missing
                    if span.end is not None and epoch_ms(span.end) <= at_ms
                ]
                gathered.missing.append(unknown(at_ms, None, str(gathered.error)))

    def _response(
        self, request: BackboneRequest, gathered: Gathered, series: CandleSeries, started: float
    ) -> BackboneResponse:
        missing, error = tuple(gathered.missing), gathered.error
        if isinstance(error, UnknownSymbolError) and len(series):
            # It was listed once: what is stored of it is all there is.
            error = None
        if error is not None and not len(series):
            error.missing = missing
            raise error
        metadata = BackboneMetadata(
            source_layer="layer_1" if gathered.pages else "layer_2",
            cache_hit=not gathered.asked and (not missing or request.reach is Reach.STORED),
            processing_time_ms=(self._clock.monotonic() - started) * 1_000,
            data_count=len(series),
            priority_used=request.priority,
            split_info=counted(gathered.pages, "page") if gathered.pages > 1 else None,
            pages=gathered.pages,
            source=gathered.source,
            age_s=0.0 if gathered.seen_s is None else self._clock.monotonic() - gathered.seen_s,
            path="coordinator → storage" + (" → router" if gathered.asked else ""),
            missing=missing,
            reason=str(error) if error else missing[-1].reason if missing else "",
            silent=tuple(gathered.silent),
        )
        series = series.labelled(gathered.source)
        return BackboneResponse(not missing, series, metadata, error, request.request_id)


def _are(count: int, parts: list[CandleSeries], start_ms: int | None, end_ms: int | None) -> bool:
    """Whether parts, which may overlap, hold so many candles of a range."""
    cut = [part.between(start_ms, end_ms) for part in parts]
    return sum(map(len, cut)) >= count and len(CandleSeries.merged(cut)) >= count


def _beyond(response: BackboneResponse) -> list[Span]:
    """What a page should have shown above its newest candle, and did not."""
    if not len(response.data):
        return []
    newest_ms = int(response.data.time[-1])
    return [
        span
        for span in response.metadata.missing
        if span.start is not None and epoch_ms(span.start) > newest_ms
    ]


def _unshown(spans: list[Span], plan: CandlePlan) -> list[tuple[int, int, str]]:
    """What of them was planned: the rest is stored."""
    found = []
    for span in spans:
        assert span.start is not None and span.end is not None
        for hole in plan.holes:
            start_ms = max(hole.start_ms, epoch_ms(span.start))
            end_ms = min(hole.end_ms, epoch_ms(span.end))
            if start_ms < end_ms:
                found.append((start_ms, end_ms, span.reason))
    return found


def _whole_from_ms(plan: CandlePlan, walk: CandleWalk) -> int | None:
    """From here on up all that was planned is answered, and shown; None: all of it."""
    edges = [span.end_ms for span in (*walk.unshown, *plan.beyond)]
    if walk.frontier_ms is not None:
        edges.append(walk.frontier_ms)
    return max(edges, default=None)
