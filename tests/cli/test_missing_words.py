"""What commands say of candles that are not there, and while they wait for them."""

from __future__ import annotations

import asyncio
import io

import pytest
import typer

from tests.eventually import eventually
from upbit_backbone.clock import utc_datetime
from upbit_backbone.command_line import run
from upbit_backbone.commands import missing
from upbit_backbone.commands.missing import missing_sentence, told_while_waiting
from upbit_backbone.errors import DeadlineError
from upbit_backbone.models import Span, Timeframe

NOON = utc_datetime(1_760_616_000_000)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_open_end_has_a_name() -> None:
    below = missing_sentence("KRW-BTC", Timeframe.M1, Span(None, NOON, "unknown", "not reached"))
    above = missing_sentence("KRW-BTC", Timeframe.M1, Span(NOON, None, "unknown", "not reached"))
    assert below == "missing from the beginning to 2025-10-16 12:00:00 UTC: not reached"
    assert above == "missing from 2025-10-16 12:00:00 UTC to now: not reached"


def test_no_command_advises_a_longer_timeout_which_it_has_no_flag_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    why = "the time given ended: ask for less at once, or give a longer timeout"

    async def late() -> None:
        raise DeadlineError(why)

    with pytest.raises(typer.Exit):
        run(late())
    assert capsys.readouterr().err == "the time given ended: ask for less at once\n"
    told = missing_sentence("KRW-BTC", Timeframe.M1, Span(NOON, None, "unknown", why))
    assert told.endswith("to now: the time given ended: ask for less at once")


async def test_a_long_wait_is_told_on_a_terminal_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(missing, "FIRST_TOLD_S", 0.01)
    monkeypatch.setattr(missing, "TOLD_EVERY_S", 0.01)
    terminal = Terminal()
    async with told_while_waiting("candles of KRW-BTC 1m", terminal):
        await eventually(lambda: terminal.getvalue().count("\n") >= 2)
    told = terminal.getvalue()
    assert told.startswith("candles of KRW-BTC 1m: still loading after 0 s (Ctrl+C ends it)\n")
    await asyncio.sleep(0.03)
    assert terminal.getvalue() == told


async def test_a_pipe_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing, "FIRST_TOLD_S", 0.0)
    file = io.StringIO()
    async with told_while_waiting("candles", file):
        await asyncio.sleep(0.02)
    assert file.getvalue() == ""
