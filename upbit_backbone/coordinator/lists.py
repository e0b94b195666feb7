"""Requests for tickers and order books: lists of symbols, in as many calls as are wanted."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from upbit_backbone.clock import Clock
from upbit_backbone.coordinator.pages import Pages, own
from upbit_backbone.coordinator.plan import counted, plan_lists
from upbit_backbone.errors import BackboneError
from upbit_backbone.protocol import BackboneRequest, BackboneResponse, DataSource


class ListGatherer:
    """Answers a request for tickers or order books of any number of symbols."""

    def __init__(
        self, below: DataSource, pages: Pages, clock: Clock, symbols_per_request: int | None
    ) -> None:
        """Take how many symbols one request may name; None: all of them."""
        self._below = below
        self._pages = pages
        self._clock = clock
        self._symbols_per_request = symbols_per_request

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        """As `Coordinator.fetch`: a tuple in the order of the symbols.

        Several calls go one after another: the router would make one again of those that are
        asked at once.

        Raises:
            BackboneError: a call failed; ``error.partial`` has what the others gave, and the
                message names whose values are missing.
        """
        started = self._clock.monotonic()
        lists = plan_lists(request.symbols, self._symbols_per_request)
        values: list[Any] = []
        answers: list[BackboneResponse] = []
        failure: BackboneError | None = None
        lacking: list[str] = []
        for symbols in lists:
            part = request if len(lists) == 1 else msgspec.structs.replace(request, symbols=symbols)
            try:
                answer = await self._pages.retrier(
                    partial(self._ask, part), deadline=request.deadline
                )
            except BackboneError as error:
                if len(lists) == 1:
                    raise
                failure = failure or own(error)
                lacking += symbols
                continue
            answers.append(answer)
            values += answer.data
        if failure is not None:
            failure.args = (f"{failure.args[0]} (no answer for {', '.join(lacking)})",)
            failure.partial = tuple(values) or None
            raise failure
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

    async def _ask(self, part: BackboneRequest) -> BackboneResponse:
        async with self._pages.turn(part):
            return await self._below.fetch(part)
