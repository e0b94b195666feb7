"""The bar of a backfill: what it says, in how much room, and what stands above it."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

import pytest
from rich.console import Console

from upbit_backbone.backfill import Bar, told
from upbit_backbone.clock import utc_datetime
from upbit_backbone.models import Timeframe
from upbit_backbone.protocol import Progress, ProgressState

NOON_MS = 1_760_616_000_000
"""2025-10-16T12:00:00Z"""


class Terminal(io.StringIO):
    """Takes what is written, and is a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What a line held at one time or another, without colours."""
        return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue()))


def progress(
    state: ProgressState = "running", reason: str = "", **others: float | None
) -> Progress:
    known: dict[str, Any] = {
        "done": 3_600, "candles": 3_600, "candles_per_s": 1_523.7, "time_left_s": 125.2
    } | others  # fmt: skip
    until = utc_datetime(NOON_MS) if state == "rate-limited" else None
    return Progress(
        "KRW-BTC", Timeframe.M1, total=7_200, state=state, reason=reason,
        until=until, **known,
    )  # fmt: skip


def shown_on(columns: int, figures: Progress) -> str:
    terminal = Terminal()
    with Bar(Console(file=terminal, force_terminal=True, width=columns)) as bar:
        bar.begin("KRW-BTC", Timeframe.M1, 1, 2)
        bar.show(figures)
    return [line for line in terminal.lines if "KRW-BTC" in line][-1]


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (progress(), "0:02:05 left, 1,524 candles/s"),
        (progress(time_left_s=None), ""),
        (progress(time_left_s=None, candles=0), "looking for the first candle"),
        (progress("waiting for load", "load 78 %"), "waiting: load 78 %"),
        (progress("waiting", "the layer has ended"), "waiting: the layer has ended"),
        (progress("rate-limited", "refused (429)"), "rate-limited until 12:00:00 UTC"),
        (progress("running", "trying again: not reached"), "trying again: not reached"),
        (progress("paused", "by whoever reads"), "paused"),
    ],
)
def test_the_most_important_is_said_first_and_short(figures: Progress, words: str) -> None:
    assert told(figures) == words


@pytest.mark.parametrize("columns", [44, 60, 80, 120])
def test_a_line_is_never_longer_than_the_terminal_with_room_for_a_ctrl_c(columns: int) -> None:
    line = shown_on(columns, progress("rate-limited"))
    assert len(line.rstrip()) <= columns - 3
    assert line.startswith("KRW-BTC 1m (1 of 2)")
    assert " 50 % rate-limited" in line
    assert ("━" in line) is (columns >= 70)


@pytest.mark.parametrize(
    ("columns", "start"),
    [(20, " 50 % 0:02:"), (40, " 50 % 0:02:05 left KRW-BTC 1m"), (60, "KRW-BTC 1m (1 of 2)  50 %")],
)
def test_percentage_and_time_left_survive_where_there_is_little_room(
    columns: int, start: str
) -> None:
    terminal = Terminal()
    with Bar(Console(file=terminal, force_terminal=True, width=columns)) as bar:
        bar.begin("KRW-BTC", Timeframe.M1, 1, 2)
        bar.show(progress())
    line = next(line for line in terminal.lines[::-1] if " 50 %" in line)
    assert line.startswith(start)
    assert len(line.rstrip()) <= columns - 3


def test_the_time_left_says_whose_it_is_and_the_time_gone_what_it_is() -> None:
    assert "0:02:05 left of this market, 1,524 candles/s" in shown_on(120, progress())
    assert "0:00:00 elapsed" in shown_on(120, progress())
    assert told(progress(), others_follow=False) == "0:02:05 left, 1,524 candles/s"


def test_a_line_of_the_log_stands_above_the_bar_and_breaks_none() -> None:
    terminal = Terminal()
    logger = logging.getLogger()
    handler = logging.StreamHandler(terminal)
    logger.addHandler(handler)
    try:
        with Bar(Console(file=terminal, force_terminal=True, width=100)) as bar:
            bar.begin("KRW-BTC", Timeframe.M1, 1, 1)
            bar.show(progress())
            handler.handle(logging.makeLogRecord({"msg": "the exchange blocks this address"}))
            assert "the exchange blocks this address" in terminal.lines
        assert handler.stream is terminal
    finally:
        logger.removeHandler(handler)


def test_where_nobody_watches_there_are_sentences_only(capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    with Bar(Console(file=file)) as bar:
        bar.begin("KRW-BTC", Timeframe.M1, 1, 1)
        bar.show(progress())
        bar.tell("missing: [a reason]")
        bar.say("KRW-BTC 1m: 7,200 candles")
    assert file.getvalue() == "missing: [a reason]\n"
    assert capsys.readouterr().out == "KRW-BTC 1m: 7,200 candles\n"
