"""What benchmarks are played on: the simulator as a process of its own, and all layers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec

from upbit_backbone import BackboneConfig, BackboneManager

_SIMULATE = "from upbit_backbone.cli import main; main()"


@asynccontextmanager
async def simulating(*flags: str, collects: bool = True) -> AsyncIterator[dict[str, str]]:
    """The simulator as a process; gives its addresses.

    Args:
        flags: Of ``upbit-backbone simulate``.
        collects: Whether it collects garbage, which makes pauses of its own.
    """
    script = _SIMULATE if collects else f"import gc; gc.disable(); {_SIMULATE}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, "simulate"), *flags, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield msgspec.json.decode(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def managing(rest_url: str, ws_url: str) -> AsyncIterator[BackboneManager]:
    """All layers, in a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        config = BackboneConfig(rest_url=rest_url, ws_url=ws_url, data_dir=Path(folder))
        manager = BackboneManager(config, rng=Random(1))
        await manager.initialize()
        try:
            yield manager
        finally:
            await manager.shutdown()


def counter(manager: BackboneManager, name: str) -> float:
    """A figure of layer 1."""
    return manager.get_layer_status("layer_1").counters[name]
