"""A layer that fails is built anew; who stands above it notices a call that takes longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.coordinator.test_turns import LoopClock
from upbit_backbone.clock import utc_datetime
from upbit_backbone.errors import (
    ClosedError,
    DataUnavailableError,
    StorageUnavailableError,
    TransportError,
)
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import (
    MARKETS_TTL_S,
    BackboneMetadata,
    BackboneRequest,
    BackboneResponse,
    DataType,
    LayerStatus,
    MarketList,
    Subscription,
)
from upbit_backbone.supervision import LOOK_EVERY_S, SupervisedLayer

pytestmark = pytest.mark.steered_time
REQUEST = BackboneRequest(DataType.TICKER, ("KRW-BTC",))


class Layer:
    """One life of a layer: does as the house says."""

    def __init__(self, house: House, number: int) -> None:
        self.house = house
        self.number = number
        self.failure = ""
        self.counters: dict[str, float] = {}
        self.answers = asyncio.Event()
        if house.answering:
            self.answers.set()
        self.error: BaseException | None = None
        self.running = False

    async def start(self) -> None:
        if self.house.starts_take_s:
            await asyncio.sleep(self.house.starts_take_s)
        if self.house.start_failures:
            raise self.house.start_failures.pop(0)
        self.running = True
        self.house.lives.append(f"{self.number} began")

    async def stop(self) -> None:
        self.house.lives.append(f"{self.number} ends")
        if self.house.stops_take_s:
            await asyncio.sleep(self.house.stops_take_s)
        self.running = False
        if self.house.stop_failure is not None:
            raise self.house.stop_failure

    def status(self) -> LayerStatus:
        counters = {"number": float(self.number)} | self.counters
        return LayerStatus("layer_1", "healthy", "", utc_datetime(0), counters)

    def peek(
        self,
        data_type: DataType,
        symbol: str,
        timeframe: Timeframe | None,
        start_ms: int | None,
        end_ms: int | None,
        count: int | None,
        max_age_s: float,
        now: float,
    ) -> int:
        return self.number

    def peek_age_s(self, *_: object) -> float:
        return float(self.number)

    async def fetch(self, request: BackboneRequest) -> BackboneResponse:
        self.house.asked.append(self.number)
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        metadata = BackboneMetadata("layer_1", False, 0.0, 1, request.priority)
        return BackboneResponse(True, self.number, metadata, None, request.request_id)

    def subscribe(self, request: BackboneRequest) -> Subscription:
        raise DataUnavailableError(f"a stream of {self.number}")

    async def markets(self, *, max_age_s: float = MARKETS_TTL_S) -> MarketList:
        await self.fetch(REQUEST)
        return MarketList(())


class House:
    """A layer that is kept running, and a book of its lives."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.clock = LoopClock()
        self.lives: list[str] = []
        self.built: list[Layer] = []
        self.asked: list[int] = []
        self.told: list[tuple[str, str, str]] = []
        self.start_failures: list[Exception] = []
        self.stop_failure: Exception | None = None
        self.starts_take_s = self.stops_take_s = 0.0
        self.answering = True
        self.kept: SupervisedLayer[Any] = SupervisedLayer(
            "layer_1",
            self.build,
            clock=self.clock,
            start_within_s=5.0,
            stop_within_s=3.0,
            pause_s=pause_s,
            tell=lambda *told: self.told.append(told),
        )

    def build(self) -> Layer:
        self.built.append(Layer(self, len(self.built) + 1))
        return self.built[-1]

    @property
    def layer(self) -> Layer:
        return self.built[-1]

    def now(self) -> float:
        return self.clock.monotonic()

    def ask(self, within_s: float | None = None) -> asyncio.Task[BackboneResponse]:
        deadline_s = None if within_s is None else self.now() + within_s
        request = BackboneRequest(DataType.TICKER, ("KRW-BTC",), deadline=deadline_s)
        return asyncio.create_task(self.kept.fetch(request))

    def peek(self) -> Any:
        return self.kept.peek(DataType.TICKER, "KRW-BTC", None, None, None, None, 1.0, 0.0)


