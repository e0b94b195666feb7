"""Programs as a user starts them, in processes of their own, on a simulator in this one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import aiohttp

from upbit_backbone.simulator import Simulator

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0
LIVELY = 4.0
"""So many times the usual trades, for programs that wait for one: there are quiet minutes."""
_OURS = "UPBIT_BACKBONE_"


class Ended(NamedTuple):
    """What a program left behind."""

    exit_code: int
    lines: list[str]
    errors: str


async def run(
    program: Path,
    *arguments: str,
    data_dir: Path,
    zone: str = "UTC",
    rate: float = 1.0,
    stopped_after: str | None = None,
) -> Ended:
    """Run a program to its end against a simulator; every Python warning in it is an error.

    Args:
        program: A file.
        arguments: Its command line.
        data_dir: Where it stores.
        zone: What local time is.
        rate: How lively the market is.
        stopped_after: Send SIGTERM when this text has been printed.
    """
    async with Simulator(rate=rate) as simulator, aiohttp.ClientSession() as session:
        # A market is made when it is first asked for; with little time for it a bot sees nothing.
        async with session.get(f"{simulator.rest_url}/ticker?markets=KRW-BTC") as answer:
            assert answer.status == 200
        addresses = {
            f"{_OURS}REST_URL": simulator.rest_url,
            f"{_OURS}WS_URL": simulator.ws_url,
            f"{_OURS}DATA_DIR": str(data_dir),
            "TZ": zone,
        }
        return await _run(program, arguments, addresses, stopped_after)


async def _run(
    program: Path, arguments: tuple[str, ...], given: dict[str, str], stopped_after: str | None
) -> Ended:
    without = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    fixed = {
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "QT_QPA_PLATFORM": "offscreen",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", str(program), *arguments,
        env=without | fixed | given, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    errors = asyncio.create_task(process.stderr.read(), name="errors of the program")
    try:
        async with asyncio.timeout(WITHIN_S):
            async for line in process.stdout:
                lines.append(line.decode().rstrip("\n"))
                if stopped_after is not None and stopped_after in lines[-1]:
                    process.send_signal(signal.SIGTERM)
                    stopped_after = None
            return Ended(await process.wait(), lines, (await errors).decode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await errors
