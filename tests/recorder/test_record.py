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
from upbit_backbone.clock import Clock, SystemClock
from upbit_backbone.errors import (
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    StorageOriginError,
    StorageUnavailableError,
    TransportError,
    UnknownSymbolError,
)
from upbit_backbone.origin import Origin
from upbit_backbone.recorder import record
from upbit_backbone.recorder.opening import open_recording
from upbit_backbone.recorder.questions import minutely
from upbit_backbone.recorder.record import (
    Recorder,
    Source,
    Tally,
    Wanted,
    most_backoff_s,
    read_wanted,
    refused_for_s,
)
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


def recorder(
    exchange: FakeExchange | ReplayServer,
    file: Path,
    wanted: Wanted = WANTED,
    *,
    clock: Clock | None = None,
    overwrite: bool = False,
) -> Recorder:
    source = Source(exchange.rest_url, exchange.ws_url, Origin("127.0.0.1_1"))
    return Recorder(
        source, wanted, file, clock=clock or SystemClock(), rng=Hasty(1), spacing_s=0.0,
        overwrite=overwrite,
    )  # fmt: skip


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
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.recorder.record.TOO_FAST_S", 0.2)
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange, recording(exchange, file):
        await eventually(lambda: exchange.asked)
        exchange.refuse_next(429, "Too many requests")
        await eventually(lambda: exchange.sent, timeout=10)
    answers = [record for record in of(RestAnswer, file) if isinstance(record, RestAnswer)]
    at = next(number for number, answer in enumerate(answers) if answer.status == 429)
    assert b"Too many requests" in answers[at].body
    assert answers[at + 1].at_us - answers[at].at_us >= 199_000
    assert "waiting 0.2 s" in caplog.text


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
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.recorder.record.TOO_FAST_S", 0.3)
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange, recording(exchange, file):
        await eventually(lambda: exchange.sent)
        exchange.refuse_upgrade(429)
        exchange.cut()
        await eventually(lambda: len(exchange.requests) == 2, timeout=10)
    breaks, opened = of(StreamBreak, file), of(StreamOpened, file)
    assert opened[1].at_us - breaks[1].at_us >= 290_000
    assert "the stream refused (429): waiting 0.3 s" in caplog.text


async def test_what_came_is_in_the_file_a_second_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert record.FLUSH_EVERY_S == 1.0
    monkeypatch.setattr(record, "FLUSH_EVERY_S", 0.1)
    file = tmp_path / "a.rec"
    async with FakeExchange(every_s=0.05) as exchange, recording(exchange, file):
        await eventually(lambda: exchange.sent)
        # Far less than a chunk holds.
        await eventually(lambda: of(StreamFrame, file), timeout=2)


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


async def test_a_folder_or_a_name_that_cannot_be_is_refused_before_anything_is_asked(
    tmp_path: Path,
) -> None:
    async with FakeExchange() as exchange:
        for overwrite in (False, True):
            with pytest.raises(InvalidRequestError, match="is a folder: give the name of a file"):
                await recorder(exchange, tmp_path, overwrite=overwrite).run(asyncio.Event())
        with pytest.raises(StorageUnavailableError, match="cannot be written: File name too long"):
            await recorder(exchange, tmp_path / ("x" * 300)).run(asyncio.Event())
        assert exchange.asked == []


async def test_it_can_be_ended_before_the_first_answer_and_leaves_no_file(tmp_path: Path) -> None:
    file, stopped = tmp_path / "a.rec", asyncio.Event()
    async with FakeExchange() as exchange:
        exchange.answering.clear()
        task = asyncio.create_task(recorder(exchange, file).run(stopped))
        await eventually(lambda: exchange.asked)
        stopped.set()
        async with asyncio.timeout(1):
            tally = await task
        exchange.answering.set()
    assert tally == Tally(0.0, 0, 0, 0, 0)
    assert not file.exists()


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_ended_at_any_moment_it_leaves_a_file_that_can_be_replayed(
    tmp_path: Path, how: str
) -> None:
    """Cancelled, it lacks its end; whatever was asked before is in it."""
    moments = (1, 2, 30, 58, 62)
    for moment in moments:
        file, stopped = tmp_path / f"{moment}.rec", asyncio.Event()
        async with FakeExchange() as exchange:
            task = asyncio.create_task(recorder(exchange, file).run(stopped))
            await eventually(
                lambda: len(exchange.asked) + len(exchange.sent) >= moment  # noqa: B023
            )
            if how == "stopped":
                stopped.set()
                await task
            else:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        if how == "cancelled" and not file.exists():
            assert moment == 1
            continue
        if file.exists():
            found = open_recording(file)
            assert found.complete == (how == "stopped")
            async with ReplayServer(found) as server:
                assert (await get(server, "/market/all?is_details=true")).status == 200