@asynccontextmanager
async def running(pause_s: float = 0.0) -> AsyncIterator[House]:
    house = House(pause_s)
    await house.kept.start()
    watch = asyncio.create_task(house.kept.watch())
    try:
        yield house
    finally:
        watch.cancel()
        await asyncio.wait([watch])
        await house.kept.stop()


async def turns(times: int = 3) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_a_working_layer_is_passed_through() -> None:
    async with running() as house:
        assert (await house.ask()).data == 1
        assert house.peek() == 1
        assert house.kept.peek_age_s(DataType.TICKER, "KRW-BTC", None, None, 0.0) == 1.0
        with pytest.raises(DataUnavailableError, match="a stream of 1"):
            house.kept.subscribe(REQUEST)
        assert (await house.kept.markets()).markets == ()
        assert house.kept.status().health == "healthy"
        house.layer.error = DataUnavailableError("an answer like another")
        with pytest.raises(DataUnavailableError):
            await house.ask()
        await asyncio.sleep(10)
        assert house.lives == ["1 began"]


async def test_a_failed_layer_is_ended_and_built_anew(caplog: pytest.LogCaptureFixture) -> None:
    async with running(pause_s=1.1) as house:
        house.layer.failure = "its task is gone"
        assert house.kept.status().health == "down"
        await asyncio.sleep(LOOK_EVERY_S + 0.01)
        assert house.lives == ["1 began", "1 ends"]
        assert house.peek() is None
        assert house.kept.peek_age_s(DataType.TICKER, "KRW-BTC", None, None, 0.0) is None
        assert house.kept.status().reason == "its task is gone"
        with pytest.raises(TransportError, match="its task is gone; try again"):
            house.kept.subscribe(REQUEST)
        await asyncio.sleep(1.1)
        assert house.lives == ["1 began", "1 ends", "2 began"]
        assert house.peek() == 2
        assert house.kept.status().counters == {"number": 2, "restarts": 1}
        assert [told[1] for told in house.told] == ["down", "healthy"]
    assert [record.getMessage() for record in caplog.records] == [
        "layer_1 failed and is begun anew: its task is gone"
    ]


async def test_a_call_in_flight_is_asked_once_more(caplog: pytest.LogCaptureFixture) -> None:
    async with running(pause_s=1.0) as house:
        house.layer.answers.clear()
        call = house.ask()
        await turns()
        house.layer.failure = "its task is gone"
        assert (await call).data == 2
        assert house.asked == [1, 2]


async def test_a_call_whose_layer_fails_twice_ends_with_a_transport_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as house:
        house.layer.answers.clear()
        house.answering = False
        call = house.ask()
        await turns()
        house.layer.failure = "gone"
        await asyncio.sleep(1)
        house.layer.failure = "gone again"
        with pytest.raises(
            TransportError, match="layer_1 failed twice during the call: gone again"
        ):
            await call
        assert house.asked == [1, 2]


