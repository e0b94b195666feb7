"""What the machine offers, and which settings follow from it.

Measuring takes a millisecond and asks nobody but this machine; choosing is a plain function.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import psutil

CALLS_PER_PROCESSOR = 25
MOST_CALLS = 100
MEMORY_SHARE = 0.25
LEAST_MEMORY_MB = 256
MOST_MEMORY_MB = 2_048
SMALL_MACHINE_SHARE = 0.75
"""Of a machine without `LEAST_MEMORY_MB` to give: caches give way before it ends the process."""
ROOMY_DISK_MB = 50 * 1_024
"""With so much free room years of candles need no limit."""
LEAST_LIMIT_MB = 16
"""No setting in megabytes is smaller."""
MOST_DISK_MB = 1 << 24
SLOW_LINK_MBPS = 10
SLOW_LINK_SYMBOLS = 50
"""Tickers of 50 markets are some 40 kB: half a second at 1 Mbit/s."""
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Surroundings(NamedTuple):
    """What was measured. None: it cannot be told here."""

    processors: int
    """That this process may use."""
    memory_mb: int
    """Of the machine, or of the container around this process."""
    memory_free_mb: int
    disk_free_mb: int | None
    """Where data are stored."""
    stored_mb: int
    """What is stored there already, of this origin."""
    networks: tuple[str, ...] | None
    """Interfaces that are up, but for the loopback."""
    link_mbps: int | None
    """Of the fastest of them that says so."""


class Chosen(NamedTuple):
    """A value that was measured for, and why."""

    value: Any
    reason: str


def measure(folder: Path) -> Surroundings:
    """Look at processors, memory, disk and network; blocks for about a millisecond.

    Args:
        folder: Where the data of one origin are stored, or will be.
    """
    memory = psutil.virtual_memory()
    memory_bytes = min([int(memory.total), *_container_bytes()])
    free_bytes = min(int(memory.available), memory_bytes)
    networks, link_mbps = _networks()
    return Surroundings(
        processors=usable_processors(),
        memory_mb=memory_bytes >> 20,
        memory_free_mb=free_bytes >> 20,
        disk_free_mb=_disk_free_mb(folder),
        stored_mb=_stored_mb(folder),
        networks=networks,
        link_mbps=link_mbps,
    )


def choose(found: Surroundings) -> dict[str, Chosen]:
    """Settings by their names, each with its reason."""
    chosen = {
        "max_concurrent_requests": _calls(found.processors),
        "memory_limit_mb": _memory(found.memory_mb, found.memory_free_mb),
    }
    if found.disk_free_mb is not None:
        chosen["storage_limit_mb"] = _disk(found.disk_free_mb, found.stored_mb)
    if found.link_mbps is not None:
        chosen["symbols_per_request"] = _link(found.link_mbps)
    return chosen


def network_sentence(found: Surroundings) -> str:
    """What the network means for the service; no setting follows from there being none."""
    if found.networks is None:
        return "this system does not tell about its network"
    if not found.networks:
        return "no network is up: what is stored is served until one is"
    speed = "" if found.link_mbps is None else f", {found.link_mbps:,} Mbit/s"
    return f"up: {', '.join(found.networks)}{speed}"


def _calls(processors: int) -> Chosen:
    calls = max(1, min(MOST_CALLS, CALLS_PER_PROCESSOR * processors))
    noun = "processor" if processors == 1 else "processors"
    return Chosen(
        calls, f"{processors} {noun}: {CALLS_PER_PROCESSOR} calls for each, {MOST_CALLS} at most"
    )


def _memory(memory_mb: int, free_mb: int) -> Chosen:
    wanted_mb = min(int(memory_mb * MEMORY_SHARE), free_mb // 2)
    why = f"{memory_mb:,} MB of memory, {free_mb:,} MB free"
    least_mb = int(memory_mb * SMALL_MACHINE_SHARE)
    if least_mb < LEAST_MEMORY_MB:
        return Chosen(max(LEAST_LIMIT_MB, least_mb), f"{why}: three quarters, for it is little")
    limit_mb = max(LEAST_MEMORY_MB, min(MOST_MEMORY_MB, wanted_mb))
    rule = "a quarter of all, at most half of what is free"
    return Chosen(limit_mb, f"{why}: {rule}, {LEAST_MEMORY_MB} to {MOST_MEMORY_MB:,} MB")


def _disk(free_mb: int, stored_mb: int) -> Chosen:
    if free_mb >= ROOMY_DISK_MB:
        return Chosen(None, f"{free_mb:,} MB free on the disk: no limit is needed")
    # Of what there would be without the store: so the limit does not grow with what is stored.
    # What others have filled since removes nothing.
    limit_mb = max(LEAST_LIMIT_MB, stored_mb, (stored_mb + free_mb) // 2)
    if limit_mb > MOST_DISK_MB:
        return Chosen(None, f"{stored_mb:,} MB are stored already: more than any limit")
    return Chosen(
        limit_mb,
        f"{free_mb:,} MB free on the disk and {stored_mb:,} MB stored already: half of both"
        f" together, no less than what is stored, {LEAST_LIMIT_MB} MB at least",
    )


def _link(mbps: int) -> Chosen:
    if mbps >= SLOW_LINK_MBPS:
        return Chosen(None, f"{mbps:,} Mbit/s carry the tickers of all markets at once")
    return Chosen(
        SLOW_LINK_SYMBOLS, f"{mbps:,} Mbit/s: smaller answers, so that none keeps others waiting"
    )


def usable_processors() -> int:
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _container_bytes() -> list[int]:
    """The memory limit of the container, if there is one."""
    limits = []
    for name in _CONTAINER_LIMITS:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if text.isdigit():
            limits.append(int(text))
    return limits


def _disk_free_mb(place: Path) -> int | None:
    """Of the folder, or of the nearest one above it that exists."""
    for folder in (place, *place.absolute().parents):
        try:
            return shutil.disk_usage(folder).free >> 20
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
    return None


def _stored_mb(folder: Path) -> int:
    try:
        # The file itself: what is set aside, or written ahead, is no part of what the limit bounds.
        return sum(file.stat().st_size for file in folder.glob("*.sqlite3")) >> 20
    except OSError:
        return 0


def _networks() -> tuple[tuple[str, ...] | None, int | None]:
    try:
        interfaces = psutil.net_if_stats()
    except OSError:
        return None, None
    up = {
        name: facts
        for name, facts in interfaces.items()
        if facts.isup and "loopback" not in facts.flags and not name.startswith("lo")
    }
    speeds = [facts.speed for facts in up.values() if facts.speed > 0]
    return tuple(sorted(up)), max(speeds, default=None)
