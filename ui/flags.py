"""The flags of the desktop program; imports the standard library alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

EXIT_BAD_INPUT = 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(refuse(f"{message}; --help lists all flags"))


def _folder(text: str) -> Path:
    """An empty name would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must name a folder, was empty")
    return Path(text)


def parser() -> argparse.ArgumentParser:
    """What reads the command line; bad flags end the program."""
    made = _Parser(
        prog="run_desktop_ui.py",
        description="Live charts of Upbit's markets.",
        epilog="Without --exchange: Upbit, if it answers within two seconds; else what is"
        " stored, offline; else a simulator in this process. UPBIT_BACKBONE_… variables set"
        " what no flag does.",
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--exchange", choices=("auto", "upbit", "simulator"), help="where prices come from")
    add("--rest-url", metavar="U", help="another address of the exchange, ending in /v1")
    add("--ws-url", metavar="U", help="and of its stream; both or neither")
    add("--replay", metavar="FILE", type=Path, help="show a recording instead of an exchange")
    add("--speed", metavar="N", type=float, help="of the replay, 1 (default) to 1000")
    add("--symbol", metavar="S", help="first chart, e.g. KRW-BTC")
    add("--timeframe", metavar="T", help="first chart: 1s, 1m … 4h, 1d, 1w, 1M (a month) or 1y")
    add("--data-dir", metavar="D", type=_folder, help="where market data are stored")
    add("--language", choices=("ko", "en"), help="default: as chosen last; ko at first")
    add("--screenshot", metavar="FILE", type=Path, help="save a picture and leave")
    add("--after", metavar="SECONDS", type=float, help="when (5); counts from window shown")
    add("--check", action="store_true", help="only look whether everything needed is there")
    add("--verbose", action="store_true", help="log what happens")
    return made


def refuse(sentence: str) -> int:
    """Say what is wrong with the command line; gives the exit code."""
    sys.stderr.write(f"run_desktop_ui.py: {sentence}\n")
    return EXIT_BAD_INPUT
