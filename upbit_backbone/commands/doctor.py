"""``upbit-backbone doctor``: looks at everything the programs need, and says what to do."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer
from rich.text import Text

from upbit_backbone.clock import SystemClock, told_skew_s
from upbit_backbone.command_line import (
    CONFIG,
    DATA_DIR,
    JSON,
    Overrides,
    print_json,
    run,
)
from upbit_backbone.commands.options import EXCHANGE, REST_URL, WS_URL
from upbit_backbone.commands.printing import console_for, say
from upbit_backbone.commands.quotes import opened
from upbit_backbone.config import BackboneConfig
from upbit_backbone.errors import BackboneError, RateLimitedError
from upbit_backbone.protocol import Priority

if TYPE_CHECKING:
    from upbit_backbone.manager import BackboneManager

Name = Literal["network", "clock", "limits", "disk", "qt", "fonts"]
State = Literal["ok", "warning", "failed", "unknown"]
EXIT_CODES: dict[Name, int] = {
    "network": 10,
    "clock": 11,
    "limits": 12,
    "disk": 13,
    "qt": 14,
    "fonts": 15,
}
"""The command ends with that of the first one that failed."""
STREAM_WITHIN_S = 5.0
QT_WITHIN_S = 30.0
LEAST_FREE_MB = 200
LITTLE_FREE_MB = 2_048
LEAST_OPEN_FILES = 256
_MARKS: dict[State, tuple[str, str]] = {
    "ok": ("✔", "green"),
    "warning": ("!", "yellow"),
    "failed": ("✘", "red"),
    "unknown": ("?", "yellow"),
}
_LOOK_AT_QT = """
import json
from importlib import metadata
from ui.preflight import check
problems = check(want_window=True)
found = {"problems": [[one.english, one.command or "", one.fatal] for one in problems]}
if not any(one.fatal for one in problems):
    import PySide6.QtWidgets
found["version"] = metadata.version("PySide6-Essentials") if not problems or not any(
    one.fatal for one in problems) else ""
