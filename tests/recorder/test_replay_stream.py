"""The stream of a replay: the recorded frames at their times, to whoever wants them."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.recorder.clients import frames, get, silent, subscribed
from tests.recorder.conftest import ReplayOf
from tests.recorder.samples import answer, begin, book, broken, ended, frame, trade, write
from upbit_backbone.errors import InvalidRequestError, StorageCorruptError, TransportError
from upbit_backbone.recorder.opening import open_recording
from upbit_backbone.recorder.records import AnyRecord
from upbit_backbone.recorder.replay import ReplayServer

TRADES = {"type": "trade", "codes": ["KRW-BTC"]}
BOOKS = {"type": "orderbook", "codes": ["KRW-BTC"]}
MORE_THAN_SOCKETS_HOLD = 8_000
"""Books of 2.5 KB: some 10 MB wait in the buffers of a local connection."""


def recorded(*at: float) -> list[AnyRecord]:
    """A trade at each of these seconds, and the end."""
    played = [frame(second, trade(number)) for number, second in enumerate(at)]
    return [begin(), *played, ended(max(at, default=0.0))]


def sent(*numbers: int) -> list[bytes]:
    return [trade(number).encode() for number in numbers]


async def test_frames_come_byte_for_byte_at_their_times(
    replay_of: ReplayOf, clock: ManualClock
) -> None:
    async with (
        replay_of(recorded(1.0, 2.0, 2.0, 60.0)) as server,
        subscribed(server, TRADES) as client,
    ):
        assert client.response is not None
        assert client.response.headers["X-Simulated-Exchange"] == server.name
        assert client.response.headers["Date"] == "Mon, 15 Sep 2025 00:00:00 GMT"
        assert client.response.headers["remaining-req"] == "group=websocket; min=300; sec=4"
        assert await silent(client)
        clock.advance(1.01)
        assert await frames(client, 1) == sent(0)
        assert await silent(client)
        clock.advance(1)
        assert await frames(client, 2) == sent(1, 2)
        clock.advance(58)
        assert await frames(client, 1) == sent(3)
        assert await silent(client), "the socket stays open at the end, and nothing comes"


async def test_the_speed_divides_the_times(replay_of: ReplayOf, clock: ManualClock) -> None:
    async with (
        replay_of(recorded(10.0, 11.0), speed=10) as server,
        subscribed(server, TRADES) as client,
    ):
        assert await silent(client)
        clock.advance(1.01)
        assert await frames(client, 1) == sent(0)
        assert await silent(client)
        clock.advance(0.1)
        assert await frames(client, 1) == sent(1)


async def test_the_end_is_told_once(
    replay_of: ReplayOf, clock: ManualClock, tmp_path: Path
) -> None:
    path = write(tmp_path / "b.rec", recorded(1.0))
    told: list[None] = []
    server = ReplayServer(open_recording(path), clock=clock, on_end=lambda: told.append(None))
    async with server, subscribed(server, TRADES) as client:
        await silent(client)
        assert not told
        clock.advance(1.1)
        await eventually(lambda: told == [None])
        await silent(client)
    assert told == [None]


async def test_only_what_was_subscribed_comes(replay_of: ReplayOf, clock: ManualClock) -> None:
    records = [
        begin(),
        frame(0.1, trade(1)),
        frame(0.1, trade(2, "KRW-XRP")),
        frame(0.1, book(3)),
        frame(0.1, '{"status":"UP"}'),
        frame(0.2, trade(4)),
    ]
    both = {"type": "trade", "codes": ["KRW-XRP", "KRW-BTC", "krw-btc", "KRW-NO"]}
    async with (
        replay_of(records) as server,
        subscribed(server, TRADES) as btc,
        subscribed(server, both, BOOKS) as all_of_it,
    ):
        await silent(all_of_it)
        clock.advance(1)
        assert await frames(btc, 2) == sent(1, 4)
        assert await frames(all_of_it, 4) == [
            trade(1).encode(), trade(2, "KRW-XRP").encode(), book(3).encode(), trade(4).encode()
        ]  # fmt: skip


async def test_a_subscription_begins_with_the_last_frame_before_the_present(
    replay_of: ReplayOf, clock: ManualClock
) -> None:
    async with (
        replay_of(recorded(1.0, 2.0, 9.0)) as server,
        subscribed(server, TRADES) as first,
    ):
        await silent(first)
        clock.advance(3)
        await frames(first, 2)
        async with (
            subscribed(server, TRADES) as late,
            subscribed(server, TRADES | {"is_only_realtime": True}) as realtime,
            subscribed(server, TRADES | {"is_only_snapshot": True}) as snapshot,
        ):
            expected = trade(1, stream_type="SNAPSHOT").encode()
            assert await frames(late, 1) == [expected]
            assert await frames(snapshot, 1) == [expected]
            assert await silent(realtime)
            clock.advance(7)
            assert await frames(late, 1) == await frames(realtime, 1) == sent(2)
            assert await silent(snapshot)


async def test_a_snapshot_that_is_not_known_yet_is_the_first_frame(
    replay_of: ReplayOf, clock: ManualClock
) -> None:
    async with (
        replay_of(recorded(1.0, 2.0)) as server,
        subscribed(server, TRADES | {"is_only_snapshot": True}) as client,
    ):
        await silent(client)
        clock.advance(5)
        assert await frames(client, 1) == [trade(0, stream_type="SNAPSHOT").encode()]
        assert await silent(client)


async def test_recorded_snapshots_are_for_those_who_want_snapshots(
    replay_of: ReplayOf, clock: ManualClock
) -> None:
    snapshot = trade(1, stream_type="SNAPSHOT")
    records = [begin(), frame(0.2, snapshot), frame(0.3, trade(2))]
    async with (
        replay_of(records) as server,
        subscribed(server, TRADES) as both,
        subscribed(server, TRADES | {"is_only_realtime": True}) as realtime,
    ):
        await silent(realtime)
        clock.advance(1)
        assert await frames(both, 2) == [snapshot.encode(), *sent(2)]
        assert await frames(realtime, 1) == sent(2)


@pytest.mark.parametrize("form", ["SIMPLE", "JSON_LIST", "SIMPLE_LIST"])
async def test_another_format_keeps_every_number(
    replay_of: ReplayOf, clock: ManualClock, form: str
) -> None:
    async with (
        replay_of(recorded(1.0)) as server,
        subscribed(server, TRADES, form=form) as client,
    ):
        await silent(client)
        clock.advance(2)
        (got,) = await frames(client, 1)
    message = json.loads(got, parse_float=str, parse_int=str)
    if form.endswith("LIST"):
        (message,) = message
    names = ("tp", "tv", "sid") if form.startswith("SIMPLE") else (
        "trade_price", "trade_volume", "sequential_id"
    )  # fmt: skip
    assert [message[name] for name in names] == ["1.32448E8", "0.00755000", "17675862418730000"]
    if form == "JSON_LIST":
        assert got == b"[" + trade(0).encode() + b"]"


async def test_a_book_comes_as_deep_as_asked(replay_of: ReplayOf, clock: ManualClock) -> None:
    asked: Sequence[dict[str, object]] = (
        {"type": "orderbook", "codes": ["KRW-BTC.5", "KRW-BTC.7"]},
        {"type": "orderbook", "codes": ["KRW-BTC"], "level": 10000},
    )
    async with (
        replay_of([begin(), frame(0.1, book(1))]) as server,
        subscribed(server, *asked) as client,
    ):
        await silent(client)
        clock.advance(1)
        five, whole = await frames(client, 2)
        assert len(json.loads(five)["orderbook_units"]) == 5
        assert whole == book(1).encode(), "a depth that is not offered means all rows"
        assert await silent(client), "no grouped book was recorded"


async def test_a_request_replaces_the_one_before(replay_of: ReplayOf, clock: ManualClock) -> None:
    records = [begin(), frame(0.1, trade(0)), frame(0.1, book(1))]
    async with replay_of(records) as server, subscribed(server, TRADES) as client:
        await client.send(json.dumps([{"ticket": "b"}, BOOKS, {"format": "DEFAULT"}]))
        await client.send(json.dumps([{"ticket": "c"}, {"method": "LIST_SUBSCRIPTIONS"}]))
        (listed,) = await frames(client, 1)
        assert json.loads(listed) == {
            "method": "LIST_SUBSCRIPTIONS",
            "result": [{"type": "orderbook", "codes": ["KRW-BTC"], "level": 0}],
            "ticket": "c",
        }
        clock.advance(1)
        assert await frames(client, 1) == [book(1).encode()]
        assert await silent(client)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("half a fra", "WRONG_FORMAT"),
        ('{"ticket":"x"}', "WRONG_FORMAT"),
        ('[{"ticket":"x"},{"type":"trade","codes":["KRW-BTC"]},{"format":"XML"}]', "WRONG_FORMAT"),
        ('[{"type":"trade","codes":["KRW-BTC"]}]', "NO_TICKET"),
        ('[{"ticket":"x"}]', "NO_TYPE"),
        ('[{"ticket":"x"},{"codes":["KRW-BTC"]}]', "NO_TYPE"),
        ('[{"ticket":"x"},{"type":"trade"}]', "NO_CODES"),
        ('[{"ticket":"x"},{"type":"nope","codes":["KRW-BTC"]}]', "INVALID_PARAM"),
        ("[" * 100_000, "WRONG_FORMAT"),
    ],
)
async def test_a_bad_request_is_answered_and_closed(
    replay_of: ReplayOf, text: str, name: str
) -> None:
    async with replay_of(recorded(1.0)) as server, connect(server.ws_url) as client:
        await client.send(text)
        (error,) = await frames(client, 1)
        assert json.loads(error)["error"]["name"] == name
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionClosed):
                await client.recv()


async def test_ping_is_answered_with_up(replay_of: ReplayOf) -> None:
    async with replay_of(recorded(1.0)) as server, connect(server.ws_url) as client:
        await client.send("PING")
        assert await frames(client, 1) == [b'{"status":"UP"}']


async def test_where_the_recorder_lost_the_stream_clients_lose_it(
    replay_of: ReplayOf, clock: ManualClock
) -> None:
    records = [begin(), frame(1.0, trade(0)), broken(2.0), frame(5.0, trade(1))]
    async with replay_of(records) as server:
        async with subscribed(server, TRADES) as client:
            await silent(client)
            clock.advance(1.1)
            assert await frames(client, 1) == sent(0)
            clock.advance(1)
            async with asyncio.timeout(5):
                with pytest.raises(ConnectionClosed) as lost:
                    await client.recv()
            assert lost.value.rcvd is None, "without a close frame"
        async with subscribed(server, TRADES) as again:
            assert await frames(again, 1) == [trade(0, stream_type="SNAPSHOT").encode()]
            clock.advance(3)
            assert await frames(again, 1) == sent(1)


async def test_what_came_before_the_first_subscription_is_known_at_once(
    replay_of: ReplayOf,
) -> None:
    opening = [answer(0.0, "/market/all", "[1]"), answer(7.0, "/market/all", "[2]")]
    async with replay_of([*opening, begin(8.0), frame(9.0, trade(0))]) as server:
        got = await get(server, "/market/all")
    assert got.body == b"[2]"
    assert got.headers["Date"] == "Mon, 15 Sep 2025 00:00:08 GMT"


async def test_the_replay_waits_for_a_slow_reader_who_loses_nothing(
    replay_of: ReplayOf, clock: ManualClock
) -> None:
    played = [frame(0.1, book(number)) for number in range(MORE_THAN_SOCKETS_HOLD)]
    before, after = (answer(at, "/market/all", f"[{at}]") for at in (-1.0, 0.2))
    async with (
        replay_of([before, begin(), *played, after]) as server,
        subscribed(server, BOOKS, compression=None) as client,
    ):
        await silent(client)
        clock.advance(1)
        for _ in range(100):
            assert (await get(server, "/market/all")).body == b"[-1.0]"
        for number in range(MORE_THAN_SOCKETS_HOLD):
            assert await frames(client, 1) == [book(number).encode()]
        async with asyncio.timeout(5):
            while (await get(server, "/market/all")).body != b"[0.2]":
                pass


async def test_a_client_that_reads_nothing_does_not_hold_up_the_others(
    clock: ManualClock, tmp_path: Path
) -> None:
    played = [frame(0.1, book(number)) for number in range(MORE_THAN_SOCKETS_HOLD)]
    recording = open_recording(write(tmp_path / "a.rec", [begin(), *played]))
    async with (
        ReplayServer(recording, clock=clock, reads_within_s=0.2) as server,
        subscribed(server, BOOKS, compression=None),
        subscribed(server, BOOKS, compression=None) as reader,
    ):
        await silent(reader)
        clock.advance(1)
        got = await frames(reader, MORE_THAN_SOCKETS_HOLD)
    assert got == [record.data for record in played]


async def test_a_client_that_asks_and_never_reads_is_cut_off(replay_of: ReplayOf) -> None:
    async with replay_of([frame(-1.0, book(0)), begin(0.0)]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", _port(server))
        writer.write(
            b"GET /websocket/v1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        ask = json.dumps([{"ticket": "x"}, BOOKS]).encode()
        masked = bytes([0x81, 0x80 | len(ask), 0, 0, 0, 0]) + ask

        async def ask_for_ever() -> None:
            while True:
                writer.write(masked * 100)
                await writer.drain()

        async with asyncio.timeout(20):
            with pytest.raises(ConnectionError):
                await ask_for_ever()
        writer.close()
        assert (await get(server, "/nothing")).status == 404


async def test_the_time_told_never_runs_ahead_of_a_slow_reader_nor_back(
    replay_of: ReplayOf, clock: ManualClock
) -> None:
    played = [frame(1 + at / 100, book(at)) for at in range(MORE_THAN_SOCKETS_HOLD)]
    async with (
        replay_of([begin(), *played]) as server,
        subscribed(server, BOOKS, compression=None) as client,
    ):
        await silent(client)
        told = list[int]()
        for _ in range(5):
            clock.advance(20)
            await asyncio.sleep(0.02)
            told.append(server.clock.now_ms())
        assert told == sorted(told)
        assert told[-1] - told[0] < 60_000, "the sockets are full and the reader takes nothing"
        for number in range(MORE_THAN_SOCKETS_HOLD):
            assert await frames(client, 1) == [book(number).encode()]
            clock.advance(0.02)
            told.append(server.clock.now_ms())
        assert told == sorted(told)


async def test_what_waits_for_a_client_is_bounded_in_bytes(
    replay_of: ReplayOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large answer, asked for again and again, is cut off long before 20,000 frames."""
    monkeypatch.setattr("upbit_backbone.recorder.replay_stream.MOST_BYTES_WAITING", 1 << 20)
    codes = [f"KRW-{number:06d}" for number in range(50_000)]
    async with (
        replay_of(recorded(1.0)) as server,
        subscribed(server, {"type": "trade", "codes": codes}, compression=None) as client,
    ):
        ask = json.dumps([{"ticket": "x"}, {"method": "LIST_SUBSCRIPTIONS"}])
        client.transport.pause_reading()

        async def ask_and_read() -> None:
            for _ in range(200):
                await client.send(ask)
            client.transport.resume_reading()
            while True:
                await client.recv()

        async with asyncio.timeout(5):
            with pytest.raises(ConnectionClosed):
                await ask_and_read()


