"""The bookkeeping of one symbol's trades, without any network: pure calls in any order."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.manual_clock import AUTUMN_2025_MS
from tests.routing.conftest import read_now
from tests.routing.fake_exchange import make_trade
from upbit_backbone.clock import epoch_ms, utc_datetime
from upbit_backbone.models import Gap, Trade
from upbit_backbone.protocol import Policy
from upbit_backbone.reader import Reader
from upbit_backbone.routing import trade_stream
from upbit_backbone.routing.trade_stream import (
    CLOCKS_APART_MS,
    LONGEST_SILENCE_MS,
    MAX_REMEMBERED,
    OUTAGE_TOLD_MS,
    OVERLAP_MS,
    REMEMBERED_MS,
    REOPENED_MS,
    REST_LAG_MS,
    TradeGap,
    TradeMemory,
    TradeStream,
)

BTC = "KRW-BTC"
START = AUTUMN_2025_MS


def reader(policy: Policy = "all") -> Reader:
    return Reader(policy, lambda _: None)


def trade(number: int, after_ms: int = 0) -> Trade:
    return make_trade(BTC, START + after_ms, number)


def ids(values: list[Trade | Gap]) -> list[int]:
    return [value.sequential_id for value in values if isinstance(value, Trade)]


def gap_states(values: list[Trade | Gap]) -> list[str]:
    return [value.state for value in values if isinstance(value, Gap)]


def followed(*policies: Policy, at_ms: int = START) -> tuple[TradeStream, list[Reader]]:
    stream, readers = TradeStream(BTC), [reader(policy) for policy in policies or ("all",)]
    for one in readers:
        stream.add_reader(one, at_ms)
    return stream, readers


def broken_and_back(
    stream: TradeStream, from_ms: int = START + 1_000, to_ms: int = START + 2_000
) -> TradeGap:
    stream.broken(from_ms, "cut off")
    gap = stream.resumed(to_ms)
    assert gap is not None
    return gap


# What is remembered.


@given(times=st.lists(st.integers(0, 3 * REMEMBERED_MS), min_size=1, max_size=200))
def test_ids_of_ten_minutes_of_own_trades_are_remembered_and_no_more(times: list[int]) -> None:
    memory = TradeMemory()
    newest_ms = 0
    for one, at_ms in enumerate(times):
        memory.add(one, at_ms)
        newest_ms = max(newest_ms, at_ms)
        lately = {other for other in range(one + 1) if times[other] >= newest_ms - REMEMBERED_MS}
        assert all(other in memory for other in lately if not _came_too_late(times, other))
    assert memory.newest_ms == newest_ms
    memory.add(-1, newest_ms + REMEMBERED_MS + 1)
    assert len(memory) == 1


def _came_too_late(times: list[int], one: int) -> bool:
    return times[one] < max(times[: one + 1]) - REMEMBERED_MS


def test_a_market_that_rests_for_an_hour_forgets_nothing() -> None:
    memory = TradeMemory()
    memory.add(1, START)
    memory.add(2, START + REMEMBERED_MS)
    assert 1 in memory
    memory.add(3, START + REMEMBERED_MS + 1)
    assert 1 not in memory
    assert {2, 3} == set(memory.since(START))


def test_no_more_than_fifty_thousand_ids_are_remembered() -> None:
    memory = TradeMemory()
    for one in range(MAX_REMEMBERED + 10):
        memory.add(one, START)
    assert len(memory) == MAX_REMEMBERED
    assert 9 not in memory
    assert 10 in memory


def test_ids_around_an_open_gap_are_kept_however_many_trades_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trade_stream, "MAX_REMEMBERED", 50)
    stream, (every,) = followed()
    around = [trade(number, number) for number in range(40)]
    for one in around:
        stream.live(one)
    gap = broken_and_back(stream)
    after = [trade(100 + number, 2_000 + number) for number in range(200)]
    for one in after:
        stream.live(one)
    stream.release()
    read_now(every)
    assert not stream.found(gap, [*around, *after]), "all of these were delivered"
    assert read_now(every) == []


def test_a_gap_that_stays_open_for_hours_keeps_its_ids_and_no_others() -> None:
    stream, (every,) = followed()
    before, hours_ms = trade(1), 7_200_000
    stream.live(before)
    gap = broken_and_back(stream)
    for number in range(2, 500):
        stream.live(trade(number, number * hours_ms // 500))
    assert not stream.found(gap, [before])
    assert len(gap.known) <= 1 + (REOPENED_MS + 4_000) * 500 // hours_ms
    assert every.unread == 1


# Delivery.


def test_a_live_trade_goes_to_every_reader_once() -> None:
    stream, (every, latest) = followed("all", "latest")
    assert stream.live(trade(1))
    assert not stream.live(trade(1))
    assert ids(read_now(every)) == ids(read_now(latest)) == [1]


def test_who_was_given_nothing_yet_is_given_the_newest_though_it_is_known() -> None:
    stream, _ = followed("all")
    stream.live(trade(1))
    latest, every = reader("latest"), reader()
    stream.add_reader(latest, START)
    stream.add_reader(every, START)
    assert not stream.live(trade(1))
    assert not stream.live(trade(1))
    assert ids(read_now(latest)) == [1]
    assert read_now(every) == [], "it was executed before this one began to read"


def test_a_trade_behind_the_newest_is_late() -> None:
    stream, (every,) = followed()
    for number, after_ms in enumerate((5, 4, 5, 6)):
        stream.live(trade(number, after_ms))
    assert [one.late for one in read_now(every)] == [False, True, False, False]


def test_a_stamp_that_is_not_the_exchanges_own_makes_no_other_late() -> None:
    stream, (every,) = followed()
    stream.live(trade(1, 10))
    stream.live(trade(2, 5_000), trusted=False)
    stream.live(trade(3, 20))
    assert [one.late for one in read_now(every)] == [False, False, False]
    assert stream.newest_ms == START + 20


def test_after_a_break_live_trades_wait_for_what_was_lost_and_follow_in_order() -> None:
    stream, (every, latest) = followed("all", "latest")
    stream.live(trade(1))
    gap = broken_and_back(stream)
    stream.live(trade(5, 2_100))
    assert ids(read_now(latest)) == [5]
    assert stream.holding
    # Newest first, as the exchange tells them, and in several pages.
    assert stream.found(gap, [trade(5, 2_100), trade(4, 1_800)]) == 1
    assert stream.found(gap, [trade(3, 1_500), trade(2, 1_500), trade(1)]) == 2
    assert ids(read_now(every)) == [1]
    stream.caught_up(gap)
    values = read_now(every)
    assert ids(values) == [2, 3, 4, 5]
    assert not any(one.late for one in values)
    stream.close(gap)
    assert (read_now(every), stream.gaps, stream.holding) == ([], (), False)
    assert latest.unread == 0


def test_after_the_holding_time_readers_learn_of_the_gap_and_go_on() -> None:
    stream, (every, latest) = followed("all", "latest")
    stream.live(trade(1))
    gap = broken_and_back(stream)
    stream.live(trade(5, 2_100))
    stream.found(gap, [trade(4, 1_800)])
    stream.release()
    _, opened, *values = read_now(every)
    assert opened == Gap(
        BTC,
        "open",
        utc_datetime(START),
        utc_datetime(START + 2_000 + CLOCKS_APART_MS),
        "cut off",
    )
    assert [(one.sequential_id, one.late) for one in values] == [(5, False), (4, True)]
    stream.live(trade(6, 4_100))
    stream.found(gap, [trade(3, 1_500)])
    stream.close(gap)
    sixth, third, closed = read_now(every)
    assert (sixth.late, third.late) == (False, True)
    assert closed == msgspec.structs.replace(opened, state="closed")
    assert gap_states(read_now(latest)) == []


def test_what_cannot_be_had_is_said_also_to_who_knew_of_no_gap() -> None:
    stream, (every,) = followed()
    stream.live(trade(1))
    gap = broken_and_back(stream)
    stream.live(trade(5, 2_100))
    stream.give_up(gap, "kept for 7 days")
    values = read_now(every)
    assert gap_states(values) == ["open", "unfillable"]
    assert ids(values) == [1, 5]
    assert {value.reason for value in values if isinstance(value, Gap)} == {"kept for 7 days"}
    assert not stream.holding


def test_a_break_that_nobody_is_owed_anything_of_is_no_gap() -> None:
    stream, (latest,) = followed("latest")
    stream.live(trade(1))
    stream.broken(START + 1_000, "cut off")
    assert stream.resumed(START + 2_000) is None
    assert (stream.gaps, stream.holding) == ((), False)
    assert stream.live(trade(2, 2_100))
    assert ids(read_now(latest)) == [2]


def test_several_breaks_before_the_stream_is_back_are_one_gap() -> None:
    stream, _ = followed()
    stream.live(trade(1))
    gap = stream.broken(START + 1_000, "cut off")
    assert stream.broken(START + 5_000, "refused") is gap
    assert (gap.start_ms, gap.reason, gap.last_id) == (START, "refused", 1)
    assert stream.resumed(START + 6_000) is gap
    assert stream.resumed(START + 7_000) is None


def test_where_nobody_traded_for_an_hour_the_gap_begins_with_the_break() -> None:
    stream, _ = followed()
    stream.live(trade(1))
    broken_ms = START + LONGEST_SILENCE_MS + 1
    gap = stream.broken(broken_ms, "cut off")
    assert (gap.start_ms, gap.last_id) == (broken_ms, None)
    assert gap.since_ms == broken_ms - OVERLAP_MS


def test_a_reader_is_owed_nothing_from_before_it_came() -> None:
    stream, (every,) = followed(at_ms=START)
    stream.live(trade(10, 200))
    gap = broken_and_back(stream)
    late_comer = reader()
    stream.add_reader(late_comer, START + 2_500)
    stream.found(gap, [trade(12, 1_600), trade(11, 1_500), trade(9, -100), trade(8, -3_000)])
    stream.caught_up(gap)
    assert ids(read_now(every)) == [10, 11, 12]
    assert read_now(late_comer) == []


def test_a_reader_that_comes_during_an_outage_is_owed_what_happens_from_then_on() -> None:
    stream, (every,) = followed()
    stream.live(trade(1))
    stream.broken(START + 1_000, "cut off")
    during = reader()
    stream.add_reader(during, START + 1_500)
    gap = stream.resumed(START + 2_000)
    assert gap is not None
    stream.found(gap, [trade(3, 1_600), trade(2, 1_400)])
    stream.release()
    assert ids(read_now(every)) == [1, 2, 3]
    values = read_now(during)
    assert ids(values) == [3]
    assert isinstance(values[0], Gap)
    assert values[0].start == utc_datetime(START + 1_500)


def test_a_gap_whose_readers_have_left_is_owed_to_nobody() -> None:
    stream, (every,) = followed()
    stream.live(trade(1))
    gap = broken_and_back(stream)
    stream.remove_reader(every)
    assert not gap.owed
    stream.close(gap)
    assert stream.gaps == ()


def test_trades_lost_on_a_living_connection_are_handed_over_late_and_hold_nothing() -> None:
    stream, (every,) = followed()
    stream.live(trade(1))
    stream.live(trade(3, 2_000))
    gap = stream.lost(START, START + 2_000, "lost on the way")
    assert gap is not None
    assert not stream.holding
    stream.live(trade(4, 3_000))
    assert stream.found(gap, [trade(3, 2_000), trade(2, 1_000), trade(1)]) == 1
    stream.close(gap)
    assert [(one.sequential_id, one.late) for one in read_now(every)] == [
        (1, False),
        (3, False),
        (4, False),
        (2, True),
    ]


def test_losses_that_nobody_is_owed_are_no_gap() -> None:
    stream, _ = followed("latest")
    assert stream.lost(START, START + 1, "lost on the way") is None


def test_while_the_stream_is_away_polled_trades_are_handed_over_at_once_to_all() -> None:
    stream, (every, latest) = followed("all", "latest")
    stream.live(trade(1))
    gap = stream.broken(START + 1_000, "cut off")
    stream.found(gap, [trade(3, 4_000), trade(2, 3_000), trade(1)])
    stream.polled(gap, START + 5_000)
    assert ids(read_now(every)) == [1, 2, 3]
    assert ids(read_now(latest)) == [3]
    # What REST may still lag behind with is read again.
    assert (gap.start_ms, gap.last_id) == (START + 3_000, 2)
    assert stream.complete_to_ms(START + 5_000) == START + 5_000 - REST_LAG_MS
    stream.found(gap, [trade(4, 4_500), trade(3, 4_000), trade(2, 3_000)])
    resumed = stream.resumed(START + 6_000)
    assert resumed is gap
    assert ids(read_now(every)) == [4]


def test_an_outage_is_told_while_it_lasts_to_who_wants_that_and_what_was_lost_comes_in_order() -> (
    None
):
    stream, (unaware,) = followed("all")
    told = reader()
    stream.add_reader(told, START, told_of_outages=True)
    stream.live(trade(1))
    gap = stream.broken(START + 1_000, "cut off")
    stream.tell_of_outage(START + 1_000 + OUTAGE_TOLD_MS - 1)
    assert ids(read_now(told)) == [1]
    for _ in range(2):
        stream.tell_of_outage(START + 1_000 + OUTAGE_TOLD_MS)
    (opened,) = read_now(told)
    assert opened == Gap(
        BTC, "open", utc_datetime(START), utc_datetime(START + 1_000 + OUTAGE_TOLD_MS), "cut off"
    )
    assert stream.resumed(START + 9_000) is gap
    stream.live(trade(3, 9_000))
    assert read_now(told) == [], "held, for what was lost"
    stream.found(gap, [trade(2, 4_000)])
    stream.caught_up(gap)
    stream.close(gap)
    *trades, closed = read_now(told)
    assert [(one.sequential_id, one.late) for one in trades] == [(2, False), (3, False)]
    assert (closed.state, closed.start) == ("closed", opened.start)
    assert closed.end == utc_datetime(START + 9_000 + CLOCKS_APART_MS)
    assert gap_states(read_now(unaware)) == []


def test_of_an_outage_that_is_told_already_the_opening_is_not_told_again() -> None:
    stream, (unaware,) = followed("all")
    told = reader()
    stream.add_reader(told, START, told_of_outages=True)
    gap = stream.broken(START + 1_000, "cut off")
    stream.tell_of_outage(START + 20_000)
    stream.resumed(START + 20_000)
    stream.release()
    stream.found(gap, [trade(1, 4_000)])
    stream.give_up(gap, "too old")
    for one in (told, unaware):
        values = read_now(one)
        assert gap_states(values) == ["open", "unfillable"]
        assert ids(values) == [1]


def test_an_outage_that_is_polled_through_is_not_told() -> None:
    stream, _ = followed()
    told = reader()
    stream.add_reader(told, START, told_of_outages=True)
    gap = stream.broken(START, "cut off")
    for second in range(1, 20):
        stream.polled(gap, START + second * 1_000)
        stream.tell_of_outage(START + second * 1_000)
    assert read_now(told) == []
    stream.tell_of_outage(START + 19_000 - REST_LAG_MS + OUTAGE_TOLD_MS)
    assert gap_states(read_now(told)) == ["open"]
    stream.found(gap, [trade(1, 20_000)])
    stream.polled(gap, START + 25_000)
    found, closed = read_now(told)
    assert (ids([found]), closed.state) == ([1], "closed")
    assert closed.end == utc_datetime(START + 25_000 - REST_LAG_MS), (
        "what REST lags is not told yet"
    )
    stream.tell_of_outage(START + 25_000 - REST_LAG_MS + OUTAGE_TOLD_MS)
    assert gap_states(read_now(told)) == ["open"], "the polling failed, too"


def test_what_is_lost_after_a_gap_was_told_is_told_anew_and_nothing_is_complete_before() -> None:
    stream, (unaware,) = followed("all")
    told = reader()
    stream.add_reader(told, START, told_of_outages=True)
    stream.live(trade(1))
    gap = stream.broken(START + 1_000, "cut off")
    stream.tell_of_outage(START + 8_000)
    stream.resumed(START + 9_000)
    stream.live(trade(20, 9_500))
    stream.release()
    now_ms = START + 20_000
    assert stream.complete_to_ms(now_ms) == now_ms, "but for the gap that was told"
    for one in (told, unaware):
        values = read_now(one)
        assert (gap_states(values), ids(values)[-1]) == (["open"], 20)
    assert stream.broken(now_ms, "cut off again") is gap
    assert stream.complete_to_ms(now_ms + 60_000) == START
    stream.tell_of_outage(now_ms + OUTAGE_TOLD_MS)
    assert gap_states(read_now(told)) == ["open"], "it lasts longer"
    stream.resumed(START + 40_000)
    stream.live(trade(50, 42_000))
    assert read_now(told) == [], "held once more"
    assert stream.complete_to_ms(START + 60_000) == START
    stream.release()
    for one in (told, unaware):
        values = read_now(one)
        states = gap_states(values)
        assert states == ([] if one is told else ["open"])
        assert ids(values) == [50]
    stream.found(gap, [trade(2, 4_000), trade(40, 33_000)])
    stream.close(gap)
    for one in (told, unaware):
        values = read_now(one)
        assert (ids(values), gap_states(values)) == ([2, 40], ["closed", "closed"])
        starts = [value.start for value in values if isinstance(value, Gap)]
        assert starts == [utc_datetime(START), utc_datetime(START + 9_500)], "each ends by itself"


def test_a_gap_that_polling_closes_is_told_anew_when_polling_fails_too() -> None:
    stream, _ = followed("all")
    told = reader()
    stream.add_reader(told, START, told_of_outages=True)
    stream.live(trade(1))
    stream.broken(START + 2_000, "cut off")
    stream.tell_of_outage(START + 8_000)
    stream.resumed(START + 9_000)
    stream.release()
    gap = stream.broken(START + 20_000, "cut off again")
    stream.found(gap, [trade(3, 3_000), trade(30, 22_000)])
    stream.polled(gap, START + 30_000)
    assert gap_states(read_now(told)) == ["open", "closed"]
    stream.tell_of_outage(START + 40_000)
    assert gap_states(read_now(told)) == ["open"]
    stream.resumed(START + 41_000)
    stream.live(trade(50, 42_000))
    assert read_now(told) == [], "held"
    stream.found(gap, [trade(40, 33_000)])
    stream.caught_up(gap)
    stream.close(gap)
    values = read_now(told)
    assert (ids(values), gap_states(values)) == ([40, 50], ["closed"])


def test_it_is_complete_up_to_now_but_for_what_may_be_missing_and_nobody_knows_of() -> None:
    stream, _ = followed()
    now_ms = START + 9_000
    assert stream.complete_to_ms(now_ms) == now_ms
    stream.live(trade(1))
    gap = stream.broken(START + 1_000, "cut off")
    assert stream.complete_to_ms(now_ms) == START
    stream.resumed(START + 2_000)
    assert stream.complete_to_ms(now_ms) == START
    stream.caught_up(gap)
    assert stream.complete_to_ms(now_ms) == START, "REST lags: it is read once more"
    stream.close(gap)
    assert stream.complete_to_ms(now_ms) == now_ms
    gap = broken_and_back(stream, START + 3_000, START + 4_000)
    stream.release()
    assert stream.complete_to_ms(now_ms) == now_ms, "its readers know of it"


# Any order of anything.


class Filling:
    """One gap on its way, as `GapFiller` treats it; pages come in any order."""

    def __init__(self, gap: TradeGap, pages: list[list[Trade]]) -> None:
        self.gap = gap
        self.pages = pages
        self.breaks = gap.breaks
        self.again = gap.caught_up


class World:
    """An exchange, a stream of its trades that breaks, and readers that come and go."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.now_ms = START
        self.executed: list[Trade] = []
        self.order: dict[int, int] = {}
        """When each trade was executed, by id."""
        self.streamed: set[int] = set()
        self.up = True
        self.stream = TradeStream(BTC)
        self.fillings: list[Filling] = []
        self.given_up: list[TradeGap] = []
        self.lost_from_ms: int | None = None
        self.reads: dict[Reader, list[Trade | Gap]] = {}
        self.joined: dict[Reader, int] = {}
        self.left: set[Reader] = set()
        self.first = self.join("all")
        self.aware = self.join("all", told_of_outages=True)
        self.closings = 0

    def look(self) -> None:
        for one, values in self.reads.items():
            if one not in self.left:
                values.extend(read_now(one))

    def join(self, policy: Policy, *, told_of_outages: bool = False) -> Reader:
        one = reader(policy)
        self.reads[one] = []
        self.joined[one] = self.now_ms
        self.stream.add_reader(one, self.now_ms, told_of_outages=told_of_outages)
        return one

    def leave(self) -> None:
        stay = (self.first, self.aware)
        others = [one for one in self.reads if one not in stay and one not in self.left]
        if others:
            one = self.chance.choice(others)
            self.look()
            self.left.add(one)
            self.stream.remove_reader(one)

    def execute(self, *, lateness_ms: int = 0, arrives: bool = True) -> None:
        self.now_ms += 1
        one = make_trade(BTC, self.now_ms - lateness_ms, len(self.executed) + 1)
        self.executed.append(one)
        self.order[one.sequential_id] = self.now_ms
        if self.up and arrives:
            self.show(one)
        elif self.up and self.lost_from_ms is None:
            self.lost_from_ms = self.now_ms - lateness_ms

    def show(self, one: Trade) -> None:
        """Let it come by the stream: whoever reads the latest has it at once."""
        if self.stream.live(one):
            for latest in self.reads:
                if latest.policy == "latest" and latest not in self.left:
                    (newest,) = read_now(latest)
                    assert newest.sequential_id == one.sequential_id

    def repeat(self) -> None:
        if self.up and self.streamed_lately():
            assert not self.stream.live(self.chance.choice(self.streamed_lately()))

    def streamed_lately(self) -> list[Trade]:
        return [one for one in self.executed if self.stream.knows(one)]

    def cut(self) -> None:
        if self.up:
            self.notice_losses()  # `LossCheck` needs about 2 s; what is older is not searched
            self.up = False
            self.stream.broken(self.now_ms, "cut off")

    def poll(self) -> None:
        gap = self.stream.unbounded
        if self.up or gap is None:
            return
        pages = self.history(gap, lag=True)
        told = {one.sequential_id for page in pages for one in page}
        for page in pages:
            self.stream.found(gap, page)
        if gap.last_id is None or gap.last_id in told:
            self.stream.polled(gap, self.now_ms)

    def back(self) -> None:
        if self.up:
            return
        self.up = True
        self.lost_from_ms = None
        gap = self.stream.resumed(self.now_ms)
        if self.executed:
            self.show(self.executed[-1])
        if gap is not None and gap.breaks == 1:
            self.fillings.append(Filling(gap, self.history(gap, lag=True)))

    def notice_losses(self) -> None:
        if self.up and self.lost_from_ms is not None:
            since_ms, self.lost_from_ms = self.lost_from_ms, None
            self.now_ms += REST_LAG_MS
            gap = self.stream.lost(since_ms, self.now_ms, "lost on the way")
            assert gap is not None
            self.fillings.append(Filling(gap, self.history(gap)))

    def history(self, gap: TradeGap, *, lag: bool = False) -> list[list[Trade]]:
        """What REST tells of a gap now, in pages of any size and order."""
        told_ms = self.now_ms - (REST_LAG_MS if lag else 0)
        rows = [
            msgspec.structs.replace(one, source="rest")
            for one in self.executed
            if self.order[one.sequential_id] <= told_ms
            and epoch_ms(one.exchange_time) >= gap.since_ms - 1_000
        ]
        size = self.chance.randint(1, 9)
        pages = [rows[at : at + size] for at in range(0, len(rows), size)]
        self.chance.shuffle(pages)
        return pages

    def fill(self) -> None:
        """One page more of one of the gaps, or what follows the last one."""
        if not self.fillings:
            return
        filling = self.chance.choice(self.fillings)
        if filling.pages:
            self.stream.found(filling.gap, filling.pages.pop())
        elif filling.gap.until_ms is None:
            return  # the stream broke again: it still grows
        elif filling.breaks != filling.gap.breaks:
            filling.breaks = filling.gap.breaks
            filling.pages = self.history(filling.gap, lag=True)
        elif not filling.again:
            self.stream.caught_up(filling.gap)
            self.now_ms += REST_LAG_MS
            filling.again, filling.pages = True, self.history(filling.gap)
        else:
            self.stream.close(filling.gap)
            self.fillings.remove(filling)

    def give_up(self) -> None:
        bounded = [one for one in self.fillings if one.gap.until_ms is not None]
        if bounded:
            filling = self.chance.choice(bounded)
            self.fillings.remove(filling)
            self.stream.give_up(filling.gap, "it cannot be had")
            self.given_up.append(filling.gap)

    def release(self) -> None:
        self.now_ms += 2_000
        self.stream.release()
        assert not self.stream.holding
        assert not self.stream._held

    def end(self) -> None:
        """All gaps are filled, and everything is read."""
        self.notice_losses()
        self.back()
        while self.fillings:
            self.fill()
        self.look()
        assert not self.stream.holding
        assert self.stream.gaps == ()
        assert self.stream.complete_to_ms(self.now_ms) == self.now_ms

    def is_complete(self) -> None:
        """What happened before the time up to which nothing is missing was delivered."""
        self.look()
        if self.lost_from_ms is not None:
            return  # nobody knows it yet
        complete_ms = self.stream.complete_to_ms(self.now_ms)
        for one in (self.first, self.aware):
            got, told = set(ids(self.reads[one])), told_spans(self.reads[one])
            for executed in self.executed:
                at_ms = epoch_ms(executed.exchange_time)
                if at_ms >= self.joined[one] and self.order[executed.sequential_id] < complete_ms:
                    # Who is told of an outage while it lasts is told where it ends later.
                    known = any(
                        start <= at_ms and (at_ms <= end or (is_open and one is self.aware))
                        for start, end, is_open in told
                    )
                    assert known or executed.sequential_id in got

    def tell_of_outage(self) -> None:
        self.now_ms += OUTAGE_TOLD_MS
        self.stream.tell_of_outage(self.now_ms)