print(json.dumps(found))
"""
"""The service never imports Qt, and a Qt that aborts must not end the doctor."""


class Finding(NamedTuple):
    """What was found of one thing."""

    name: Name
    state: State
    sentence: str
    remedy: str = ""


def doctor(
    as_json: Annotated[bool, JSON] = False,
    exchange: Annotated[str | None, EXCHANGE] = None,
    rest_url: Annotated[str | None, REST_URL] = None,
    ws_url: Annotated[str | None, WS_URL] = None,
    data_dir: Annotated[Path | None, DATA_DIR] = None,
    config: Annotated[Path | None, CONFIG] = None,
) -> None:
    """Look at network, clock, limits, disk, Qt and fonts, with a remedy for what fails.

    Exits with 0 when nothing failed; else with the code of the first that did: 10 network,
    11 clock, 12 limits, 13 disk, 14 Qt, 15 fonts. With --json: an object.
    """
    run(_doctor(Overrides(exchange, rest_url, ws_url, data_dir, config), as_json))


async def _doctor(overrides: Overrides, as_json: bool) -> None:
    config = overrides.config()
    disk = look_at_disk(config.data_dir)
    online, desktop = await asyncio.gather(_look_online(config, disk), _look_at_qt())
    findings = [*online, disk, *desktop]
    if as_json:
        checks = [{**one._asdict(), "exit_code": EXIT_CODES[one.name]} for one in findings]
        print_json({"ok": _code(findings) == 0, "checks": checks})
    else:
        _print(findings)
    if code := _code(findings):
        raise typer.Exit(code)


def _code(findings: Iterable[Finding]) -> int:
    failed = (EXIT_CODES[one.name] for one in findings if one.state == "failed")
    return min(failed, default=0)


def _print(findings: Iterable[Finding]) -> None:
    console = console_for()
    for one in findings:
        mark, style = _MARKS[one.state]
        line = Text.assemble((f"{mark} ", style), (f"{one.name:<9}", "bold"), one.sentence)
        say(console, line)
        if one.remedy:
            say(console, f"  → {one.remedy}")


# What asks the exchange.


async def _look_online(config: BackboneConfig, disk: Finding) -> list[Finding]:
    """Network, clock and limits, by a service that is opened for a moment."""
    if disk.state != "failed":
        return await _look_by_service(config)
    # Without a folder no service opens; what it stores meanwhile is thrown away.
    with tempfile.TemporaryDirectory() as folder:
        return await _look_by_service(replace(config, data_dir=Path(folder)))


async def _look_by_service(config: BackboneConfig) -> list[Finding]:
    try:
        async with opened(config) as manager:
            network = await _look_at_network(manager)
            return [network, look_at_clock(manager), look_at_limits(manager)]
    except BackboneError as error:
        failed = Finding("network", "failed", f"the service did not open: {error}", "see above")
        unknown = "not known, for the service did not open"
        return [failed, Finding("clock", "unknown", unknown), Finding("limits", "unknown", unknown)]


async def _look_at_network(manager: BackboneManager) -> Finding:
    clock, api = SystemClock(), manager.api
    remedy = (
        "check the connection, and that a firewall or proxy lets HTTPS and WSS pass;"
        " '--exchange simulator' needs no network"
    )
    try:
        listed = await api.get_markets()
        symbol = next((one.symbol for one in listed if one.symbol == "KRW-BTC"), listed[0].symbol)
        rest_ms = math.inf
        for _ in range(2):  # the first one opens the connection
            began_s = clock.monotonic()
            await api.get_trade_data(symbol, priority=Priority.HIGH, count=2)
            rest_ms = min(rest_ms, (clock.monotonic() - began_s) * 1_000)
    except RateLimitedError as error:
        return Finding("network", "unknown", str(error))
    except BackboneError as error:
        return Finding("network", "failed", str(error), remedy)
    began_s = clock.monotonic()
    try:
        async with asyncio.timeout(STREAM_WITHIN_S), api.stream_ticker(symbol) as tickers:
            await anext(tickers)
    except (BackboneError, TimeoutError) as error:
        why = str(error) or f"no value within {STREAM_WITHIN_S:g} s"
        sentence = f"REST answers in {rest_ms:.0f} ms, the stream does not: {why}"
        return Finding("network", "failed", sentence, remedy)
    stream_ms = (clock.monotonic() - began_s) * 1_000
    return Finding(
        "network",
        "ok",
        f"{manager.config.identity} lists {len(listed)} markets; REST answers in {rest_ms:.0f} ms,"
        f" the stream in {stream_ms:.0f} ms",
    )


def look_at_clock(manager: BackboneManager) -> Finding:
    """Whether this computer's clock agrees with the exchange's."""
    status = manager.api.get_system_status()
    if status.connection == "offline":
        return Finding("clock", "unknown", "not known, for the exchange was not reached")
    skew_s = told_skew_s(status.exchange_offset_ms, simulated=status.simulated)
    if not skew_s:
        return Finding("clock", "ok", "this computer's clock agrees with the exchange's")
    return Finding(
        "clock",
        "failed",
        f"this computer's clock is {abs(skew_s)} s {'slow' if skew_s > 0 else 'fast'}; the"
        " exchange's time is used",
        _SET_THE_CLOCK.get(sys.platform, "let the system set its clock by NTP"),
    )


_SET_THE_CLOCK = {
    "linux": "sudo timedatectl set-ntp true",
    "darwin": "sudo sntp -sS time.apple.com",
    "win32": "w32tm /resync, as administrator",
}


def look_at_limits(manager: BackboneManager) -> Finding:
    """The exchange's limits, as far as they are known, and the system's on open files."""
    counters = manager.get_layer_status("layer_1").counters
    blocked_s = counters.get("blocked_s", 0.0)
    if blocked_s > 0:
        return Finding(
            "limits",
            "failed",
            f"the exchange blocks this address for another {blocked_s:.0f} s (418)",
            "wait until it is over, and end other programs that ask the exchange from this address",
        )
    refusals = counters.get("refusals", 0.0)
    if refusals:
        return Finding(
            "limits",
            "warning",
            "the exchange refused a request as too many (429)",
            "another program asks from this address: let all of them use one data service",
        )
    files = _open_files()
    if files is not None and files < LEAST_OPEN_FILES:
        return Finding(
            "limits",
            "failed",
            f"this process may open {files} files and connections at once",
            f"ulimit -n {LEAST_OPEN_FILES * 4}",
        )
    told = "" if files is None else f"; {files:,} files and connections may be open"
    if manager.api.get_system_status().connection == "offline":
        return Finding("limits", "unknown", f"the exchange was not reached{told}")
    return Finding("limits", "ok", f"the exchange refuses nothing{told}")


def _open_files() -> int | None:
    """How many files this process may have open; None: the system has no such limit."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else int(soft)


# What asks this machine.


def look_at_disk(data_dir: Path) -> Finding:
    """Whether the data folder can be written, and has room."""
    elsewhere = "give a folder that can be written with --data-dir or UPBIT_BACKBONE_DATA_DIR"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            free_mb = shutil.disk_usage(data_dir).free >> 20
    except OSError as error:
        reason = error.strerror or str(error)
        return Finding("disk", "failed", f"{data_dir} cannot be written ({reason})", elsewhere)
    sentence = f"{data_dir} can be written, {free_mb:,} MB are free"
    if free_mb >= LITTLE_FREE_MB:
        return Finding("disk", "ok", sentence)
    remedy = "make room, bound the store with storage_limit_mb, or " + elsewhere
    return Finding("disk", "failed" if free_mb < LEAST_FREE_MB else "warning", sentence, remedy)


async def _look_at_qt() -> list[Finding]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _LOOK_AT_QT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(QT_WITHIN_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return read_qt_answer(b"", b"it did not answer in time")
    return read_qt_answer(out, err)


def read_qt_answer(out: bytes, err: bytes) -> list[Finding]:
    """What the process that looked at Qt says of it and of the fonts."""
    try:
        found = json.loads(out)
        problems = found["problems"]
    except (ValueError, KeyError):
        lines = err.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else "it ended without a word"
        return [
            Finding("qt", "failed", f"Qt cannot be loaded: {why}", "uv sync, or pip install ."),
            Finding("fonts", "unknown", "not known, for Qt cannot be loaded"),
        ]
    fatal = [Finding("qt", "failed", words, command) for words, command, bad in problems if bad]
    fonts = [
        Finding("fonts", "failed", words, command) for words, command, bad in problems if not bad
    ]
    qt = fatal[:1] or [Finding("qt", "ok", f"PySide6 {found['version']} can be loaded")]
    return [*qt, *(fonts[:1] or [Finding("fonts", "ok", "a Korean font is there")])]