async def test_a_replay_can_be_started_again_on_its_port(
    replay_of: ReplayOf, tmp_path: Path
) -> None:
    async with replay_of(recorded(1.0)) as first, subscribed(first, TRADES):
        port = _port(first)
    recording = open_recording(tmp_path / "a.rec")
    async with ReplayServer(recording, port=port) as again:
        assert (await get(again, "/nothing")).status == 404
        assert _port(again) == port


async def test_a_replay_that_breaks_off_says_why(
    replay_of: ReplayOf, clock: ManualClock, tmp_path: Path
) -> None:
    large = frame(2.0, random.Random(1).randbytes(100_000))  # more than is read ahead
    records: list[AnyRecord] = [begin(), frame(1.0, trade(1)), large, frame(2.5, trade(2))]
    file = write(tmp_path / "b.rec", records, chunk_after_each=True)
    recording = open_recording(file)
    told = asyncio.Event()
    server = ReplayServer(recording, clock=clock, on_end=told.set)
    async with server, subscribed(server, TRADES) as client:
        await silent(client)
        os.truncate(file, 20_000)
        clock.advance(3)
        async with asyncio.timeout(5):
            await told.wait()
        assert isinstance(server.failure, StorageCorruptError)


async def test_a_taken_port_is_named(replay_of: ReplayOf, tmp_path: Path) -> None:
    async with replay_of(recorded(1.0)) as server:
        recording = open_recording(tmp_path / "a.rec")
        with pytest.raises(TransportError, match="the port is taken"):
            await ReplayServer(recording, port=_port(server)).start()


@pytest.mark.parametrize("speed", [0.0, 0.99, 1000.5, float("nan"), float("inf")])
def test_a_speed_out_of_range_is_refused(tmp_path: Path, speed: float) -> None:
    recording = open_recording(write(tmp_path / "a.rec", recorded(1.0)))
    with pytest.raises(InvalidRequestError, match=r"speed must be 1\.\.1000"):
        ReplayServer(recording, speed=speed)


def _port(server: ReplayServer) -> int:
    return int(server.rest_url.split(":")[2].split("/")[0])
