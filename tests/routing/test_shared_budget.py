"""Several programs of one user keep the exchange's limits together."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import stat
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.manual_clock import ManualClock
from tests.project.source_rules import REPOSITORY
from upbit_backbone.clock import SystemClock
from upbit_backbone.errors import RateLimitedError
from upbit_backbone.protocol import Priority
from upbit_backbone.routing.budget_file import LOCK_WAIT_S, PAGE_BYTES, BudgetFile
from upbit_backbone.routing.budget_sheet import (
    DEMAND_GRACE_S,
    FORMAT,
    LONGEST_BAN_S,
    Ban,
    DamagedSheetError,
    Demand,
    ForeignSheetError,
    Grant,
    GroupSheet,
    Rule,
    Sheet,
    decode_sheet,
    encode_sheet,
)
from upbit_backbone.routing.rate_limit import WINDOW_S, RateLimiter, RateWindow
from upbit_backbone.routing.shared_budget import (
    ASK_AGAIN_S,
    GIVE_UP_S,
    Availability,
    SharedBudget,
)
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.settings import SimulatorSettings, WindowKind

ROUNDING_S = 1e-9
RULE = Rule(limit=10, shared=8, window_s=WINDOW_S)
ADDRESS = "https://exchange.example/v1"
FILE_NAME = "exchange.example_443.json"
OURS, THEIRS = 1, 2

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP there")


# The sheet.


def most_in_a_window(grants: list[float]) -> int:
    return max(
        (sum(start <= at < start + WINDOW_S - ROUNDING_S for at in grants) for start in grants),
        default=0,
    )


@given(
    asked=st.lists(
        st.tuples(st.floats(0, 0.3), st.integers(1, 4), st.booleans(), st.integers(0, 12)),
        max_size=150,
    )
)
def test_no_window_has_more_than_ten_grants_of_all_programs_together(
    asked: list[tuple[float, int, bool, int]],
) -> None:
    sheet, now = GroupSheet(), 1_000.0
    granted: list[tuple[float, bool]] = []
    for gap_s, owner, critical, waiting in asked:
        now += gap_s
        wait_s = sheet.take(now, owner, RULE, critical=critical, waiting=waiting)
        assert 0 <= wait_s <= WINDOW_S + ROUNDING_S
        if wait_s == 0:
            granted.append((now, critical))
        assert len(sheet.grants) <= RULE.limit
        assert len(sheet.demands) <= 4
    assert most_in_a_window([at for at, _ in granted]) <= 10
    assert most_in_a_window([at for at, critical in granted if not critical]) <= 8


@given(
    asked=st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 4), st.booleans()), max_size=60),
    critical=st.booleans(),
)
def test_who_waits_as_long_as_told_is_granted_if_nobody_else_asks(
    asked: list[tuple[float, int, bool]], critical: bool
) -> None:
    sheet, now = GroupSheet(), 1_000.0
    for gap_s, owner, urgent in asked:
        now += gap_s
        sheet.take(now, owner, RULE, critical=urgent)
    for _ in range(2):  # a float's rounding may ask for a second look
        now += (wait_s := sheet.take(now, OURS, RULE, critical=critical))
        if wait_s <= 1e-6:
            break
    assert sheet.take(now + 1e-6, OURS, RULE, critical=critical) == 0 or wait_s == 0


def shares_of(needs: dict[int, int], windows: int = 20) -> dict[int, float]:
    """What programs are granted a window that each want so many requests in every one."""
    sheet, granted = GroupSheet(), dict.fromkeys(needs, 0)
    for window in range(windows):
        left = dict(needs)
        for step in range(10):
            now = 1_000.0 + window * WINDOW_S + step * WINDOW_S / 10
            for owner in needs:  # the first is always the quicker one
                while left[owner]:
                    waiting = left[owner] - 1
                    if sheet.take(now, owner, RULE, critical=False, waiting=waiting) > 0:
                        break
                    left[owner] -= 1
                    granted[owner] += window >= 2
    return {owner: count / (windows - 2) for owner, count in granted.items()}


@pytest.mark.parametrize(
    ("needs", "shares"),
    [
        ({1: 50, 2: 50}, {1: 4, 2: 4}),
        ({2: 1, 1: 50}, {1: 7, 2: 1}),
        ({1: 3, 2: 50}, {1: 3, 2: 5}),
        ({3: 2, 1: 50, 2: 50}, {1: 3, 2: 3, 3: 2}),
        ({1: 50, 2: 50, 3: 50}, {1: 3, 2: 3, 3: 2}),
        ({1: 50}, {1: 8}),
    ],
)
def test_programs_share_alike_and_nothing_is_left_unused(
    needs: dict[int, int], shares: dict[int, int]
) -> None:
    assert shares_of(needs) == pytest.approx(shares, abs=0.2)


def test_critical_of_one_program_passes_all_that_another_was_granted() -> None:
    sheet = GroupSheet()
    for _ in range(8):
        assert sheet.take(5.0, OURS, RULE, critical=False, waiting=9) == 0
    assert sheet.take(5.1, THEIRS, RULE, critical=False) == pytest.approx(WINDOW_S - 0.1)
    for _ in range(2):
        assert sheet.take(5.1, THEIRS, RULE, critical=True) == 0
    assert sheet.take(5.1, THEIRS, RULE, critical=True) == pytest.approx(WINDOW_S - 0.1)


def test_what_a_program_wanted_that_is_gone_holds_nobody_up_for_long() -> None:
    sheet = GroupSheet()
    sheet.take(5.0, THEIRS, RULE, critical=True, waiting=8)
    now, ours = 5.0 + WINDOW_S, 0
    while sheet.take(now, OURS, RULE, critical=False, waiting=8) == 0:
        ours += 1
    assert ours == 4
    now += DEMAND_GRACE_S + 0.01
    while sheet.take(now, OURS, RULE, critical=False, waiting=8) == 0:
        ours += 1
    assert ours == 8


def test_stamps_of_another_boot_count_for_nothing() -> None:
    sheet = Sheet(
        groups={
            "candles": GroupSheet(
                grants=[Grant(90_000.0, THEIRS, False)] * 10,
                demands=[Demand(THEIRS, 8, 90_001.0)],
            )
        },
        quiet_until=90_001.0,
    )
    assert sheet.quiet_s(50.0, WINDOW_S) == 0
    group = sheet.group("candles")
    for _ in range(8):
        assert group.take(50.0, OURS, RULE, critical=False) == 0
    assert [one.owner for one in group.grants] == [OURS] * 8


def test_a_ban_ends_by_the_clock_that_is_nearer_to_its_end() -> None:
    ban = Ban(until_s=1_100.0, until_ms=5_100_000)
    assert ban.left_s(1_040.0, 5_040_000) == pytest.approx(60.0)
    assert ban.left_s(1_040.0, 5_000_000) == pytest.approx(60.0)  # the clock was set back
    assert ban.left_s(3.0, 5_090_000) == pytest.approx(10.0)  # another boot
    assert ban.left_s(3.0, 9_000_000) == 0
    assert ban.left_s(1_100.0, 5_040_000) == 0
    assert Ban(1e9, 1 << 50).left_s(0.0, 0) == 0  # longer than any


def test_a_longer_ban_stands() -> None:
    sheet = Sheet()
    sheet.note_ban(1_000.0, 5_000_000, 60.0)
    sheet.note_ban(1_010.0, 5_010_000, 20.0)
    assert sheet.ban == Ban(1_060.0, 5_060_000)
    sheet.note_ban(1_010.0, 5_010_000, 1e12)
    assert sheet.ban is not None
    assert sheet.ban.left_s(1_010.0, 5_010_000) == LONGEST_BAN_S


FINITE = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(0, (1 << 53) - 1)
SHEETS = st.builds(
    Sheet,
    groups=st.dictionaries(
        st.text(max_size=9),
        st.builds(
            GroupSheet,
            grants=st.lists(st.builds(Grant, FINITE, WHOLE, st.booleans()), max_size=5),
            demands=st.lists(st.builds(Demand, WHOLE, WHOLE, FINITE), max_size=3),
        ),
        max_size=3,
    ),
    ban=st.none() | st.builds(Ban, FINITE, st.integers(-(1 << 62), 1 << 62)),
    quiet_until=FINITE,
)


@settings(max_examples=30)
@given(sheet=SHEETS)
def test_a_sheet_reads_as_it_was_written(sheet: Sheet) -> None:
    for group in sheet.groups.values():
        group.grants.sort(key=lambda grant: grant.at)
    assert decode_sheet(encode_sheet(sheet).ljust(PAGE_BYTES)) == sheet


@settings(max_examples=60)
@given(sheet=SHEETS, text=st.binary(max_size=40), at=st.integers(0, 400), end=st.integers(0, 400))
def test_whatever_a_sheet_became_it_is_read_or_refused_and_can_be_used(
    sheet: Sheet, text: bytes, at: int, end: int
) -> None:
    whole = encode_sheet(sheet)
    try:
        read = decode_sheet(whole[:at] + text + whole[end:])
    except (DamagedSheetError, ForeignSheetError):
        return
    for group in read.groups.values():
        assert group.take(1_000.0, OURS, RULE, critical=False, waiting=3) <= WINDOW_S
    read.note_ban(1_000.0, 5_000_000, 3.0)
    decode_sheet(encode_sheet(read))


@pytest.mark.parametrize("text", [b"\0" * 99, b'{"format":1,"x":' + b"[" * 60_000, b"[]", b"\xff"])
def test_a_text_that_is_no_sheet_is_damaged(text: bytes) -> None:
    with pytest.raises(DamagedSheetError, match="damaged"):
        decode_sheet(text)


# Whether the file can be used.


def test_a_lock_that_is_missed_once_is_nothing_to_speak_of() -> None:
    available = Availability()
    available.missed(5.0, "held")
    available.missed(5.0 + GIVE_UP_S / 2, "held")
    assert available.asks(5.0 + GIVE_UP_S / 2)
    assert available.rate(5.0 + GIVE_UP_S / 2) == 1.0
    available.worked(5.0 + GIVE_UP_S / 2)
    available.missed(5.0 + 2 * GIVE_UP_S, "held")
    assert not available.reason


def test_a_lock_that_is_not_let_go_halves_the_rate_until_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    available, now = Availability(), 5.0
    for missed in range(20):
        available.missed(now, "held")
        assert available.rate(now) == (0.5 if missed >= 3 else 1.0)
        now += GIVE_UP_S * 0.4
    assert available.reason == "held"
    assert not available.asks(now)
    now += ASK_AGAIN_S
    assert available.asks(now)
    available.worked(now)
    assert available.asks(now)
    assert available.rate(now + ASK_AGAIN_S + WINDOW_S - 0.01) == 0.5
    assert available.rate(now + ASK_AGAIN_S + WINDOW_S) == 1.0
    assert not available.reason
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.messages[0].endswith("cannot be used: held")


# The file.


def budget_file(folder: Path) -> BudgetFile:
    return BudgetFile(folder / FILE_NAME, SystemClock(), quiet_s=WINDOW_S)


def take(sheet: Sheet, now: float) -> float:
    return sheet.group("candles").take(now, OURS, RULE, critical=False)


def test_the_file_and_its_folder_are_made_for_this_user_alone(tmp_path: Path) -> None:
    file = budget_file(tmp_path / "run" / "upbit-backbone")
    assert file.change(take) == 0
    assert file.path.stat().st_size == PAGE_BYTES
    if sys.platform != "win32":
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    other = budget_file(tmp_path / "run" / "upbit-backbone")
    assert len(other.change(lambda sheet, now: sheet.group("candles").grants)) == 1


def test_a_damaged_file_begins_afresh_with_a_pause_for_everybody(tmp_path: Path) -> None:
    file = budget_file(tmp_path)
    file.change(take)
    file.path.write_bytes(file.path.read_bytes()[:30] + b"\0" * 70_000)
    with pytest.raises(DamagedSheetError):
        file.change(take)
    quiet_s = file.change(lambda sheet, now: sheet.quiet_s(now, WINDOW_S))
    assert 0.5 * WINDOW_S < quiet_s <= WINDOW_S


def test_a_file_that_was_taken_away_is_no_new_one(tmp_path: Path) -> None:
    file = budget_file(tmp_path)
    file.change(take)
    file.path.unlink()
    with pytest.raises(DamagedSheetError, match="removed"):
        file.change(take)
    assert file.change(lambda sheet, now: sheet.quiet_s(now, WINDOW_S)) > 0


def test_the_file_of_another_version_stays_as_it_is(tmp_path: Path) -> None:
    file = budget_file(tmp_path)
    text = b'{"format":%d,"news":[1,2]}' % (FORMAT + 1)
    file.path.write_bytes(text)
    with pytest.raises(ForeignSheetError):
        file.change(take)
    assert file.path.read_bytes() == text


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "file above"])
def test_what_is_no_file_of_ours_is_left_alone(tmp_path: Path, kind: str) -> None:
    file = budget_file(tmp_path / "run")
    if kind == "file above":
        (tmp_path / "run").write_text("in the way")
    else:
        (tmp_path / "run").mkdir()
    if kind == "folder":
        file.path.mkdir()
    elif kind == "pipe":
        os.mkfifo(file.path)
    elif kind == "link":
        (tmp_path / "elsewhere").write_text("somebody's")
        file.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"run"):
        file.change(take)
    if kind == "link":
        assert (tmp_path / "elsewhere").read_text() == "somebody's"


# Who holds the lock.

HOLD = (
    "import fcntl, os, signal, sys; file = open(sys.argv[1], 'r+b');"
    " fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); os.kill(os.getpid(), {signal});"
    " fcntl.flock(file, fcntl.LOCK_UN); print('let go', flush=True); sys.stdin.readline()"
)


@asynccontextmanager
async def holder(path: Path) -> AsyncIterator[Process]:
    """A process that was stopped while it held the lock."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD.format(signal="signal.SIGSTOP"), str(path),
        stdin=PIPE, stdout=PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"held\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@needs_signals
