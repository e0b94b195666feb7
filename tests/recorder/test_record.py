"""The recorder at a fake exchange over real sockets: what came is what is in the file."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.recorder.clients import frames, get, subscribed
from tests.recorder.fake_exchange import FakeExchange
from upbit_backbone.clock import SystemClock
from upbit_backbone.errors import (
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    StorageOriginError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.origin import Origin
from upbit_backbone.recorder.opening import open_recording
from upbit_backbone.recorder.questions import minutely
from upbit_backbone.recorder.record import Recorder, Source, Tally, Wanted, read_wanted
from upbit_backbone.recorder.records import (
    AnyRecord,
    RestAnswer,
    RestFailure,
    StreamBreak,
    StreamFrame,
    StreamOpened,
    StreamRequest,
)
from upbit_backbone.recorder.replay import ReplayServer

WANTED = Wanted(("KRW-BTC", "KRW-XRP"), ("trade", "orderbook"), "DEFAULT", None)


class Hasty(random.Random):
    """Chance that never waits longer than it must."""

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


def recorder(exchange: FakeExchange, file: Path, wanted: Wanted = WANTED) -> Recorder:
    source = Source(exchange.rest_url, exchange.ws_url, Origin("127.0.0.1_1"))
    return Recorder(source, wanted, file, clock=SystemClock(), rng=Hasty(1), spacing_s=0.0)


@asynccontextmanager
async def recording(exchange: FakeExchange, file: Path) -> AsyncIterator[None]:
    """A recorder at work; it is ended in peace."""
    stopped = asyncio.Event()
    task = asyncio.create_task(recorder(exchange, file).run(stopped))
    try:
        yield
    finally:
        stopped.set()
        async with asyncio.timeout(10):
            await task


def of(kind: type, file: Path) -> list[AnyRecord]:
    return [record for record in open_recording(file).records() if isinstance(record, kind)]


async def test_what_came_is_recorded_and_replayed_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange:
        async with recording(exchange, file):
            await eventually(lambda: len(exchange.sent) > 60)
        opened = open_recording(file)
        answers = [record for record in of(RestAnswer, file) if isinstance(record, RestAnswer)]
        recorded = [record for record in of(StreamFrame, file) if isinstance(record, StreamFrame)]
        assert [answer.target for answer in answers] == exchange.asked
        assert {answer.target: answer.body for answer in answers} == exchange.bodies
        # What was on its way when the recorder ended is not in the file.
        sent = exchange.sent[: len(recorded)]
        assert [record.data for record in recorded] == sent
        assert len(sent) > 55
        assert all(record.binary for record in recorded)
    assert opened.complete
    assert opened.header.mark == "simulator-7"
    assert opened.header.exchange == "127.0.0.1_1"
    assert (opened.header.symbols, opened.header.form) == (WANTED.symbols, "DEFAULT")
    times = [record.at_us for record in opened.records()]
    assert times == sorted(times)
    async with ReplayServer(opened, speed=100) as server:
        for answer in answers:
            assert (await get(server, answer.target)).body == exchange.bodies[answer.target]
    types = [{"type": kind, "codes": list(WANTED.symbols)} for kind in WANTED.types]
    for speed in (1, 1_000):
        async with (
            ReplayServer(opened, speed=speed) as server,
            subscribed(server, *types) as client,
        ):
            assert await frames(client, len(sent)) == sent


async def test_the_opening_comes_before_the_stream_and_its_newest_candles_last(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange, recording(exchange, file):
        await eventually(lambda: exchange.sent)
        request = json.loads(exchange.requests[0])
    assert request[1:] == [
        {"type": "trade", "codes": ["KRW-BTC", "KRW-XRP"]},
        {"type": "orderbook", "codes": ["KRW-BTC", "KRW-XRP"]},
        {"format": "DEFAULT"},
    ]
    kinds = [type(record) for record in open_recording(file).records()]
    first = kinds.index(StreamOpened)
    assert set(kinds[:first]) == {RestAnswer}
    assert kinds[first + 1] is StreamRequest
    targets = [record.target for record in of(RestAnswer, file) if isinstance(record, RestAnswer)]
    assert targets[0] == "/market/all?is_details=true"
    assert targets[first - 1] == "/candles/minutes/1?market=KRW-XRP&count=200"
    paths = Counter(target.partition("?")[0] for target in targets[:first])
    assert paths == {
        "/market/all": 2,
        "/ticker": 1,
        "/ticker/all": 1,
        "/orderbook": 1,
        "/orderbook/instruments": 1,
        "/trades/ticks": 2,
        **{f"/candles/minutes/{unit}": 2 for unit in (1, 3, 5, 10, 15, 30, 60, 240)},
        **{f"/candles/{unit}": 2 for unit in ("seconds", "days", "weeks", "months", "years")},
    }


def test_a_round_begins_with_the_candles_that_ended_with_the_minute() -> None:
    symbols = ("KRW-BTC", "KRW-XRP")
    hour, plain = minutely(symbols, 29_000 * 60), minutely(symbols, 29_000 * 60 + 1)
    assert [question.partition("?")[0] for question in hour[:2]] == ["/candles/minutes/1"] * 2
    assert len(plain) == len(set(plain)) == 2 * (9 + 4) + 5
    assert set(hour) - set(plain) == {"/market/all", "/market/all?is_details=true"}
    order = [question.partition("?")[0] for question in plain]
    assert order.index("/candles/minutes/1") < order.index("/ticker") < order.index("/candles/days")


async def test_a_lost_stream_is_recorded_and_opened_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange, recording(exchange, file):
        await eventually(lambda: exchange.sent)
        exchange.refuse_upgrade(503)
        exchange.cut()
        await eventually(lambda: len(exchange.requests) == 2, timeout=10)
    reasons = [record.reason for record in of(StreamBreak, file) if isinstance(record, StreamBreak)]
    assert len(reasons) == 2
    assert reasons[0].startswith("lost")
    assert reasons[1] == "the upgrade was answered 503"
    assert len(of(StreamOpened, file)) == 2
    assert "the stream broke" in caplog.text


async def test_a_429_is_recorded_and_obeyed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange, recording(exchange, file):
        await eventually(lambda: exchange.asked)
        exchange.refuse_next(429, "Too many requests")
        await eventually(lambda: exchange.sent, timeout=10)
    answers = [record for record in of(RestAnswer, file) if isinstance(record, RestAnswer)]
    at = next(number for number, answer in enumerate(answers) if answer.status == 429)
    assert b"Too many requests" in answers[at].body
    assert answers[at + 1].at_us - answers[at].at_us >= 990_000
    assert "waiting 1 s" in caplog.text


async def test_a_418_stops_everything_for_the_time_it_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange, recording(exchange, file):
        await eventually(lambda: exchange.asked)
        exchange.refuse_next(418, "blocked for 3600 seconds")
        await eventually(lambda: "waiting 3600 s" in caplog.text)
        asked = len(exchange.asked)
    assert len(exchange.asked) == asked
    assert open_recording(file).complete


async def test_a_refused_upgrade_is_not_tried_again_too_soon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange, recording(exchange, file):
        await eventually(lambda: exchange.sent)
        exchange.refuse_upgrade(429)
        exchange.cut()
        await eventually(lambda: len(exchange.requests) == 2, timeout=10)
    breaks, opened = of(StreamBreak, file), of(StreamOpened, file)
    assert opened[1].at_us - breaks[1].at_us >= 990_000
    assert "the stream refused (429): waiting 1 s" in caplog.text


async def test_what_came_is_in_the_file_a_second_later(tmp_path: Path) -> None:
    file = tmp_path / "a.rec"
    async with FakeExchange(every_s=0.05) as exchange, recording(exchange, file):
        await eventually(lambda: exchange.sent)
        # Far less than a chunk holds.
        await eventually(lambda: of(StreamFrame, file), timeout=3)


async def test_it_ends_when_its_time_is_over(tmp_path: Path) -> None:
    file = tmp_path / "a.rec"
    wanted = WANTED._replace(seconds=0.3)
    async with FakeExchange() as exchange, asyncio.timeout(10):
        tally = await recorder(exchange, file, wanted).run(asyncio.Event())
    assert isinstance(tally, Tally)
    assert 0.3 <= tally.seconds < 2
    assert tally.frames == len(of(StreamFrame, file)) > 10
    assert tally.answers == len(of(RestAnswer, file))
    assert tally.size_bytes == file.stat().st_size


@pytest.mark.parametrize(
    ("status", "error"), [(429, RateLimitedError), (418, RateLimitedError), (503, ProtocolError)]
)
async def test_a_start_that_fails_leaves_no_file(
    tmp_path: Path, status: int, error: type[Exception]
) -> None:
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange:
        exchange.refuse_next(status)
        with pytest.raises(error, match=f"nothing was recorded.*{status}"):
            await recorder(exchange, file).run(asyncio.Event())
    assert not file.exists()
    with pytest.raises(TransportError, match="check the address"):
        await recorder(exchange, file).run(asyncio.Event())
    assert not file.exists()


async def test_a_market_that_is_not_listed_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange:
        with pytest.raises(UnknownSymbolError, match="closest: KRW-BTC"):
            await recorder(exchange, file, WANTED._replace(symbols=("KRW-BTX",))).run(
                asyncio.Event()
            )
    assert not file.exists()


async def test_a_recording_never_mixes_origins(tmp_path: Path) -> None:
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange:
        task = asyncio.create_task(recorder(exchange, file).run(asyncio.Event()))
        await eventually(lambda: exchange.asked)
        exchange.mark = None
        async with asyncio.timeout(10):
            with pytest.raises(StorageOriginError, match="without a mark"):
                await task
        assert not open_recording(file).complete
        source = Source(exchange.rest_url, exchange.ws_url, Origin("upbit", accepts_mark=False))
        exchange.mark = "simulator-7"
        with pytest.raises(StorageOriginError, match="expected real data only"):
            await Recorder(
                source, WANTED, tmp_path / "b", clock=SystemClock(), rng=random.Random(1)
            ).run(asyncio.Event())


async def test_a_file_that_is_there_is_left_alone_before_anything_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "a.rec"
    file.write_bytes(b"precious")
    async with FakeExchange() as exchange:
        with pytest.raises(InvalidRequestError, match="exists already"):
            await recorder(exchange, file).run(asyncio.Event())
        assert exchange.asked == []
    assert file.read_bytes() == b"precious"


async def test_a_question_without_an_answer_is_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "a.rec"
    stopped = asyncio.Event()
    async with FakeExchange() as exchange:
        task = asyncio.create_task(recorder(exchange, file).run(stopped))
        await eventually(lambda: exchange.asked)
    await eventually(lambda: "the stream broke: not reached" in caplog.text)
    stopped.set()
    await task
    failures = [record for record in of(RestFailure, file) if isinstance(record, RestFailure)]
    assert "was not reached" in failures[0].reason


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("", "trade", "DEFAULT", None), "symbols must name at least one"),
        (("BTC", "trade", "DEFAULT", None), "was 'BTC'"),
        (("KRW-BTC", "trades", "DEFAULT", None), "was 'trades'"),
        (("KRW-BTC", "trade", "JSON_LIST", None), "DEFAULT or SIMPLE"),
        (("KRW-BTC", "trade", "DEFAULT", 0.0), "more than 0"),
    ],
)
def test_what_cannot_be_recorded_is_named(
    asked: tuple[str, str, str, float | None], words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        read_wanted(*asked)


def test_what_is_wanted_is_read_in_any_case() -> None:
    assert read_wanted("krw-btc, KRW-XRP,krw-btc", "Trade,candle.1m", "simple", 2.0) == Wanted(
        ("KRW-BTC", "KRW-XRP"), ("trade", "candle.1m"), "SIMPLE", 2.0
    )
