from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from tests.simulator.worlds import SEED, market
from upbit_backbone.clock import HOUR_MS, MINUTE_MS, epoch_ms, utc_datetime
from upbit_backbone.models import Ticker, Trade
from upbit_backbone.routing.loss_check import (
    LONGEST_DISTRUST_MS,
    MOST_TICKERS,
    MOST_TRADES,
    MOST_UNCLEAR,
    SETTLED_MS,
    Loss,
    LossCheck,
)
from upbit_backbone.simulator.delivery import Delivery
from upbit_backbone.simulator.tickers import Tickers
from upbit_backbone.simulator.wire import price_of, volume_of

NOON_MS = AUTUMN_2025_MS + 12 * HOUR_MS


class Arrival(NamedTuple):
    at_ms: int
    value: Trade | Ticker


def a_trade(
    stamp_ms: int, volume: float, number: int = 0, *, price: float = 100.0, symbol: str = "KRW-BTC"
) -> Trade:
    at = utc_datetime(stamp_ms)
    identity = stamp_ms * 10_000 + number
    return Trade(symbol, price, volume, "BUY", identity, False, at, at, "websocket", True)


def a_ticker(
    stamp_ms: int,
    volume_today: float,
    last_volume: float,
    *,
    price: float = 100.0,
    symbol: str = "KRW-BTC",
    told_ms: int | None = None,
) -> Ticker:
    told = utc_datetime(stamp_ms if told_ms is None else told_ms)
    return Ticker(
        symbol=symbol,
        price=price,
        open=price,
        high=price,
        low=price,
        prev_close=price,
        change="EVEN",
        change_price=0.0,
        change_rate=0.0,
        trade_volume=last_volume,
        trade_time=utc_datetime(stamp_ms),
        volume_today=volume_today,
        value_today=0.0,
        volume_24h=0.0,
        value_24h=0.0,
        high_52w=price,
        high_52w_date=None,
        low_52w=price,
        low_52w_date=None,
        side="BUY",
        state="ACTIVE",
        delisting_date=None,
        exchange_time=told,
        received_time=told,
        source="websocket",
        simulated=True,
    )


@cache
def stream_of(symbol: str, start_ms: int, hours: int) -> list[Arrival]:
    """What the simulator's streams tell, late trades included, in order of arrival."""
    of, delivery = market(symbol), Delivery(SEED, symbol, late=True)
    tickers, scale = Tickers(of), of.scale
    trades = of.trades_back(
        from_ms=start_ms, before_ms=start_ms + hours * HOUR_MS, before_id=None, count=10**7
    )
    arrivals, newest_ms = list[Arrival](), 0
    for at_ms, _, trade in sorted((delivery.due_ms(t), t.sequential_id, t) for t in trades):
        price, volume = price_of(trade.price, scale), volume_of(trade.volume)
        stamp_ms, slot = divmod(trade.sequential_id, 10_000)
        assert stamp_ms == trade.time_ms
        value = a_trade(stamp_ms, volume, slot, price=price, symbol=symbol)
        arrivals.append(Arrival(at_ms, value))
        if trade.time_ms > newest_ms:
            newest_ms = trade.time_ms
            told = tickers.at(newest_ms)
            assert told is not None
            ticker = a_ticker(
                newest_ms,
                volume_of(told.volume_today),
                volume_of(told.last.volume),
                price=price_of(told.last.price, scale),
                symbol=symbol,
                told_ms=at_ms,
            )
            arrivals.append(Arrival(at_ms, ticker))
    return arrivals


