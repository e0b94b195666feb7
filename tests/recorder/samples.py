"""Recordings made for a test: each record with its second, written by the writer itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.manual_clock import AUTUMN_2025_MS
from upbit_backbone.recorder.records import (
    AnyRecord,
    Ended,
    Header,
    RestAnswer,
    StreamBreak,
    StreamForm,
    StreamFrame,
    StreamRequest,
)
from upbit_backbone.recorder.wire_file import WireFileWriter

STARTED_MS = AUTUMN_2025_MS
MARK = "simulator-7"


def header(form: StreamForm = "DEFAULT", mark: str | None = MARK) -> Header:
    return Header(
        exchange="simulator-7",
        mark=mark,
        symbols=("KRW-BTC", "KRW-XRP"),
        types=("ticker", "trade", "orderbook"),
        form=form,
        started_ms=STARTED_MS,
        exchange_offset_ms=0,
    )


def stamps(at_s: float) -> tuple[int, int]:
    """`at_us` and `wall_ms` of a second of the recording."""
    return round(at_s * 1e6), STARTED_MS + round(at_s * 1e3)


def answer(
    at_s: float,
    target: str,
    body: bytes | str,
    status: int = 200,
    headers: tuple[tuple[str, str], ...] = (),
) -> RestAnswer:
    content = body.encode() if isinstance(body, str) else body
    return RestAnswer(*stamps(at_s), target, status, headers, content)


def begin(at_s: float = 0.0) -> StreamRequest:
    """Where a replay begins."""
    return StreamRequest(*stamps(at_s), "[]")


def frame(at_s: float, data: bytes | str) -> StreamFrame:
    return StreamFrame(*stamps(at_s), True, data.encode() if isinstance(data, str) else data)


def broken(at_s: float) -> StreamBreak:
    return StreamBreak(*stamps(at_s), "lost")


def ended(at_s: float) -> Ended:
    return Ended(*stamps(at_s))


def trade(number: int, symbol: str = "KRW-BTC", stream_type: str = "REALTIME") -> str:
    """A trade frame whose number texts no parser would write again."""
    stamp = STARTED_MS + number
    return (
        f'{{"type":"trade","code":"{symbol}","timestamp":{stamp},'
        f'"trade_date":"2025-09-15","trade_time":"00:00:00","trade_timestamp":{stamp},'
        f'"trade_price":1.32448E8,"trade_volume":0.00755000,"ask_bid":"ASK",'
        f'"prev_closing_price":1.32E8,"change":"RISE","change_price":448000.00,'
        f'"sequential_id":1767586241873{number:04d},"stream_type":"{stream_type}"}}'
    )


def book(number: int, symbol: str = "KRW-BTC", rows: int = 30) -> str:
    units = ",".join(
        f'{{"ask_price":1.3245{row}E8,"bid_price":1.3244{row}E8,"ask_size":0.10,"bid_size":0.20}}'
        for row in range(rows)
    )
    return (
        f'{{"type":"orderbook","code":"{symbol}","timestamp":{STARTED_MS + number},'
        f'"total_ask_size":3.00,"total_bid_size":6.00,"orderbook_units":[{units}],'
        f'"stream_type":"REALTIME","level":0}}'
    )


def candle(start: str, close: str = "100.0", symbol: str = "KRW-BTC") -> str:
    """A row as REST writes it; `close` is a text."""
    return (
        f'{{"market":"{symbol}","candle_date_time_utc":"{start}","opening_price":100.00,'
        f'"high_price":101.0,"low_price":99.50,"trade_price":{close},"timestamp":1,'
        f'"candle_acc_trade_price":1000.10,"candle_acc_trade_volume":10.01000000,"unit":1}}'
    )


def page(rows: Iterable[str]) -> str:
    return "[" + ",".join(rows) + "]"


def write(
    path: Path, records: Iterable[AnyRecord], *, chunk_after_each: bool = False, **of: Any
) -> Path:
    """A recording of these records."""
    writer = WireFileWriter(path, header(**of), overwrite=False)
    for record in records:
        writer.add(record)
        if chunk_after_each:
            writer.flush()
    writer.close()
    return path


def request(*types: Mapping[str, object], form: str = "DEFAULT") -> str:
    """What a client sends to subscribe."""
    return json.dumps([{"ticket": "a test"}, *types, {"format": form}])