def told_spans(values: list[Trade | Gap]) -> list[tuple[int, int, bool]]:
    """Of which times a reader knows that trades lack, and whether that has not ended.

    What is late may have its moment a little before.
    """
    spans: dict[int, tuple[int, int, bool]] = {}
    lost = []
    for value in values:
        if isinstance(value, Gap):
            start_ms, end_ms = epoch_ms(value.start) - OVERLAP_MS, epoch_ms(value.end)
            spans.pop(start_ms, None)
            if value.state == "open":
                spans[start_ms] = (start_ms, end_ms, True)
            elif value.state == "unfillable":
                lost.append((start_ms, end_ms, False))
    return [*spans.values(), *lost]


STEPS = {
    "trade": lambda world: world.execute(),
    "late trade": lambda world: world.execute(lateness_ms=world.chance.randint(1, 900)),
    "lost trade": lambda world: world.execute(arrives=False),
    "duplicate": World.repeat,
    "pause": lambda world: setattr(world, "now_ms", world.now_ms + world.chance.randint(1, 4_000)),
    "cut": World.cut,
    "poll": World.poll,
    "back": World.back,
    "losses noticed": World.notice_losses,
    "fill": World.fill,
    "give up": World.give_up,
    "release": World.release,
    "outage lasts": World.tell_of_outage,
    "reader of all": lambda world: world.join("all"),
    "reader of the latest": lambda world: world.join("latest"),
    "reader leaves": World.leave,
}


