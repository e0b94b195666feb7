"""The adapter's socket, against a scripted server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from email.utils import formatdate
from uuid import UUID

import pytest
from aiohttp import ClientSession
from websockets.asyncio.server import ServerConnection
from websockets.utils import accept_key

from tests.eventually import eventually
from tests.exchanges.recordings import body
from tests.exchanges.scripted_stream import ScriptedStream, cut
from tests.exchanges.spelling import simple
from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from upbit_backbone.clock import HOUR_MS, MINUTE_MS, ExchangeClock, utc_datetime
from upbit_backbone.errors import (
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    StorageOriginError,
    TransportError,
)
from upbit_backbone.exchanges.upbit import UpbitAdapter
from upbit_backbone.exchanges.upbit.websocket import UpbitSocket
from upbit_backbone.models import CandleSeries, Orderbook, Ticker, Trade
from upbit_backbone.origin import MARK_HEADER, Origin
from upbit_backbone.routing.exchange import CANDLE_KINDS, Garbled, StreamEvent, StreamKind
from upbit_backbone.simulator import Simulator


def recorded(name: str) -> bytes:
    """A recorded message of format DEFAULT as it would have been sent in format SIMPLE."""
    return json.dumps(simple(json.loads(body(f"ws/{name}.json")))).encode()


TRADE = recorded("doc.default.trade.KRW-BTC.20241031")
TICKER = recorded("doc.default.ticker.KRW-BTC.20230221")
BOOK = recorded("sample.default.orderbook.USDT-ETC.20230808")
TRADES: dict[StreamKind, list[str]] = {"trade": ["KRW-BTC"]}
AdapterAt = Callable[[str, float], UpbitAdapter]


@pytest.fixture
async def server() -> AsyncIterator[ScriptedStream]:
    async with ScriptedStream() as stream:
        yield stream


@pytest.fixture
def adapter_at(
    session: ClientSession,
    origin: Origin,
    exchange_clock: ExchangeClock,
    clock: ManualClock,
    remaining: list[tuple[str, int]],
) -> AdapterAt:
    """An adapter for the stream at an address, which waits so many seconds for it to open."""

    def make(ws_url: str, timeout_s: float) -> UpbitAdapter:
        return UpbitAdapter(
            session,
            rest_url="http://127.0.0.1:1/v1",
            ws_url=ws_url,
            origin=origin,
            clock=exchange_clock,
            local=clock,
            on_remaining=lambda group, left: remaining.append((group, left)),
            timeout_s=timeout_s,
        )

    return make


@pytest.fixture
def adapter(adapter_at: AdapterAt, server: ScriptedStream) -> UpbitAdapter:
    return adapter_at(server.url, 1.0)


async def first_events(socket: UpbitSocket, count: int) -> list[StreamEvent]:
    events: list[StreamEvent] = []
    async with aclosing(socket.events()) as incoming:
        async for event in incoming:
            assert isinstance(event, StreamEvent)
            events.append(event)
            if len(events) == count:
                break
    return events


async def test_a_subscription_is_one_request_in_a_fixed_order(
    adapter: UpbitAdapter, server: ScriptedStream
) -> None:
    async with adapter.connect() as socket:
        await socket.subscribe(
            {"trade": {"KRW-XRP", "KRW-BTC"}, "orderbook": (), "ticker": ["KRW-ETH"]}
        )
        await eventually(lambda: server.requests)
    [[ticket, *types, form]] = server.requests
    assert UUID(ticket["ticket"]).version == 4
    assert types == [
        {"type": "ticker", "codes": ["KRW-ETH"]},
        {"type": "trade", "codes": ["KRW-BTC", "KRW-XRP"]},
    ]
    assert form == {"format": "SIMPLE"}


async def test_a_second_subscription_is_sent_whole_on_the_same_connection(
    adapter: UpbitAdapter, server: ScriptedStream
) -> None:
    async with adapter.connect() as socket:
        await socket.subscribe(TRADES)
        await socket.subscribe({"trade": ["KRW-BTC"], "ticker": ["KRW-BTC"]})
        await eventually(lambda: len(server.requests) == 2)
    first, second = server.requests
    assert first[0] != second[0]
    assert [entry.get("type") for entry in second] == [None, "ticker", "trade", None]
    assert len(server.handshakes) == 1


@pytest.mark.parametrize("wanted", [{}, {"ticker": []}])
async def test_there_is_no_subscription_to_nothing(
    adapter: UpbitAdapter, server: ScriptedStream, wanted: dict[StreamKind, list[str]]
) -> None:
    async with adapter.connect() as socket:
        with pytest.raises(InvalidRequestError, match="close the socket instead"):
            await socket.subscribe(wanted)
    assert server.requests == []


async def test_the_handshake_says_neither_origin_nor_compression(
    adapter: UpbitAdapter, server: ScriptedStream
) -> None:
    async with adapter.connect():
        pass
    [headers] = server.handshakes
    assert "origin" not in headers
    assert "sec-websocket-extensions" not in headers


async def test_values_arrive_in_order_from_binary_and_text_frames_alike(
    adapter: UpbitAdapter, server: ScriptedStream, clock: ManualClock
) -> None:
    async def play(connection: ServerConnection) -> None:
        await connection.send(TRADE)
        await connection.send('{"status":"UP"}')
        await connection.send(TICKER.decode())
        await connection.send(b'{"ty":"something.new","cd":"KRW-BTC"}')
        await connection.send(BOOK)

    server.play = play
    async with adapter.connect() as socket:
        await socket.subscribe(TRADES)
        events = await first_events(socket, 3)
    assert [type(event.value) for event in events] == [Trade, Ticker, Orderbook]
    assert [event.snapshot for event in events] == [True, False, False]
    for event in events:
        assert not isinstance(event.value, CandleSeries)
        assert event.value.received_time == utc_datetime(clock.now_ms())
        assert event.value.source == "websocket"
        assert not event.value.simulated


async def test_a_book_of_every_market_fits_in_a_frame(
    adapter: UpbitAdapter, server: ScriptedStream
) -> None:
    """Far more than the exchange sends: 3 KB a frame."""
    book = json.loads(BOOK)
    book["obu"] *= 1_000

    async def play(connection: ServerConnection) -> None:
        await connection.send(json.dumps(book).encode())

    server.play = play
    async with adapter.connect() as socket:
        await socket.subscribe(TRADES)
        [event] = await first_events(socket, 1)
    assert isinstance(event.value, Orderbook)
    assert len(event.value.asks) == 15_000


@pytest.mark.parametrize(
    ("name", "words", "error"),
    [
        ("WRONG_FORMAT", "Format 이 맞지 않습니다.", ProtocolError),
        ("INVALID_PARAM", "nope 은 지원하지 않는 타입입니다.", TransportError),
    ],
)
async def test_an_error_frame_ends_the_stream_with_the_exchange_s_words(
    adapter: UpbitAdapter,
    server: ScriptedStream,
    name: str,
    words: str,
    error: type[Exception],
) -> None:
    async def play(connection: ServerConnection) -> None:
        await connection.send(
            json.dumps({"error": {"name": name, "message": words}}, ensure_ascii=False).encode()
        )
        await connection.close()

    server.play = play
    async with adapter.connect() as socket:
        await socket.subscribe(TRADES)
        with pytest.raises(error, match=words):
            await first_events(socket, 1)


async def test_a_frame_that_is_not_understood_is_told_and_the_next_ones_are_read(
    adapter: UpbitAdapter, server: ScriptedStream
) -> None:
    async def play(connection: ServerConnection) -> None:
        await connection.send(b"\x00\x01")
        await connection.send(b'{"ty":"trade","cd":"KRW-BTC","tp":null}')
        await connection.send(TRADE)

    server.play = play
    async with adapter.connect() as socket:
        await socket.subscribe(TRADES)
        async with aclosing(socket.events()) as incoming:
            nothing, whose, event = [await anext(incoming) for _ in range(3)]
        assert isinstance(nothing, Garbled)
        assert (nothing.kind, nothing.symbol) == (None, None)
        assert "not understood" in nothing.reason
        assert isinstance(whose, Garbled)
        assert (whose.kind, whose.symbol) == ("trade", "KRW-BTC")
        assert isinstance(event, StreamEvent)


async def test_a_cut_connection_is_lost_after_the_values_that_came_before(
    adapter: UpbitAdapter, server: ScriptedStream
) -> None:
    async def play(connection: ServerConnection) -> None:
        await connection.send(TRADE)
        await asyncio.sleep(0.01)
        await cut(connection)

    server.play = play
    async with adapter.connect() as socket:
        await socket.subscribe(TRADES)
        async with aclosing(socket.events()) as incoming:
            event = await anext(incoming)
            assert isinstance(event, StreamEvent)
            assert isinstance(event.value, Trade)
            with pytest.raises(TransportError, match="lost") as caught:
                await anext(incoming)
        assert caught.value.__cause__ is not None
        with pytest.raises(TransportError, match="lost"):
            await socket.subscribe(TRADES)


async def test_a_connection_that_the_exchange_closes_is_lost_too(
    adapter: UpbitAdapter, server: ScriptedStream
) -> None:
    async def play(connection: ServerConnection) -> None:
        await connection.close(1000)

    server.play = play
    async with adapter.connect() as socket:
        await socket.subscribe(TRADES)
        with pytest.raises(TransportError, match="1000"):
            await first_events(socket, 1)


async def test_leaving_the_context_closes_the_connection(
    adapter: UpbitAdapter, server: ScriptedStream
) -> None:
    async with adapter.connect():
        await eventually(lambda: server.open == 1)
    await eventually(lambda: server.open == 0)
    with pytest.raises(RuntimeError, match="of the caller"):
        async with adapter.connect():
            raise RuntimeError("of the caller")
    await eventually(lambda: server.open == 0)


async def test_cancelling_a_reader_closes_the_connection(
    adapter: UpbitAdapter, server: ScriptedStream
) -> None:
    async def read() -> None:
        async with adapter.connect() as socket:
            await socket.subscribe(TRADES)
            async for _ in socket.events():
                pass

    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(read())
        await eventually(lambda: server.requests)
        reader.cancel()
    await eventually(lambda: server.open == 0)


async def test_cancelling_the_close_drops_the_connection(adapter_at: AdapterAt) -> None:
    """The peer of this test never answers the closing handshake."""
    lost = asyncio.Event()

    async with _mute_server(lost) as url:
        adapter = adapter_at(url, 1.0)

        async def hold() -> None:
            async with adapter.connect():
                pass

        async with asyncio.TaskGroup() as tasks:
            holder = tasks.create_task(hold())
            await asyncio.sleep(0.1)
            assert not holder.done()
            assert not lost.is_set()
            holder.cancel()
        await asyncio.wait_for(lost.wait(), 1)


async def test_a_peer_that_does_not_close_is_waited_for_less_than_a_second(
    adapter_at: AdapterAt,
) -> None:
    lost = asyncio.Event()
    async with _mute_server(lost) as url:
        adapter = adapter_at(url, 1.0)
        async with asyncio.timeout(2):
            async with adapter.connect():
                pass
        await asyncio.wait_for(lost.wait(), 1)


async def test_cancelling_while_connecting_leaves_no_connection(
    adapter_at: AdapterAt,
) -> None:
    lost, reached = asyncio.Event(), asyncio.Event()
    async with _mute_server(lost, reached=reached, upgrade=False) as url:
        adapter = adapter_at(url, 1.0)

        async def connect() -> None:
            async with adapter.connect():
                pass

        async with asyncio.TaskGroup() as tasks:
            connecting = tasks.create_task(connect())
            await asyncio.wait_for(reached.wait(), 1)
            connecting.cancel()
        await asyncio.wait_for(lost.wait(), 1)


@asynccontextmanager
async def _mute_server(
    lost: asyncio.Event, *, reached: asyncio.Event | None = None, upgrade: bool = True
) -> AsyncIterator[str]:
    """A peer that says nothing, at most the answer to the upgrade; `lost` at its end."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if reached is not None:
            reached.set()
        if upgrade:
            key = next(
                line.split(": ")[1]
                for line in head.decode().split("\r\n")
                if line.lower().startswith("sec-websocket-key")
            )
            writer.write(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode()
            )
        try:
            while await reader.read(1_024):
                pass
        except ConnectionError:
            pass
        finally:
            lost.set()
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/websocket/v1"


