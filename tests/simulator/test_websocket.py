"""The WebSocket side, over real sockets, with a clock that the test moves."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import websockets
from yarl import URL

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.simulator.worlds import PAYLOADS, Caller, listings, market, ms
from upbit_backbone.clock import FrozenClock, ShiftedClock
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator import websocket as sessions
from upbit_backbone.simulator.market import Trade

KRW_MARKETS = [symbol for symbol in listings() if symbol.startswith("KRW-")]


class Stream:
    """A client of the WebSocket."""

    def __init__(self, connection: websockets.ClientConnection) -> None:
        self.connection = connection

    async def ask(self, *parts: Mapping[str, Any], form: str | None = None) -> None:
        request: list[Mapping[str, Any]] = [{"ticket": "test"}, *parts]
        if form is not None:
            request.append({"format": form})
        await self.connection.send(json.dumps(request))

    async def raw(self) -> bytes:
        async with asyncio.timeout(5):
            frame = await self.connection.recv()
        assert isinstance(frame, bytes), "the exchange sends binary frames"
        return frame

    async def frame(self) -> Any:
        return json.loads(await self.raw())

    async def frames(self, count: int) -> list[Any]:
        return [await self.frame() for _ in range(count)]

    async def nothing_comes(self) -> bool:
        """A request that is answered at once shows that nothing came before its answer."""
        await self.ask({"type": "ticker", "codes": ["KRW-BTC"], "is_only_snapshot": True})
        frame = await self.frame()
        return bool(frame["type"] == "ticker" and frame["stream_type"] == "SNAPSHOT")


@asynccontextmanager
async def stream(simulator: Simulator) -> AsyncIterator[Stream]:
    # With the default queue a client that leaves frames unread does not see the answer to
    # its close, and waits for it for ten seconds.
    connecting = websockets.connect(simulator.ws_url, compression=None, max_queue=None)
    async with connecting as connection:
        yield Stream(connection)


def trades_of(symbol: str, start_ms: int, end_ms: int) -> list[Trade]:
    """Of the span (start, end], oldest first."""
    found = market(symbol).trades_back(
        from_ms=start_ms + 1, before_ms=end_ms + 1, before_id=None, count=10**6
    )
    return found[::-1]


async def test_snapshots_come_first_then_what_happens(
    simulator: Simulator, clock: ManualClock
) -> None:
    clock.advance(30)
    async with stream(simulator) as client:
        await client.ask(
            {"type": "ticker", "codes": ["KRW-BTC"]},
            {"type": "trade", "codes": ["KRW-BTC"]},
            {"type": "orderbook", "codes": ["KRW-BTC"]},
        )
        snapshots = await client.frames(3)
        assert [frame["type"] for frame in snapshots] == ["ticker", "trade", "orderbook"]
        assert {frame["stream_type"] for frame in snapshots} == {"SNAPSHOT"}
        start_ms = clock.now_ms()
        clock.advance(10)
        expected = trades_of("KRW-BTC", start_ms, clock.now_ms())
        assert expected
        seen: dict[str, list[Any]] = {"ticker": [], "trade": [], "orderbook": []}
        while len(seen["ticker"]) < len(expected) or not seen["orderbook"]:
            frame = await client.frame()
            assert frame["stream_type"] == "REALTIME"
            seen[frame["type"]].append(frame)
    ids = [frame["sequential_id"] for frame in seen["trade"]]
    assert ids == [trade.sequential_id for trade in expected]
    assert [frame["trade_price"] for frame in seen["trade"]] == [
        trade.price * 1_000 for trade in expected
    ]
    assert [frame["trade_timestamp"] for frame in seen["ticker"]] == [
        trade.time_ms for trade in expected
    ]


async def test_what_is_streamed_is_what_rest_says(
    simulator: Simulator, caller: Caller, clock: ManualClock
) -> None:
    clock.advance(30)
    async with stream(simulator) as client:
        await client.ask(
            {"type": "ticker", "codes": ["KRW-BTC", "KRW-DOGE"]},
            {"type": "trade", "codes": ["KRW-BTC"]},
            {"type": "orderbook", "codes": ["KRW-BTC"]},
        )
        ticker, doge, trade, book = await client.frames(4)
    rest_ticker, rest_doge = await caller.rows("/ticker", markets="KRW-BTC,KRW-DOGE")
    for streamed, rest in ((ticker, rest_ticker), (doge, rest_doge)):
        common = set(streamed) & set(rest)
        assert len(common) > 20
        assert {name: streamed[name] for name in common} == {name: rest[name] for name in common}
        assert streamed["code"] == rest["market"]
        assert round((streamed["acc_ask_volume"] + streamed["acc_bid_volume"]) * 1e8) == round(
            streamed["acc_trade_volume"] * 1e8
        )
    rest_trade = (await caller.rows("/trades/ticks", market="KRW-BTC"))[0]
    for name in ("trade_price", "trade_volume", "ask_bid", "sequential_id", "prev_closing_price"):
        assert trade[name] == rest_trade[name]
    assert trade["trade_timestamp"] == rest_trade["timestamp"]
    assert trade["change_price"] == abs(rest_trade["change_price"])
    assert trade["best_bid_price"] < trade["best_ask_price"]
    rest_book = (await caller.rows("/orderbook", markets="KRW-BTC"))[0]
    for name in ("timestamp", "total_ask_size", "orderbook_units", "level"):
        assert book[name] == rest_book[name]


@pytest.mark.parametrize(
    ("kind", "recorded"),
    [
        ("ticker", "doc.default.ticker.KRW-BTC.20230221.json"),
        ("trade", "doc.default.trade.KRW-BTC.20241031.json"),
    ],
)
async def test_default_frames_have_the_recorded_fields(
    simulator: Simulator, kind: str, recorded: str
) -> None:
    sample = json.loads((PAYLOADS / "ws" / recorded).read_text("utf-8"))
    async with stream(simulator) as client:
        await client.ask({"type": kind, "codes": ["KRW-BTC"]})
        frame = await client.frame()
    assert set(frame) == set(sample)
    for name, value in sample.items():
        expected = (int, float) if isinstance(value, float) else type(value)
        assert isinstance(frame[name], expected | float if expected is int else expected), name


@pytest.mark.parametrize(
    ("kind", "recorded", "added"),
    [
        ("trade", "sample.simple.trade.json", {"bap", "bas", "bbp", "bbs"}),
        ("orderbook", "sample.simple.orderbook.json", {"lv"}),
    ],
)
async def test_simple_frames_have_the_recorded_keys(
    simulator: Simulator, kind: str, recorded: str, added: set[str]
) -> None:
    sample = json.loads((PAYLOADS / "ws" / recorded).read_text("utf-8"))
    async with stream(simulator) as client:
        await client.ask({"type": kind, "codes": ["KRW-BTC"]}, form="SIMPLE")
        frame = await client.frame()
    assert set(frame) == set(sample) | added
    if "obu" in sample:
        assert set(frame["obu"][0]) == set(sample["obu"][0])
    else:
        assert frame["td"] == "2025-09-14"


async def test_both_formats_say_the_same(simulator: Simulator) -> None:
    async with stream(simulator) as client:
        await client.ask({"type": "ticker", "codes": ["KRW-BTC"], "is_only_snapshot": True})
        default = await client.raw()
        await client.ask(
            {"type": "ticker", "codes": ["KRW-BTC"], "is_only_snapshot": True}, form="SIMPLE"
        )
        simple = await client.raw()
        await client.ask(
            {"type": "ticker", "codes": ["KRW-BTC"], "is_only_snapshot": True}, form="JSON_LIST"
        )
        listed = await client.frame()
    # Upbit writes large prices with an exponent in DEFAULT and plainly in SIMPLE.
    assert b'"trade_price":1.6' in default
    assert b'"tp":16' in simple
    assert list(json.loads(default).values()) == list(json.loads(simple).values())
    assert listed == [json.loads(default)]
    keys = json.loads(simple)
    assert {"tdt", "ttm", "atp24h", "h52wdt", "its", "dd"} <= set(keys)


async def test_only_what_was_asked_for_is_sent(simulator: Simulator, clock: ManualClock) -> None:
    async with stream(simulator) as client:
        await client.ask({"type": "trade", "codes": ["KRW-BTC"], "is_only_snapshot": True})
        assert (await client.frame())["stream_type"] == "SNAPSHOT"
        clock.advance(9)
        await client.ask({"type": "trade", "codes": ["KRW-BTC"], "is_only_realtime": True})
        await eventually(lambda: len(simulator._live._readers) == 1)
        start_ms = clock.now_ms()
        clock.advance(9)
        first = await client.frame()
    assert first["stream_type"] == "REALTIME"
    expected = trades_of("KRW-BTC", start_ms, clock.now_ms())[0]
    assert first["sequential_id"] == expected.sequential_id


async def test_a_request_replaces_the_one_before(simulator: Simulator, clock: ManualClock) -> None:
    async with stream(simulator) as client:
        await client.ask({"type": "trade", "codes": ["KRW-BTC"]})
        assert (await client.frame())["code"] == "KRW-BTC"
        await client.ask({"type": "trade", "codes": ["KRW-XRP"]}, form="SIMPLE")
        assert (await client.frame())["cd"] == "KRW-XRP"
        clock.advance(9)
        later = await client.frames(4)
    assert {frame["cd"] for frame in later} == {"KRW-XRP"}


async def test_unknown_codes_are_ignored_silently(simulator: Simulator) -> None:
    async with stream(simulator) as client:
        await client.ask({"type": "ticker", "codes": ["KRW-NOPE", "krw-xrp", "KRW-DOGE"]})
        assert (await client.frame())["code"] == "KRW-DOGE"
        await client.ask({"type": "ticker", "codes": ["KRW-NOPE"]})
        await client.ask({"type": "orderbook", "codes": ["KRW-BTC"], "level": 3})
        assert await client.nothing_comes()


async def test_a_market_that_is_not_listed_yet_is_silent(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with stream(simulator) as client:
        await client.ask({"type": "ticker", "codes": ["KRW-SIM112"]})
        assert await client.nothing_comes()


async def test_books_come_when_they_change_and_as_deep_as_asked(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with stream(simulator) as client:
        await client.ask({"type": "orderbook", "codes": ["KRW-BTC.5", "KRW-XRP.1"]})
        books = await client.frames(2)
        assert [len(book["orderbook_units"]) for book in books] == [5, 1]
        assert [book["code"] for book in books] == ["KRW-BTC", "KRW-XRP"]
        stamps = [books[0]["timestamp"]]
        while len(stamps) < 6:
            clock.advance(0.2)
            book = await client.frame()
            if book["code"] == "KRW-BTC":
                assert book["stream_type"] == "REALTIME"
                assert book["timestamp"] == clock.now_ms() // 200 * 200
                stamps.append(book["timestamp"])
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("no json", "WRONG_FORMAT", "Format 이 맞지 않습니다."),
        (b"\xff\xfe", "WRONG_FORMAT", "Format 이 맞지 않습니다."),
        (
            '[{"ticket":"x"},{"type":"nope","codes":["KRW-BTC"]}]',
            "INVALID_PARAM",
            "nope 은 지원하지 않는 타입입니다.",
        ),
    ],
)
async def test_an_error_is_told_then_the_connection_closed(
    simulator: Simulator, text: str | bytes, name: str, message: str
) -> None:
    async with stream(simulator) as client:
        await client.ask({"type": "ticker", "codes": ["KRW-BTC"]})
        await client.frame()
        await client.connection.send(text)
        assert await client.frame() == {"error": {"name": name, "message": message}}
        with pytest.raises(websockets.ConnectionClosedOK):
            await client.raw()
        assert client.connection.close_code == 1000


async def test_a_text_ping_is_answered_with_status_up(simulator: Simulator) -> None:
    async with stream(simulator) as client:
        await client.connection.send("PING")
        assert await client.raw() == b'{"status":"UP"}'


async def test_a_protocol_ping_is_answered(simulator: Simulator) -> None:
    async with stream(simulator) as client, asyncio.timeout(5):
        await (await client.connection.ping())


async def test_the_upgrade_is_marked_counted_and_dated(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with aiohttp.ClientSession() as session:
        for left in (4, 3, 2, 1, 0):
            async with session.ws_connect(simulator.ws_url) as socket:
                headers = socket._response.headers
                assert headers["remaining-req"] == f"group=websocket; min=300; sec={left}"
                assert headers["limit-by-ip"] == "Yes"
                assert headers["X-Simulated-Exchange"] == "simulator-1"
                assert headers["Date"] == "Mon, 15 Sep 2025 00:00:00 GMT"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(simulator.ws_url)
        assert caught.value.status == 429
        clock.advance(1)
        async with session.ws_connect(simulator.ws_url):
            pass
        async with session.get(simulator.ws_url.replace("ws:", "http:")) as response:
            assert response.status == 404


async def test_frames_are_packed_for_who_offers_it(simulator: Simulator) -> None:
    async with websockets.connect(simulator.ws_url) as connection:
        assert connection.response is not None
        offered = connection.response.headers.get("Sec-WebSocket-Extensions", "")
        assert "permessage-deflate" in offered
        await connection.send('[{"ticket":"x"},{"type":"orderbook","codes":["KRW-BTC"]}]')
        assert len(json.loads(await connection.recv())["orderbook_units"]) == 30


async def test_every_market_can_be_asked_for_at_once(
    simulator: Simulator, clock: ManualClock
) -> None:
    clock.set_wall(ms("2026-09-01T12:00:00"))
    async with stream(simulator) as client:
        await client.ask({"type": "ticker", "codes": KRW_MARKETS})
        snapshots = await client.frames(289)
        assert [frame["code"] for frame in snapshots] == KRW_MARKETS
        start_ms = clock.now_ms()
        clock.advance(5)
        expected = sorted(
            trade.time_ms
            for symbol in ("KRW-BTC", "KRW-XRP", "KRW-SIM003")
            for trade in trades_of(symbol, start_ms, clock.now_ms())
        )
        seen: list[int] = []
        while len(seen) < len(expected):
            frame = await client.frame()
            assert frame["stream_type"] == "REALTIME"
            if frame["code"] in ("KRW-BTC", "KRW-XRP", "KRW-SIM003"):
                seen.append(frame["trade_timestamp"])
    assert seen == expected


async def test_two_readers_are_told_the_same(simulator: Simulator, clock: ManualClock) -> None:
    async with stream(simulator) as one, stream(simulator) as other:
        for client in (one, other):
            await client.ask({"type": "trade", "codes": ["KRW-BTC"]})
            await client.frame()
            clock.advance(3)
        count = len(trades_of("KRW-BTC", AUTUMN_2025_MS + 3_000, clock.now_ms()))
        late = await other.frames(count)
        all_of_it = await one.frames(
            count + len(trades_of("KRW-BTC", AUTUMN_2025_MS, AUTUMN_2025_MS + 3_000))
        )
    assert [frame["sequential_id"] for frame in late] == [
        frame["sequential_id"] for frame in all_of_it[-count:]
    ]


async def test_after_a_long_standstill_the_stream_goes_on_from_now(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with stream(simulator) as client:
        await client.ask({"type": "trade", "codes": ["KRW-BTC"]})
        await client.frame()
        clock.advance(3_600)
        slept_until_ms = clock.now_ms()
        # The stream looks at its clock before it is asked to go on.
        await eventually(lambda: simulator._live._agenda[0][0] > slept_until_ms)
        clock.advance(9)
        frame = await client.frame()
    assert frame["trade_timestamp"] > slept_until_ms


async def test_a_frozen_clock_streams_snapshots_only() -> None:
    async with Simulator(clock=FrozenClock(AUTUMN_2025_MS)) as frozen, stream(frozen) as client:
        await client.ask(
            {"type": "trade", "codes": ["KRW-BTC"]}, {"type": "orderbook", "codes": ["KRW-BTC"]}
        )
        assert [f["stream_type"] for f in await client.frames(2)] == ["SNAPSHOT"] * 2
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await client.connection.recv()


async def test_a_running_clock_moves_the_market_by_itself() -> None:
    clock = ShiftedClock(AUTUMN_2025_MS + 5_000)
    async with Simulator(clock=clock, first_symbol="KRW-BTC") as live, stream(live) as client:
        await client.ask({"type": "orderbook", "codes": ["KRW-BTC"]})
        book, later = await client.frames(2)
        assert later["stream_type"] == "REALTIME"
        assert later["timestamp"] > book["timestamp"]
        assert 0 <= clock.now_ms() - later["timestamp"] < 1_000


async def test_who_reads_too_slowly_is_cut_off(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_FRAMES_WAITING", 50)
    narrow = socket.create_connection(("127.0.0.1", URL(simulator.ws_url).port))
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connecting = websockets.connect(simulator.ws_url, sock=narrow, compression=None)
    async with connecting as connection:
        session = next(iter(simulator._sessions))
        assert session._transport is not None
        sending = session._transport.get_extra_info("socket")
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        await Stream(connection).ask({"type": "orderbook", "codes": ["KRW-BTC"] * 300})
        await eventually(lambda: not simulator._sessions)
