"""Start the desktop program: `uv run run_desktop_ui.py --help`.

Reads the command line, looks whether Qt can start at all, and only then imports it.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

EXIT_BAD_INPUT = 2


def main(arguments: list[str] | None = None) -> int:
    """Run the program; gives its exit code.

    0: left as usual. 2: bad flags, or something the machine lacks. 3: a screenshot was
    asked for and no chart was drawn in time, or no such market is listed.
    """
    interrupted = _hold_interrupts()
    flags = _parser().parse_args(arguments)
    from ui.preflight import check_data_dir, ready_line, run_preflight

    run_preflight()
    if flags.data_dir is not None and (problem := check_data_dir(flags.data_dir)):
        print(problem, file=sys.stderr)
        return EXIT_BAD_INPUT
    if flags.check:
        print(ready_line())
        return 0
    logging.basicConfig(
        level=logging.INFO if flags.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    from ui.options import read_options
    from upbit_backbone.errors import BackboneError

    try:
        options = read_options(flags)
    except (BackboneError, ValueError) as exc:
        return _refuse(str(exc))
    from ui.app import run

    return run(options, interrupted)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_refuse(f"{message}; --help lists all flags"))


def _folder(text: str) -> Path:
    """An empty name would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must name a folder, was empty")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="run_desktop_ui.py",
        description="Live charts of Upbit's markets.",
        epilog="Without --exchange: Upbit, if it answers within two seconds; else what is"
        " stored, offline; else a simulator in this process. UPBIT_BACKBONE_… variables set"
        " what no flag does.",
        allow_abbrev=False,
    )
    add = parser.add_argument
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
    return parser


def _refuse(sentence: str) -> int:
    print(f"run_desktop_ui.py: {sentence}", file=sys.stderr)
    return EXIT_BAD_INPUT


def _hold_interrupts() -> threading.Event:
    """Remember Ctrl+C until there is an event loop to tell.

    A KeyboardInterrupt in the middle of an import would end with a traceback.
    """
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    return interrupted


if __name__ == "__main__":
    sys.exit(main())