@pytest.mark.parametrize("error", [RuntimeError("its session is closed"), asyncio.CancelledError()])
async def test_an_error_of_a_layer_that_has_just_failed_is_no_answer(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as house:
        house.layer.error = error
        house.layer.failure = "gone"
        began_s = house.now()
        assert (await house.ask()).data == 2
        assert house.now() - began_s < LOOK_EVERY_S, "nobody waits for the next look"


async def test_a_cancelled_caller_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as house:
        house.layer.answers.clear()
        call = house.ask()
        await turns()
        house.layer.failure = "gone"
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert house.asked == [1]


async def test_later_calls_wait_up_to_their_deadline(caplog: pytest.LogCaptureFixture) -> None:
    async with running(pause_s=4.0) as house:
        house.layer.failure = "gone"
        await asyncio.sleep(1)
        short, long, endless = house.ask(2.0), house.ask(10.0), house.ask()
        markets = asyncio.create_task(house.kept.markets())
        began_s = house.now()
        with pytest.raises(TransportError, match="failed and is begun anew: gone") as caught:
            await short
        assert house.now() - began_s == pytest.approx(2.0, abs=0.01)
        assert caught.value.retry_after_s == 4.0
        assert (await long).data == (await endless).data == 2
        await markets
        assert house.asked == [2, 2, 2]


async def test_a_layer_that_cannot_be_begun_anew_is_tried_less_and_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as house:
        house.start_failures = [StorageUnavailableError("the disk is gone")] * 10
        house.layer.failure = "gone"
        await asyncio.sleep(60)
        assert len(house.built) == 1 + 7, "0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s later"
        assert house.kept.status().reason == "it could not be begun anew: the disk is gone"
        await asyncio.sleep(120)
        assert house.kept.works
    assert len(caplog.records) == 1, "said once"


async def test_a_layer_that_fails_at_once_again_is_not_begun_in_a_circle(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as house:
        for _ in range(3_000):
            house.layer.failure = "gone"
            await asyncio.sleep(0.02)
        assert len(house.built) < 9


async def test_starting_and_stopping_have_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    house = House()
    house.starts_take_s = 60.0
    began_s = house.now()
    with pytest.raises(TransportError, match="layer_1 did not start within 5 s"):
        await house.kept.start()
    assert house.now() - began_s == pytest.approx(5, abs=0.01)
    assert house.lives == ["1 ends"]
    house.starts_take_s, house.stops_take_s = 0.0, 60.0
    await house.kept.start()
    began_s = house.now()
    with pytest.raises(TimeoutError):
        await house.kept.stop()
    assert house.now() - began_s == pytest.approx(3, abs=0.01)
    house.stops_take_s = 0.0
    await house.kept.stop()
    assert house.lives == ["1 ends", "2 began", "2 ends", "2 ends"], "what was cut short ends"


async def test_what_the_failed_one_leaves_behind_does_not_hold_up_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as house:
        house.stop_failure = OSError("the file is gone")
        house.layer.failure = "gone"
        await asyncio.sleep(1)
        assert (await house.ask()).data == 2
        house.stop_failure = None
    assert "layer_1 did not stop cleanly" in caplog.text


async def test_after_the_end_calls_hear_that_it_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    async with running(pause_s=5) as house:
        house.layer.failure = "gone"
        await asyncio.sleep(1)
        waiting = house.ask()
        await turns()
    with pytest.raises(ClosedError):
        await waiting
    with pytest.raises(ClosedError):
        await house.ask()
    with pytest.raises(ClosedError):
        house.kept.subscribe(REQUEST)
    assert house.lives == ["1 began", "1 ends"], "nothing is begun any more"


async def test_an_end_in_the_middle_of_a_restart_leaves_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for cut_after_s in (0.26, 0.5, 1.5, 2.5, 3.5):
        house = House(pause_s=1.0)
        await house.kept.start()
        house.starts_take_s = house.stops_take_s = 1.0
        watch = asyncio.create_task(house.kept.watch())
        house.layer.failure = "gone"
        await asyncio.sleep(cut_after_s)
        watch.cancel()
        await asyncio.wait([watch])
        await house.kept.stop()
        assert not any(layer.running for layer in house.built), cut_after_s


async def test_what_a_layer_has_counted_outlives_it(caplog: pytest.LogCaptureFixture) -> None:
    async with running(pause_s=1.1) as house:
        first = house.layer
        first.counters = {"requests": 6.0, "http_429": 2.0, "waiting": 5.0}
        told = [house.kept.status().counters]
        first.failure = "its task is gone"
        first.counters["requests"] = 7.0  # one that was under way
        told.append(house.kept.status().counters)
        await asyncio.sleep(LOOK_EVERY_S + 0.01)
        told.append(house.kept.status().counters)
        await asyncio.sleep(1.1)
        told.append(house.kept.status().counters)
        house.layer.counters = {"requests": 9.0, "waiting": 1.0}
        told.append(house.kept.status().counters)
        house.layer.failure = "again"
        await asyncio.sleep(LOOK_EVERY_S + 0.01)
        told.append(house.kept.status().counters)
    assert [counters.get("requests") for counters in told] == [6, 7, 7, 7, 16, 16]
    assert [counters.get("http_429") for counters in told] == [2] * 6
    assert [counters.get("waiting") for counters in told] == [5, None, None, None, 1, None]
