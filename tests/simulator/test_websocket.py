"""The WebSocket side, over real sockets, with a clock that the test moves."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import websockets
from yarl import URL

from tests.eventually import eventually
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.simulator.streams import Stream, stream, streaming
from tests.simulator.worlds import PAYLOADS, Caller, listings, market, ms
from upbit_backbone.clock import FrozenClock, ShiftedClock
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator import websocket as sessions
from upbit_backbone.simulator.live import Topic
from upbit_backbone.simulator.regime import Trade
from upbit_backbone.simulator.settings import SimulatorSettings

KRW_MARKETS = [symbol for symbol in listings() if symbol.startswith("KRW-")]


def trades_of(symbol: str, start_ms: int, end_ms: int) -> list[Trade]:
    """Of the span (start, end], oldest first."""
    found = market(symbol).trades_back(
        from_ms=start_ms + 1, before_ms=end_ms + 1, before_id=None, count=10**6
    )
    return found[::-1]


@pytest.fixture
async def prompt(clock: ManualClock) -> AsyncIterator[Simulator]:
    """A simulator that tells every trade as soon as it is done."""
    async with Simulator(clock=clock, settings=SimulatorSettings(late_trades=False)) as simulator:
        yield simulator


async def test_snapshots_come_first_then_what_happens(
    prompt: Simulator, clock: ManualClock
) -> None:
    clock.advance(30)
    async with stream(prompt) as client:
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
        common = (set(streamed) & set(rest)) - {"timestamp"}
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


async def test_only_what_was_asked_for_is_sent(prompt: Simulator, clock: ManualClock) -> None:
    async with stream(prompt) as client:
        await client.ask({"type": "trade", "codes": ["KRW-BTC"], "is_only_snapshot": True})
        assert (await client.frame())["stream_type"] == "SNAPSHOT"
        clock.advance(9)
        await client.ask({"type": "trade", "codes": ["KRW-BTC"], "is_only_realtime": True})
        await eventually(lambda: prompt._live.followed == {Topic("trade", "KRW-BTC")})
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
        await client.ask({"type": "trade", "codes": ["KRW-SIM112"]})
        assert await client.until_listed() == []
        assert not simulator._live.followed


async def test_a_book_is_as_deep_as_asked(simulator: Simulator) -> None:
    codes = ["KRW-BTC", "KRW-BTC.1", "KRW-BTC.5", "KRW-BTC.15", "KRW-BTC.30", "KRW-BTC.7"]
    async with stream(simulator) as client:
        await client.ask({"type": "orderbook", "codes": codes})
        books = await client.frames(6)
    assert [len(book["orderbook_units"]) for book in books] == [30, 1, 5, 15, 30, 30]
    assert {book["code"] for book in books} == {"KRW-BTC"}
    assert len({book["total_ask_size"] for book in books}) == 1


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


async def test_a_text_ping_is_answered_on_the_servers_own_clock(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with stream(simulator) as client:
        await client.connection.send("PING")
        assert await client.until_listed() == []
        for _ in range(3):
            clock.advance(10)
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


async def test_every_market_can_be_asked_for_at_once(prompt: Simulator, clock: ManualClock) -> None:
    clock.set_wall(ms("2026-09-01T12:00:00"))
    async with stream(prompt) as client:
        await client.ask({"type": "ticker", "codes": KRW_MARKETS})
        snapshots = await client.frames(289)
        assert [frame["code"] for frame in snapshots] == KRW_MARKETS
        start_ms = clock.now_ms()
        clock.advance(5)
        expected = {
            symbol: [trade.time_ms for trade in trades_of(symbol, start_ms, clock.now_ms())]
            for symbol in KRW_MARKETS
        }
        seen: dict[str, list[int]] = {symbol: [] for symbol in KRW_MARKETS}
        for _ in range(sum(map(len, expected.values()))):
            frame = await client.frame()
            assert frame["stream_type"] == "REALTIME"
            seen[frame["code"]].append(frame["trade_timestamp"])
    assert len(expected["KRW-BTC"]) > 1
    assert seen == expected


async def test_two_readers_are_told_the_same(prompt: Simulator, clock: ManualClock) -> None:
    async with stream(prompt) as one, stream(prompt) as other:
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
        await eventually(lambda: simulator._live._feeds["KRW-BTC"].planned_ms > slept_until_ms)
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
    monkeypatch.setattr(sessions, "MOST_BYTES_WAITING", 100_000)
    monkeypatch.setattr(sessions, "_MOST_BYTES_UNSENT", 10_000)
    narrow = socket.create_connection(("127.0.0.1", URL(simulator.ws_url).port))
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connecting = websockets.connect(simulator.ws_url, sock=narrow, compression=None)
    async with connecting as connection:
        session = next(iter(simulator._sessions))
        assert session._transport is not None
        sending = session._transport.get_extra_info("socket")
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        wish = {"type": "orderbook", "codes": ["KRW-BTC"]}
        await Stream(connection).ask(*[wish] * 300)
        await eventually(lambda: not simulator._sessions)


@pytest.mark.parametrize("kind", ["ticker", "trade", "orderbook", "candle.1s", "candle.240m"])
async def test_all_formats_say_the_same(simulator: Simulator, kind: str) -> None:
    raw: dict[str, bytes] = {}
    async with stream(simulator) as client:
        for form in (None, "SIMPLE", "JSON_LIST", "SIMPLE_LIST"):
            asked = {"type": kind, "codes": ["KRW-BTC"], "is_only_snapshot": True}
            await client.ask(asked, form=form)
            raw[form or "DEFAULT"] = await client.raw()
    assert raw["JSON_LIST"] == b"[" + raw["DEFAULT"] + b"]"
    assert raw["SIMPLE_LIST"] == b"[" + raw["SIMPLE"] + b"]"
    default, simple = json.loads(raw["DEFAULT"]), json.loads(raw["SIMPLE"])
    assert default["type"] == simple["ty"] == kind
    assert _values(default) == _values(simple)


def _values(message: Any) -> Any:
    if isinstance(message, dict):
        return [_values(value) for value in message.values()]
    if isinstance(message, list):
        return [_values(value) for value in message]
    return message


async def test_candle_frames_have_the_recorded_fields(simulator: Simulator) -> None:
    sample = json.loads(
        (PAYLOADS / "ws" / "doc.default.candle_1s.KRW-BTC.20250102.json").read_text("utf-8")
    )
    kinds = ["1s", "1m", "3m", "5m", "10m", "15m", "30m", "60m", "240m"]
    async with stream(simulator) as client:
        await client.ask(*({"type": f"candle.{kind}", "codes": ["KRW-BTC"]} for kind in kinds))
        frames = await client.frames(9)
        await client.ask({"type": "candle.1m", "codes": ["KRW-BTC"]}, form="SIMPLE")
        simple = await client.frame()
    for kind, frame in zip(kinds, frames, strict=True):
        assert set(frame) == set(sample)
        assert frame["type"] == f"candle.{kind}"
        assert frame["stream_type"] == "SNAPSHOT"
    assert set(simple) == (
        {"ty", "cd", "cdttmu", "cdttmk", "op", "hp", "lp", "tp", "catv", "catp", "tms", "st"}
    )


async def test_the_snapshot_of_a_ticker_is_stamped_as_by_rest(
    simulator: Simulator, caller: Caller, clock: ManualClock
) -> None:
    clock.advance(45)
    symbols = ["KRW-BTC", "BTC-SC"]
    async with stream(simulator) as client:
        await client.ask({"type": "ticker", "codes": symbols})
        streamed = {frame["code"]: frame["timestamp"] for frame in await client.frames(2)}
    rows = await caller.rows("/ticker", markets=",".join(symbols))
    assert streamed == {row["market"]: row["timestamp"] for row in rows}
    assert streamed["BTC-SC"] < clock.now_ms() - 1_000


async def test_candles_are_what_rest_says(
    simulator: Simulator, caller: Caller, clock: ManualClock
) -> None:
    clock.advance(45)
    async with stream(simulator) as client:
        await client.ask(
            {"type": "candle.1s", "codes": ["KRW-XRP"]},
            {"type": "candle.15m", "codes": ["KRW-XRP"]},
        )
        second, quarter = await client.frames(2)
    paths = {"/candles/seconds": second, "/candles/minutes/15": quarter}
    for path, streamed in paths.items():
        rest = (await caller.rows(path, market="KRW-XRP"))[0]
        common = (set(rest) & set(streamed)) - {"timestamp"}
        assert len(common) == 8
        assert {name: streamed[name] for name in common} == {name: rest[name] for name in common}
        assert streamed["timestamp"] >= rest["timestamp"]


async def test_books_are_grouped_for_won_markets_only(simulator: Simulator, caller: Caller) -> None:
    async with stream(simulator) as client:
        await client.ask(
            {"type": "orderbook", "codes": ["KRW-BTC"], "level": 10_000, "is_only_snapshot": True},
            {"type": "orderbook", "codes": ["KRW-BTC.5"], "level": "1000000"},
            {"type": "orderbook", "codes": ["KRW-BTC"]},
            {"type": "orderbook", "codes": ["USDT-BTC", "BTC-ETH"], "level": 1},
            {"type": "orderbook", "codes": ["KRW-BTC"], "level": 3},
            form="SIMPLE",
        )
        fine, coarse, whole = await client.frames(3)
        assert await client.nothing_comes()
    assert [book["lv"] for book in (fine, coarse, whole)] == [10_000, 1_000_000, 0]
    assert len(coarse["obu"]) == 5
    for book in (fine, coarse):
        assert all(row["ap"] % book["lv"] == row["bp"] % book["lv"] == 0 for row in book["obu"])
    rest = (await caller.rows("/orderbook", markets="KRW-BTC", level="10000"))[0]
    assert [row["ap"] for row in fine["obu"]] == [
        row["ask_price"] for row in rest["orderbook_units"]
    ]
    assert fine["tas"] == rest["total_ask_size"]


async def test_the_list_of_subscriptions_repeats_what_was_asked(simulator: Simulator) -> None:
    async with stream(simulator) as client:
        await client.connection.send('[{"ticket":"x"},{"method":"LIST_SUBSCRIPTIONS"}]')
        empty = {"method": "LIST_SUBSCRIPTIONS", "result": [], "ticket": "x"}
        assert await client.frame() == empty
        await client.ask(
            {"type": "ticker", "codes": ["KRW-BTC"], "is_only_realtime": True},
            {"type": "orderbook", "codes": ["KRW-XRP.5"], "level": 1, "is_only_realtime": True},
        )
        await client.connection.send('[{"ticket":"y"},{"method":"LIST_SUBSCRIPTIONS"}]')
        assert await client.frame() == {
            "method": "LIST_SUBSCRIPTIONS",
            "result": [
                {"type": "ticker", "codes": ["KRW-BTC"]},
                {"type": "orderbook", "codes": ["KRW-XRP.5"], "level": 1},
            ],
            "ticket": "y",
        }


async def test_asking_for_the_list_changes_the_running_format(
    prompt: Simulator, clock: ManualClock
) -> None:
    async with stream(prompt) as client:
        await client.ask({"type": "trade", "codes": ["KRW-BTC"], "is_only_realtime": True})
        await client.connection.send(
            '[{"ticket":"x"},{"method":"LIST_SUBSCRIPTIONS"},{"format":"SIMPLE_LIST"}]'
        )
        assert await client.frame() == [
            {
                "mthd": "LIST_SUBSCRIPTIONS",
                "rslt": [{"ty": "trade", "cds": ["KRW-BTC"]}],
                "tckt": "x",
            }
        ]
        clock.advance(9)
        assert (await client.frame())[0]["ty"] == "trade"


async def test_snapshots_may_come_in_two_bursts(clock: ManualClock) -> None:
    asked = [{"type": kind, "codes": ["KRW-BTC"]} for kind in ("ticker", "trade", "orderbook")]
    async with streaming(clock, snapshot_bursts_ms=(60.0, 180.0)) as (_, client):
        await client.ask(*asked)  # the table is built
        await client.frames(3)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await client.ask(*asked)
        arrived = []
        for kind in ("ticker", "trade", "orderbook"):
            frame = await client.frame()
            assert (frame["type"], frame["stream_type"]) == (kind, "SNAPSHOT")
            arrived.append(loop.time() - began)
    assert arrived[0] >= 0.06
    assert arrived[1] < 0.18 <= arrived[2]


@pytest.mark.parametrize("keeps_alive", [True, False])
async def test_a_silent_connection_is_cut_without_a_close_frame(
    clock: ManualClock, keeps_alive: bool
) -> None:
    settings = {"idle_timeout_s": 6.0, "inbound_data_keeps_alive": keeps_alive}
    async with streaming(clock, **settings) as (simulator, client):
        await client.ask({"type": "ticker", "codes": ["KRW-BTC"]})
        await client.frame()
        clock.advance(4)
        # Market data alone keeps it open, or not.
        assert (await client.frame())["stream_type"] == "REALTIME"
        clock.advance(4)
        if keeps_alive:
            await client.frame()
            assert simulator._sessions
        else:
            assert await client.is_cut()


async def test_a_protocol_ping_is_a_sign_of_life(clock: ManualClock) -> None:
    async with streaming(clock, idle_timeout_s=3.0) as (_, client):
        for _ in range(2):
            clock.advance(2)
            await (await client.connection.ping())
        clock.advance(4)
        assert await client.is_cut()


async def test_the_status_keeps_a_connection_open(clock: ManualClock) -> None:
    settings = {"idle_timeout_s": 12.0, "inbound_data_keeps_alive": False}
    async with streaming(clock, **settings) as (_, client):
        await client.connection.send("PING")
        assert await client.until_listed() == []
        for _ in range(4):
            clock.advance(10)
            assert await client.frame() == {"status": "UP"}


async def test_more_than_five_messages_a_second_cost_the_connection(
    simulator: Simulator, clock: ManualClock
) -> None:
    async with stream(simulator) as client:
        for _ in range(2):
            for _ in range(5):
                assert await client.until_listed() == []
            clock.advance(1)
        for _ in range(6):
            await client.connection.send("PING")
        assert (await client.frame())["error"]["name"] == "TOO_MANY_REQUEST"
        with pytest.raises(websockets.ConnectionClosedOK):
            await client.raw()


async def test_more_than_a_hundred_messages_a_minute_cost_the_connection(
    simulator: Simulator, clock: ManualClock
) -> None:
    clock.advance(60 - clock.monotonic() % 60)
    async with stream(simulator) as client:
        for _ in range(25):
            for _ in range(4):
                assert await client.until_listed() == []
            clock.advance(2)
        await client.connection.send("PING")
        assert (await client.frame())["error"]["name"] == "TOO_MANY_REQUEST"


async def test_over_the_limit_the_connection_may_just_be_cut(clock: ManualClock) -> None:
    settings = {"over_message_limit": "drop", "ping_text_counts": False}
    async with streaming(clock, **settings) as (_, client):
        for _ in range(9):
            await client.connection.send("PING")
        for _ in range(6):
            await client.connection.send('[{"ticket":"x"},{"method":"LIST_SUBSCRIPTIONS"}]')
        assert await client.is_cut()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00\xff",
        "[" * 10_000,
        '[{"ticket":"x"},{"type":"ticker","codes":[' + '"A",' * 5_000 + '"B"],"level":1}',
        '[{"ticket":"x"},{"type":"orderbook","codes":["KRW-BTC"],"level":"1e-999999999"}]',
        '[{"ticket":1},{"type":"ticker","codes":["KRW-BTC"]}]',
    ],
)
async def test_garbage_is_refused_and_the_server_goes_on(
    simulator: Simulator, garbage: str | bytes
) -> None:
    async with stream(simulator) as client:
        await client.connection.send(garbage)
        # An odd level is on no list of levels; everything else is an error.
        if "1e-99" not in str(garbage):
            assert (await client.frame())["error"]["name"] in ("WRONG_FORMAT", "NO_TICKET")
    async with stream(simulator) as client:
        assert await client.nothing_comes()


async def test_who_goes_on_after_an_error_leaves_nothing_behind(simulator: Simulator) -> None:
    async with stream(simulator) as client:
        for _ in range(60):
            await client.connection.send("garbage")
        assert (await client.frame())["error"]["name"] == "WRONG_FORMAT"
        async with asyncio.timeout(5):
            await client.connection.wait_closed()
    await eventually(lambda: not simulator._sessions)


async def test_a_code_that_is_named_twice_is_sent_once(simulator: Simulator) -> None:
    async with stream(simulator) as client:
        codes = ["KRW-BTC", "KRW-XRP", "KRW-BTC", "KRW-BTC.5", "KRW-BTC.5"]
        await client.ask({"type": "orderbook", "codes": codes})
        frames = await client.until_listed()
    rows = [(frame["code"], len(frame["orderbook_units"])) for frame in frames]
    assert rows == [("KRW-BTC", 30), ("KRW-XRP", 30), ("KRW-BTC", 5)]


async def test_half_a_frame_and_a_giant_one_do_no_harm(simulator: Simulator) -> None:
    async with stream(simulator) as client:
        transport = client.connection.transport
        transport.write(b"\x81\xfe\x10\x00half")
        transport.abort()
    async with stream(simulator) as client:
        await client.connection.send("[" + " " * (1 << 20) + "]")
        with pytest.raises(websockets.ConnectionClosed):
            await client.raw()
        assert client.connection.close_code == 1009
    async with stream(simulator) as client:
        assert await client.nothing_comes()
    await eventually(lambda: not simulator._sessions)


async def test_a_hundred_connections_are_told_the_same(
    prompt: Simulator, clock: ManualClock
) -> None:
    clients: list[Stream] = []
    async with AsyncExitStack() as stack:
        for number in range(100):
            if number % 5 == 0:
                clock.advance(1)  # five connects a second
            clients.append(await stack.enter_async_context(stream(prompt)))
        for client in clients:
            await client.ask({"type": "trade", "codes": ["KRW-BTC"], "is_only_realtime": True})
        await eventually(lambda: _followers(prompt) == 100)
        start_ms = clock.now_ms()
        clock.advance(9)
        expected = [trade.sequential_id for trade in trades_of("KRW-BTC", start_ms, clock.now_ms())]
        told = [await client.frames(len(expected)) for client in clients]
    assert expected
    assert all([frame["sequential_id"] for frame in frames] == expected for frames in told)
    await eventually(lambda: not prompt._live.followed)


def _followers(simulator: Simulator) -> int:
    feed = simulator._live._feeds.get("KRW-BTC")
    return len(feed.topics[Topic("trade", "KRW-BTC")]) if feed is not None else 0


async def test_a_trade_time_may_lack_its_seconds(clock: ManualClock) -> None:
    hour = trades_of("KRW-BTC", AUTUMN_2025_MS, AUTUMN_2025_MS + 3_600_000)
    first = next(trade for trade in hour if trade.time_ms // 1_000 % 60 == 0)
    clock.set_wall(first.time_ms)
    async with streaming(clock, trade_time_without_seconds=True, late_trades=False) as (_, client):
        await client.ask({"type": "trade", "codes": ["KRW-BTC"]})
        time = (await client.frame())["trade_time"]
    assert len(time) == 5
    minute = first.time_ms // 60_000 % 1_440
    assert time == f"{minute // 60:02}:{minute % 60:02}"
