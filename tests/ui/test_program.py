"""The whole program as a process of its own, off-screen, on the simulator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtGui import QColor, QImage
from PySide6.QtWidgets import QApplication

from tests.recorder.samples import STARTED_MS, answer, begin, candle, frame, page, trade, write
from ui.app import Desktop, _Watchdog
from ui.language import Translations
from ui.options import DesktopOptions
from upbit_backbone import BackboneConfig
from upbit_backbone.clock import SystemClock, utc_datetime
from upbit_backbone.recorder.opening import open_recording

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "run_desktop_ui.py"
START_WITHIN_S = 20.0
CLOCK = SystemClock()


# The program, and somebody who closes its window as soon as a chart is drawn.
CLOSED_BY_HAND = """
import sys, run_desktop_ui, ui.app
drawn = ui.app.Desktop._note_chart
ui.app.Desktop._note_chart = lambda self: (drawn(self), self._window.close())
sys.exit(run_desktop_ui.main())
"""


# The program, and somebody who reads its window some time after the chart is drawn.
SAYS_WHAT_IT_SHOWS = """
import json, sys, run_desktop_ui, ui.app
from PySide6.QtCore import QTimer
drawn = ui.app.Desktop._note_chart
def say(window):
    print("SHOWN", json.dumps({
        "bars": len(window.chart._bars),
        "connection": window.monitor._status.connection,
        "symbol": window.symbol,
        "title": window.windowTitle(),
        "error": window.messages.text,
        "notice": window.notices.text,
        "simulated": window.banner.isVisible(),
        "banner": window.banner.text(),
        "identity": window.monitor._status.identity,
        "newest_ms": window.chart._bars.newest_ms,
        "last_close": window.chart._bars.rows(window.chart._bars.last, window.chart._bars.last + 1)
            .ravel().tolist()[4],
    }), file=sys.stderr, flush=True)
def say_when_told(window, looks=100):
    if window.messages.text or not looks:
        say(window)
    else:
        QTimer.singleShot(100, lambda: say_when_told(window, looks - 1))
def note(self):
    if not self._chart_drawn:
        QTimer.singleShot(1_500, lambda: say(self._window))
    drawn(self)
ui.app.Desktop._note_chart = note
sys.exit(run_desktop_ui.main())
"""


# The program whose service cannot be opened for a reason that nobody thought of, and somebody
# who reads its window then, and closes it.
FAILS_TO_OPEN = """
import json, sys, run_desktop_ui, ui.app
async def fail(self):
    raise RuntimeError("nobody thought of this")
ui.app.BackboneManager.initialize = fail
opened = ui.app.Desktop._open
async def open_and_say(self):
    await opened(self)
    bar = self._window.messages
    shown = json.dumps([bar.isVisible(), bar.text, bar.details])
    print("SHOWN", shown, file=sys.stderr, flush=True)
    self._window.close()
ui.app.Desktop._open = open_and_say
sys.exit(run_desktop_ui.main())
"""


@contextmanager
def program(
    folder: Path, *flags: str, script: tuple[str | Path, ...] = (PROGRAM,)
) -> Iterator[subprocess.Popen[str]]:
    """The running program; a warning of its own makes it print, which the tests read."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error::ResourceWarning",
            *script,
            *(() if {"--rest-url", "--replay"} & set(flags) else ("--exchange", "simulator")),
            "--data-dir",
            folder / "data",
            "--verbose",
            *flags,
        ],
        cwd=ROOT,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_line(process: subprocess.Popen[str], words: str) -> list[str]:
    """Read what it says until a line holds `words`."""
    assert process.stderr is not None
    said = []
    deadline = CLOCK.monotonic() + START_WITHIN_S
    for line in process.stderr:
        said.append(line)
        if words in line:
            return said
        if CLOCK.monotonic() > deadline:
            break
    raise AssertionError(f"never said {words!r}: {''.join(said)}")


def wait_until_it_holds_signals(process: subprocess.Popen[str]) -> None:
    """Until a termination request is caught, which happens long before Qt is imported."""
    status = Path(f"/proc/{process.pid}/status")
    deadline = CLOCK.monotonic() + START_WITHIN_S
    while CLOCK.monotonic() < deadline:
        caught = next(line for line in status.read_text().splitlines() if "SigCgt" in line)
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.005)
    raise AssertionError("never took over the signals")


def remember(folder: Path, **values: str) -> Path:
    """What the program left behind the last time."""
    file = folder / "data" / "window.ini"
    file.parent.mkdir()
    lines = [f"{name}={value}" for name, value in values.items()]
    file.write_text("\n".join(["[General]", *lines, ""]))
    return file


