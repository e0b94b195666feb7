"""The commands as processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

START = (
    # A fake exchange has no limits to keep.
    "from upbit_backbone.recorder.record import Recorder;"
    " Recorder.__init__.__kwdefaults__['spacing_s'] = 0.01;"
    " from upbit_backbone.cli import main; main()"
)


class Addresses(NamedTuple):
    rest_url: str
    ws_url: str

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--rest-url", self.rest_url, "--ws-url", self.ws_url)


@asynccontextmanager
async def command(*arguments: object) -> AsyncIterator[Process]:
    """A running command; what still runs at the end is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", START, *map(str, arguments),
        env=os.environ | {"COLUMNS": "120"}, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def server(*arguments: object) -> AsyncIterator[tuple[Addresses, Process]]:
    """A command that prints its addresses and serves."""
    async with command(*arguments) as process:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            said = json.loads(await process.stdout.readline())
        yield Addresses(said["rest_url"], said["ws_url"]), process


async def run(*arguments: object) -> tuple[int, str, str]:
    """A command that ends by itself."""
    async with command(*arguments) as process, asyncio.timeout(30):
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


async def ended(process: Process, number: signal.Signals) -> tuple[int, str, str]:
    """Send a signal, and wait for the end."""
    with suppress(ProcessLookupError):
        process.send_signal(number)
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
