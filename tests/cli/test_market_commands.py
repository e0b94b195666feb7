"""Prices on the command line: one market, many, all of them, and as they change."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from tests.cli.running import NOWHERE, command, environment_with, run, run_json
from upbit_backbone.commands import watch
from upbit_backbone.commands.printing import Shown, fitting_table
from upbit_backbone.simulator import Simulator


def test_tickers_come_in_the_order_asked_with_the_names_of_their_markets(tmp_path: Path) -> None:
    found = run_json(tmp_path, "ticker", "krw-xrp", "KRW-BTC", "KRW-XRP")
    assert [one["symbol"] for one in found] == ["KRW-XRP", "KRW-BTC"]
    assert found[1]["korean_name"] == "비트코인"
    for one in found:
        assert one["low"] <= one["price"] <= one["high"]
        assert one["simulated"] is True
        assert datetime.fromisoformat(one["trade_time"]).utcoffset() is not None


def test_a_table_of_tickers_names_markets_in_korean_and_says_they_are_simulated(
    tmp_path: Path,
) -> None:
    told = run(tmp_path, "ticker", "KRW-BTC", "BTC-ETH")
    assert told.exit_code == 0
    for word in ("비트코인", "이더리움", "모의 SIMULATED", "KRW m", "24h value", "traded (KST)"):
        assert word in told.stdout


def test_a_book_has_the_lowest_ask_above_the_highest_bid(tmp_path: Path) -> None:
    book = run_json(tmp_path, "orderbook", "KRW-BTC", "--depth", "3")
    asks, bids = ([level["price"] for level in book[side]] for side in ("asks", "bids"))
    assert len(asks) == len(bids) == 3
    assert asks == sorted(asks)
    assert bids == sorted(bids, reverse=True)
    told = run(tmp_path, "orderbook", "KRW-BTC", "--depth", "3").stdout
    sides = re.findall(r"^ ?(ask|bid) ", told, re.MULTILINE)
    assert sides == ["ask"] * 3 + ["bid"] * 3
    prices = [float(text.replace(",", "")) for text in re.findall(r"(?:ask|bid) +([\d,]+)", told)]
    assert prices == sorted(prices, reverse=True)
    assert "spread" in told


def test_trades_are_the_latest_oldest_first(tmp_path: Path) -> None:
    found = run_json(tmp_path, "trades", "KRW-BTC", "--count", "4")
    assert len(found) == 4
    times = [one["exchange_time"] for one in found]
    assert times == sorted(times)
    assert {one["side"] for one in found} <= {"BUY", "SELL"}
    told = run(tmp_path, "trades", "KRW-BTC", "--count", "4").stdout
    assert sum(" BUY " in line or " SELL " in line for line in told.splitlines()) == 4


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        (("--sort", "change"), lambda one: -one["change_rate"]),
        (("--sort", "change", "--reverse"), lambda one: one["change_rate"]),
        ((), lambda one: -one["value_24h"]),
        (("--sort", "name"), lambda one: one["symbol"]),
    ],
)
def test_a_screen_has_every_market_in_won_in_the_order_asked(
    tmp_path: Path, flags: tuple[str, ...], key: Any
) -> None:
    found = run_json(tmp_path, "screen", *flags)
    assert len(found) == 289
    assert all(one["symbol"].startswith("KRW-") for one in found)
    assert [key(one) for one in found] == sorted(key(one) for one in found)


def test_a_screen_of_the_first_few_says_of_how_many(tmp_path: Path) -> None:
    told = run(tmp_path, "screen", "--top", "3", "--quote", "usdt").stdout
    assert "USDT markets, 3 of 16" in told
    assert sum("USDT-" in line for line in told.splitlines()) == 3


def test_watching_in_a_pipe_gives_a_line_for_each_change(tmp_path: Path) -> None:
    told = run(tmp_path, "watch", "KRW-BTC", "KRW-XRP", "--count", "2")
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert len(lines) == 2
    form = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+09:00 KRW-(BTC|XRP) [\d,.]+ [+-][\d.]+% [\d,]+ KRW m"
    assert all(re.match(form, line) for line in lines), lines


def test_watching_with_json_gives_an_object_on_each_line(tmp_path: Path) -> None:
    told = run(tmp_path, "watch", "KRW-BTC", "KRW-XRP", "--count", "2", "--json")
    found = [json.loads(line) for line in told.stdout.splitlines()]
    assert {one["symbol"] for one in found} <= {"KRW-BTC", "KRW-XRP"}
    assert len(found) == 2


def test_watching_ends_after_the_seconds_that_were_given(tmp_path: Path) -> None:
    told = run(tmp_path, "watch", "KRW-BTC", "--seconds", "0.2")
    assert told.exit_code == (0 if told.stdout else 1), "on a busy machine no price comes in time"


async def test_watching_what_is_not_reached_is_a_failure_that_says_why(tmp_path: Path) -> None:
    async with Simulator() as simulator:
        there = ("--rest-url", simulator.rest_url, "--ws-url", simulator.ws_url)
        asked = (tmp_path, "watch", "KRW-BTC")
        seen = await asyncio.to_thread(run, *asked, "--count", "1", exchange=there)
        assert seen.exit_code == 0
    # Its list of markets is stored: a service opens, and nothing comes.
    told = await asyncio.to_thread(run, *asked, "--seconds", "0.3", exchange=there)
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr.splitlines()[-1].startswith("no price of KRW-BTC within 0.3 s: "), (
        told.stderr
    )


async def test_a_watch_that_waits_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SILENT_FOR_S", 0.01)
    seen: list[str] = []

    class Show(watch._Show):
        def wait(self, sentence: str) -> None:
            seen.append(sentence)

    await watch._Watch({}, Show(), None, lambda: "the cable is out")._tell_of_silence()
    assert seen == ["no price yet: the cable is out"]


def test_candles_take_the_same_flag_for_json(tmp_path: Path) -> None:
    found = run_json(tmp_path, "candles", "KRW-BTC", "1m", "--count", "3")
    assert [one["symbol"] for one in found] == ["KRW-BTC"] * 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ticker", "KRW-BTX"), "unknown symbol 'KRW-BTX'"),
        (("ticker", "btckrw"), "closest: KRW-BTC, "),
        (("orderbook", "KRW-BTX"), "unknown symbol 'KRW-BTX'"),
        (("orderbook", "KRW-BTC", "--depth", "31"), "--depth must be"),
        (("trades", "KRW-BTC", "--count", "0"), "--count must be"),
        (("trades", "KRW-BTC", "--from", "2099-01-01T00:00Z"), "--from 2099-01-01"),
        (("watch", "KRW-BTX"), "unknown symbol 'KRW-BTX'"),
        (("watch", "KRW-BTC", "--seconds", "-1"), "--seconds must be more than 0, was -1"),
        (("watch", "KRW-BTC", "--count", "0"), "--count must be 1 or more, was 0"),
        (("screen", "--top", "0"), "--top must be 1 to 1,000, was 0"),
        (("screen", "--quote", "EUR"), "--quote must be one of BTC, KRW, USDT"),
        (("screen", "--sort", "luck"), "--sort must be value, change, price or name"),
        (("ticker",), "Missing argument"),
    ],
)
def test_bad_input_is_told_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    told = run(tmp_path, *arguments)
    assert (told.exit_code, told.stdout) == (2, "")
    assert sentence in told.stderr
    assert len(told.stderr.splitlines()) == 1, told.stderr


@pytest.mark.parametrize("asked", [("ticker", "KRW-BTC"), ("screen",), ("watch", "KRW-BTC")])
def test_what_is_not_reached_is_told_in_one_line(tmp_path: Path, asked: tuple[str, ...]) -> None:
    told = run(tmp_path, *asked, exchange=NOWHERE)
    assert (told.exit_code, told.stdout) == (1, "")
    assert "127.0.0.1:9 was not reached" in told.stderr
    assert len(told.stderr.splitlines()) == 1, told.stderr


@pytest.mark.parametrize(
    "asked", [("screen",), ("watch", "KRW-BTC", "KRW-XRP"), ("candles", "KRW-BTC", "1m")]
)
def test_a_reader_that_goes_away_ends_the_command_without_a_word(
    tmp_path: Path, asked: tuple[str, ...]
) -> None:
    with subprocess.Popen(
        command(*asked, "--exchange", "simulator"),
        env=environment_with(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if asked[0] == "watch":
            assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


@pytest.mark.skipif(os.name == "nt", reason="Ctrl+C cannot be sent to one process there")
def test_ctrl_c_ends_a_command_that_waits_without_a_word(tmp_path: Path) -> None:
    """Whoever watches ends it by Ctrl+C, and no less before the first price."""
    with ExitStack() as open_:
        servers = [open_.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        started = [
            subprocess.Popen(
                command(name, "KRW-BTC", *addresses(silent)), env=environment_with(tmp_path / name),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
            for name, silent in zip(("ticker", "watch"), servers, strict=True)
        ]  # fmt: skip
        for process, silent in zip(started, servers, strict=True):
            open_.enter_context(silent.accept()[0])
            process.send_signal(signal.SIGINT)
        ended = [(process.communicate(timeout=20), process.returncode) for process in started]
    assert ended == [((b"", b""), 130), ((b"", b""), 0)]


def addresses(server: socket.socket) -> tuple[str, ...]:
    where = f"127.0.0.1:{server.getsockname()[1]}"
    return ("--rest-url", f"http://{where}/v1", "--ws-url", f"ws://{where}/websocket/v1")


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
def test_in_a_terminal_prices_are_drawn_until_ctrl_c(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    settings = environment_with(tmp_path, TERM="xterm-256color", COLUMNS="100", LINES="20")
    with subprocess.Popen(
        command("watch", "KRW-BTC", "KRW-XRP", "--exchange", "simulator"),
        env=settings, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        os.close(theirs)
        seen = b""
        while seen.count(b"live") < 2:
            seen += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    os.close(ours)
    text = seen.decode(errors="replace")
    assert "비트코인" in text
    assert "Ctrl+C ends" in text


# Tables.

COLUMNS = (
    Shown("market", "left"),
    Shown("name", "left", need=2),
    Shown("price"),
    Shown("24h", need=1),
    Shown("note", "left", need=3),
)
WORDS = st.text("가나다라마바사아 abcXYZ0123456789,.▲", max_size=14).map(str.strip)


WIDEST = 28
"""Of the words above, which are 14 signs at most."""


@given(
    st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS, WORDS), min_size=1, max_size=5),
    st.integers(WIDEST, 150),
)
def test_a_table_leaves_columns_out_and_never_cuts_a_cell(
    rows: list[tuple[str, ...]], width: int
) -> None:
    table = fitting_table(COLUMNS, rows, width=width)
    text, lines = printed(table, width)
    assert "…" not in text
    kept = [column.header for column in table.columns]
    if kept == [""]:  # a line for each value
        needed = [cell for row in rows for cell in (row[0], row[2])]
        assert all(word in text for cell in needed for word in cell.split())
        return
    assert {"market", "price"} <= set(kept)
    by_need = [one.heading for one in sorted(COLUMNS, key=lambda one: one.need)]
    assert set(kept) == set(by_need[: len(kept)])
    for row in rows:
        shown = [row[index] for index, one in enumerate(COLUMNS) if one.heading in kept]
        words = [word for cell in shown for word in cell.split()]
        assert any(all(word in line for word in words) for line in lines)


def printed(table: Table, width: int) -> tuple[str, list[str]]:
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    lines = file.getvalue().splitlines()
    assert all(cell_len(line) <= width for line in lines)
    return file.getvalue(), lines


def test_where_no_table_has_room_each_value_has_a_line_of_its_own() -> None:
    row = ("KRW-BTC", "비트코인", "157,000,000", "110,000", "caution")
    text, _ = printed(fitting_table(COLUMNS, [row, row], width=20), 20)
    one = ["market KRW-BTC", "price 157,000,000"]
    assert [line.rstrip() for line in text.splitlines()] == [*one, "", *one]
    # A heading stands above what has no room beside it.
    text, _ = printed(fitting_table(COLUMNS, [row], width=12), 12)
    assert [line.rstrip() for line in text.splitlines()][-2:] == ["price", "157,000,000"]


def test_no_command_cuts_a_figure_in_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    price, time = r"\d{2,3},\d{3},\d{3}(?![,\d])", r"20\d\d-\d\d-\d\d\s+\d\d:\d\d:\d\d"
    for width, found, *asked in (
        (40, price, "trades", "KRW-BTC", "--count", "2"),
        (20, price, "orderbook", "KRW-BTC", "--depth", "1"),
        (20, price, "candles", "KRW-BTC", "1m", "--count", "9"),
        (72, time, "db", "stats"),
        (20, time, "db", "stats"),
    ):
        monkeypatch.setattr("upbit_backbone.commands.printing.PIPE_WIDTH", width)
        told = run(tmp_path, *asked)
        assert (told.exit_code, "…" in told.stdout) == (0, False), told.output
        assert re.search(found, told.stdout), told.stdout


def test_a_table_uses_the_room_there_is() -> None:
    row = ("KRW-BTC", "비트코인", "157,000,000", "110,000", "caution")
    whole = len("KRW-BTC") + 8 + len("157,000,000") + len("110,000") + len("caution") + 4 * 3
    assert len(fitting_table(COLUMNS, [row], width=whole).columns) == 5
    assert len(fitting_table(COLUMNS, [row], width=whole - 1).columns) == 4
    assert len(fitting_table(COLUMNS, [row], width=len("KRW-BTC157,000,000") + 3).columns) == 2