def check_reader(world: World, one: Reader) -> None:
    values, joined_ms = world.reads[one], world.joined[one]
    got = ids(values)
    assert len(got) == len(set(got)), "a trade came twice"
    opened: list[Gap] = []
    for value in values:
        if not isinstance(value, Gap):
            continue
        if value.state == "open":
            opened.append(value)
        else:
            # Gaps may overlap, and each ends once; why it is open may have been said anew.
            opened.remove(next(gap for gap in opened if gap.start == value.start))
    if one in world.left:
        return
    assert opened == [], "a gap never ended"
    owed = {
        trade.sequential_id
        for trade in world.executed
        if world.order[trade.sequential_id] > joined_ms
        and epoch_ms(trade.exchange_time) >= joined_ms
        and not any(
            gap.since_ms <= epoch_ms(trade.exchange_time) <= (gap.until_ms or 0)
            for gap in world.given_up
        )
    }
    assert owed <= set(got), "a trade is missing"


@settings(max_examples=300)
@given(
    steps=st.lists(st.sampled_from([*STEPS, "trade", "trade", "fill", "fill"]), max_size=80),
    seed=st.integers(0, 2**32),
)
@example(steps=["cut", "trade", "pause", "back", "cut", "poll"], seed=0)
@example(steps=["cut", "back", "release", *["pause"] * 4, "cut", "pause", "trade", "trade"], seed=0)
@example(
    steps=[
        *[
            "cut",
            "outage lasts",
            "back",
            "release",
            "pause",
            "cut",
            "trade",
            *["pause"] * 4,
            "poll",
        ],
        *["trade", "pause", "back", "trade", "release"],
    ],
    seed=0,
)
def test_each_reader_gets_each_trade_it_is_owed_once_whatever_happens(
    steps: list[str], seed: int
) -> None:
    world = World(Random(seed))
    for step in steps:
        STEPS[step](world)
        world.is_complete()
    world.end()
    for one in world.reads:
        if one.policy == "all":
            check_reader(world, one)
        else:
            assert not any(isinstance(value, Gap) for value in world.reads[one])
    newest_ms = -1
    for value in world.reads[world.first]:
        if isinstance(value, Trade):
            at_ms = epoch_ms(value.exchange_time)
            assert value.late == (at_ms < newest_ms)
            newest_ms = max(newest_ms, at_ms)