def complaints(said: str) -> list[str]:
    """Lines that are no information."""
    return [line for line in said.splitlines() if line and " INFO " not in line]


def test_a_screenshot_shows_a_chart_under_the_banner(tmp_path: Path) -> None:
    picture = tmp_path / "shot.png"
    remembered = remember(tmp_path, symbol="KRW-XRP", timeframe="1w", language="en")
    before = remembered.read_bytes()
    with program(tmp_path, "--screenshot", str(picture), "--after", "4") as process:
        _, said = process.communicate(timeout=60)
    assert remembered.read_bytes() == before
    assert process.returncode == 0, said
    assert complaints(said) == []
    assert "window shown" in said
    image = QImage(str(picture))
    assert (image.width(), image.height()) == (1440, 900)
    seen = {image.pixelColor(x, y).name() for x in range(0, 1000, 3) for y in range(90, 700, 3)}
    # A banner, rising candles, falling candles.
    assert image.pixelColor(20, 8) == QColor("#ffb224")
    assert {"#f04a55", "#3d8bff"} <= seen


@pytest.mark.parametrize("moment", ["window shown", "chart drawn"])
def test_ctrl_c_ends_it_cleanly_also_while_it_starts(tmp_path: Path, moment: str) -> None:
    with program(tmp_path) as process:
        wait_for_line(process, moment)
        asked = CLOCK.monotonic()
        process.send_signal(signal.SIGINT)
        # A terminal sends it to the program and to `uv run`, which may pass it on.
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        took_s = CLOCK.monotonic() - asked
    assert process.returncode == 0, said
    assert complaints(said) == []
    assert took_s < 5.0


