"""A settings file that is wrong: every program tells it in one sentence, and ends with 2."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import run_desktop_ui
from tests.cli.running import run
from upbit_backbone import BackboneManager, cli, create_configured_api, create_default_api
from upbit_backbone.config import CONFIG_VARIABLE
from upbit_backbone.errors import InvalidRequestError

LONGEST_SENTENCE = 800
"""Of which the path of a test's folder, given up to twice, is a large part."""


def text(content: str | bytes) -> Callable[[Path], None]:
    return lambda file: void(
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    )


def void(_: object) -> None:
    """So that a lambda returns nothing."""


DAMAGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no file": (void, "there is no settings file"),
    "a folder": (lambda file: file.mkdir(), "cannot be read ("),
    "a link to itself": (lambda file: file.symlink_to(file), "cannot be read ("),
    "binary": (text(bytes(range(256)) * 40), "is no UTF-8 text: save the file as UTF-8"),
    "zeros": (text(b"\0" * 4_096), "line 1 of"),
    "UTF-16": (text("simulator_seed = 4\n".encode("utf-16")), "is no UTF-8 text"),
    "cut off": (text('exchange = "simul'), "line 1 of"),
    "cut off in a list": (text('simulator_seed = 1\npinned = ["KRW-BTC:1m",\n'), "line 2 of"),
    "an unknown key": (text("simulator_sed = 1\n"), "did you mean simulator_seed?"),
    "a long unknown key": (text("x" * 900_000 + " = 1\n"), "no setting is called 'xxx"),
    "many unknown keys": (
        text("".join(f"key_{number} = {number}\n" for number in range(20_000))),
        "no setting is called 'key_0'",
    ),
    "a key of two lines": (text('"simulator\\nseed" = 1\n'), "did you mean simulator_seed?"),
    "a table": (text("[simulator]\nseed = 1\n"), "settings stand in no table"),
    "the same key twice": (text("simulator_seed = 1\nsimulator_seed = 2\n"), "line 2 of"),
    "a text for a number": (text('\nsimulator_seed = "1"\n'), "must be a whole number, was '1'"),
    "a number for a text": (text("exchange = 1\n"), "must be 'upbit' or 'simulator', was 1"),
    "a date for a number": (text("keep_1s_days = 2025-09-01\n"), "must be a whole number, was"),
    "a list of everything": (text("pinned = [1, [2], {a = 3}]\n"), "'KRW-BTC:1m', was 1"),
    "an endless list": (
        text("pinned = [" + '"KRW-BTC:1m", ' * 2_000 + "]\n"),
        "of at most 1,000",
    ),
    "an endless number": (text("simulator_seed = " + "9" * 5_000), "(too many digits)"),
    "a number that is too large": (text("simulator_seed = " + "9" * 400), "must be -9223372036"),
    "brackets without end": (text("pinned = " + "[" * 100_000), "(too many brackets)"),
    "an endless text": (text(f'exchange = "{"x" * 900_000}"\n'), "must be 'upbit' or 'simulator'"),
    "a megabyte": (text("# " + "x" * (1 << 20)), "is larger than a megabyte"),
    "no home": (text('data_dir = "~nobody-at-all/x"\n'), "is in no home"),
    "no path": (text('data_dir = "a\\u0000b"\n'), "a path that a file system can hold"),
}
"""How a file came to be wrong, and words of the sentence that tells it."""


@pytest.fixture(params=DAMAGED)
def damaged(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A file that is wrong, and what is to be told of it."""
    make, words = DAMAGED[request.param]
    file = tmp_path / "config.toml"
    make(file)
    return file, words


@pytest.fixture
def handlers() -> Iterator[None]:
    """The desktop program takes over the signals of the process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def judged(sentence: str, words: str, file: Path) -> None:
    assert words in sentence, sentence
    assert str(file) in sentence or "KRW-BTC:1m" in sentence
    assert len(sentence.rstrip("\n").splitlines()) == 1, sentence
    assert len(sentence) < LONGEST_SENTENCE
    assert "Traceback" not in sentence


@pytest.mark.usefixtures("handlers")
def test_every_program_tells_a_damaged_settings_file_in_one_sentence(
    damaged: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, words = damaged
    with pytest.raises(InvalidRequestError) as told:
        asyncio.run(opened(create_configured_api(file)))
    judged(str(told.value), words, file)
    no_folder = {"UPBIT_BACKBONE_DATA_DIR": ""}  # it would set aside what the file says
    asked = ("config", "--config", str(file))
    by_flag = run(tmp_path, *asked, exchange=(), environment=no_folder)
    assert (by_flag.exit_code, by_flag.stdout) == (2, "")
    judged(by_flag.stderr, words, file)
    # As they are started: with the file that the environment names.
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    with pytest.raises(InvalidRequestError) as told:
        asyncio.run(opened(create_default_api()))
    judged(str(told.value), words, file)
    with pytest.raises(InvalidRequestError) as told:
        BackboneManager()
    judged(str(told.value), words, file)
    capsys.readouterr()
    assert run_desktop_ui.main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    judged(shown.err, words, file)


async def opened(opening: Any) -> None:
    """It is not meant to open; if it did, it would be closed again."""
    async with await opening:
        pass


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands by the words that call them."""
    if hasattr(command, "imported"):
        command = command.imported()
    below = getattr(command, "commands", None) or {}
    if path and any("--config" in parameter.opts for parameter in command.params):
        yield path, command
    for name, one in below.items():
        yield from commands(one, (*path, name))


NEEDED = {"symbol": "KRW-BTC", "symbols": "KRW-BTC", "timeframe": "1m", "days": "1"}


def test_every_command_with_a_settings_file_tells_what_is_wrong_with_it(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("exchange = 'simulator'\nmemory_limt_mb = 64\n")
    found = []
    for path, command in commands(get_command(cli.app)):
        arguments: list[str] = []
        for parameter in command.params:
            if parameter.required:
                flag = str(parameter.opts[0])
                arguments += [flag] if flag.startswith("-") else []
                arguments.append(NEEDED.get(parameter.name, str(tmp_path / "file")))
        for named in ("--config", CONFIG_VARIABLE):
            flags = ["--config", str(file)] if named == "--config" else []
            variables = {} if flags else {CONFIG_VARIABLE: str(file)}
            told = run(tmp_path, *path, *arguments, *flags, exchange=(), environment=variables)
            assert (told.exit_code, told.stdout) == (2, ""), (path, told.output)
            judged(told.stderr, "did you mean memory_limit_mb?; it stands in line 2 of", file)
        found.append(" ".join(path))
    assert {"candles", "ticker", "watch", "db stats", "status", "doctor", "config"} <= set(found)
    assert len(found) >= 15, found
    assert sorted(os.listdir(tmp_path)) == ["config.toml"], "nothing was opened"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("simulator_seed = 1\n")
    file.chmod(0)
    told = run(tmp_path, "config", "--config", str(file), exchange=())
    assert told.exit_code == 2
    judged(told.stderr, "cannot be read (Permission denied)", file)


def test_what_only_looks_damaged_is_read(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    for content in (
        b"\xef\xbb\xbfsimulator_seed = 4\r\n",
        b"",
        b"# " + b"x" * ((1 << 20) - 100) + b"\nsimulator_seed = 4",
    ):
        file.write_bytes(content)
        told = run(tmp_path, "config", "--config", str(file), "--json", exchange=())
        assert told.exit_code == 0, told.stderr
