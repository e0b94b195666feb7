"""Requests for tickers and order books: lists of symbols, in as many calls as are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

import msgspec

from upbit_backbone.clock import Clock
from upbit_backbone.coordinator.pages import PARALLEL_PAGES, Pages, own
from upbit_backbone.coordinator.plan import counted, plan_lists
from upbit_backbone.coordinator.turns import SharedTurn
from upbit_backbone.errors import BackboneError, DeadlineError
from upbit_backbone.protocol import (
    BackboneRequest,
    BackboneResponse,
    DataSource,
    DataType,
    Priority,
)

_TurnOf = Callable[[BackboneRequest], AbstractAsyncContextManager[object]]


class ListGatherer:
    """Answers a request for tickers or order books of any number of symbols."""

    def __init__(
        self,
        below: DataSource,
        pages: Pages,
        clock: Clock,
        symbols_per_request: int | None,
        *,
        turns: Mapping[DataType, SharedTurn],
    ) -> None:
        """Take what it works with.

        Args:
            below: The store.
            pages: Sends what has several parts.
            clock: The exchange's time.
            symbols_per_request: How many symbols one request may name; None: all of them.
            turns: What LOW calls of one part take together: below they are one request.
        """
        self._below = below
        self._pages = pages
        self._clock = clock
        self._symbols_per_request = symbols_per_request
        self._turns = turns

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """As `Coordinator.fetch`: a tuple in the order of the symbols.

        Several calls are under way at once, as pages are; those of LOW in turn.

        Raises:
            BackboneError: a call failed; ``error.partial`` has what the others gave, and the
                message names whose values are missing.
        """
        started = self._clock.monotonic()
        lists = plan_lists(request.symbols, self._symbols_per_request)
        if len(lists) == 1:
            answers = [await self._tried(request, self._together)]
        else:
            answers = await self._ask_all(request, lists)
        values = [value for answer in answers for value in answer.data]
        metadata = answers[-1].metadata
        if len(lists) > 1:
            ages = [answer.metadata.age_s or 0.0 for answer in answers]
            metadata = msgspec.structs.replace(
                metadata,
                cache_hit=all(answer.metadata.cache_hit for answer in answers),
                processing_time_ms=(self._clock.monotonic() - started) * 1_000,
                data_count=len(values),
                split_info=counted(len(lists), "request"),
                age_s=max(ages),
            )
        metadata = msgspec.structs.replace(
            metadata, path=f"coordinator → storage → {metadata.path}"
        )
        return BackboneResponse(
            all(answer.success for answer in answers),
            tuple(values) if len(lists) > 1 else answers[0].data,
            metadata,
            None,
            request.request_id,
        )

    async def _ask_all(
        self, request: BackboneRequest, lists: list[tuple[str, ...]]
    ) -> list[BackboneResponse]:
        """The answers in the order of the lists; all are asked, whichever fail."""
        todo = iter(lists)
        outcomes: dict[tuple[str, ...], BackboneResponse | BackboneError] = {}

        async def work() -> None:
            for symbols in todo:
                part = msgspec.structs.replace(request, symbols=symbols)
                try:
                    outcomes[symbols] = await self._tried(part, self._pages.turn)
                except BackboneError as error:
                    outcomes[symbols] = error

        late: BackboneError | None = None
        try:
            async with self._pages.within_deadline(request), asyncio.TaskGroup() as group:
                for number in range(min(PARALLEL_PAGES, len(lists))):
                    name = f"lists of {request.data_type.value}s, {number + 1}"
                    group.create_task(work(), name=name)
        except DeadlineError as error:
            late = error
        answers: list[BackboneResponse] = []
        lacking: list[str] = []
        failure: BackboneError | None = None
        for symbols in lists:
            outcome = outcomes.get(symbols, late)
            assert outcome is not None
            if isinstance(outcome, BackboneError):
                failure = failure or own(outcome)
                lacking += symbols
            else:
                answers.append(outcome)
        if failure is not None:
            failure.args = (f"{failure.args[0]} (no answer for {', '.join(lacking)})",)
            failure.partial = tuple(value for one in answers for value in one.data) or None
            raise failure
        return answers

    async def _tried(self, part: BackboneRequest, turn: _TurnOf) -> BackboneResponse:
        return await self._pages.retrier(partial(self._ask, part, turn), deadline=part.deadline)

    async def _ask(self, part: BackboneRequest, turn: _TurnOf) -> BackboneResponse:
        await self._pages.admitted(part.priority)
        async with turn(part):
            return await self._below.fetch(part)

    def _together(self, request: BackboneRequest) -> AbstractAsyncContextManager[object]:
        if request.priority is Priority.LOW:
            return self._turns[request.data_type].turn()
        return nullcontext()