async def test_a_stopped_holder_costs_a_look_and_a_killed_one_nothing(tmp_path: Path) -> None:
    file, clock = budget_file(tmp_path), SystemClock()
    file.change(take)
    async with holder(file.path) as process:
        for _ in range(3):
            with pytest.raises(BlockingIOError, match="does not let go"):
                file.change(take)
        began = clock.monotonic()
        for _ in range(50):  # they do not wait as long again
            with pytest.raises(BlockingIOError):
                file.change(take)
        assert clock.monotonic() - began < 50 * LOCK_WAIT_S
        process.kill()
        await process.wait()
        assert file.change(take) == 0


def limiter_of(budget: SharedBudget | None, group: str = "candles") -> RateLimiter:
    assert budget is not None
    window = RateWindow(limit=10, window_s=WINDOW_S, reserve=2)
    return RateLimiter(window, SystemClock(), budget.group(group))


@asynccontextmanager
async def programs(folder: Path, count: int = 2) -> AsyncIterator[list[SharedBudget]]:
    """As of so many programs: each opens the file for itself."""
    budgets = [SharedBudget.for_host(ADDRESS, folder) for _ in range(count)]
    try:
        yield [budget for budget in budgets if budget is not None]
    finally:
        for budget in budgets:
            assert budget is not None
            budget.close()


