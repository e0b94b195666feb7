"""Every recorded payload and the simulator's answer of today have one shape.

Same keys, same JSON types, same forms of dates; where the exchange added or dropped a field
between the recording and now, it stands in `CHANGES`, with its date. How a number was
written changed too, per year and per place: `WRITTEN` says so for each recording and for the
simulator, which writes as the exchange was measured to write in 2026.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import websockets

from tests.manual_clock import ManualClock
from tests.simulator.worlds import PAYLOADS, ms
from upbit_backbone.simulator import Simulator

NOW_MS = ms("2025-09-15T05:03:07.123")
SYMBOLS = ("KRW-BTC", "KRW-DOGE", "BTC-ETH", "USDT-BTC")
STREAMS = ("ticker", "trade", "orderbook", "candle.1s")

REST_CALLS: Mapping[str, list[tuple[str, dict[str, str]]]] = {
    "market/all": [("/market/all", {})],
    "candles/seconds": [("/candles/seconds", {"market": symbol}) for symbol in SYMBOLS],
    "candles/minutes": [
        ("/candles/minutes/1", {"market": symbol, "count": "50"}) for symbol in SYMBOLS
    ],
    "candles/days": [("/candles/days", {"market": symbol, "count": "9"}) for symbol in SYMBOLS],
    "candles/weeks": [("/candles/weeks", {"market": symbol, "count": "9"}) for symbol in SYMBOLS],
    "trades/ticks": [("/trades/ticks", {"market": symbol, "count": "99"}) for symbol in SYMBOLS],
    "ticker": [("/ticker", {"markets": ",".join(SYMBOLS)})],
    "orderbook": [
        ("/orderbook", {"markets": ",".join(SYMBOLS)}),
        ("/orderbook", {"markets": "KRW-BTC", "level": "10000"}),
    ],
}

KIND_OF_FILE = (
    (r"market_all\.json", "market/all"),
    (r"rest/doc\.candles_seconds\..*", "candles/seconds"),
    (r"rest/candles_minutes_.*", "candles/minutes"),
    (r"rest/doc\.candles_days\..*", "candles/days"),
    (r"rest/doc\.candles_weeks\..*", "candles/weeks"),
    (r"rest/(doc\.)?trades_ticks\..*", "trades/ticks"),
    (r"rest/(doc\.)?ticker\..*", "ticker"),
    (r"rest/(doc\.)?orderbook[._].*", "orderbook"),
    (r"ws/(doc|sample)\.default\.ticker\..*", "DEFAULT ticker"),
    (r"ws/(doc|sample)\.default\.trade\..*", "DEFAULT trade"),
    (r"ws/(doc|sample)\.default\.orderbook\..*", "DEFAULT orderbook"),
    (r"ws/(doc|sample)\.default\.candle_1s\..*", "DEFAULT candle.1s"),
    (r"ws/sample\.simple\.trade\.json", "SIMPLE trade"),
    (r"ws/sample\.simple\.orderbook\.json", "SIMPLE orderbook"),
)
CAPTURE = "ws/ws_simple_trade_orderbook.20210405.jsonl.gz"
FILES = sorted(
    path.relative_to(PAYLOADS).as_posix() for path in PAYLOADS.rglob("*") if path.suffix == ".json"
)


class Change(NamedTuple):
    """A field that came or went; `on` is the first day of the new shape."""

    kinds: str
    """A pattern of the kinds it concerns."""
    fields: frozenset[str]
    added: bool
    on: str
    source: str


def _fields(text: str) -> frozenset[str]:
    return frozenset(text.split())


CHANGES = (
    Change(
        "trades/ticks",
        _fields("sequential_id"),
        added=True,
        on="2018-11-22",
        source="upbit-api 2.3: absent in answers of July 2018; first seen in an example of"
        " this day that ccxt quotes",
    ),
    Change(
        "DEFAULT ticker",
        _fields("trade_status market_state_for_ios"),
        added=False,
        on="2021-10-13",
        source="upbit-api 5.4; none of the recordings is older",
    ),
    Change(
        "SIMPLE ticker", _fields("ts msfi"), added=False, on="2021-10-13", source="upbit-api 5.4"
    ),
    Change(
        "orderbook|DEFAULT orderbook",
        _fields("level"),
        added=True,
        on="2024-01-22",
        source="upbit-api 2 (endpoint table), changelog tick_unit_change",
    ),
    Change(
        "SIMPLE orderbook",
        _fields("lv"),
        added=True,
        on="2024-01-22",
        source="upbit-api 2 (endpoint table), changelog tick_unit_change",
    ),
    Change(
        "DEFAULT trade",
        _fields("best_ask_price best_ask_size best_bid_price best_bid_size"),
        added=True,
        on="2024-10-31",
        source="upbit-api 5.5: on the wire since 2024-11-27; the document's example, which"
        " announced it, is of this day",
    ),
    Change(
        "SIMPLE trade",
        _fields("bap bas bbp bbs"),
        added=True,
        on="2024-10-31",
        source="upbit-api 5.5: on the wire since 2024-11-27",
    ),
    Change(
        "market/all",
        _fields("market_warning"),
        added=False,
        on="2024-11-20",
        source="upbit-api 2.1; only with details, of which nothing was recorded",
    ),
)


class Written(NamedTuple):
    """How numbers were written: the forms that occur, by what they say."""

    price: str
    size: str
    total: str
    """Sums of price times volume."""


# whole: no point. double: as a double, "11467000.0". eight: with zeros up to eight decimals.
# sixteen: up to sixteen. exponent: a double of Java's, 1.32448E8.
EDITED = Written("whole", "short", "short")
"""Numbers went through JavaScript: documents, and sources that re-encoded them."""
WRITTEN: Mapping[str, Written] = {
    "rest/candles_minutes_1.KRW-BTC.count20.20210130T134714Z.json": Written(*["eight"] * 3),
    "rest/candles_minutes_1.KRW-BTC.count200.20210130T134731Z.json": Written(*["eight"] * 3),
    "rest/candles_minutes_1.KRW-BTC.count50.to20210130T1100Z.json": Written(*["eight"] * 3),
    "rest/candles_minutes_3.KRW-BTC.count200.to20200220T0100Z.json": Written(*["double"] * 3),
    "rest/candles_minutes_60.USDT-BTC.20240313.json": Written(*["eight"] * 3),
    "rest/doc.candles_days.KRW-BTC.20180418.json": EDITED,
    "rest/doc.candles_seconds.KRW-BTC.20250630.json": EDITED,
    # One row of 2018, edited, and one of 2021, of doubles.
    "rest/doc.candles_weeks.KRW-BTC.20180416_20210104.json": Written("loose", "short", "short"),
    "rest/doc.orderbook_level10000.KRW-BTC.20250704.json": EDITED,
    # Six prices of the first market are quoted, probably by the document's author.
    "rest/doc.ticker.KRW-BTC_KRW-ETH.20250704.json": Written("quoted", "short", "short"),
    "rest/doc.trades_ticks.KRW-BTC.20250627.json": EDITED,
    "rest/orderbook.BTC-ETH.20180702.json": Written("short", "short", "short"),
    "rest/ticker.KRW-BTC.20180702.json": EDITED,
    "rest/ticker.USDT-BTC.20240313.json": Written("eight", "eight", "sixteen"),
    "rest/trades_ticks.BTC-ETH.20180702.json": Written("short", "short", "short"),
    "rest/trades_ticks.USDT-BTC.20240313.json": Written(*["eight"] * 3),
    "ws/doc.default.candle_1s.KRW-BTC.20250102.json": Written("eight", "eight", "sixteen"),
    "ws/doc.default.ticker.KRW-BTC.20230221.json": Written("loose", "eight", "eight"),
    "ws/doc.default.trade.KRW-BTC.20241031.json": Written("loose", "eight", "eight"),
    "ws/sample.default.orderbook.USDT-ETC.20230808.json": Written(*["double"] * 3),
    "ws/sample.default.trade.KRW-DOGE.20210302.json": Written(*["double"] * 3),
    "ws/sample.simple.orderbook.json": Written(*["double"] * 3),
    # The former close and the change have eight decimals there, the price has not.
    "ws/sample.simple.trade.json": Written("loose", "double", "double"),
    # Measured in 2026: upbit-api, the examples of section 2 and the text of section 5.3.
    "simulated candles/seconds": Written("short", "short", "short"),
    "simulated candles/minutes": Written(*["double"] * 3),
    "simulated candles/days": Written(*["double"] * 3),
    "simulated candles/weeks": Written(*["double"] * 3),
    "simulated trades/ticks": Written(*["double"] * 3),
    "simulated ticker": Written(*["double"] * 3),
    "simulated orderbook": Written("double", "eight", "double"),
    "simulated DEFAULT ticker": Written("exponent", "eight", "double"),
    "simulated DEFAULT trade": Written("exponent", "eight", "double"),
    "simulated DEFAULT orderbook": Written("exponent", "eight", "double"),
    "simulated DEFAULT candle.1s": Written("exponent", "eight", "double"),
    "simulated SIMPLE ticker": Written(*["short"] * 3),
    "simulated SIMPLE trade": Written(*["short"] * 3),
    "simulated SIMPLE orderbook": Written(*["short"] * 3),
    "simulated SIMPLE candle.1s": Written(*["short"] * 3),
}
# The forms that a word of the table allows.
_AS_SHORT_AS_IT_GOES = ("short", "full 8", "full 16")
FORMS: Mapping[str, tuple[str, ...]] = {
    "whole": ("whole",),
    "short": (*_AS_SHORT_AS_IT_GOES, "whole", "small exponent"),
    "double": (*_AS_SHORT_AS_IT_GOES, "point zero"),
    "eight": ("padded 8", "full 8"),
    "sixteen": ("full 16", "padded 16", "full 8"),
    "exponent": (*_AS_SHORT_AS_IT_GOES, "point zero", "small exponent", "exponent"),
    "quoted": ("quoted", "whole"),
    "loose": (*_AS_SHORT_AS_IT_GOES, "padded 8", "whole", "point zero"),
}
# What tells a word from the others has to occur among many numbers.
TELLING = {"eight": "padded 8", "exponent": "exponent"}
MANY = 20


class Number(str):
    """The text of a JSON number."""


def read(text: str | bytes) -> Any:
    """JSON whose numbers keep their text."""
    return json.loads(text, parse_float=Number, parse_int=Number)


def form_of(number: str) -> str:
    """How a number is written."""
    if "e" in number.lower():
        return "small exponent" if "-" in number.lower().partition("e")[2] else "exponent"
    _, point, decimals = number.partition(".")
    if not point:
        return "whole"
    if decimals == "0":
        return "point zero"
    if len(decimals) in (8, 16):
        return f"{'padded' if decimals.endswith('0') else 'full'} {len(decimals)}"
    if len(decimals) > 16 or decimals.endswith("0"):
        return f"{len(decimals)} decimals"
    return "short"


class Seen(NamedTuple):
    """What occurs in one field of many rows."""

    types: set[str]
    forms: Counter[str]
    masks: set[str]


_TIME_FIELDS = re.compile(r".*(_date|_time|_utc|_kst|_period)$|td|tdt|ttm|cdttm[uk]|[hl]52wdt")


def shape(rows: list[dict[str, Any]]) -> dict[str, Seen]:
    """Fields of rows; those of a book's levels under ``orderbook_units.``"""
    seen: dict[str, Seen] = {}
    for row in rows:
        for name, value in _flat(row):
            field = seen.setdefault(name, Seen(set(), Counter(), set()))
            if isinstance(value, Number):
                field.types.add("number")
                field.forms[form_of(value)] += 1
            else:
                field.types.add(type(value).__name__)
            if type(value) is str:
                if re.fullmatch(r"-?\d+\.\d+", value):
                    field.forms["quoted"] += 1
                if _TIME_FIELDS.fullmatch(name):
                    field.masks.add(re.sub(r"\d", "9", value))
    return seen