@pytest.mark.parametrize(
    ("status", "content", "wait_s"),
    [
        (429, '{"error":{"name":429,"message":"Too many requests"}}', 1.0),
        (429, "", 1.0),
        (418, '{"error":{"name":418,"message":"try again after 120 seconds"}}', 120.0),
        (418, "", None),
    ],
)
async def test_a_refused_upgrade_says_how_long_to_wait(
    adapter: UpbitAdapter, server: ScriptedStream, status: int, content: str, wait_s: float | None
) -> None:
    server.refusal = (status, content)
    with pytest.raises(RateLimitedError, match=f"stream: .*{status}") as caught:
        async with adapter.connect():
            pass
    assert caught.value.retry_after_s == wait_s


@pytest.mark.parametrize("status", [200, 403, 404, 500, 503])
async def test_an_upgrade_that_is_not_granted_is_a_transport_error(
    adapter: UpbitAdapter, server: ScriptedStream, origin: Origin, status: int
) -> None:
    server.refusal = (status, "")
    with pytest.raises(TransportError, match=f"answered {status} instead of opening") as caught:
        async with adapter.connect():
            pass
    assert caught.value.__cause__ is not None
    assert not origin.known


async def test_a_stream_that_is_not_there_is_a_transport_error(
    adapter_at: AdapterAt, refusing_port: int
) -> None:
    adapter = adapter_at(f"ws://127.0.0.1:{refusing_port}/websocket/v1", 1.0)
    with pytest.raises(TransportError, match="was not reached") as caught:
        async with adapter.connect():
            pass
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_peer_that_never_answers_the_upgrade_is_given_up_in_time(
    adapter_at: AdapterAt,
) -> None:
    lost = asyncio.Event()
    async with _mute_server(lost, upgrade=False) as url:
        adapter = adapter_at(url, 0.05)
        with pytest.raises(TransportError, match="was not reached"):
            async with adapter.connect():
                pass
        await asyncio.wait_for(lost.wait(), 1)


