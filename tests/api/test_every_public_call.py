"""Every argument of every public call, with every kind of wrong value.

The calls are found by looking at the package, so a new one that nobody wrote a right value for, or
a reason to leave it out, fails here. Those of `MarketDataAPI` are looked at more closely in
`test_wrong_arguments.py`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import is_dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from enum import Enum
from pathlib import Path
from random import Random
from time import thread_time
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import upbit_backbone
from tests.api.house import NOON, House, at, opened
from tests.api.test_wrong_arguments import (
    JUNK,
    LONG,
    ODD,
    TRIES,
    WITHIN_S,
    _few_answers,
    _let_exist,
)
from tests.manual_clock import ManualClock
from tests.storage.fake_exchange import SYMBOL
from upbit_backbone import BackboneConfig, BackboneManager, compat, indicators, price
from upbit_backbone.api.chunks import ChunkStream
from upbit_backbone.api.event_bus import EventBusIntegration, SystemEvents, Throttle
from upbit_backbone.api.load_manager import SystemLoadManager
from upbit_backbone.api.market_data_api import MarketDataAPI
from upbit_backbone.api.stream import Stream
from upbit_backbone.clock import SECOND_MS
from upbit_backbone.errors import BackboneError, InvalidRequestError
from upbit_backbone.models import CandleSeries, Timeframe
from upbit_backbone.protocol import BackboneRequest, DataType, Priority
from upbit_backbone.tasks import TaskOwner

pytestmark = pytest.mark.filterwarnings("ignore:upbit_backbone.compat:DeprecationWarning")

LONGEST_SENTENCE = 400
NOWHERE = BackboneConfig(
    rest_url="http://127.0.0.1:9/v1", ws_url="ws://127.0.0.1:9/websocket/v1", data_dir=Path("none")
)
NO_CANDLES = CandleSeries.empty(SYMBOL, Timeframe.M1, source="cache", simulated=True)

CLASSES: tuple[type, ...] = (
    MarketDataAPI,
    BackboneManager,
    EventBusIntegration,
    SystemLoadManager,
    SystemEvents,
    Throttle,
    Stream,
    ChunkStream,
    BackboneConfig,
    indicators.RSI,
    indicators.SMA,
    *(member for name in compat.__all__ if inspect.isclass(member := vars(compat).get(name))),
)
MODULES: tuple[ModuleType, ...] = (upbit_backbone, indicators, price, compat)
LEFT_OUT: Mapping[str, str] = {
    "MarketDataAPI.__init__": "the composition root calls it",
    "MarketDataAPI.oldest_wait_s": "the load manager asks it",
    "EventBusIntegration.__init__": "the composition root calls it",
    "EventBusIntegration.serve": "the API calls it",
    "EventBusIntegration.admitted": "the paths call it",
    "EventBusIntegration.tell": "layers call it",
    "EventBusIntegration.oldest_wait_s": "the load manager asks it",
    "SystemLoadManager.__init__": "the composition root calls it",
    "SystemLoadManager.observe": "the monitor calls it",
    "SystemEvents.__init__": "the event bus calls it",
    "SystemEvents.tell": "the event bus calls it",
    "Throttle.__init__": "the event bus calls it",
    "Stream.__init__": "the API calls it",
    "ChunkStream.__init__": "the API calls it",
    "RSI.of": "compute calls it, having looked at what it hands over",
    "RSI.candles_before": "candles_needed calls it, likewise",
    "SMA.of": "as RSI's",
    "SMA.candles_before": "as RSI's",
    "MergedStream.__init__": "subscribe_ticker calls it",
    "UnifiedRequest.__init__": "looked at by the calls that take one",
}
"""Public by their names alone, each with the reason."""

RIGHT: Mapping[str, Any] = {
    "symbol": SYMBOL,
    "timeframe": "1m",
    "name": "RSI",
    "start_time": at(-30),
    "config": NOWHERE,
    "path": "there/is/none.toml",
    "request": BackboneRequest(DataType.TICKER, (SYMBOL,), priority=Priority.HIGH),
    "request_id": "none",
    "priority": Priority.HIGH,
    "most": 4,
    "shortest_s": 0.1,
    "taken_s": 0.01,
    "close": 5.0,
    "series": NO_CANDLES,
    "values": 5,
    "price": 5.0,
    "text": "1m",
    "channel": "rest",
    "latency_ms": 5.0,
    "success": True,
    "symbols": [SYMBOL],
    "key": f"ticker:{SYMBOL}",
    "count": 5,
}
"""What a call is given besides the value that is looked at, by the name of the argument."""
RIGHT_FOR: Mapping[str, Any] = {
    "BackboneManager.get_layer_status.name": "layer_1",
    "UnifiedMarketDataAPI.request_data.request": compat.UnifiedRequest(SYMBOL, "1m", 5),
    "UnifiedMarketDataAPI.request_data_sync.request": compat.UnifiedRequest(SYMBOL, "1m", 5),
    "UnifiedMarketDataRepository.__init__.unified_api": SimpleNamespace(get_candle_data=print),
}
FITS: Mapping[str, Callable[[Any], bool]] = {
    # A market of an asset that nobody knows has the finest step.
    "tick_size.symbol": lambda value: isinstance(value, str),
    "price_decimals.symbol": lambda value: isinstance(value, str),
    "format_price.symbol": lambda value: isinstance(value, str),
    "candles_needed.values": lambda value: type(value) is int and value > 0,
    "BackboneConfig.__init__.pinned": lambda value: value == (),
    "BackboneConfig.from_environment.environment": lambda value: isinstance(value, dict),
    "BackboneConfig.from_environment.flags": lambda value: value == {},
    "BackboneConfig.from_file.environment": lambda value: isinstance(value, dict),
    "BackboneConfig.from_file.flags": lambda value: value == {},
    "BackboneConfig.create_auto_config.environment": lambda value: isinstance(value, dict),
    "BackboneConfig.create_auto_config.flags": lambda value: value == {},
    "AdvancedCacheManager.warm_up_cache.symbols": lambda value: value == (),
    "UpbitWebSocketClient.subscribe_ticker.symbols": lambda value: value == (),
    "UpbitWebSocketClient.subscribe_orderbook.symbols": lambda value: value == (),
}
"""Which of the odd values are right after all."""
NEVER_RIGHT = {"from_file.environment", "from_file.flags"}


class Loud(str):
    """A text that is none."""

    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")


class Countless:
    """What says that it cannot be counted."""

    def __len__(self) -> int:
        raise RuntimeError("not to be counted")


IMPOSTOR = type("list", (Countless,), {})()
"""Shown by its name, as `reprlib` does, it would be counted."""
CHANCE = Random(1)
MORE = [*ODD, {CHANCE.random() for _ in range(200_000)}, dict.fromkeys(range(200_000)), IMPOSTOR,
        deque([1] * LONG), bytearray(LONG), memoryview(b"x" * LONG), range(10**18),
        Loud("KRW-\0"), np.float64("nan"), np.int64(-5), type("L" * LONG, (), {})(), Ellipsis,
        -1e400]  # fmt: skip
"""And what is large, endless or in disguise."""


class World:
    """An API, a stand-in for what `compat` opens, and who can be called."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.service = compat._Service()
        self.service._backbone = SimpleNamespace(api=house.api)  # type: ignore[assignment]
        compat._SERVICES[asyncio.get_running_loop()] = self.service

    def receiver(self, owner: str) -> Any:
        api = self.house.api
        if owner in ("upbit_backbone", "indicators", "price", "compat"):
            return next(module for module in MODULES if module.__name__.endswith(owner))
        known: dict[str, Callable[[], Any]] = {
            "MarketDataAPI": lambda: api,
            "BackboneManager": lambda: BackboneManager(NOWHERE),
            "EventBusIntegration": lambda: self.house.bus,
            "SystemLoadManager": lambda: self.house.monitor.load,
            "Stream": lambda: api.stream_ticker(SYMBOL),
            "Timeframe": lambda: Timeframe,
            "BackboneConfig": lambda: BackboneConfig,
            "RSI": indicators.RSI,
            "SMA": indicators.SMA,
            "UnifiedMarketDataRepository": lambda: compat.UnifiedMarketDataRepository(
                compat.UnifiedMarketDataAPI()
            ),
        }
        return known.get(owner, lambda: getattr(compat, owner)())()


