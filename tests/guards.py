"""What no test may leave behind; the test that does, fails.

- asyncio tasks that still run when the test and its fixtures are done,
- sockets, files and processes that nobody closed (their ResourceWarning is an error, and
  a collection at the end of each test lets it come while the culprit is known),
- threads,
- connections to another machine, by any library of this process,
- log lines from WARNING up, unless the test takes `caplog` and judges them itself,
- Qt warnings during tear-down (pytest-qt fails those of the test itself).

tests/project/test_guards.py shows each of them at work.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import logging
import re
import socket
import sys
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
import pytest_asyncio

# A cancelled task needs a turn of the loop to end, one that awaits others some more.
_TURNS_TO_END = 20
_THREAD_GRACE_S = 1.0

_remote_hosts: list[str] = []
"""Other machines somebody asked for; an audit hook is the process's, and so is this."""


def pytest_configure(config: pytest.Config) -> None:
    sys.addaudithook(_refuse_remote_hosts)


def pytest_collection_finish(session: pytest.Session) -> None:
    # What was imported stays; leaving it out makes the collection after each test cheap.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up before every other fixture of a test, hence torn down after its loop is closed."""
    threads_before = set(threading.enumerate())
    log = _Unexpected()
    logging.getLogger().addHandler(log)
    try:
        yield
        gc.collect()
    finally:
        logging.getLogger().removeHandler(log)
    faults = [f"thread left running: {name}" for name in _threads_left(threads_before)]
    faults += [f"connection to another machine: {host}" for host in _remote_hosts]
    _remote_hosts.clear()
    if "caplog" not in request.fixturenames:
        faults += [f"unexpected log line: {line}" for line in log.lines]
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


@pytest.fixture(autouse=True)
def no_task_left_behind(request: pytest.FixtureRequest, nothing_left_behind: None) -> None:
    """Watch async tests alone: an autouse async fixture would give every test a loop."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("_no_task_left")


@pytest_asyncio.fixture
async def _no_task_left() -> AsyncIterator[None]:
    """Torn down after the test's async fixtures, and before its loop is closed.

    Closing a loop cancels its tasks without a word, so this is the last moment to look.
    """
    yield
    this_one = asyncio.current_task()
    for _ in range(_TURNS_TO_END):
        left = [task for task in asyncio.all_tasks() if task is not this_one]
        if not left:
            return
        await asyncio.sleep(0)
    names = ", ".join(f"{task.get_name()} ({task.get_coro()!r})" for task in left)
    pytest.fail(f"task left running: {names}", pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    if "PySide6.QtCore" not in sys.modules:
        return (yield)
    from PySide6.QtCore import QMessageLogContext, QtMsgType, qInstallMessageHandler

    ignored = item.config.getini("qt_log_ignore")
    messages: list[str] = []

    def note(kind: QtMsgType, context: QMessageLogContext, text: str) -> None:
        harmless = kind in (QtMsgType.QtDebugMsg, QtMsgType.QtInfoMsg)
        if not harmless and not any(re.search(pattern, text) for pattern in ignored):
            messages.append(text)

    before: Any = qInstallMessageHandler(note)
    try:
        result = yield
    finally:
        qInstallMessageHandler(before)
    if messages:
        pytest.fail("Qt warned during tear-down: " + "; ".join(messages), pytrace=False)
    return result


class _Unexpected(logging.Handler):
    """Keeps the log lines from WARNING up."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


def _threads_left(before: set[threading.Thread]) -> list[str]:
    started = [
        thread
        for thread in set(threading.enumerate()) - before
        # A thread of Qt's that ran Python code; its life is Qt's business.
        if not isinstance(thread, threading._DummyThread)
    ]
    for thread in started:
        thread.join(_THREAD_GRACE_S)
    return sorted(thread.name for thread in started if thread.is_alive())


def _refuse_remote_hosts(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: refuse what would leave this machine, as a broken network would.

    Whoever asked may well handle the error, so the guard above fails the test as well.
    """
    if event == "socket.getaddrinfo" or event.startswith("socket.gethostby"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        sock, address = arguments[0], arguments[1]
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or address is None:
            return
        host = address[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host and not _is_this_machine(host):
        _remote_hosts.append(host)
        raise OSError(errno.ENETUNREACH, f"tests stay on this machine, not {host}")


def _is_this_machine(host: str) -> bool:
    if host in ("localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