def test_closing_the_window_ends_it_cleanly(tmp_path: Path) -> None:
    begun = CLOCK.monotonic()
    with program(tmp_path, script=("-c", CLOSED_BY_HAND)) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert complaints(said) == []
    assert CLOCK.monotonic() - begun < START_WITHIN_S


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_ctrl_c_before_there_is_a_window_ends_it_at_once(tmp_path: Path) -> None:
    with program(tmp_path) as process:
        wait_until_it_holds_signals(process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")


def test_offline_the_stored_candles_are_drawn(tmp_path: Path) -> None:
    script = ("-c", "from upbit_backbone.cli import main; main()", "simulate", "--port", "0")
    exchange = subprocess.Popen(
        [sys.executable, *script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert exchange.stdout is not None
        served = json.loads(exchange.stdout.readline())
        urls = ("--rest-url", served["rest_url"], "--ws-url", served["ws_url"])
        with program(tmp_path, *urls) as process:
            wait_for_line(process, "chart drawn")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    finally:
        exchange.terminate()
        exchange.communicate(timeout=30)
    # The stored candles are there at once; that there are no others is known some time later.
    reader = SAYS_WHAT_IT_SHOWS.replace("say(self._window)", "say_when_told(self._window)")
    with program(tmp_path, *urls, script=("-c", reader)) as process:
        said = "".join(wait_for_line(process, "SHOWN"))
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 0, rest
    shown = json.loads(said.splitlines()[-1].removeprefix("SHOWN "))
    assert shown["bars"] > 150, "a page, or two if the second was there when it was closed"
    assert shown["connection"] == "offline"
    assert shown["error"].startswith("KRW-BTC의 저장된 캔들만 보여 줍니다.")
    assert shown["notice"] == ""
    assert shown["simulated"]


def test_a_replay_shows_the_market_of_then_and_moves_as_it_did(tmp_path: Path) -> None:
    minutes = [utc_datetime(STARTED_MS - ago * 60_000) for ago in range(30)]
    rows = [candle(f"{minute:%Y-%m-%dT%H:%M:%S}", "101.0") for minute in minutes]
    names = '"market":"KRW-BTC","korean_name":"비트코인","english_name":"Bitcoin"'
    file = write(
        tmp_path / "a.rec",
        [
            answer(-2.0, "/market/all?is_details=true", f"[{{{names}}}]"),
            answer(-1.0, "/candles/minutes/1?market=KRW-BTC&count=200", page(rows)),
            begin(0.0),
            *(frame(number / 10, trade(number * 100 + 1)) for number in range(50)),
        ],
    )
    name = open_recording(file).name
    flags = ("--replay", str(file), "--symbol", "KRW-BTC", "--timeframe", "1m")
    with program(tmp_path, *flags, script=("-c", SAYS_WHAT_IT_SHOWS)) as process:
        said = "".join(wait_for_line(process, "SHOWN"))
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 0, rest
    shown = json.loads(said.splitlines()[-1].removeprefix("SHOWN "))
    assert shown["banner"].startswith(
        "재생 · REPLAY — 모의 · SIMULATED 가격입니다. 2025-09-15 (월)"
    )
    assert shown["simulated"]
    assert shown["identity"] == name
    assert shown["bars"] == 30
    assert shown["newest_ms"] == STARTED_MS
    assert shown["last_close"] == 132_448_000, "the price of the recorded trades"
    assert shown["connection"] == "live"
    assert shown["notice"].startswith("기록의 끝이 없습니다")
    assert (tmp_path / "data" / name / "market.sqlite3").is_file()


def test_check_looks_for_what_a_window_needs() -> None:
    script = (
        "import sys, ui.preflight, run_desktop_ui;"
        " ui.preflight._loads = lambda soname: 'xcb' not in soname;"
        " sys.exit(run_desktop_ui.main(['--check']))"
    )
    environment = {**os.environ, "DISPLAY": ":1"}
    environment.pop("QT_QPA_PLATFORM", None)
    checked = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert checked.returncode == 2
    assert "libxcb-cursor.so.0" in checked.stderr


def test_a_start_that_fails_unexpectedly_says_so_in_the_window(tmp_path: Path) -> None:
    with program(tmp_path, script=("-c", FAILS_TO_OPEN)) as process:
        lines = wait_for_line(process, "SHOWN ")
        visible, text, details = json.loads(lines[-1].removeprefix("SHOWN "))
        assert visible
        assert "unexpected error" in text or "예상하지 못한" in text, text
        assert details == "RuntimeError('nobody thought of this')"
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        log = "".join(lines) + said
        assert "the service could not be opened" in log
        assert "nobody thought of this" in log, "the log has the traceback"


def test_a_screenshot_without_a_chart_is_exit_3(tmp_path: Path) -> None:
    with program(tmp_path, "--screenshot", str(tmp_path / "a.png"), "--after", "0") as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "no chart was drawn within 0 s" in said


def test_a_screenshot_of_a_market_that_is_not_listed_says_which_are(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    flags = ("--symbol", "KRW-BTX", "--screenshot", str(picture), "--after", "8")
    with program(tmp_path, *flags) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 3
    (complaint,) = complaints(said)
    assert "unknown symbol 'KRW-BTX'" in complaint
    assert "closest: KRW-" in complaint
    assert not picture.exists()


def test_a_screenshot_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    # A name too long for any file system: not even an administrator can write it.
    picture = tmp_path / f"{'a' * 300}.png"
    with program(tmp_path, "--screenshot", str(picture), "--after", "4") as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 3
    (complaint,) = complaints(said)
    assert "could not be written" in complaint
    assert "File name too long" in complaint


def test_a_mistyped_market_is_replaced_by_the_last_one_and_not_remembered(tmp_path: Path) -> None:
    file = remember(tmp_path, symbol="KRW-XRP", timeframe="5m", language="en")
    with program(tmp_path, "--symbol", "KRW-NOPE", script=("-c", SAYS_WHAT_IT_SHOWS)) as process:
        said = "".join(wait_for_line(process, "SHOWN"))
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 0, rest
    shown = json.loads(said.splitlines()[-1].removeprefix("SHOWN "))
    assert shown["symbol"] == "KRW-XRP"
    assert shown["title"].startswith("Ripple KRW-XRP · 5m")
    assert shown["error"].startswith("There is no market KRW-NOPE.")
    assert shown["error"].endswith("KRW-XRP is shown instead.")
    left = file.read_text()
    assert "symbol=KRW-XRP" in left
    assert "timeframe=5m" in left
    assert "language=en" in left


@pytest.mark.parametrize(
    ("remembered", "options", "language"),
    [
        (None, {}, "ko"),
        ("en", {}, "en"),
        ("en", {"language": "ko"}, "ko"),
        ("en", {"screenshot": Path("a.png")}, "ko"),
        ("fr", {}, "ko"),
    ],
)
def test_it_speaks_the_language_chosen_last(
    tmp_path: Path,
    qapp: QApplication,
    translations: Translations,
    remembered: str | None,
    options: dict[str, Any],
    language: str,
) -> None:
    if remembered is not None:
        remember(tmp_path, language=remembered)
    config = BackboneConfig(data_dir=tmp_path / "data")
    Desktop(DesktopOptions(config, **options), translations, _Watchdog(1.0))
    assert translations.language == language


def test_the_button_of_the_language_is_remembered(
    tmp_path: Path, qapp: QApplication, translations: Translations
) -> None:
    options = DesktopOptions(BackboneConfig(data_dir=tmp_path))
    first = Desktop(options, translations, _Watchdog(1.0))
    first._speak("en")
    assert translations.language == "en"
    Desktop(options, translations, _Watchdog(1.0))
    assert translations.language == "en"