class Call:
    """A public call: who has it, and its arguments."""

    def __init__(self, owner: str, name: str, call: Any) -> None:
        self.owner, self.name = owner, name
        short = owner if owner[0].isupper() else ""
        self.key = f"{short}.{name}".lstrip(".")
        arguments = list(inspect.signature(call).parameters.values())
        if inspect.isfunction(call) and short and arguments and arguments[0].name == "self":
            del arguments[0]
        self.arguments = {argument.name: argument for argument in arguments}

    def __repr__(self) -> str:
        return self.key

    def made(self, world: World, given: Mapping[str, Any]) -> Any:
        """What it returns."""
        first: list[Any] = []
        named: dict[str, Any] = {}
        for name, argument in self.arguments.items():
            if name in given:
                value = given[name]
            elif argument.default is not argument.empty or argument.kind in (
                argument.VAR_KEYWORD,
                argument.VAR_POSITIONAL,
            ):
                continue
            else:
                value = RIGHT_FOR.get(f"{self.key}.{name}", RIGHT.get(name))
            if argument.kind is argument.VAR_KEYWORD:
                named["period"] = value
            elif argument.kind in (argument.VAR_POSITIONAL, argument.POSITIONAL_ONLY):
                first.append(value)
            else:
                named[name] = value
        if self.name == "__init__":
            owner = next(one for one in CLASSES if one.__name__ == self.owner)
            if self.owner == "MarketDataAPI":
                owner = MarketDataAPI
            return owner(*first, **named)
        return getattr(world.receiver(self.owner), self.name)(*first, **named)


