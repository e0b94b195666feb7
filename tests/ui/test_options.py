"""The command line: flags over environment over defaults, and what is refused."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from run_desktop_ui import main
from tests.recorder.samples import begin, ended, write
from ui.flags import parser
from ui.options import DesktopOptions, read_options
from upbit_backbone import Timeframe
from upbit_backbone.config import ENVIRONMENT_PREFIX


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting but the folder."""
    for name in ("EXCHANGE", "REST_URL", "WS_URL"):
        monkeypatch.delenv(f"{ENVIRONMENT_PREFIX}{name}", raising=False)
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}DATA_DIR", str(tmp_path))


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """The program takes Ctrl+C over as soon as it starts."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "a.rec", [begin(), ended(1.0)])


def options(*flags: str) -> DesktopOptions:
    return read_options(parser().parse_args(list(flags)))


def test_by_default_it_decides_for_itself(tmp_path: Path) -> None:
    found = options()
    assert found.automatic
    assert found.config.exchange == "upbit"
    assert found.config.data_dir == tmp_path
    assert (found.symbol, found.timeframe, found.language) == (None, None, None)
    assert (found.screenshot, found.after_s) == (None, 5.0)


def test_flags_are_stronger_than_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}EXCHANGE", "upbit")
    assert not options().automatic
    assert options("--exchange", "auto").automatic
    assert options("--exchange", "simulator").config.exchange == "simulator"
    found = options("--symbol", "krw-xrp", "--timeframe", "60m", "--language", "en")
    assert (found.symbol, found.timeframe, found.language) == ("KRW-XRP", Timeframe.H1, "en")


def test_an_address_is_asked_for_and_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = ("--rest-url", "http://127.0.0.1:8080/v1", "--ws-url", "ws://127.0.0.1:8080/ws")
    assert not options(*urls).automatic
    assert options(*urls).config.identity == "127.0.0.1_8080"
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}REST_URL", urls[1])
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}WS_URL", urls[3])
    assert not options().automatic
    assert options("--exchange", "simulator").config.rest_url is None


def test_a_recording_is_shown_instead_of_any_exchange(
    monkeypatch: pytest.MonkeyPatch, recording: Path
) -> None:
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}EXCHANGE", "simulator")
    found = options("--replay", str(recording), "--speed", "10")
    assert not found.automatic
    assert found.config.exchange == "upbit"
    assert found.replay is not None
    assert found.replay.recording.path == recording
    assert found.replay.speed == 10
    normal = options("--replay", str(recording)).replay
    assert normal is not None
    assert normal.speed == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--exchange", "simulator"], "leave out --exchange"),
        (["--rest-url", "http://127.0.0.1/v1"], "leave out --exchange, --rest-url"),
        (["--speed", "0"], "speed must be 1..1000"),
        (["--speed", "fast"], "'fast'"),
    ],
)
def test_a_replay_with_flags_that_do_not_fit_is_refused(
    recording: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(["--replay", str(recording), *flags], words, capsys)


def test_a_damaged_recording_is_refused_before_there_is_a_window(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(recording.read_bytes())
    content[40] ^= 1
    recording.write_bytes(content)
    assert_refused(["--replay", str(recording)], "is damaged at byte", capsys)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--speed", "2"], "give --replay FILE"),
        (["--replay", "/no/such.rec"], "there is no such file"),
        (["--replay", "/dev/null"], "is empty"),
        (["--exchange", "nyse"], "'nyse'"),
        (["--timeframe", "7m"], "unknown timeframe '7m'"),
        (["--after", "-1"], "--after must be 0"),
        (["--after", "3"], "give --screenshot FILE"),
        (["--after", "nan", "--screenshot", "a.png"], "--after must be 0"),
        (["--screenshot", "x.nope"], ".png"),
        (["--screenshot", "picture"], ".png"),
        (["--screenshot", "."], ".png"),
        (["--after", "soon"], "'soon'"),
        (["--language", "fr"], "'fr'"),
        (["--rest-url", "http://127.0.0.1/v1"], "belong together"),
        (["--screenshot", "/no/such/folder/a.png"], "folder that exists"),
        (["--data-dir", "/dev/null/data"], "/dev/null/data"),
        (["--data-dir", ""], "must name a folder, was empty"),
        (["--unknown"], "--unknown"),
    ],
)
def test_bad_flags_are_one_sentence_and_exit_2(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(flags, words, capsys)


def assert_refused(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code: object
    try:
        code = main(flags)
    except SystemExit as left:
        code = left.code
    assert code == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) <= 2


def test_check_only_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    said = capsys.readouterr().out
    assert len(said.strip().splitlines()) == 1
    assert "Everything needed is there" in said


def test_a_screenshot_is_taken_when_it_is_asked_for() -> None:
    found = options("--screenshot", "a.PNG", "--after", "3")
    assert (str(found.screenshot), found.after_s) == ("a.PNG", 3.0)


@pytest.mark.parametrize("text", ["1s", "1w", "1M", "1y"])
def test_every_timeframe_may_be_asked_for(text: str) -> None:
    assert options("--timeframe", text).timeframe is Timeframe.parse(text)


@pytest.mark.parametrize("exchange", ["upbit", "simulator"])
def test_a_settings_file_decides_which_exchange_unless_a_flag_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'exchange = "{exchange}"\n')
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}CONFIG", str(file))
    found = options()
    assert (found.config.exchange, found.automatic) == (exchange, False)
    assert options("--exchange", "auto").automatic
