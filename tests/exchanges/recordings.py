"""The recorded bodies, and their values read by other means than the adapter's.

Numbers come as `Decimal` from the text, so that a comparison sees each digit; `float` of a
Decimal is correctly rounded, as is the decoder's claim.
"""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

PAYLOADS = Path(__file__).parents[1] / "payloads" / "upbit"


def body(name: str) -> bytes:
    """A recorded body as it was sent."""
    return (PAYLOADS / name).read_bytes()


def values(content: bytes | str) -> Any:
    """The JSON of a body; fractions as `Decimal`, whole numbers as `int`."""
    return json.loads(content, parse_float=Decimal)


def number(value: Any) -> float:
    """A number of `values`, quoted or not, as the nearest float."""
    return float(Decimal(value))


def ms_of(text: str) -> int:
    """Epoch milliseconds of ``yyyy-MM-ddTHH:mm:ss``, which is UTC."""
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000


def moment(ms: int) -> datetime:
    """The aware datetime of epoch milliseconds, by text and not by arithmetic on floats."""
    return datetime.fromisoformat(
        f"{datetime.fromtimestamp(ms // 1_000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1_000:03d}+00:00"
    )


def captured_frames() -> list[str]:
    """The 1,733 frames of April 2021, format SIMPLE, in the order received."""
    with gzip.open(PAYLOADS / "ws" / "ws_simple_trade_orderbook.20210405.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    return [line["raw"] for line in lines if line["dir"] == "in"]


def second_candles() -> list[dict[str, str]]:
    """The rows of the recorded second candles, newest first, as text."""
    with (PAYLOADS / "candles" / "KRW-ELF_1s_20250925.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
