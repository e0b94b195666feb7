"""Build what the simulator ships: the recordings as one file, and the listing of markets.

Reads the recordings in ``tests/payloads/upbit`` and writes ``resources/market``:

- ``recordings.npz``: per recorded market the minutes since 2025-09-01T00:00Z, open, high,
  low and close in units of the recording, volume in 1e-8. Integers, checked to give the
  recorded floats back exactly.
- ``markets.json``: code, names, listing instant and a price level in the quote asset.

Run it from anywhere: ``uv run python tools/build_market_tile.py``. The output depends on
nothing but the recordings and this file.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from upbit_backbone.simulator.recordings import RECORDED

ROOT = Path(__file__).resolve().parent.parent
PAYLOADS = ROOT / "tests" / "payloads" / "upbit"
OUTPUT = ROOT / "resources" / "market"

START = datetime(2025, 9, 1, tzinfo=UTC)
VOLUME_UNITS = 10**8
KRW_MARKETS = 289  # as many as Upbit listed in September 2026
BTC_IN_KRW = 150_700_000
USDT_IN_KRW = 1_395

KRW_LEVELS: dict[str, float] = {
    # Roughly what a coin cost in won in September 2025. Others get an invented level.
    "BTC": BTC_IN_KRW, "ETH": 6_100_000, "XRP": 3_860, "DOGE": 298, "ADA": 1_150,
    "DOT": 5_300, "LINK": 32_500, "LTC": 155_000, "BCH": 760_000, "ETC": 28_500, "TRX": 470,
    "XLM": 500, "EOS": 650, "ATOM": 6_200, "AXS": 3_300, "SAND": 380, "MANA": 390, "ENJ": 90,
    "CHZ": 55, "BAT": 210, "VET": 33, "THETA": 1_050, "TFUEL": 45, "HBAR": 300, "STX": 870,
    "FLOW": 540, "NEO": 9_000, "QTUM": 3_100, "XTZ": 980, "WAVES": 1_500, "ICX": 170,
    "IOTA": 260, "ZIL": 15, "ZRX": 330, "KAVA": 500, "KNC": 500, "GAS": 4_200, "ONG": 230,
    "ONT": 170, "SXP": 250, "STORJ": 350, "STEEM": 190, "HIVE": 290, "ARK": 560, "ARDR": 110,
    "POWR": 220, "LSK": 500, "GRS": 480, "ELF": 330, "GLM": 330, "CRO": 330, "JST": 47,
    "BORA": 120, "MVL": 4.2, "MBL": 3.0, "MLK": 250, "HUNT": 370, "PUNDIX": 450, "AERGO": 160,
    "ANKR": 20, "AQT": 1_300, "CBK": 800, "META": 30, "MED": 10, "BTG": 30_000, "BSV": 37_000,
    "BTT": 0.0009, "SC": 4.0, "XEM": 20, "SNT": 38, "WAXP": 28, "IOST": 5, "IQ": 7, "CVC": 110,
    "TON": 1_700, "REP": 1_500, "OMG": 300, "MTL": 1_000, "STPT": 100, "QKC": 10, "STMX": 6,
    "ALGO": 330, "AUCTION": 14_000, "BNT": 950, "CELO": 430, "COMP": 60_000, "CRV": 1_050,
    "DAI": 1_395, "FIL": 3_250, "GRT": 125, "INJ": 18_500, "LRC": 120, "LUNA": 220,
    "MKR": 2_200_000, "NEAR": 3_500, "NMR": 22_000, "OXT": 80, "PAX": 1_395, "PSG": 2_600,
    "RLC": 1_500, "RSR": 9, "RVN": 19, "SNX": 1_000, "SUN": 30, "SYS": 55, "TUSD": 1_395,
    "UNI": 13_500, "IOTX": 38, "CTSI": 100, "DGB": 11, "NKN": 35, "OGN": 80, "PROM": 13_000,
}  # fmt: skip
LISTED = {
    "KRW-BTC": datetime(2017, 9, 25, 3, tzinfo=UTC),
    "KRW-ETH": datetime(2017, 9, 25, 3, tzinfo=UTC),
    "KRW-XRP": datetime(2017, 9, 25, 3, tzinfo=UTC),
    "KRW-DOGE": datetime(2021, 2, 24, 8, tzinfo=UTC),
    # Three listings in the last quarter of 2025, for programs that watch for new markets.
    "KRW-SIM110": datetime(2025, 10, 16, 5, tzinfo=UTC),
    "KRW-SIM111": datetime(2025, 11, 13, 6, 30, tzinfo=UTC),
    "KRW-SIM112": datetime(2025, 12, 11, 7, tzinfo=UTC),
}
# Between which days the others were listed: known codes before the recorded list of 2021.
KNOWN_BETWEEN = (datetime(2017, 9, 26, tzinfo=UTC), datetime(2021, 4, 10, tzinfo=UTC))
ADDED_BETWEEN = (datetime(2021, 5, 1, tzinfo=UTC), datetime(2025, 8, 1, tzinfo=UTC))


def main() -> None:
    """Write both files."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    write_recordings(OUTPUT / "recordings.npz")
    write_markets(OUTPUT / "markets.json")