def _flat(row: dict[str, Any]) -> list[tuple[str, Any]]:
    found = []
    for name, value in row.items():
        found.append((name, value))
        if isinstance(value, list):
            found += [(f"{name}.{key}", one[key]) for one in value for key in one]
    return found


def kind_of(file: str) -> str:
    found = [kind for pattern, kind in KIND_OF_FILE if re.fullmatch(pattern, file)]
    assert len(found) == 1, f"{file} is of {found or 'no'} kind: add it to the table"
    return found[0]


def day_of(file: str) -> str:
    """The day of a recording, from its name."""
    found = re.findall(r"(20\d\d)(\d\d)(\d\d)", file)
    year, month, day = found[-1] if found else ("2021", "04", "05")  # the samples of the capture
    return "2021-04-17" if file == "market_all.json" else f"{year}-{month}-{day}"


def rows_of(file: str) -> list[dict[str, Any]]:
    content = read((PAYLOADS / file).read_text(encoding="utf-8"))
    return content if isinstance(content, list) else [content]


async def _ask(simulator: Simulator, clock: ManualClock) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    async with aiohttp.ClientSession() as session:
        for kind, calls in REST_CALLS.items():
            clock.advance(1.0)  # for ten more calls
            for path, query in calls:
                async with session.get(simulator.rest_url + path, params=query) as response:
                    assert response.status == 200, path
                    found.setdefault(kind, []).extend(read(await response.text()))
    for form in ("DEFAULT", "SIMPLE"):
        async with websockets.connect(simulator.ws_url) as socket:
            types = [{"type": stream, "codes": SYMBOLS} for stream in STREAMS]
            await socket.send(json.dumps([{"ticket": "shapes"}, *types, {"format": form}]))
            for _ in range(len(SYMBOLS) * len(STREAMS)):
                frame = read(await asyncio.wait_for(socket.recv(), 10))
                stream = frame.get("type") or frame["ty"]
                found.setdefault(f"{form} {stream}", []).append(frame)
    return found