async def granted_at_once(
    limiter: RateLimiter, priority: Priority, asked: int = 12, within_s: float = 0.3
) -> int:
    """How many of so many requests need not wait; the others are cancelled."""
    tasks = [asyncio.create_task(limiter.acquire(priority)) for _ in range(asked)]
    await asyncio.wait(tasks, timeout=within_s)
    granted = sum(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return granted


@needs_signals
async def test_beside_a_stopped_holder_half_the_rate_is_left_and_it_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with programs(tmp_path, 1) as (budget,):
        limiter = limiter_of(budget)
        await budget.look()
        assert not budget.degraded
        async with holder(tmp_path / FILE_NAME) as process:
            async with asyncio.timeout(0.1):
                await limiter.acquire(Priority.CRITICAL)  # never waits for a lock
            assert await granted_at_once(limiter, Priority.HIGH) == 4
            assert budget.degraded
            assert "does not let go" in budget.reason
            assert limiter.pace == 0.5
            process.send_signal(signal.SIGCONT)
            assert process.stdout is not None
            assert await process.stdout.readline() == b"let go\n"

            async def asks_and_is_back() -> bool:
                await limiter.acquire(Priority.HIGH)
                return not budget.degraded

            async with asyncio.timeout(10):
                while not await asks_and_is_back():
                    pass
        assert budget.reason == ""
        assert [record.levelname for record in caplog.records if "budget" in record.message] == [
            "WARNING",
            "INFO",
        ]


# What can be wrong with the file.


@pytest.mark.parametrize("fault", ["no folder", "foreign", "damaged"])
async def test_without_the_file_requests_go_on_at_half_rate_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    folder = tmp_path / "run"
    if fault == "no folder":
        folder.write_text("a file is in the way")
    else:
        folder.mkdir()
        text = b'{"format":2}' if fault == "foreign" else b"torn"
        (folder / FILE_NAME).write_bytes(text)
    async with programs(folder, 1) as (budget,):
        limiter = limiter_of(budget)
        await budget.look()
        assert budget.degraded
        assert await granted_at_once(limiter, Priority.HIGH) == 4
        # Where a file begins afresh nobody knows what was granted: there is a pause for all.
        assert await granted_at_once(limiter, Priority.CRITICAL) == (fault != "damaged")
    assert len(caplog.messages) == 1
    assert "half the rate" in caplog.messages[0]


async def test_a_folder_that_the_system_does_not_name_is_no_reason_to_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    budget = SharedBudget(PermissionError("/run/user/7 belongs to another user"), SystemClock())
    assert await granted_at_once(limiter_of(budget), Priority.HIGH) == 4
    assert budget.reason == "/run/user/7 belongs to another user"
    budget.close()


# Several programs.


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8080/v1",
        "http://localhost:1/v1",
        "http://[::1]:1/v1",
        "http://api.localhost/v1",
        "http://0.0.0.0:1/v1",
    ],
)
def test_an_exchange_on_this_machine_shares_nothing(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert SharedBudget.for_host(address) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the folder has no such variable")
async def test_the_file_lies_in_the_runtime_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    budget = SharedBudget.for_host(ADDRESS)
    assert budget is not None
    assert list(tmp_path.iterdir()) == []  # nothing is touched before it is used
    await budget.look()
    budget.close()
    assert not budget.degraded
    assert [path.name for path in tmp_path.rglob("*.json")] == [FILE_NAME]


@pytest.mark.both_loops
async def test_two_programs_together_get_what_one_may_have(tmp_path: Path) -> None:
    async with programs(tmp_path) as (first, second):
        ours, theirs = limiter_of(first), limiter_of(second)
        assert await granted_at_once(ours, Priority.HIGH, asked=5) == 5
        assert await granted_at_once(theirs, Priority.HIGH) == 3
        assert await granted_at_once(ours, Priority.HIGH) == 0
        assert await granted_at_once(theirs, Priority.CRITICAL) == 2
        # Other groups are counted alone.
        assert await granted_at_once(limiter_of(second, "ticker"), Priority.HIGH) == 8


async def test_who_was_refused_goes_on_as_soon_as_the_others_window_is_over(
    tmp_path: Path,
) -> None:
    clock = SystemClock()
    async with programs(tmp_path) as (first, second):
        ours, theirs = limiter_of(first), limiter_of(second)
        began = clock.monotonic()
        assert await granted_at_once(ours, Priority.HIGH) == 8
        async with asyncio.timeout(5):
            await theirs.acquire(Priority.LOW)
        assert WINDOW_S <= clock.monotonic() - began < WINDOW_S + 0.3
        assert theirs.waiting == 0


class CountedFile(BudgetFile):
    """Counts how often it is asked."""

    asked = 0

    def change(self, work: Callable[[Sheet, float], Any]) -> Any:
        self.asked += 1
        return super().change(work)


async def test_who_was_refused_asks_again_when_it_is_worth_it(tmp_path: Path) -> None:
    clock = SystemClock()
    file = CountedFile(tmp_path / FILE_NAME, clock, quiet_s=WINDOW_S)
    file.path.write_bytes(encode_sheet(Sheet(quiet_until=clock.monotonic() + 0.4)))
    budget = SharedBudget(file, clock)
    async with asyncio.timeout(5):
        await limiter_of(budget).acquire(Priority.HIGH)
    budget.close()
    assert 2 <= file.asked <= 4


@pytest.mark.both_loops
async def test_a_place_is_given_back_whenever_its_owner_is_cancelled(tmp_path: Path) -> None:
    async with programs(tmp_path, 1) as (budget,):
        limiter = limiter_of(budget)
        sent = 0
        for turns in range(8):  # at every step on the way into the file and back
            task = asyncio.create_task(limiter.acquire(Priority.HIGH))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            sent += not task.cancelled()
        await budget.look()  # behind them in the same thread
        assert await granted_at_once(limiter, Priority.HIGH) == 8 - sent
        assert limiter.waiting == 0


@needs_signals
async def test_without_the_lock_critical_keeps_to_what_was_last_seen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SystemClock()
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        async with programs(folder) as (first, second):
            ours, theirs = limiter_of(first), limiter_of(second)
            began = clock.monotonic()
            assert await granted_at_once(theirs, Priority.HIGH, asked=8) == 8
            assert await granted_at_once(ours, Priority.HIGH, asked=1, within_s=0.1) == 0
            async with holder(folder / FILE_NAME):
                granted = await granted_at_once(ours, Priority.CRITICAL, within_s=0.1)
            if clock.monotonic() - began < WINDOW_S:  # else what was seen was over meanwhile
                assert granted <= 2
                return
    pytest.fail("the machine is too busy to start a program within a second")


@needs_signals
async def test_what_was_granted_without_the_file_is_told_to_it_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with programs(tmp_path) as (first, second):
        ours, theirs = limiter_of(first), limiter_of(second)
        await first.look()
        async with holder(tmp_path / FILE_NAME) as process:
            await ours.acquire(Priority.CRITICAL)
            await ours.acquire(Priority.CRITICAL)
            process.kill()
            await process.wait()
        await ours.acquire(Priority.HIGH)
        assert await granted_at_once(theirs, Priority.HIGH) == 7
        assert await granted_at_once(theirs, Priority.CRITICAL) == 0
    assert not caplog.messages


async def test_a_ban_that_one_program_met_stops_the_others(tmp_path: Path) -> None:
    async with programs(tmp_path) as (first, second):
        ours, theirs = limiter_of(first), limiter_of(second)
        await theirs.acquire(Priority.HIGH)
        await first.note_ban(30.0)
        await first.note_ban(5.0)
        with pytest.raises(RateLimitedError, match="another 30 s") as caught:
            await theirs.acquire(Priority.HIGH)  # it meets the ban in the file
        assert caught.value.blocked
        assert caught.value.retry_after_s == pytest.approx(30, abs=2)
        assert second.ban_left_s == pytest.approx(30, abs=2)
        with pytest.raises(RateLimitedError):
            await ours.acquire(Priority.CRITICAL)
        assert theirs.waiting == ours.waiting == 0
        async with programs(tmp_path, 1) as (third,):
            assert third.ban_left_s == 0
            await third.look()
            assert third.ban_left_s == pytest.approx(30, abs=2)


async def test_a_ban_is_over_when_it_is_over(tmp_path: Path, clock: ManualClock) -> None:
    budget = SharedBudget.for_host(ADDRESS, tmp_path, clock=clock)
    assert budget is not None
    await budget.note_ban(30.0)
    clock.advance(29.9)
    with pytest.raises(RateLimitedError):
        budget.check()
    clock.advance(0.2)
    budget.check()
    await budget.look()
    assert budget.ban_left_s == 0
    budget.close()


async def test_a_ban_is_kept_in_mind_where_the_file_cannot_be_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").write_text("a file is in the way")
    async with programs(tmp_path / "run", 1) as (budget,):
        await budget.note_ban(30.0)
        with pytest.raises(RateLimitedError):
            await limiter_of(budget).acquire(Priority.CRITICAL)


async def test_a_closed_budget_leaves_no_thread_and_works_again_when_it_is_used(
    tmp_path: Path,
) -> None:
    async with programs(tmp_path, 1) as (budget,):
        await budget.look()
        budget.close()
        budget.close()
        assert await granted_at_once(limiter_of(budget), Priority.HIGH) == 8


# Programs as processes of their own, at full rate, against one exchange.


@asynccontextmanager
async def asking(rest_url: str, folder: Path, *arguments: object) -> AsyncIterator[Process]:
    """A program (`budget_program.py`) that is ready to ask."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.routing.budget_program", rest_url, str(folder),
        *map(str, arguments), cwd=REPOSITORY, stdin=PIPE, stdout=PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def results_of(programs: list[Process], seconds: float) -> list[dict[str, Any]]:
    async with asyncio.timeout(20 + seconds):
        for program in programs:
            assert program.stdout is not None
            assert await program.stdout.readline() == b"ready\n"
        outputs = await asyncio.gather(*(program.communicate(b"\n") for program in programs))
    results = [json.loads(out.splitlines()[-1]) for out, _ in outputs]
    for result, (out, _) in zip(results, outputs, strict=True):
        assert result.pop("statuses").keys() == {"200"}, out.decode()
    return results


async def test_two_processes_at_full_rate_share_alike_and_earn_no_refusal(tmp_path: Path) -> None:
    """One of them asks something CRITICAL as well, which has to wait for nobody."""
    seconds = 3 * WINDOW_S
    async with (
        Simulator() as simulator,
        asking(simulator.rest_url, tmp_path, seconds, "HIGH:10") as one,
        asking(simulator.rest_url, tmp_path, seconds, "HIGH:10", "CRITICAL:1:0.6") as other,
    ):
        results = await results_of([one, other], seconds)
        assert not simulator._gateway.calls.refused
    counts = sorted(len(result["HIGH"]) for result in results)
    # Whoever came first had the first window for itself.
    assert sum(counts) >= 0.95 * 8 * seconds / WINDOW_S
    assert counts[1] - counts[0] <= 10
    assert len(results[1]["CRITICAL"]) >= 5
    assert max(results[1]["CRITICAL"]) < 0.25  # far below the second that a slot may take


@pytest.mark.slow
@pytest.mark.parametrize("window", get_args(WindowKind))
async def test_processes_share_alike_for_half_a_minute(tmp_path: Path, window: WindowKind) -> None:
    """Two backfills; beside one of them a bot asks every second."""
    seconds = 30.0
    async with (
        Simulator(settings=SimulatorSettings(window=window)) as simulator,
        asking(simulator.rest_url, tmp_path, seconds, "LOW:3") as one,
        asking(simulator.rest_url, tmp_path, seconds, "LOW:3", "CRITICAL:1:1") as other,
    ):
        results = await results_of([one, other], seconds)
        assert not simulator._gateway.calls.refused
    counts = [len(result["LOW"]) for result in results]
    assert sum(counts) >= 0.95 * 8 * seconds / WINDOW_S
    assert min(counts) >= 0.45 * sum(counts)
    urgent = sorted(results[1]["CRITICAL"])
    assert len(urgent) >= 29
    assert urgent[int(len(urgent) * 0.95)] < 0.05