def write_recordings(path: Path) -> None:
    """Write the three recordings as integers."""
    columns: dict[str, Any] = {}
    for symbol, written in RECORDED.items():
        recorded = PAYLOADS / "candles" / f"{symbol}_1m_20250901_20251004.csv.gz"
        columns |= _recording(symbol, recorded, written.unit)
    np.savez_compressed(path, **columns)


def write_markets(path: Path) -> None:
    """Write the listing, one market a line."""
    lines = ",\n".join(json.dumps(market, ensure_ascii=False) for market in _markets())
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _recording(symbol: str, path: Path, unit: Fraction) -> dict[str, Any]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        recorded = list(csv.DictReader(lines))
    minutes, prices, volumes = [], [], []
    for row in recorded:
        moment = datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC)
        minutes.append((moment - START) // timedelta(minutes=1))
        prices.append([_exact(float(row[name]), unit) for name in ("open", "high", "low", "close")])
        volumes.append(_exact(float(row["volume"]), Fraction(1, VOLUME_UNITS)))
    return {
        f"{symbol}.minute": np.array(minutes, np.int32),
        f"{symbol}.prices": np.array(prices, np.int32).T,
        f"{symbol}.volume": np.array(volumes, np.int64),
    }


def _exact(recorded: float, unit: Fraction) -> int:
    units = round(recorded * unit.denominator / unit.numerator)
    if units * unit.numerator / unit.denominator != recorded:
        raise ValueError(f"{recorded!r} is no whole number of {unit}")
    return units


def _markets() -> list[dict[str, object]]:
    known = json.loads((PAYLOADS / "market_all.json").read_text(encoding="utf-8"))
    names = {market["market"]: market for market in known}
    elsewhere = [
        {**market, "market": f"KRW-{market['market'].partition('-')[2]}"}
        for market in known
        if not market["market"].startswith("KRW-")
    ]
    added = {market["market"]: market for market in elsewhere if market["market"] not in names}
    korean = sum(code.startswith("KRW-") for code in names) + len(added)
    invented = {
        f"KRW-SIM{number:03}": {
            "market": f"KRW-SIM{number:03}",
            "korean_name": f"가상 {number:03}",
            "english_name": f"Simulated {number:03}",
        }
        for number in range(1, KRW_MARKETS - korean + 1)
    }
    everything = names | added | invented
    return [
        {
            "market": code,
            "korean_name": market["korean_name"],
            "english_name": market["english_name"],
            "listed": _listed(code, known=code in names).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "price": _price_level(code),
        }
        for code, market in everything.items()
    ]


def _listed(code: str, *, known: bool) -> datetime:
    if code in LISTED:
        return LISTED[code]
    first, last = KNOWN_BETWEEN if known else ADDED_BETWEEN
    hours = (last - first) // timedelta(hours=1)
    return first + timedelta(hours=_chance("listed", code) % hours)


def _price_level(code: str) -> float:
    quote, _, base = code.partition("-")
    # Invented levels lie between 2 and 3,000 won, most of them low, as on the exchange.
    won = KRW_LEVELS.get(base) or 2 * 1_500 ** (_chance("price", base) % 10_000 / 10_000)
    in_quote = won / {"KRW": 1, "BTC": BTC_IN_KRW, "USDT": USDT_IN_KRW}[quote]
    return float(f"{in_quote:.4g}")


def _chance(*parts: str) -> int:
    return int.from_bytes(hashlib.blake2b("|".join(parts).encode(), digest_size=8).digest())


if __name__ == "__main__":
    main()