@pytest.fixture(scope="module")
def simulated() -> Mapping[str, Mapping[str, Seen]]:
    """The shapes of the simulator's answers, by kind."""

    async def ask() -> dict[str, list[dict[str, Any]]]:
        clock = ManualClock(NOW_MS)
        async with Simulator(clock=clock) as simulator:
            return await _ask(simulator, clock)

    return {kind: shape(rows) for kind, rows in asyncio.run(ask()).items()}


def keys_now(kind: str, keys: set[str], day: str) -> set[str]:
    """What became of the keys of a day."""
    for change in CHANGES:
        if re.fullmatch(change.kinds, kind) and day < change.on:
            keys = keys | change.fields if change.added else keys - change.fields
    return keys


@pytest.mark.parametrize("file", FILES)
def test_a_recording_has_the_simulators_keys_and_types(
    file: str, simulated: Mapping[str, Mapping[str, Seen]]
) -> None:
    kind = kind_of(file)
    recorded, answered = shape(rows_of(file)), simulated[kind]
    assert keys_now(kind, set(recorded), day_of(file)) == set(answered)
    for name in recorded.keys() & answered.keys():
        was, is_ = recorded[name], answered[name]
        if WRITTEN.get(file, EDITED).price == "quoted" and "quoted" in was.forms:
            was = was._replace(types=was.types - {"str"})
        assert was.types <= is_.types, name
        # Seconds of 00 were left out in April 2021; the simulator does so on demand.
        extra = {"99:99"} if name == "ttm" else set()
        assert was.masks <= is_.masks | extra, name