def claims(
    arrivals: Iterable[Arrival],
    lost: frozenset[int] = frozenset(),
    *,
    check: LossCheck | None = None,
) -> list[Loss]:
    """What is claimed to be lost of a stream, asked each second, when the trades with these ids
    are; what merely could not be proved is left out."""
    check = check or LossCheck()
    found: list[Loss | None] = []
    now_ms = -1
    for at_ms, value in arrivals:
        now_ms = at_ms if now_ms < 0 else now_ms
        while now_ms <= at_ms:
            found.append(check.check(now_ms))
            now_ms += 1_000
        if isinstance(value, Ticker):
            check.ticker(value)
        elif value.sequential_id not in lost:
            check.trade(value)
    found += [check.check(now_ms + step) for step in range(0, 2 * SETTLED_MS + 1, 1_000)]
    return [loss for loss in found if loss is not None and loss.missing_volume]


def trades_in(arrivals: Iterable[Arrival]) -> list[Trade]:
    return [value for _, value in arrivals if isinstance(value, Trade)]


def covers(loss: Loss, trade: Trade) -> bool:
    return loss.from_ms <= epoch_ms(trade.exchange_time) <= loss.to_ms


# The first three around midnight: sums begin anew there.
MARKET_HOURS = [
    ("KRW-BTC", AUTUMN_2025_MS - HOUR_MS // 2, 1),
    ("KRW-XRP", AUTUMN_2025_MS - HOUR_MS // 2, 1),
    ("KRW-DOGE", AUTUMN_2025_MS - HOUR_MS // 2, 1),
    ("KRW-ETH", AUTUMN_2025_MS - 3 * HOUR_MS, 6),
    ("KRW-SIM003", AUTUMN_2025_MS - 12 * HOUR_MS, 24),
]
MARKET_DAYS = [
    (symbol, AUTUMN_2025_MS - 12 * HOUR_MS, 24)
    for symbol in ("KRW-BTC", "KRW-XRP", "KRW-DOGE", "KRW-ADA", "KRW-SIM010", "USDT-BTC")
]
SPANS = [*MARKET_HOURS, *(pytest.param(*span, marks=pytest.mark.slow) for span in MARKET_DAYS)]


@pytest.mark.parametrize(("symbol", "start_ms", "hours"), SPANS)
def test_lost_trades_of_a_market_are_found_and_none_is_claimed_where_none_is_lost(
    symbol: str, start_ms: int, hours: int
) -> None:
    check, arrivals = LossCheck(), stream_of(symbol, start_ms, hours)
    assert claims(arrivals, check=check) == []
    trades = trades_in(arrivals)
    assert check.proofs > 0.9 * (len(arrivals) - len(trades)) - 5, "it looked away"

    lost = Random(1).sample(trades[3:-3], max(1, len(trades) // 50))
    found = claims(arrivals, frozenset(trade.sequential_id for trade in lost))
    told = [trade for trade in lost if any(covers(loss, trade) for loss in found)]
    assert len(told) >= 0.95 * len(lost)
    assert all(any(covers(loss, trade) for trade in lost) for loss in found)
    assert sum(loss.missing_volume for loss in found) == pytest.approx(
        sum(trade.volume for trade in told), rel=1e-6
    )


def test_a_stretch_without_trades_and_tickers_is_found() -> None:
    arrivals = stream_of("KRW-ETH", AUTUMN_2025_MS - 3 * HOUR_MS, 6)
    start_ms, end_ms = AUTUMN_2025_MS - 30 * MINUTE_MS, AUTUMN_2025_MS - 20 * MINUTE_MS
    rest = [arrival for arrival in arrivals if not start_ms <= arrival.at_ms < end_ms]
    (loss,) = claims(rest)
    received = {trade.sequential_id for trade in trades_in(rest)}
    missing = [trade for trade in trades_in(arrivals) if trade.sequential_id not in received]
    assert len(missing) > 10
    assert all(covers(loss, trade) for trade in missing)
    assert loss.missing_volume == pytest.approx(sum(trade.volume for trade in missing))


class Made(NamedTuple):
    """A trade that an imagined exchange did, in the order of execution."""

    stamp_ms: int
    identity: int
    volume: int
    ticker: bool
    """Whether a ticker tells of the state right after it."""
    late_ms: int


@st.composite
def exchanges(draw: st.DrawFn) -> list[Made]:
    """Any execution: stamps that many trades share, ids in no order, tickers that skip."""
    coarse = draw(st.sampled_from((1, 1_000)))
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from((0, 0, 1, 7, 400, 3_000)),
                st.integers(1, 4),
                st.booleans(),
                st.sampled_from((0, 20, 400, 1_900)),
            ),
            min_size=3,
            max_size=40,
        )
    )
    ids = draw(st.permutations(range(len(steps))))
    made, at_ms = [], NOON_MS
    for (step_ms, volume, ticker, late_ms), identity in zip(steps, ids, strict=True):
        at_ms += step_ms
        made.append(Made(at_ms // coarse * coarse, identity, volume, ticker, late_ms))
    return made


def told_of(made: Sequence[Made], unit: float) -> list[Arrival]:
    arrivals, volume, at_ms = list[Arrival](), 10**6, NOON_MS
    for one in made:
        at_ms = max(at_ms, one.stamp_ms)
        volume += one.volume
        trade = a_trade(one.stamp_ms, one.volume * unit, one.identity)
        arrivals.append(Arrival(at_ms + one.late_ms, trade))
        if one.ticker:
            ticker = a_ticker(one.stamp_ms, volume * unit, one.volume * unit)
            arrivals.append(Arrival(at_ms, ticker))
    return sorted(arrivals, key=lambda arrival: arrival.at_ms)


UNITS = st.sampled_from((1.0, 1e-8, 0.1, 12_345.678))


@settings(max_examples=80)
@given(made=exchanges(), unit=UNITS)
def test_no_execution_of_which_all_trades_came_is_called_a_loss(
    made: list[Made], unit: float
) -> None:
    assert claims(told_of(made, unit)) == []


@settings(max_examples=80)
@given(made=exchanges(), unit=UNITS, data=st.data())
def test_a_claim_is_made_after_a_trade_was_lost_and_of_no_more_than_its_volume(
    made: list[Made], unit: float, data: st.DataObject
) -> None:
    lost = data.draw(st.sampled_from(made))
    arrivals = told_of(made, unit)
    found = claims(arrivals, frozenset({lost.stamp_ms * 10_000 + lost.identity}))
    missing = sum(loss.missing_volume for loss in found)
    assert missing <= lost.volume * unit * (1 + 1e-6) + 1e-8
    # Where two trades have one stamp and one volume, the other one may seem to be missing.
    assert all(lost.stamp_ms <= loss.to_ms for loss in found)


def simple(*volumes: float, start_ms: int = NOON_MS, total: float = 1_000.0) -> list[Arrival]:
    """A trade and its ticker every second; `total` was traded that day before."""
    arrivals = []
    for number, volume in enumerate(volumes):
        at_ms = start_ms + number * 1_000
        total += volume
        arrivals.append(Arrival(at_ms, a_trade(at_ms, volume)))
        arrivals.append(Arrival(at_ms, a_ticker(at_ms, total, volume)))
    return arrivals


def identity_at(second: int) -> int:
    return (NOON_MS + second * 1_000) * 10_000


def test_a_loss_names_the_two_tickers_and_the_volume_between_them() -> None:
    arrivals = simple(1.0, 2.0, 0.5, 4.0, 1.0)
    assert claims(arrivals) == []
    lost = frozenset({identity_at(2)})
    assert claims(arrivals, lost) == [Loss(NOON_MS + 1_000, NOON_MS + 2_000, 0.5)]


def test_losses_found_at_once_are_told_as_one() -> None:
    check = LossCheck()
    for _, value in simple(1.0, 2.0, 0.5, 4.0, 1.0):
        if isinstance(value, Ticker):
            check.ticker(value)
        elif value.volume not in (0.5, 4.0):
            check.trade(value)
    assert check.check(0) is None
    assert check.check(1_999) is None
    assert check.check(2_000) == Loss(NOON_MS + 1_000, NOON_MS + 3_000, 4.5)
    assert check.check(3_000) is None
    assert check.losses == 1


@pytest.mark.parametrize(("late_ms", "is_lost"), [(1_900, False), (4_500, True)])
def test_a_trade_may_come_two_seconds_late(late_ms: int, is_lost: bool) -> None:
    arrivals = simple(1.0, 2.0, 0.5, 4.0, 1.0)
    late = next(arrival for arrival in arrivals if arrival.value == a_trade(NOON_MS + 2_000, 0.5))
    arrivals.remove(late)
    arrivals.append(late._replace(at_ms=late.at_ms + late_ms))
    arrivals.sort(key=lambda arrival: arrival.at_ms)
    assert bool(claims(arrivals)) == is_lost


def test_a_trade_told_twice_counts_once() -> None:
    arrivals = simple(1.0, 2.0, 0.5, 4.0, 1.0)
    twice = [arrival for arrival in arrivals for _ in range(2)]
    assert claims(twice) == []
    assert len(claims(twice, frozenset({identity_at(2)}))) == 1


def test_a_trade_told_again_long_after_its_proof_hides_no_loss() -> None:
    at_ms = NOON_MS + 1_000
    first, second = a_trade(at_ms, 2.0, 0), a_trade(at_ms, 5.0, 1)
    arrivals = [
        *simple(1.0),
        Arrival(at_ms, first),
        Arrival(at_ms, a_ticker(at_ms, 1_003.0, 2.0)),
        Arrival(at_ms, second),
        Arrival(at_ms, a_ticker(at_ms, 1_008.0, 5.0)),
    ]
    for again in (first, second):
        later = [
            Arrival(at_ms + 5_000, again),
            *simple(1.0, 2.0, 1.0, start_ms=at_ms + 5_000, total=1_008.0),
        ]
        check = LossCheck()
        assert claims([*arrivals, *later], check=check) == []
        assert check.proofs == 5
        assert len(claims([*arrivals, *later], frozenset({identity_at(7)}))) == 1


@pytest.mark.parametrize("yesterday", [0.5, 1_000.0])
def test_the_day_is_changed_at_midnight_and_losses_are_found_after_it(yesterday: float) -> None:
    before = simple(0.1, 0.2, 0.1, start_ms=AUTUMN_2025_MS - 3_000, total=yesterday)
    after = simple(3.0, 1.0, 0.3, 1.0, start_ms=AUTUMN_2025_MS, total=0.0)
    check = LossCheck()
    assert claims(before + after, check=check) == []
    assert check.proofs == 5
    lost = (AUTUMN_2025_MS + 2_000) * 10_000
    (loss,) = claims(before + after, frozenset({lost}))
    assert loss.missing_volume == pytest.approx(0.3)


def test_a_ticker_whose_sum_may_be_of_another_day_than_its_trade_is_not_used() -> None:
    midnight = AUTUMN_2025_MS
    arrivals = simple(1.0, 1.0, 1.0, start_ms=midnight - 4_000)
    quiet = a_ticker(midnight - 500, 5_000.0, 1.0, told_ms=midnight + 10)
    assert claims([*arrivals, Arrival(midnight + 10, quiet)]) == []


def test_a_sum_that_falls_within_a_day_starts_anew() -> None:
    arrivals = simple(1.0, 1.0)
    arrivals += simple(1.0, 2.0, 0.5, 1.0, start_ms=NOON_MS + 2_000, total=3.0)
    assert claims(arrivals) == []
    (loss,) = claims(arrivals, frozenset({identity_at(4)}))
    assert loss.missing_volume == 0.5


def test_sums_do_not_start_at_a_ticker_that_names_another_trade_than_was_received() -> None:
    arrivals = [
        # Of one stamp, and the ticker tells of the first, which came before we listened.
        Arrival(NOON_MS, a_ticker(NOON_MS, 102.0, 2.0)),
        Arrival(NOON_MS, a_trade(NOON_MS, 1.0, 1)),
        Arrival(NOON_MS + 500, a_trade(NOON_MS + 500, 3.0)),
        Arrival(NOON_MS + 500, a_ticker(NOON_MS + 500, 106.0, 3.0)),
    ]
    assert claims(arrivals) == []


def test_nothing_is_claimed_across_a_reset() -> None:
    check, arrivals = LossCheck(), simple(1.0, 2.0, 0.5, 4.0, 1.0, 2.0)
    assert claims(arrivals[:4], check=check) == []
    check.reset()
    assert claims(arrivals[6:], check=check) == []
    assert check.proofs > 0


def claims_a_loss(check: LossCheck, start_ms: int) -> bool:
    """Whether a trade lost at this time is claimed."""
    lost = frozenset({(start_ms + 2_000) * 10_000})
    return bool(claims(simple(1.0, 2.0, 0.5, 1.0, start_ms=start_ms), lost, check=check))


def test_an_unfounded_claim_silences_the_check_twice_as_long_each_time() -> None:
    check, now_ms = LossCheck(), NOON_MS
    assert claims_a_loss(check, now_ms)
    for minutes in (10, 20, 40, 80):
        check.unfounded(now_ms)
        assert not claims_a_loss(check, now_ms + minutes * MINUTE_MS - 20_000)
        now_ms += minutes * MINUTE_MS
        assert claims_a_loss(check, now_ms)


def test_no_check_is_silent_for_longer_than_a_day() -> None:
    check = LossCheck()
    for _ in range(50):
        check.unfounded(NOON_MS)
    assert not claims_a_loss(check, NOON_MS + LONGEST_DISTRUST_MS - 20_000)
    assert claims_a_loss(check, NOON_MS + LONGEST_DISTRUST_MS)


def test_a_founded_claim_restores_trust() -> None:
    check = LossCheck()
    for _ in range(5):
        check.unfounded(NOON_MS)
    check.founded()
    check.unfounded(NOON_MS)
    assert claims_a_loss(check, NOON_MS + 10 * MINUTE_MS)


def test_a_check_after_a_long_pause_waits_for_trades_that_are_still_to_be_read() -> None:
    check, arrivals = LossCheck(), simple(1.0, 2.0, 0.5, 1.0)
    for _, value in arrivals:
        if isinstance(value, Ticker):
            check.ticker(value)
    for now_ms in (0, 1_000, 60_000, 61_000, 40_000, 41_000):
        assert check.check(now_ms) is None
    for _, value in arrivals:
        if isinstance(value, Trade):
            check.trade(value)
    assert [check.check(now_ms) for now_ms in (42_000, 43_000, 44_000)] == [None] * 3
    assert check.proofs == 3


def test_sums_start_only_at_a_ticker_that_is_surely_the_last_word_on_its_stamp() -> None:
    # Two trades of one stamp, and a ticker between them that knows of one.
    between = [
        Arrival(NOON_MS, a_trade(NOON_MS, 1.0, 0)),
        Arrival(NOON_MS, a_ticker(NOON_MS, 101.0, 1.0)),
        Arrival(NOON_MS, a_trade(NOON_MS, 1.0, 1)),
        Arrival(NOON_MS + 500, a_trade(NOON_MS + 500, 3.0)),
        Arrival(NOON_MS + 500, a_ticker(NOON_MS + 500, 105.0, 3.0)),
    ]
    check = LossCheck()
    assert claims(between, check=check) == []
    assert check.proofs == 0


def test_a_ticker_between_two_trades_of_a_stamp_is_proof_of_the_first() -> None:
    whole = simple(1.0)
    at_ms = NOON_MS + 1_000
    whole += [
        Arrival(at_ms, a_trade(at_ms, 2.0, 0)),
        Arrival(at_ms, a_ticker(at_ms, 1_003.0, 2.0)),
        Arrival(at_ms, a_trade(at_ms, 5.0, 1)),
        Arrival(at_ms, a_trade(at_ms + 700, 1.0)),
        Arrival(at_ms, a_ticker(at_ms + 700, 1_009.0, 1.0)),
    ]
    check = LossCheck()
    assert claims(whole, check=check) == []
    assert check.proofs == 2
    (loss,) = claims(whole, frozenset({at_ms * 10_000 + 1}))
    assert loss == Loss(at_ms, at_ms + 700, 5.0)


def test_sums_that_never_agree_start_anew_instead_of_growing() -> None:
    check, arrivals = LossCheck(), simple(*[1.0] * (3 * MOST_UNCLEAR))
    wrong = [
        Arrival(at_ms, a_trade(at_ms, 1.5)) if isinstance(value, Trade) else Arrival(at_ms, value)
        for at_ms, value in arrivals
    ]
    wrong[0] = arrivals[0]
    assert claims(wrong, check=check) == []
    assert len(check._trades) <= 2 * MOST_UNCLEAR


def test_memory_is_bounded_by_trades_and_by_tickers() -> None:
    check = LossCheck()
    for number in range(MOST_TRADES + 10):
        check.trade(a_trade(NOON_MS + number, 1.0))
    assert len(check._trades) < 100
    for number in range(MOST_TICKERS + 10):
        check.ticker(a_ticker(NOON_MS + number, 1.0 + number, 1.0))
    assert len(check._arrived) < 100


def test_volumes_of_many_digits_are_compared_as_far_as_they_are_written() -> None:
    """A coin of a billionth of a won: more digits than a float keeps are no loss."""
    total, arrivals = 9.1e12, []
    for number in range(200):
        at_ms, volume = NOON_MS + number * 1_000, 1_234.56789012 + number / 3
        total += volume
        arrivals.append(Arrival(at_ms, a_trade(at_ms, volume)))
        arrivals.append(Arrival(at_ms, a_ticker(at_ms, total, volume)))
    assert math.ulp(total) > 1e-4
    assert claims(arrivals) == []
    assert len(claims(arrivals, frozenset({identity_at(100)}))) == 1


def test_what_was_read_back_does_not_blind_the_sums_for_what_was_lost_next_to_it() -> None:
    check = LossCheck()
    arrivals = simple(1.0, 2.0, 0.5, 4.0, 1.0, 1.0)
    lost = {identity_at(2), identity_at(3)}
    claimed: list[Loss] = []
    now_ms = 0
    for at_ms, value in arrivals:
        now_ms = at_ms
        if isinstance(value, Ticker):
            check.ticker(value)
        elif value.sequential_id not in lost:
            check.trade(value)
        for _ in range(4):
            now_ms += 1_000
            loss = check.check(now_ms)
            if loss is not None and loss.missing_volume:
                claimed.append(loss)
                # Its filling finds the trade and tells the check of it.
                for trade in trades_in(arrivals):
                    if trade.sequential_id in lost and covers(loss, trade):
                        check.trade(trade)
    assert [loss.missing_volume for loss in claimed] == [0.5, 4.0]


def test_where_the_sums_begin_anew_the_time_between_is_named_once() -> None:
    check = LossCheck()
    arrivals = simple(1.0, 1.0)
    arrivals += simple(1.0, 2.0, 0.5, 1.0, start_ms=NOON_MS + 2_000, total=3.0)
    assert claims(arrivals, check=check) == []
    unproved = []
    check = LossCheck()
    now_ms = 0
    for at_ms, value in arrivals:
        now_ms = at_ms
        (check.ticker if isinstance(value, Ticker) else check.trade)(value)  # type: ignore[arg-type]
        for _ in range(4):
            now_ms += 1_000
            unproved.append(check.check(now_ms))
    named = [loss for loss in unproved if loss is not None]
    assert [loss.missing_volume for loss in named] == [0.0]
    assert named[0].from_ms < named[0].to_ms
