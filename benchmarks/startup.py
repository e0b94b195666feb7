"""How long the desktop program takes to show its window, and then its first chart.

    uv run python benchmarks/startup.py [RUNS]

Each run is a new process with an empty data folder on the simulator, off-screen unless
QT_QPA_PLATFORM says otherwise. The first run warms the machine and is not counted. Times
are taken here, when the program's line arrives: they include the interpreter's own start.
The goals: window shown < 2 s after the command, chart drawn < 1 s later.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
WINDOW, CHART = "window shown", "chart drawn"


def main() -> None:
    """Print the figures."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    measure()
    starts = [measure() for _ in range(runs)]
    report("python -c pass", [bare_start() for _ in range(runs)])
    report(WINDOW, [run[WINDOW] for run in starts])
    report(f"{CHART}, after that", [run[CHART] - run[WINDOW] for run in starts])


def report(name: str, values: list[float]) -> None:
    """Print one figure of all runs."""
    print(
        f"{name:26} median {statistics.median(values):.2f} s"
        f"   min {min(values):.2f}   max {max(values):.2f}   ({len(values)} runs)"
    )


def measure() -> dict[str, float]:
    """Seconds from the command to each moment."""
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


def bare_start() -> float:
    """Seconds that an interpreter takes to do nothing."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