def test_every_frame_of_the_capture_has_the_simulators_keys_and_types(
    simulated: Mapping[str, Mapping[str, Seen]],
) -> None:
    kinds: dict[str, list[dict[str, Any]]] = {}
    with gzip.open(PAYLOADS / CAPTURE, "rt", encoding="utf-8") as file:
        for line in file:
            frame = read(read(line)["raw"])
            if isinstance(frame, dict):
                kinds.setdefault(f"SIMPLE {frame['ty']}", []).append(frame)
    assert set(kinds) == {"SIMPLE trade", "SIMPLE orderbook"}
    for kind, frames in kinds.items():
        recorded, answered = shape(frames), simulated[kind]
        assert keys_now(kind, set(recorded), "2021-04-05") == set(answered)
        for name in recorded.keys() & answered.keys():
            assert recorded[name].types <= answered[name].types, name
            other = recorded[name].masks - answered[name].masks
            assert other == ({"99:99"} if name == "ttm" else set()), name


_SIZES = re.compile(
    r"(.*\.)?(.*_volume(_24h)?|.*_size|tv|atv(24h)?|a[ab]v|[ab]s|b[ab]s|t[ab]s|catv)"
)
_TOTALS = re.compile(r"(candle_)?acc_trade_price(_24h)?|atp(24h)?|catp")
_RATES = re.compile(r".*_rate|s?cr")
_PRICES = re.compile(r"(.*\.)?(.*_price|[ohtl]p|pcp|s?cp|[hl]52wp|[ab]p|b[ab]p)")


@pytest.mark.parametrize("place", WRITTEN)
def test_numbers_are_written_as_the_table_says(
    place: str, simulated: Mapping[str, Mapping[str, Seen]]
) -> None:
    if place.startswith("simulated "):
        found = simulated[place.removeprefix("simulated ")]
    else:
        found = shape(rows_of(place))
    by_word: dict[str, Counter[str]] = {what: Counter() for what in Written._fields}
    for name, seen in found.items():
        for pattern, what in ((_TOTALS, "total"), (_SIZES, "size"), (_PRICES, "price")):
            if pattern.fullmatch(name):
                by_word[what] += seen.forms
                break
        if _RATES.fullmatch(name):  # ten decimals at most, nowhere padded
            assert seen.forms.keys() <= set(FORMS["double"]) | {"small exponent"}, name
    for what, forms in by_word.items():
        word = getattr(WRITTEN[place], what)
        assert forms.keys() <= set(FORMS[word]), (what, word, forms)
        telling = TELLING.get(word)
        assert telling is None or telling in forms or forms.total() < MANY, (what, word, forms)


def test_every_recording_and_every_kind_of_answer_stands_in_the_table(
    simulated: Mapping[str, Mapping[str, Seen]],
) -> None:
    assert set(FILES) - {"market_all.json"} == {
        place for place in WRITTEN if not place.startswith("simulated ")
    }
    assert {f"simulated {kind}" for kind in simulated} - set(WRITTEN) == {"simulated market/all"}
    recorded = {Path(file).parts[0] for file in FILES}
    assert recorded == {"market_all.json", "rest", "ws"}


def test_fields_that_were_dropped_are_not_simulated(
    simulated: Mapping[str, Mapping[str, Seen]],
) -> None:
    for change in CHANGES:
        for kind, fields in simulated.items():
            if re.fullmatch(change.kinds, kind):
                assert change.fields <= fields.keys() or not change.added
                assert change.added or not change.fields & fields.keys()
