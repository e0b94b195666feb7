"""The same message in another format: keys change, the text of numbers does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.exchanges.recordings import body, captured_frames
from tests.recorder.samples import book, trade
from upbit_backbone.recorder.frames import Frame, Look, form_of, read_frame, written

FULL, SHORT = Look(short=False), Look(short=True)

# Every field of upbit-api, sections 5.4 to 5.7, with its short key.
FIELDS = {
    "ticker": "type ty code cd opening_price op high_price hp low_price lp trade_price tp"
    " prev_closing_price pcp acc_trade_price atp acc_trade_volume atv acc_trade_price_24h atp24h"
    " acc_trade_volume_24h atv24h change c change_price cp change_rate cr signed_change_price scp"
    " signed_change_rate scr ask_bid ab trade_volume tv trade_date tdt trade_time ttm"
    " trade_timestamp ttms acc_ask_volume aav acc_bid_volume abv highest_52_week_price h52wp"
    " highest_52_week_date h52wdt lowest_52_week_price l52wp lowest_52_week_date l52wdt"
    " market_state ms is_trading_suspended its delisting_date dd market_warning mw timestamp tms"
    " stream_type st",
    "trade": "type ty code cd timestamp tms trade_date td trade_time ttm trade_timestamp ttms"
    " trade_price tp trade_volume tv ask_bid ab prev_closing_price pcp change c change_price cp"
    " sequential_id sid best_ask_price bap best_ask_size bas best_bid_price bbp best_bid_size bbs"
    " stream_type st",
    "orderbook": "type ty code cd timestamp tms total_ask_size tas total_bid_size tbs"
    " stream_type st level lv",
    "candle.1m": "type ty code cd candle_date_time_utc cdttmu candle_date_time_kst cdttmk"
    " opening_price op high_price hp low_price lp trade_price tp candle_acc_trade_volume catv"
    " candle_acc_trade_price catp timestamp tms stream_type st",
}


def texts(data: bytes) -> Any:
    """The JSON with every number as its text."""
    return json.loads(data, parse_float=str, parse_int=str)


def read(data: bytes | str) -> Frame:
    found = read_frame(data.encode() if isinstance(data, str) else data)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", FIELDS)
def test_every_field_has_its_key_in_both_formats(kind: str) -> None:
    words = FIELDS[kind].split()
    full = dict.fromkeys(words[::2], "1.50E3") | {"type": kind, "code": "KRW-BTC"}
    short = dict.fromkeys(words[1::2], "1.50E3") | {"ty": kind, "cd": "KRW-BTC"}
    in_full, in_short = json.dumps(full).encode(), json.dumps(short).encode()
    assert json.loads(written(read(in_full), "DEFAULT", SHORT)) == short
    assert json.loads(written(read(in_short), "SIMPLE", FULL)) == full


def test_the_recorded_format_goes_out_byte_for_byte() -> None:
    for data in (trade(1), ' { "ty":"trade" ,"cd":"KRW-BTC","tp":1.0E+2 } '):
        frame = read(data)
        look = Look(short=form_of(frame.data) == "SIMPLE")
        assert written(frame, form_of(frame.data), look) is frame.data
        listed = written(frame, form_of(frame.data), look._replace(as_list=True))
        assert listed == b"[" + frame.data + b"]"


def test_numbers_keep_their_text() -> None:
    frame = read(trade(7))
    short = texts(written(frame, "DEFAULT", SHORT))
    assert (short["tp"], short["tv"], short["cp"]) == ("1.32448E8", "0.00755000", "448000.00")
    assert short["sid"] == "17675862418730007"
    units = texts(written(read(book(1)), "DEFAULT", SHORT))["obu"]
    assert units[3] == {"ap": "1.32453E8", "bp": "1.32443E8", "as": "0.10", "bs": "0.20"}


def test_recorded_frames_come_back_from_the_other_format() -> None:
    names = ("ticker.KRW-BTC.20230221", "trade.KRW-BTC.20241031", "candle_1s.KRW-BTC.20250102")
    for name in names:
        frame = read(body(f"ws/doc.default.{name}.json"))
        there = read(written(frame, "DEFAULT", SHORT))
        assert (there.kind, there.code, there.snapshot) == frame[:3]
        assert texts(written(there, "SIMPLE", FULL)) == texts(frame.data)
    for text in captured_frames()[:200]:
        there = read(written(read(text), "SIMPLE", FULL))
        assert texts(written(there, "DEFAULT", SHORT)) == texts(text.encode())


def test_a_book_is_cut_and_keeps_its_totals() -> None:
    cut = texts(written(read(book(1)), "DEFAULT", FULL._replace(depth=5)))
    whole = texts(book(1).encode())
    assert cut["orderbook_units"] == whole["orderbook_units"][:5]
    assert cut["total_ask_size"] == "3.00"


def test_a_snapshot_says_so_and_is_otherwise_the_frame() -> None:
    marked = texts(written(read(trade(1)), "DEFAULT", FULL._replace(as_snapshot=True)))
    assert marked == texts(trade(1).encode()) | {"stream_type": "SNAPSHOT"}
    genuine = read(trade(1, stream_type="SNAPSHOT"))
    assert written(genuine, "DEFAULT", FULL._replace(as_snapshot=True)) is genuine.data


@pytest.mark.parametrize(
    "data", [b'{"status":"UP"}', b'{"error":{"name":"NO_TYPE"}}', b"[1]", b"\xff", b"", b"{"]
)
def test_what_is_no_data_is_nothing(data: bytes) -> None:
    assert read_frame(data) is None