class Retarded(SystemClock):
    """The machine's clock, set by a test."""

    shift_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.shift_ms


async def test_a_clock_that_is_set_back_does_not_stop_the_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round is due once a minute, and the file's own time never goes back."""
    monkeypatch.setattr("upbit_backbone.recorder.record.MINUTE_MS", 200)
    monkeypatch.setattr("upbit_backbone.recorder.record.ROUND_AFTER_MINUTE_MS", 0)
    file, clock, stopped = tmp_path / "a.rec", Retarded(), asyncio.Event()
    async with FakeExchange() as exchange:
        task = asyncio.create_task(recorder(exchange, file, clock=clock).run(stopped))
        await eventually(lambda: exchange.sent)
        clock.shift_ms = -3_600_000
        asked = len(exchange.asked)
        await eventually(lambda: len(exchange.asked) > asked + 31, timeout=3)
        stopped.set()
        await task
    records = list(open_recording(file).records())
    assert [record.at_us for record in records] == sorted(record.at_us for record in records)
    assert records[0].wall_ms - records[-1].wall_ms > 3_500_000


def test_the_back_off_of_a_long_outage_stays_at_its_most() -> None:
    assert [most_backoff_s(failures) for failures in (0, 1, 2, 10, 5_000)] == [0.5, 1, 2, 30, 30]


def test_a_ban_is_never_obeyed_for_ever() -> None:
    assert refused_for_s(418, b"blocked for 42 seconds") == 42
    assert refused_for_s(418, b"no number, 418") == 60
    assert refused_for_s(418, b"9" * 900) == 86_400
    assert refused_for_s(429, b"10") == 1


async def test_headers_that_are_no_text_are_recorded_as_well_as_can_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = b'[{"market":"KRW-BTC"},{"market":"KRW-XRP"}]'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Odd: caf\xe9\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    file, stopped = tmp_path / "a.rec", asyncio.Event()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        source = Source(f"http://{address}", f"ws://{address}", Origin("odd"))
        task = asyncio.create_task(
            Recorder(source, WANTED, file, clock=SystemClock(), rng=Hasty(1), spacing_s=0.0).run(
                stopped
            )
        )
        await eventually(lambda: "the stream broke" in caplog.text)
        stopped.set()
        await task
    (first, *_) = of(RestAnswer, file)
    assert isinstance(first, RestAnswer)
    assert (first.body, dict(first.headers)["x-odd"]) == (body, "caf?")


async def test_a_body_that_is_too_large_is_a_failure_and_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.recorder.record.MOST_BODY_BYTES", 200)
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange, recording(exchange, file):
        await eventually(lambda: exchange.sent)
    reasons = {one.reason for one in of(RestFailure, file) if isinstance(one, RestFailure)}
    assert len(reasons) == 1
    assert "more than 200 bytes" in reasons.pop()


async def test_a_replay_can_be_recorded_and_replayed_in_turn(tmp_path: Path) -> None:
    first, second = tmp_path / "first.rec", tmp_path / "second.rec"
    async with FakeExchange() as exchange, recording(exchange, first):
        await eventually(lambda: len(exchange.sent) > 150)
    original = open_recording(first)
    ended = asyncio.Event()
    async with ReplayServer(original, on_end=ended.set) as server, asyncio.timeout(10):
        stopped = asyncio.Event()
        task = asyncio.create_task(recorder(server, second).run(stopped))
        await ended.wait()
        await eventually(lambda: of(StreamFrame, second))
        stopped.set()
        await task
    again = open_recording(second)
    assert again.header.mark == original.name
    copied, sent = (
        [one.data for one in of(StreamFrame, file) if isinstance(one, StreamFrame)]
        for file in (second, first)
    )
    live = [data for data in copied if b"SNAPSHOT" not in data]
    assert live == sent[-len(live) :]
    async with ReplayServer(again) as server:
        assert server.name not in (original.name, again.header.mark)
        target = "/market/all?is_details=true"
        assert (await get(server, target)).body == exchange.bodies[target]


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
