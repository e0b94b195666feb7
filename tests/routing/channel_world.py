"""A small world with two channels, whose truth does not know who chooses.

`World` is what the script of 500 situations needs; another one may stand behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, Protocol

from upbit_backbone.protocol import DataType, Priority
from upbit_backbone.routing.channel_choice import CHANNELS, Channel, Question


class Outcome(NamedTuple):
    """What asking a channel would come to."""

    latency_ms: float
    """From sending to the answer or the failure."""
    success: bool
    sample: bool = True
    """Whether anything was sent: an answer from a stream that is watched is no sample."""


class Situation(NamedTuple):
    """One question at a moment, with the truth about both channels."""

    now: float
    label: str
    question: Question
    outcomes: dict[Channel, Outcome]

    @property
    def better(self) -> Channel | None:
        """Who could answer within `max_age_s`, in less time; None: nobody could."""
        waits = {"rest": self.question.rest_wait_s, "websocket": self.question.socket_wait_s}
        took_s = {
            channel: wait_s * outcome.sample + outcome.latency_ms / 1_000
            for channel, outcome in self.outcomes.items()
            if (wait_s := waits[channel]) is not None and outcome.success
        }
        in_time = {
            channel: seconds
            for channel, seconds in took_s.items()
            if seconds <= self.question.max_age_s
        }
        return min(in_time, key=in_time.__getitem__, default=None)


class World(Protocol):
    """Where situations come from."""

    def situations(self, count: int) -> Iterator[Situation]:
        """The next ones; the caller may act on each before it takes another."""
        ...


@dataclass(frozen=True)
class Weather:
    """How the two channels are for a while; times in milliseconds."""

    label: str
    rest_ms: Callable[[Random], float]
    snapshot_ms: Callable[[Random], float]
    rest_wait_s: Callable[[Random], float | None] = lambda rng: 0.0
    socket_wait_s: Callable[[Random], float | None] = lambda rng: 0.0
    rest_works: float = 0.999
    """Probability."""
    snapshot_works: float = 0.999


def around(median_ms: float, spread: float = 0.25) -> Callable[[Random], float]:
    return lambda rng: median_ms * math.exp(rng.gauss(0, spread))


def snapshot(extra_ms: float = 0.0) -> Callable[[Random], float]:
    """In two bursts after the request, as measured."""
    return lambda rng: (
        extra_ms + (rng.uniform(170, 190) if rng.random() < 0.5 else rng.uniform(330, 350))
    )


WEATHERS = (
    Weather("calm", around(25), snapshot()),
    Weather("far away", around(110, 0.1), snapshot(140)),
    Weather("REST is slow", around(900), snapshot()),
    Weather("a long queue", around(30), snapshot(), rest_wait_s=lambda rng: rng.uniform(0.8, 9)),
    Weather("banned", around(30), snapshot(), rest_wait_s=lambda rng: None),
    Weather("REST does not answer", around(2_000, 0.05), snapshot(), rest_works=0.02),
    Weather("the socket is down", around(30), snapshot(), socket_wait_s=lambda rng: None),
    Weather("snapshots fail", around(30), around(5_000, 0.02), snapshot_works=0.02),
    Weather("messages are used up", around(40), snapshot(), socket_wait_s=lambda rng: 6.0),
)


_KINDS = ("live", "history", "watched", "cold", "small")


class ModelWorld:
    """Weather that changes now and then, and callers who ask all kinds of things."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._now = 1_000.0

    def situations(self, count: int) -> Iterator[Situation]:
        rng = self._rng
        weathers = rng.sample(WEATHERS, len(WEATHERS))
        each = math.ceil(count / len(weathers))
        for number in range(count):
            self._now += rng.expovariate(1.0)
            yield self._situation(weathers[number // each])

    def _situation(self, weather: Weather) -> Situation:
        rng = self._rng
        priority = rng.choices(tuple(Priority), (2, 3, 4, 1))[0]
        kind = rng.choices(_KINDS, (1, 1, 2, 3, 5))[0]
        data_type, rows, symbols, watched = DataType.TICKER, 0, 1, 0
        if kind == "history":
            data_type, rows = rng.choice(((DataType.CANDLE, 200), (DataType.TRADE, 500)))
        elif kind == "small":
            data_type, rows = rng.choice((DataType.CANDLE, DataType.TRADE)), 1
        else:
            data_type = rng.choice((DataType.TICKER, DataType.ORDERBOOK))
            symbols = rng.choice((1, 1, 3, 20))
        if kind in ("watched", "live"):
            watched = symbols
        elif kind == "cold":
            watched = rng.randrange(symbols)
        question = Question(
            data_type=data_type,
            priority=priority,
            max_age_s=rng.choice((0.5, priority.max_age_s, priority.max_age_s)),
            rows=rows,
            live=kind == "live",
            symbols=symbols,
            watched=watched,
            stream_age_s=rng.uniform(0, 1.2) if kind == "watched" else 0.0,
            rest_wait_s=weather.rest_wait_s(rng),
            socket_wait_s=weather.socket_wait_s(rng),
        )
        label = f"{weather.label}: {kind}, {priority.name}"
        return Situation(self._now, label, question, self._outcomes(kind, question, weather))

    def _outcomes(self, kind: str, question: Question, weather: Weather) -> dict[Channel, Outcome]:
        """Of both channels, drawn before anybody chooses."""
        rng = self._rng
        rest = Outcome(weather.rest_ms(rng), rng.random() < weather.rest_works)
        told = Outcome(weather.snapshot_ms(rng), rng.random() < weather.snapshot_works)
        if kind == "history":
            told = Outcome(0.0, success=False)
        elif question.watched == question.symbols and question.stream_age_s <= question.max_age_s:
            told = Outcome(0.0, success=True, sample=False)
        return dict(zip(CHANNELS, (rest, told), strict=True))