def public_calls() -> list[Call]:
    """All that somebody may call."""
    found: list[Call] = [Call("Timeframe", "parse", Timeframe.parse)]
    for owner in CLASSES:
        name_of = owner.__name__
        if owner.__module__ == "upbit_backbone.compat" and name_of == "MarketDataAPI":
            continue  # nothing of its own, and the name of the one of today
        for name, member in inspect.getmembers(owner):
            own = "__init__" in vars(owner) and not issubclass(owner, Enum)
            if name.startswith("_") and not (name == "__init__" and own):
                continue
            if inspect.isfunction(member) or inspect.ismethod(member):
                found.append(Call(name_of, name, member))
    for module in MODULES:
        names = getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"])
        for name in names:
            # `compat` gives one name with a warning: a class.
            member = vars(module).get(name) if module is compat else getattr(module, name)
            if inspect.isfunction(member) and member.__module__.startswith(
                ("upbit_backbone.api", module.__name__)
            ):
                found.append(Call(module.__name__.rpartition(".")[2], name, member))
    return found


CALLS = [call for call in public_calls() if call.arguments and call.key not in LEFT_OUT]
CASES = [(call, name) for call in CALLS for name in call.arguments]


def test_each_public_call_is_looked_at_or_left_out_for_a_reason() -> None:
    keys = {call.key for call in public_calls()}
    assert set(LEFT_OUT) - {"UnifiedRequest.__init__"} <= keys, "what is left out exists"
    arguments = {f"{call.key}.{name}" for call, name in CASES}
    assert set(FITS) | set(RIGHT_FOR) <= arguments
    for call in CALLS:
        for name, argument in call.arguments.items():
            if argument.default is argument.empty and argument.kind not in (
                argument.VAR_KEYWORD,
                argument.VAR_POSITIONAL,
            ):
                known = name in RIGHT or f"{call.key}.{name}" in RIGHT_FOR
                assert known, f"say in RIGHT what {call} may be given as {name}"
    calls = {"MarketDataAPI.get_ticker_data", "BackboneManager.get_layer_status", "tick_size"}
    calls |= {"EventBusIntegration.publish_data_request", "BackboneConfig.__init__", "compute"}
    calls |= {"SystemLoadManager.check_resource_availability", "Timeframe.parse", "create"}
    assert calls <= keys, "they are found at all"


