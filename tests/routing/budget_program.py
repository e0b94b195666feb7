"""A program that asks a simulated exchange as fast as it may: several of them share a budget.

``python -m tests.routing.budget_program ADDRESS FOLDER SECONDS PRIORITY:CALLERS[:EVERY_S] …``
says ``ready``, waits for a line, asks, and prints one line of JSON: how often each status was
answered, and for each priority how long each request waited for its right to be sent, seconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import aiohttp

from upbit_backbone.clock import SystemClock
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.rate_limit import (
    REQUESTS_PER_WINDOW,
    WINDOW_S,
    RateLimiter,
    RateWindow,
)
from upbit_backbone.routing.shared_budget import SharedBudget

PATH = "/candles/minutes/1?market=KRW-BTC&count=1"


class Asker:
    """Callers of one limiter, until an end."""

    def __init__(self, rest_url: str, limiter: RateLimiter, seconds: float) -> None:
        self._url = rest_url + PATH
        self._limiter = limiter
        self._clock = SystemClock()
        self._end = self._clock.monotonic() + seconds
        self.statuses: Counter[int] = Counter()
        self.waits_s: defaultdict[str, list[float]] = defaultdict(list)

    async def ask(self, session: aiohttp.ClientSession, priority: Priority, every_s: float) -> None:
        """Ask without a pause, or once in `every_s`."""
        while (began := self._clock.monotonic()) < self._end:
            await self._limiter.acquire(priority)
            if (now := self._clock.monotonic()) >= self._end:
                return
            self.waits_s[priority.name].append(now - began)
            async with session.get(self._url) as response:
                self.statuses[response.status] += 1
                await response.read()
                left = re.search(r"sec=(\d+)", response.headers.get("Remaining-Req", ""))
            if left is not None:
                self._limiter.observe_left(int(left[1]))
            if every_s:
                await asyncio.sleep(began + every_s - self._clock.monotonic())


async def ask_for_a_while(
    rest_url: str, budget: SharedBudget | None, seconds: float, *callers: str
) -> Asker:
    """Callers are ``PRIORITY:CALLERS[:EVERY_S]``."""
    window = RateWindow(limit=REQUESTS_PER_WINDOW, window_s=WINDOW_S, reserve=2, even_low=True)
    shared = None if budget is None else budget.group("candles")
    asker = Asker(rest_url, RateLimiter(window, SystemClock(), shared), seconds)
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        for text in callers:
            name, count, *every_s = text.split(":")
            for _ in range(int(count)):
                pause_s = float(every_s[0]) if every_s else 0.0
                tasks.create_task(asker.ask(session, Priority[name], pause_s))
    return asker


async def share(rest_url: str, folder: str, seconds: str, *callers: str) -> None:
    budget = SharedBudget.for_host(rest_url, Path(folder))
    assert budget is not None
    asker = await ask_for_a_while(rest_url, budget, float(seconds), *callers)
    budget.close()
    print(json.dumps({"statuses": asker.statuses, **asker.waits_s}), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(share(*sys.argv[1:]))