async def test_what_is_left_of_the_connects_is_reported(
    adapter: UpbitAdapter, server: ScriptedStream, remaining: list[tuple[str, int]]
) -> None:
    server.headers = {"Remaining-Req": "group=websocket; min=300; sec=4"}
    async with adapter.connect():
        assert remaining == [("websocket", 4)]


async def test_the_mark_of_the_upgrade_is_on_every_value(
    adapter: UpbitAdapter, server: ScriptedStream, origin: Origin
) -> None:
    async def play(connection: ServerConnection) -> None:
        for frame in (TRADE, TICKER, BOOK):
            await connection.send(frame)

    server.play = play
    server.headers = {MARK_HEADER: "simulator-1"}
    async with adapter.connect() as socket:
        assert origin.mark == "simulator-1"
        await socket.subscribe(TRADES)
        assert all(event.value.simulated for event in await first_events(socket, 3))


async def test_an_upgrade_under_another_mark_is_refused_and_closed(
    adapter: UpbitAdapter, server: ScriptedStream, origin: Origin
) -> None:
    origin.observe("simulator-1")
    with pytest.raises(StorageOriginError):
        async with adapter.connect():
            pytest.fail("the socket of another exchange was handed out")
    await eventually(lambda: server.handshakes and server.open == 0)