def test_each_exported_class_is_a_plain_value_or_looked_at() -> None:
    for name in upbit_backbone.__all__:
        one = getattr(upbit_backbone, name)
        if inspect.isclass(one) and one not in CLASSES:
            plain = issubclass(one, BackboneError | msgspec.Struct | Enum | CandleSeries | tuple)
            protocol = getattr(one, "_is_protocol", False)
            path = name in ("DirectDataAccess", "EventBusDataAccess")  # layers call them
            plain |= is_dataclass(one)
            assert plain or protocol or path, f"add {name} to CLASSES"


@pytest.fixture(autouse=True)
def own_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for a service in `compat` is no service, and nobody ends it."""
    monkeypatch.setattr(compat, "_SERVICES", {})


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[asyncio.Runner]:
    monkeypatch.chdir(tmp_path)
    with asyncio.Runner() as runner:
        yield runner


async def ended(world: World, call: Call, answer: Any) -> Any:
    """Wait for an answer, and leave nothing of it behind."""
    if isinstance(answer, ChunkStream):
        async with answer:
            return [series async for series in answer]
    if isinstance(answer, compat.MergedStream):
        async with answer:
            pass
    elif inspect.isawaitable(answer):
        answer = await answer
    if call.key == "EventBusIntegration.publish_data_request":
        await world.house.bus.answer(answer)
    if isinstance(answer, Stream):
        answer.close()
    if isinstance(answer, Throttle):
        answer.release()
    await world.service.tasks.close()
    world.service.tasks = TaskOwner()
    return answer


def judged(error: BackboneError) -> None:
    """A sentence for a person."""
    sentence = str(error)
    assert 10 < len(sentence) < LONGEST_SENTENCE, len(sentence)
    assert len(sentence.splitlines()) == 1, sentence
    assert sentence.isprintable(), sentence
    assert " object at 0x" not in sentence or "was <" in sentence, sentence


def test_an_odd_value_is_told_in_one_short_sentence_at_once_by_every_public_call(
    runner: asyncio.Runner,
) -> None:
    async def work() -> None:
        async with opened(ManualClock(NOON + 30 * SECOND_MS)) as house:
            world = World(house)
            tasks = asyncio.all_tasks()
            wrong = []
            for call, name in CASES:
                fits = FITS.get(f"{call.key}.{name}", lambda _: False)
                for value in MORE:
                    if isinstance(value, PLAIN) and fits(value):
                        continue
                    try:
                        best_s = await refused(world, call, {name: value})
                    except AssertionError as error:
                        wrong.append(str(error))
                        continue
                    assert best_s < WITHIN_S, (call, name, type(value), best_s)
            assert not wrong, "\n".join(wrong)
            assert asyncio.all_tasks() == tasks
            assert house.exchange.requests == house.router.requests == []

    runner.run(work())


PLAIN = (str, bytes, int, tuple, dict)


async def refused(world: World, call: Call, given: Mapping[str, Any]) -> float:
    """Seconds of the processor's that the quickest of some tries took."""
    best_s = float("inf")
    for _ in range(TRIES):
        began = thread_time()
        try:
            await ended(world, call, call.made(world, given))
        except InvalidRequestError as error:
            best_s = min(best_s, thread_time() - began)
            judged(error)
        except Exception as error:
            raise AssertionError(f"{call}({', '.join(given)}): {error!r:.200}") from error
        else:
            kinds = {name: type(value).__name__[:40] for name, value in given.items()}
            raise AssertionError(f"{call} took {kinds}")
        if best_s < WITHIN_S:
            break
    return best_s


def test_a_request_made_by_hand_is_looked_at_field_by_field(runner: asyncio.Runner) -> None:
    publish = next(one for one in CALLS if one.key.endswith("publish_data_request"))

    async def work() -> None:
        async with opened(ManualClock(NOON + 30 * SECOND_MS)) as house:
            world = World(house)
            tasks = asyncio.all_tasks()
            for data_type in DataType:
                right = BackboneRequest(data_type, (SYMBOL,), Timeframe.M1)
                for field in BackboneRequest.__struct_fields__:
                    for value in MORE:
                        wrong = msgspec.structs.replace(right, **{field: value})
                        assert await refused(world, publish, {"request": wrong}) < WITHIN_S
            assert asyncio.all_tasks() == tasks
            assert house.exchange.requests == house.router.requests == []

    runner.run(work())


