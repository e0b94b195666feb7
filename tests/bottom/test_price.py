"""Ticks and how prices are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.price import format_price, price_decimals, tick_size

# (lower bound of the band, tick in it, tick just below it): docs.upbit.com/kr, changelog
# krw_tick_unit_change (in force since 2025-07-31) and usdt_tick_unit_change (2024-08-19).
KRW_BANDS = [
    ("2000000", "1000", "1000"),
    ("1000000", "1000", "500"),
    ("500000", "500", "100"),
    ("100000", "100", "50"),
    ("50000", "50", "10"),
    ("10000", "10", "5"),
    ("5000", "5", "1"),
    ("1000", "1", "1"),
    ("100", "1", "0.1"),
    ("10", "0.1", "0.01"),
    ("1", "0.01", "0.001"),
    ("0.1", "0.001", "0.0001"),
    ("0.01", "0.0001", "0.00001"),
    ("0.001", "0.00001", "0.000001"),
    ("0.0001", "0.000001", "0.0000001"),
    ("0.00001", "0.0000001", "0.00000001"),
]
USDT_BANDS = [
    ("10", "0.01", "0.001"),
    ("1", "0.001", "0.0001"),
    ("0.1", "0.0001", "0.00001"),
    ("0.01", "0.00001", "0.000001"),
    ("0.001", "0.000001", "0.0000001"),
    ("0.0001", "0.0000001", "0.00000001"),
]
BANDS = [("KRW-BTC", *band) for band in KRW_BANDS] + [("USDT-BTC", *band) for band in USDT_BANDS]


@pytest.mark.parametrize(("symbol", "bound", "tick", "below"), BANDS)
def test_a_band_begins_at_its_lower_bound(symbol: str, bound: str, tick: str, below: str) -> None:
    assert tick_size(symbol, float(bound)) == Decimal(tick)
    assert tick_size(symbol, float(Decimal(bound) - Decimal(below))) == Decimal(below)


# (first instant of the table in UTC, lower bounds with their ticks): upbit-api, section 3.
KRW_UNTIL_2024 = {
    "2000000": "1000",
    "1000000": "500",
    "500000": "100",
    "100000": "50",
    "50000": "10",
    "10000": "10",
    "5000": "5",
    "1000": "5",
    "100": "1",
    "10": "0.1",
    "1": "0.01",
    "0.1": "0.001",
    "0.01": "0.0001",
    "0.001": "0.0001",
    "0.0001": "0.0001",
}
KRW_FROM_2024 = {
    "2000000": "1000",
    "1000000": "500",
    "500000": "100",
    "100000": "50",
    "50000": "10",
    "10000": "10",
    "5000": "1",
    "1000": "1",
    "100": "0.1",
    "10": "0.01",
    "1": "0.001",
    "0.1": "0.0001",
    "0.01": "0.00001",
    "0.001": "0.000001",
    "0.0001": "0.0000001",
    "0.00001": "0.00000001",
}
KRW_NOW = {bound: tick for bound, tick, _ in KRW_BANDS} | {"0.000001": "0.00000001"}
USDT_NOW = {bound: tick for bound, tick, _ in USDT_BANDS} | {"0.00001": "0.00000001"}
USDT_UNTIL_2024 = dict.fromkeys(USDT_NOW, "0.001")
ERAS = {
    "won of 2018": ("KRW-XLM", "2018-01-22T00:00:00Z", KRW_UNTIL_2024),
    "won until January 2024": ("KRW-XLM", "2024-01-28T15:59:59Z", KRW_UNTIL_2024),
    "won from January 2024": ("KRW-XLM", "2024-01-28T16:00:00Z", KRW_FROM_2024),
    "won until July 2025": ("KRW-XLM", "2025-07-30T14:59:59Z", KRW_FROM_2024),
    "won from July 2025": ("KRW-XLM", "2025-07-30T15:00:00Z", KRW_NOW),
    "dollars until August 2024": ("USDT-XLM", "2024-08-18T14:59:59Z", USDT_UNTIL_2024),
    "dollars from August 2024": ("USDT-XLM", "2024-08-18T15:00:00Z", USDT_NOW),
    "bitcoin ever": ("BTC-XLM", "2018-01-22T00:00:00Z", dict.fromkeys(KRW_NOW, "0.00000001")),
}


@pytest.mark.parametrize("era", ERAS)
def test_each_era_has_its_tick_at_and_just_below_each_bound(era: str) -> None:
    symbol, text, bands = ERAS[era]
    at = datetime.fromisoformat(text)
    ticks = list(bands.items())
    for (bound, tick), (_, below) in zip(ticks, [*ticks[1:], ticks[-1]], strict=True):
        assert tick_size(symbol, float(bound), at) == Decimal(tick), bound
        just_below = float(Decimal(bound) * Decimal("0.99999999"))
        assert tick_size(symbol, just_below, at) == Decimal(below), bound


def test_without_a_moment_the_newest_table_holds() -> None:
    for bound in KRW_NOW:
        for symbol in ("KRW-XLM", "KRW-TRX", "KRW-USDT", "USDT-XLM", "BTC-XLM"):
            newest = tick_size(symbol, float(bound), datetime(9999, 12, 31, tzinfo=UTC))
            assert tick_size(symbol, float(bound)) == newest


@pytest.mark.parametrize(
    ("text", "tick"),
    [
        ("2024-01-28T15:59:59Z", "1"),
        ("2024-01-28T16:00:00Z", "0.1"),
        ("2024-10-13T21:59:59Z", "0.1"),
        ("2024-10-13T22:00:00Z", "1"),
        ("2025-07-30T14:59:59Z", "1"),
        ("2025-07-30T15:00:00Z", "1"),
    ],
)
def test_sixteen_assets_got_their_whole_won_back_before_the_others(text: str, tick: str) -> None:
    assets = [
        *("ADA", "ALGO", "BLUR", "CELO", "ELF", "EOS", "GRS", "GRT"),
        *("ICX", "MANA", "MINA", "POL", "SAND", "SEI", "STG", "TRX"),
    ]
    assert len(assets) == 16
    at = datetime.fromisoformat(text)
    for asset in assets:
        for price in (100.0, 999.9):
            assert tick_size(f"KRW-{asset}", price, at) == Decimal(tick)
        # Only this band, and only in won.
        for price in (99.99, 1_000.0):
            ordinary = tick_size("KRW-XLM", price, at)
            assert tick_size(f"KRW-{asset}", price, at) == ordinary
        assert tick_size(f"USDT-{asset}", 500.0, at) == tick_size("USDT-XLM", 500.0, at)
    finer = datetime(2024, 1, 28, 16, tzinfo=UTC) <= at < datetime(2025, 7, 30, 15, tzinfo=UTC)
    assert tick_size("KRW-XLM", 500.0, at) == Decimal("0.1" if finer else "1")


@pytest.mark.parametrize(
    ("text", "tick"),
    [
        ("2025-03-20T15:59:59Z", "1"),
        ("2025-03-20T16:00:00Z", "0.5"),
        ("2026-01-05T00:00:00Z", "0.5"),
    ],
)
@pytest.mark.parametrize("symbol", ["KRW-USDT", "KRW-USDC"])
def test_dollar_tokens_have_half_won_since_march_2025(symbol: str, text: str, tick: str) -> None:
    at = datetime.fromisoformat(text)
    assert tick_size(symbol, 1_000.0, at) == Decimal(tick)
    assert tick_size(symbol, 4_999.5, at) == Decimal(tick)
    for price in (999.0, 10_000.0):
        assert tick_size(symbol, price, at) == tick_size("KRW-XLM", price, at)


def test_a_moment_means_the_same_in_every_zone() -> None:
    korean = datetime.fromisoformat("2024-01-29T01:00:00+09:00")
    assert tick_size("KRW-XRP", 730.0, korean) == Decimal("0.1")
    assert tick_size("KRW-XRP", 730.0, korean - timedelta(seconds=1)) == Decimal("1")


@pytest.mark.parametrize("price", [0.00000001, 0.07084678, 1.0, 20.0])
def test_the_btc_market_has_one_tick(price: float) -> None:
    assert tick_size("BTC-ETH", price) == Decimal("0.00000001")


@pytest.mark.parametrize(
    ("price", "tick"),
    [(999.0, "1"), (1_000.0, "0.5"), (1_389.5, "0.5"), (9_999.5, "0.5"), (10_000.0, "10")],
)
@pytest.mark.parametrize("symbol", ["KRW-USDT", "KRW-USDC"])
def test_dollar_tokens_have_half_won_between_1000_and_10000(
    symbol: str, price: float, tick: str
) -> None:
    assert tick_size(symbol, price) == Decimal(tick)
    assert tick_size("KRW-XRP", 1_389.5) == 1


def test_an_unknown_quote_asset_hides_no_digit() -> None:
    assert tick_size("IDR-BTC", 1e9) == Decimal("0.00000001")


@pytest.mark.parametrize(
    ("symbol", "price", "text"),
    [
        ("KRW-BTC", 132_448_000.0, "132,448,000"),
        ("KRW-XRP", 3_210.0, "3,210"),
        ("KRW-DOGE", 338.0, "338"),
        ("KRW-BTT", 0.00073, "0.000730"),
        ("KRW-PEPE", 0.012, "0.0120"),
        ("KRW-IQ", 41.2, "41.2"),
        ("KRW-IQ", 41.0, "41.0"),
        ("KRW-USDT", 1_389.5, "1,389.5"),
        ("KRW-USDT", 1_389.0, "1,389.0"),
        ("USDT-BTC", 73_578.65, "73,578.65"),
        ("USDT-BTC", 73_578.7, "73,578.70"),
        ("BTC-ETH", 0.07084678, "0.07084678"),
        ("BTC-ETH", 0.0708, "0.07080000"),
        ("KRW-BTC", 0.0, "0.00000000"),
    ],
)
def test_a_price_shows_the_decimals_of_its_tick(symbol: str, price: float, text: str) -> None:
    assert format_price(symbol, price) == text


@pytest.mark.parametrize(
    ("symbol", "price", "text"),
    [
        # A recorded candle of 2024, before the USDT market's ticks were widened.
        ("USDT-BTC", 72_738.58583492, "72,738.58583492"),
        # Ticks of earlier tables.
        ("KRW-STX", 2_345.5, "2,345.5"),
        ("KRW-SHIB", 0.01712, "0.01712"),
        ("KRW-BTC", 37_270_000.25, "37,270,000.25"),
    ],
)
def test_an_off_tick_price_is_never_shown_rounded(symbol: str, price: float, text: str) -> None:
    assert format_price(symbol, price) == text


@pytest.mark.parametrize(
    ("price", "text"), [(-250.0, "-250"), (-41.25, "-41.25"), (-0.5, "-0.500")]
)
def test_a_change_of_price_is_written_like_a_price_of_its_size(price: float, text: str) -> None:
    assert format_price("KRW-BTC", price) == text


symbols = st.sampled_from(["KRW-BTC", "KRW-USDT", "USDT-ETC", "BTC-ETH", "IDR-BTC"])


@given(symbols, st.integers(0, 10**15))
def test_a_price_of_up_to_eight_decimals_is_written_exactly(symbol: str, units: int) -> None:
    price = float(Decimal(units).scaleb(-8))
    text = format_price(symbol, price)
    assert float(text.replace(",", "")) == price


@given(symbols, st.floats(1e-8, 1e9))
def test_a_tick_is_a_power_of_ten_or_half_of_one_and_no_larger_than_the_price(
    symbol: str, price: float
) -> None:
    tick = tick_size(symbol, price)
    assert 0 < tick <= max(Decimal(price), Decimal("0.00000001"))
    assert tick.as_tuple().digits[0] in (1, 5)
    assert set(tick.as_tuple().digits[1:]) <= {0}
    assert 10 ** -price_decimals(symbol, price) <= max(float(tick), 1)