async def test_stamps_of_messages_teach_the_exchange_s_clock(
    adapter: UpbitAdapter,
    server: ScriptedStream,
    exchange_clock: ExchangeClock,
) -> None:
    """Stamps bound from below what the date of the upgrade bounds from both sides."""
    now_ms = AUTUMN_2025_MS + HOUR_MS
    server.headers = {"Date": formatdate(now_ms // 1_000, usegmt=True)}
    stamps = [now_ms + 400, now_ms + 500, now_ms + HOUR_MS]

    async def play(connection: ServerConnection) -> None:
        for stamp in stamps:
            await connection.send(json.dumps(json.loads(TRADE) | {"tms": stamp}).encode())

    server.play = play
    async with adapter.connect() as socket:
        assert exchange_clock.offset_ms == HOUR_MS
        await socket.subscribe(TRADES)
        await first_events(socket, 3)
    # Two agree on the first; that from the future is nobody's witness.
    assert exchange_clock.offset_ms == HOUR_MS + 400


async def test_a_stamp_in_microseconds_is_told(
    server: ScriptedStream, session: ClientSession, origin: Origin, clock: ManualClock
) -> None:
    told: list[tuple[str, str]] = []
    adapter = UpbitAdapter(
        session,
        rest_url="http://127.0.0.1:1/v1",
        ws_url=server.url,
        origin=origin,
        clock=ExchangeClock(clock),
        local=clock,
        on_microseconds=lambda *what: told.append(what),
    )

    async def play(connection: ServerConnection) -> None:
        await connection.send(BOOK)
        await connection.send(TRADE)

    server.play = play
    async with adapter.connect() as socket:
        await socket.subscribe(TRADES)
        await first_events(socket, 2)
    assert told == [("orderbook", "USDT-ETC")]


async def test_candles_of_a_simulator_come_by_the_socket_as_by_rest(
    session: ClientSession, origin: Origin
) -> None:
    clock = ManualClock(AUTUMN_2025_MS + 5 * MINUTE_MS + 30_000)
    async with Simulator(clock=clock, first_symbol="KRW-BTC") as simulator:
        adapter = UpbitAdapter(
            session,
            rest_url=simulator.rest_url,
            ws_url=simulator.ws_url,
            origin=origin,
            clock=ExchangeClock(clock),
            local=clock,
        )
        async with adapter.connect() as socket:
            await socket.subscribe({kind: ["KRW-BTC"] for kind in CANDLE_KINDS.values()})
            events = await first_events(socket, len(CANDLE_KINDS))
        assert {event.kind for event in events} == set(CANDLE_KINDS.values())
        for event in events:
            assert event.snapshot
            assert event.stamp_ms == clock.now_ms()
            assert isinstance(event.value, CandleSeries)
            page, _ = await adapter.candles("KRW-BTC", event.value.timeframe, to_ms=None, count=1)
            assert event.value == page
