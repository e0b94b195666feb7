"""Decoding of bodies that nobody recorded: made up, damaged, in other spellings."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.exchanges.recordings import body
from tests.exchanges.spelling import simple
from upbit_backbone.clock import MINUTE_MS, utc_datetime
from upbit_backbone.errors import ProtocolError, TransportError
from upbit_backbone.exchanges.upbit.decode import (
    Context,
    StreamFormat,
    decode_candles,
    decode_error,
    decode_markets,
    decode_message,
    decode_orderbooks,
    decode_tickers,
    decode_trades,
)
from upbit_backbone.models import CandleSeries, Level, Market, Orderbook, Ticker, Timeframe, Trade
from upbit_backbone.routing.exchange import CANDLE_KINDS, StreamEvent, StreamKind

CONTEXT = Context(datetime(2026, 1, 5, tzinfo=UTC), "websocket", simulated=False)
NOON = datetime(2026, 1, 5, 12, 0)
NOON_MS = 1_767_614_400_000

prices = st.one_of(
    st.integers(1, 10**12).map(float),
    st.decimals("0.00000001", "999999999", places=8).map(float),
)


def candle_row(opened: datetime, **changes: Any) -> dict[str, Any]:
    return {
        "market": "KRW-BTC",
        "candle_date_time_utc": opened.isoformat(timespec="seconds"),
        "candle_date_time_kst": (opened + timedelta(hours=9)).isoformat(timespec="seconds"),
        "opening_price": 100.0,
        "high_price": 103.0,
        "low_price": 99.5,
        "trade_price": 101.0,
        "timestamp": NOON_MS,
        "candle_acc_trade_price": 2_000.25,
        "candle_acc_trade_volume": 20.125,
        "unit": 1,
    } | changes


def page_of(count: int) -> list[dict[str, Any]]:
    return [candle_row(NOON - timedelta(minutes=index)) for index in range(count)]


def candles(page: object, *, closed_before_ms: int = NOON_MS * 2) -> CandleSeries:
    content = page if isinstance(page, bytes) else json.dumps(page).encode()
    return decode_candles(
        content, "KRW-BTC", Timeframe.M1, closed_before_ms=closed_before_ms, simulated=False
    )[0]


def message_of(
    frame: bytes, form: StreamFormat, context: Context = CONTEXT, *, closed_before_ms: int = 0
) -> StreamEvent | None:
    return decode_message(frame, form, context, closed_before_ms=closed_before_ms)


@given(
    st.lists(
        st.tuples(st.integers(1, 5_000), prices, prices, prices, prices, prices, prices),
        max_size=40,
    ),
    st.sampled_from(["plain", "quoted", "exponent", "padded"]),
)
def test_a_page_decodes_to_the_numbers_that_were_encoded(
    rows: list[tuple[Any, ...]], spelling: str
) -> None:
    spellings: dict[str, Callable[[float], str]] = {
        "plain": repr,
        "quoted": lambda value: f'"{value!r}"',
        "exponent": lambda value: f"{value:.16E}",
        "padded": lambda value: f"{value:.8f}" if float(f"{value:.8f}") == value else repr(value),
    }
    spell = spellings[spelling]
    opened, objects, expected = NOON, [], []
    for minutes, *row_values in rows:
        opened -= timedelta(minutes=minutes)
        row = candle_row(opened)
        names = (
            "opening_price",
            "high_price",
            "low_price",
            "trade_price",
            "candle_acc_trade_volume",
            "candle_acc_trade_price",
        )
        # Keys in any order, as the exchange reserves for itself.
        texts = {name: json.dumps(value) for name, value in row.items()} | {
            name: spell(value) for name, value in zip(names, row_values, strict=True)
        }
        objects.append("{" + ",".join(f'"{name}": {text}' for name, text in texts.items()) + "}")
        ms = int(opened.replace(tzinfo=UTC).timestamp()) * 1_000
        expected.append((ms, *row_values))
    series = candles(f"[{','.join(objects)}]".encode())
    columns = [getattr(series, name).tolist() for name in CandleSeries.COLUMNS[:7]]
    assert list(zip(*columns, strict=True)) == expected[::-1]


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 199, 200])
def test_a_page_of_any_length_is_read_whole(count: int) -> None:
    series = candles(page_of(count))
    assert series.time.tolist() == [NOON_MS - MINUTE_MS * i for i in range(count)][::-1]
    assert set(series.value) == {2_000.25}
    assert set(series.volume) == {20.125}


def test_an_empty_page_is_an_empty_series_without_a_stamp() -> None:
    series, stamp_ms = decode_candles(
        b" [ ] ", "KRW-BTC", Timeframe.D1, closed_before_ms=0, simulated=True
    )
    assert len(series) == 0
    assert stamp_ms is None
    assert (series.symbol, series.timeframe, series.simulated) == ("KRW-BTC", Timeframe.D1, True)


def test_the_columns_cannot_be_written() -> None:
    series = candles(page_of(3))
    for name in CandleSeries.COLUMNS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(series, name)[0] = 0


@pytest.mark.parametrize(
    ("now_ms", "closed"),
    [
        (NOON_MS + MINUTE_MS, [True, True, True]),
        (NOON_MS + MINUTE_MS - 1, [True, True, False]),
        (NOON_MS, [True, True, False]),
        (NOON_MS - 1, [True, False, False]),
        (0, [False, False, False]),
    ],
)
def test_a_candle_is_closed_when_its_end_has_come(now_ms: int, closed: list[bool]) -> None:
    assert candles(page_of(3), closed_before_ms=now_ms).closed.tolist() == closed


def test_months_and_years_close_by_the_calendar() -> None:
    rows = [
        candle_row(datetime(2024, month, 1), first_day_of_period="2024-01-01")
        for month in (3, 2, 1)
    ]
    march_ms = int(datetime(2024, 3, 1, tzinfo=UTC).timestamp()) * 1_000
    series, _ = decode_candles(
        json.dumps(rows).encode(),
        "KRW-BTC",
        Timeframe.MO1,
        closed_before_ms=march_ms,
        simulated=False,
    )
    assert series.closed.tolist() == [True, True, False]


def test_the_stamp_is_that_of_the_newest_row_in_milliseconds() -> None:
    page = [candle_row(NOON, timestamp=NOON_MS * 1_000), candle_row(NOON - timedelta(minutes=1))]
    _, stamp_ms = decode_candles(
        json.dumps(page).encode(), "KRW-BTC", Timeframe.M1, closed_before_ms=0, simulated=False
    )
    assert stamp_ms == NOON_MS


MINUTE_EARLIER = NOON - timedelta(minutes=1)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param([candle_row(MINUTE_EARLIER), candle_row(NOON)], id="ascending"),
        pytest.param([candle_row(NOON), candle_row(NOON)], id="one time twice"),
        pytest.param(page_of(201), id="more than a page holds"),
        pytest.param([candle_row(NOON, market="KRW-ETH")], id="another market"),
        pytest.param(
            [candle_row(NOON), candle_row(MINUTE_EARLIER, market="KRW-ETH")], id="two markets"
        ),
        pytest.param([candle_row(NOON, opening_price=None)], id="no number"),
        pytest.param([candle_row(NOON, opening_price="many")], id="a word for a number"),
        pytest.param([candle_row(NOON, high_price="nan")], id="nan in quotes"),
        pytest.param([candle_row(NOON, low_price="-Infinity")], id="infinity in quotes"),
        pytest.param([candle_row(NOON, trade_price=float("inf"))], id="infinity"),
        pytest.param([candle_row(NOON, timestamp=None)], id="no stamp"),
        pytest.param([candle_row(NOON, timestamp=-1)], id="a stamp before 1970"),
        pytest.param([candle_row(NOON, candle_date_time_utc="2026-01-05")], id="a date alone"),
        pytest.param([candle_row(NOON, candle_date_time_utc="")], id="no time"),
        pytest.param([candle_row(NOON, candle_date_time_utc="2026-13-05T12:00:00")], id="month 13"),
        pytest.param(
            [candle_row(NOON, candle_date_time_utc="2026-01-05T12:00:00Z")], id="with a zone"
        ),
        pytest.param(
            [
                candle_row(NOON, candle_date_time_utc="2026-01-05T12:00:00Z"),
                candle_row(MINUTE_EARLIER, candle_date_time_utc="2026-01-05T11:59:0"),
            ],
            id="two wrong lengths that make a right sum",
        ),
        pytest.param(
            [candle_row(NOON, candle_date_time_utc="２２２６-01-05T12:00:0")], id="other digits"
        ),
        pytest.param([{"market": "KRW-BTC"}], id="missing fields"),
        pytest.param([1, 2], id="numbers"),
        pytest.param([[]], id="lists"),
        pytest.param({"error": {"name": 404, "message": "Code not found"}}, id="an object"),
        pytest.param(None, id="null"),
        pytest.param(b"", id="nothing"),
        pytest.param(json.dumps(page_of(200)).encode()[:-40], id="cut off"),
        pytest.param(b"<html><body>maintenance</body></html>", id="HTML"),
        pytest.param(b"\xff\xfe\x00[", id="bytes"),
        pytest.param(b'[{"market":"KRW-\xff"}]', id="no UTF-8"),
        pytest.param(b'[{"x":' + b"[" * 100_000, id="endless nesting"),
    ],
)
def test_what_is_no_candle_page_is_refused_with_a_short_excerpt(page: object) -> None:
    with pytest.raises(ProtocolError, match="candles of KRW-BTC 1m: ") as caught:
        candles(page)
    assert len(str(caught.value).encode()) < 600


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_protocol_error(content: bytes) -> None:
    context = CONTEXT
    for decode in (
        lambda: candles(content),
        lambda: decode_markets(content),
        lambda: decode_tickers(content, context),
        lambda: decode_orderbooks(content, context, depth=30),
        lambda: decode_trades(content, "KRW-BTC", context),
        lambda: message_of(content, "DEFAULT", context),
    ):
        try:
            decode()
        except ProtocolError:
            continue


@given(st.data())
def test_a_damaged_recording_raises_a_protocol_error_or_decodes(data: st.DataObject) -> None:
    """One byte of a real frame is replaced, dropped or doubled."""
    name = data.draw(
        st.sampled_from(
            [
                "doc.default.ticker.KRW-BTC.20230221",
                "doc.default.trade.KRW-BTC.20241031",
                "sample.default.orderbook.USDT-ETC.20230808",
            ]
        )
    )
    frame = body(f"ws/{name}.json")
    at = data.draw(st.integers(0, len(frame) - 1))
    damage = data.draw(st.sampled_from([b"", frame[at : at + 1] * 2, b"9", b'"', b"-", b"}", b"E"]))
    damaged = frame[:at] + damage + frame[at + 1 :]
    try:
        found = message_of(damaged, "DEFAULT")
    except ProtocolError:
        return
    assert found is None or isinstance(found.value, Ticker | Trade | Orderbook)


def ticker_row(**changes: Any) -> dict[str, Any]:
    [row] = json.loads(body("rest/ticker.USDT-BTC.20240313.json"))
    return row | changes


def test_dates_may_be_written_with_dashes_or_without_or_be_absent() -> None:
    rows = [
        ticker_row(highest_52_week_date="20251009", lowest_52_week_date="2025-04-09"),
        ticker_row(highest_52_week_date=None, lowest_52_week_date=""),
    ]
    first, second = decode_tickers(json.dumps(rows).encode(), CONTEXT)
    assert (first.high_52w_date, first.low_52w_date) == (date(2025, 10, 9), date(2025, 4, 9))
    assert (second.high_52w_date, second.low_52w_date) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"highest_52_week_date": "yesterday"},
        {"change": "SIDEWAYS"},
        {"trade_price": "nan"},
        {"timestamp": "soon"},
        {"market": None},
    ],
)
def test_a_ticker_with_a_value_nobody_knows_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        decode_tickers(json.dumps([ticker_row(**changes)]).encode(), CONTEXT)


def test_the_padding_of_a_thin_side_is_removed() -> None:
    unit = {"ask_price": 101.0, "ask_size": 1.5, "bid_price": 100, "bid_size": 2}
    book = {
        "market": "BTC-THIN",
        "timestamp": NOON_MS,
        "total_ask_size": 1.5,
        "total_bid_size": 5,
        "orderbook_units": [
            unit,
            {"ask_price": 0, "ask_size": 0.0, "bid_price": 99, "bid_size": 3},
            {"ask_price": 0.0, "ask_size": 0, "bid_price": 0, "bid_size": 0},
        ],
    }
    [decoded] = decode_orderbooks(json.dumps([book]).encode(), CONTEXT, depth=30)
    assert decoded.asks == (Level(101.0, 1.5),)
    assert decoded.bids == (Level(100.0, 2.0), Level(99.0, 3.0))
    assert decoded.level == 0


def test_trades_of_another_market_are_refused() -> None:
    content = body("rest/doc.trades_ticks.KRW-BTC.20250627.json")
    with pytest.raises(ProtocolError, match="another market"):
        decode_trades(content, "KRW-ETH", CONTEXT)


@given(st.lists(st.integers(0, 2**63 - 1), max_size=20))
def test_an_id_of_63_bits_keeps_every_digit(ids: list[int]) -> None:
    [row] = json.loads(body("rest/doc.trades_ticks.KRW-BTC.20250627.json"))
    content = json.dumps([row | {"sequential_id": one} for one in ids]).encode()
    assert [trade.sequential_id for trade in decode_trades(content, "KRW-BTC", CONTEXT)] == ids


def test_designations_are_the_names_of_the_flags_that_are_set() -> None:
    content = json.dumps(
        [
            {
                "market": "KRW-BTC",
                "korean_name": "비트코인",
                "english_name": "Bitcoin",
                "market_event": {
                    "warning": True,
                    "caution": {"PRICE_FLUCTUATIONS": False, "DEPOSIT_AMOUNT_SOARING": True},
                },
            },
            # As a regional exchange sends it.
            {"market": "IDR-BTC", "english_name": "Bitcoin", "market_warning": "NONE"},
        ]
    ).encode()
    assert decode_markets(content) == (
        Market("KRW-BTC", "비트코인", "Bitcoin", True, frozenset({"DEPOSIT_AMOUNT_SOARING"})),
        Market("IDR-BTC", "", "Bitcoin"),
    )


@pytest.mark.parametrize(
    "name",
    [
        "doc.default.ticker.KRW-BTC.20230221",
        "doc.default.trade.KRW-BTC.20241031",
        "sample.default.trade.KRW-DOGE.20210302",
        "sample.default.orderbook.USDT-ETC.20230808",
        "doc.default.candle_1s.KRW-BTC.20250102",
    ],
)
def test_both_formats_of_one_message_give_the_same_value(name: str) -> None:
    frame = body(f"ws/{name}.json")
    message = json.loads(frame) | ({"level": 0.01} if "orderbook" in name else {})
    full = message_of(json.dumps(message).encode(), "DEFAULT")
    short = message_of(json.dumps(simple(message)).encode(), "SIMPLE")
    assert full is not None
    assert full == short


def ticker_frame(**changes: Any) -> bytes:
    message = json.loads(body("ws/doc.default.ticker.KRW-BTC.20230221.json"))
    return json.dumps(message | changes).encode()


def value_of(frame: bytes) -> Any:
    found = message_of(frame, "DEFAULT")
    assert found is not None
    return found.value


@pytest.mark.parametrize("sent", [{"year": 2026, "month": 3, "day": 31}, "2026-03-31", "20260331"])
def test_the_delisting_date_comes_in_parts_or_as_text(sent: object) -> None:
    ticker = value_of(ticker_frame(delisting_date=sent, market_state="DELISTED"))
    assert (ticker.delisting_date, ticker.state) == (date(2026, 3, 31), "DELISTED")


def test_a_delisting_date_that_is_none_is_refused() -> None:
    with pytest.raises(ProtocolError, match="ticker of KRW-BTC: a date was not understood"):
        value_of(ticker_frame(delisting_date={"year": 2026, "month": 2, "day": 30}))


def test_numbers_in_quotes_are_read_on_the_stream_too() -> None:
    ticker = value_of(ticker_frame(trade_price="1.16539E8", timestamp=str(NOON_MS)))
    assert ticker.price == 116_539_000
    assert ticker.exchange_time == utc_datetime(NOON_MS)


LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)


@pytest.mark.parametrize("sent", [10**18, 10**30, 253_402_300_799_999_999])
def test_a_stamp_beyond_the_calendar_is_its_last_moment(sent: int) -> None:
    assert value_of(ticker_frame(timestamp=sent)).exchange_time == LAST_MOMENT
    _, stamp_ms = decode_candles(
        json.dumps([candle_row(NOON, timestamp=sent)]).encode(),
        "KRW-BTC",
        Timeframe.M1,
        closed_before_ms=NOON_MS,
        simulated=False,
    )
    assert stamp_ms is not None
    assert utc_datetime(stamp_ms) == LAST_MOMENT


@pytest.mark.parametrize(("factor", "told"), [(1, False), (1_000, True)])
def test_a_stamp_in_microseconds_is_read_and_told(factor: int, told: bool) -> None:
    heard: list[tuple[str, str]] = []
    context = CONTEXT._replace(on_microseconds=lambda *what: heard.append(what))
    trade = json.loads(body("ws/doc.default.trade.KRW-BTC.20241031.json"))
    book = json.loads(body("ws/sample.default.orderbook.USDT-ETC.20230808.json"))
    frames = [
        ticker_frame(timestamp=NOON_MS * factor),
        json.dumps(trade | {"trade_timestamp": NOON_MS * factor}).encode(),
        json.dumps(book | {"timestamp": NOON_MS * factor}).encode(),
    ]
    for frame in frames:
        event = message_of(frame, "DEFAULT", context)
        assert event is not None
        assert not isinstance(event.value, CandleSeries)
        assert event.value.exchange_time == utc_datetime(NOON_MS)
    named = [("ticker", "KRW-BTC"), ("trade", "KRW-BTC"), ("orderbook", "USDT-ETC")]
    assert heard == (named if told else [])


def candle_frame(**changes: Any) -> bytes:
    message = json.loads(body("ws/doc.default.candle_1s.KRW-BTC.20250102.json"))
    return json.dumps(message | changes).encode()


@pytest.mark.parametrize(("timeframe", "kind"), CANDLE_KINDS.items())
@pytest.mark.parametrize("form", ["DEFAULT", "SIMPLE"])
def test_a_candle_of_each_unit_is_a_series_of_one(
    timeframe: Timeframe, kind: StreamKind, form: StreamFormat
) -> None:
    message = json.loads(candle_frame(type=kind, stream_type="SNAPSHOT"))
    frame = json.dumps(simple(message) if form == "SIMPLE" else message).encode()
    event = message_of(frame, form)
    assert event is not None
    assert (event.kind, event.snapshot, event.stamp_ms) == (kind, True, message["timestamp"])
    series = event.value
    assert isinstance(series, CandleSeries)
    assert (series.timeframe, series.source, len(series)) == (timeframe, "websocket", 1)
    assert series[0].open == message["opening_price"]
    assert series[0].value == message["candle_acc_trade_price"]


@pytest.mark.parametrize(
    ("closed_before_ms", "closed"), [(NOON_MS + MINUTE_MS, True), (NOON_MS + MINUTE_MS - 1, False)]
)
def test_a_streamed_candle_is_closed_when_its_end_has_passed(
    closed_before_ms: int, closed: bool
) -> None:
    frame = candle_frame(type="candle.1m", candle_date_time_utc=NOON.isoformat())
    event = message_of(frame, "DEFAULT", closed_before_ms=closed_before_ms)
    assert event is not None
    assert isinstance(event.value, CandleSeries)
    assert event.value.closed.tolist() == [closed]
    assert not event.value.filled.any()


@pytest.mark.parametrize(
    "sent", ["", "NaT", "now", "2026-01-05", "2026-01-05T12:00+09", "2026-13-05T12:00:00"]
)
def test_a_streamed_candle_without_a_time_is_refused(sent: str) -> None:
    with pytest.raises(ProtocolError, match="not understood"):
        message_of(candle_frame(candle_date_time_utc=sent), "DEFAULT")


def test_a_snapshot_says_so() -> None:
    for stream_type, snapshot in (("SNAPSHOT", True), ("REALTIME", False)):
        found = message_of(ticker_frame(stream_type=stream_type), "DEFAULT")
        assert found is not None
        assert found.snapshot is snapshot


@pytest.mark.parametrize("form", ["DEFAULT", "SIMPLE"])
@pytest.mark.parametrize(
    "frame",
    [
        b'{"status":"UP"}',
        b'{"type":"candle.1d","code":"KRW-BTC"}',
        b'{"ty":"myAsset","x":[{"y":null}]}',
        b'{"method":"LIST_SUBSCRIPTIONS","result":[],"ticket":"x"}',
    ],
)
def test_what_carries_no_value_is_passed_over(frame: bytes, form: StreamFormat) -> None:
    assert message_of(frame, form) is None


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("WRONG_FORMAT", ProtocolError),
        ("NO_TICKET", TransportError),
        ("INVALID_PARAM", TransportError),
        ("TOO_MANY_REQUEST", TransportError),
    ],
)
def test_an_error_frame_raises_with_the_exchange_s_own_words(
    name: str, error: type[Exception]
) -> None:
    words = "티켓이 존재하지 않거나, 유효하지 않습니다."
    frame = json.dumps({"error": {"message": words, "name": name}}, ensure_ascii=False).encode()
    with pytest.raises(error, match=f"{name}.*{words}"):
        message_of(frame, "DEFAULT")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"UP",
        b"[]",
        b'[{"type":"trade"}]',
        b'{"type":"trade"}',
        ticker_frame(trade_price=None),
        ticker_frame(trade_price="nan"),
        ticker_frame(ask_bid="BOTH"),
    ],
)
def test_a_frame_that_is_no_message_is_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"not understood"):
        message_of(frame, "DEFAULT")


def test_the_error_of_a_body_is_read_with_a_number_or_a_word_for_its_name() -> None:
    for name in (404, "not_found"):
        error = decode_error(json.dumps({"error": {"name": name, "message": "gone"}}).encode())
        assert error is not None
        assert (error.name, error.message) == (name, "gone")
    assert decode_error(b"<html>") is None
    assert decode_error(b"[]") is None
    assert decode_error(b"") is None
