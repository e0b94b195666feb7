"""How long a command takes to begin, and the desktop program to show its window and first chart.

    uv run python benchmarks/startup.py [commands] [desktop] [--runs 5] [--json]

Each run is a new process. A round starts every one of them once, so that what else the machine
does meets all alike; the first round warms the machine and is not counted. Times include the
interpreter's own start. Commands stand beside their floor, the import of the libraries that the
service cannot do without. `candles` and `ticker` open the service with an empty data folder, and
ask a simulator that is a process of its own. The desktop program runs on a simulator, off-screen
unless QT_QPA_PLATFORM says otherwise; its goals: window shown < 2 s after the command, chart
drawn < 1 s later. Exit code 1: one was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.figures import Figure, at_most, show
from benchmarks.stage import simulating

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
WINDOW, CHART = "window shown", "chart drawn"
FLOOR = "import aiohttp, msgspec, numpy"
IMPORTS = (
    "pass",
    FLOOR,
    "import upbit_backbone",
    "from upbit_backbone import MarketDataAPI",
)
COMMANDS = ("--help", "candles --help", "config", "db stats", "candles KRW-BTC 1m --count 10",
            "ticker KRW-BTC")  # fmt: skip


async def measure_commands(runs: int) -> list[Figure]:
    """Imports and commands, each beside the floor of the same rounds."""
    took_ms: dict[str, list[float]] = defaultdict(list)
    async with simulating() as addresses:
        flags = ("--rest-url", addresses["rest_url"], "--ws-url", addresses["ws_url"])
        for number in range(runs + 1):
            for what, arguments in every(flags).items():
                taken_ms = await asyncio.to_thread(process_ms, arguments)
                if number:
                    took_ms[what].append(taken_ms)
    floor = statistics.median(took_ms[f'python -c "{FLOOR}"'])
    figures = []
    for what, taken in took_ms.items():
        median = statistics.median(taken)
        spread = f"{median / floor:.2f} of the floor; {min(taken):.0f} to {max(taken):.0f} ms"
        figures.append(Figure(name="commands", what=what, measured=median, unit="ms", note=spread))
    return figures


def every(flags: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Arguments of Python, by what is shown of them."""
    imports = {f'python -c "{script}"': ("-c", script) for script in IMPORTS}
    commands = {}
    for command in COMMANDS:
        asks = command.startswith(("candles KRW", "ticker"))
        words = (*command.split(), *(flags if asks else ()))
        commands[f"upbit-backbone {command}"] = ("-m", "upbit_backbone", *words)
    return imports | commands


def process_ms(arguments: Sequence[str]) -> float:
    """How long a Python with an empty data folder is there."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | {"UPBIT_BACKBONE_DATA_DIR": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        took_ms = (time.perf_counter() - begin) * 1e3
    if done.returncode != 0 and "stats" not in arguments:  # nothing is stored, which it says
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return took_ms


async def measure_desktop(runs: int) -> list[Figure]:
    """The desktop program, from the command to each moment."""
    starts = [await asyncio.to_thread(moments_s) for _ in range(runs + 1)][1:]
    taken = {
        (WINDOW, 2.0): [run[WINDOW] for run in starts],
        (f"{CHART}, after that", 1.0): [run[CHART] - run[WINDOW] for run in starts],
    }
    return [
        at_most(
            limit, name="desktop", what=what, measured=statistics.median(values), unit="s",
            note=f"{min(values):.2f} to {max(values):.2f} s, {len(values)} runs",
        )
        for (what, limit), values in taken.items()
    ]  # fmt: skip


def moments_s() -> dict[str, float]:
    """Seconds from the command to each moment, taken when the program's line arrives."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [
                *(sys.executable, ROOT / "run_desktop_ui.py"),
                *("--exchange", "simulator", "--verbose", "--data-dir", folder),
            ],
            env={"QT_QPA_PLATFORM": "offscreen", **os.environ},
            stderr=subprocess.PIPE,
            text=True,
        )
        at: dict[str, float] = {}
        assert process.stderr is not None
        for line in process.stderr:
            for moment in (WINDOW, CHART):
                if line.endswith(f"{moment}\n"):
                    at.setdefault(moment, time.perf_counter() - begin)
            if len(at) == 2:
                process.send_signal(signal.SIGTERM)
        if process.wait() != 0:
            raise SystemExit(f"the program ended with {process.returncode}")
    return at


MEASURES = {"commands": measure_commands, "desktop": measure_desktop}


def main() -> int:
    """Print the figures; 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description="Measure how long programs take to begin.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each; default {RUNS}")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in MEASURES]:
        parser.error(f"no measurement {unknown[0]!r}: choose from {', '.join(MEASURES)}")
    if given.runs < 1:
        parser.error(f"--runs must be at least 1, was {given.runs}")
    figures: list[Figure] = []
    for name in given.names or MEASURES:
        found = asyncio.run(MEASURES[name](given.runs))
        figures += found
        if not given.json:
            show(found, decimals=2)
    if given.json:
        print(msgspec.json.format(msgspec.json.encode(figures)).decode())
    return 1 if any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