class Zone(tzinfo):
    """A zone that somebody wrote in a hurry."""

    def __init__(self, offset: Any) -> None:
        self._offset = offset

    def utcoffset(self, moment: datetime | None) -> Any:
        if isinstance(self._offset, Exception):
            raise self._offset
        return self._offset

    def tzname(self, moment: datetime | None) -> str:
        return "nowhere"

    def dst(self, moment: datetime | None) -> None:
        return None


FAR = [timezone(timedelta(hours=23, minutes=59)), timezone(-timedelta(hours=23, minutes=59)), UTC,
       Zone(None), Zone(timedelta(days=2)), Zone(5), Zone(RuntimeError("no zone")),
       Zone(timedelta(microseconds=1)), None]  # fmt: skip
MOMENTS = [edge.replace(tzinfo=zone) for edge in (datetime.min, datetime.max, datetime(2025, 9, 1))
           for zone in FAR]  # fmt: skip
MOMENT_CALLS = [(call, name) for call, name in CASES if name in ("start_time", "end_time", "at")]


def test_a_moment_at_an_end_of_the_calendar_in_any_zone_is_a_moment_or_told(
    runner: asyncio.Runner,
) -> None:
    async def work() -> None:
        async with opened(ManualClock(NOON + 30 * SECOND_MS)) as house:
            world = World(house)
            tasks = asyncio.all_tasks()
            refused = 0
            for call, name in MOMENT_CALLS:
                for moment in MOMENTS:
                    house.exchange.before_answer = _few_answers()
                    try:
                        await ended(world, call, call.made(world, {name: moment}))
                    except BackboneError as error:
                        judged(error)
                        refused += isinstance(error, InvalidRequestError)
            assert refused > 8 * len(MOMENT_CALLS), "most of them are no moments"
            assert asyncio.all_tasks() == tasks

    assert len(MOMENT_CALLS) > 8
    runner.run(work())


VALUES = (
    JUNK
    # By their number: hypothesis would ask them for their hash.
    | st.sampled_from(range(len(MOMENTS))).map(MOMENTS.__getitem__)
    | st.sampled_from(range(len(ODD))).map(ODD.__getitem__)
    | st.sampled_from([Path("\0"), Path("x" * 5_000), Path("\ud800"), Path("~nobody-at-all"), ""])
    | st.sampled_from([10**400, -(10**400), float("nan"), float("inf"), -0.0, 1e308, 5e-324])
    | st.sampled_from([DataType.TICKER, Timeframe.M1, Priority.LOW, print, type, {1: 2}, {SYMBOL}])
    | st.dictionaries(st.sampled_from(["UPBIT_BACKBONE_DATA_DIR", "data_dir", "pinned"]),
                      st.text(max_size=5) | st.just("~nobody-at-all") | st.none())
)  # fmt: skip
PICKED = st.sampled_from(CALLS).flatmap(
    lambda call: st.tuples(
        st.just(call),
        st.dictionaries(st.sampled_from(list(call.arguments)), VALUES, min_size=1, max_size=3),
    )
)


def test_no_public_call_fails_with_anything_but_an_error_of_ours(
    runner: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(call: Call, given: Mapping[str, Any]) -> None:
        async with AsyncExitStack() as stack:
            house = await stack.enter_async_context(opened(ManualClock(NOON + 30 * SECOND_MS)))
            world = World(house)
            _let_exist(house, given.get("timeframe", "1m"))
            house.exchange.before_answer = house.router.before_answer = _few_answers()
            tasks = asyncio.all_tasks()
            try:
                await ended(world, call, call.made(world, given))
            except BackboneError as error:
                judged(error)
            await world.service.tasks.close()
            await asyncio.sleep(0)  # who was cancelled needs a turn to end
            assert asyncio.all_tasks() == tasks

    @settings(max_examples=300, derandomize=True, database=None)
    @given(PICKED)
    def told(case: tuple[Call, dict[str, Any]]) -> None:
        runner.run(work(*case))

    told()
