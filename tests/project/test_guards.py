"""Each guard catches the test that it is for, and leaves a tidy one alone.

One pytest of its own runs all the bad tests below under the project's configuration;
the tests here read its report.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.project.source_rules import REPOSITORY

BAD_TESTS = """
    import asyncio
    import logging
    import socket
    import subprocess
    import sys
    import threading
    import warnings

    import aiosqlite
    import pytest


    @pytest.fixture
    async def tidy_server():
        async def answer(reader, writer):
            await reader.read()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        busy = asyncio.create_task(asyncio.sleep(100))
        yield server.sockets[0].getsockname()
        busy.cancel()
        server.close()
        await server.wait_closed()


    @pytest.fixture(scope="module")
    def silent_peer():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield listener.getsockname()


    @pytest.mark.both_loops
    async def test_tidy(tidy_server, tmp_path):
        reader, writer = await asyncio.open_connection(*tidy_server)
        writer.close()
        await reader.read()
        await writer.wait_closed()
        async with aiosqlite.connect(tmp_path / "a.db") as db:
            await db.execute("SELECT 1")
        await asyncio.to_thread(socket.getaddrinfo, "localhost", 80)


    def test_tidy_log(caplog):
        logging.getLogger("backbone").warning("the test reads this: %d", len(caplog.records))


    @pytest.mark.both_loops
    async def test_task():
        asyncio.get_running_loop().kept = asyncio.create_task(asyncio.sleep(60), name="endless")


    async def test_lost_exception():
        async def fail():
            raise ValueError("nobody looks")

        asyncio.create_task(fail())
        await asyncio.sleep(0)


    def test_socket():
        socket.socket()


    @pytest.mark.both_loops
    async def test_connection(silent_peer):
        loop = asyncio.get_running_loop()
        await loop.create_connection(asyncio.Protocol, *silent_peer)


    def test_file(tmp_path):
        (tmp_path / "f").open("w")


    def test_process():
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])


    def test_thread():
        threading.Thread(target=threading.Event().wait, args=(2.5,), name="endless").start()


    async def test_database(tmp_path):
        # Ends its thread at once, so that this process can end.
        db = await aiosqlite.connect(tmp_path / "a.db")
        threading.Timer(2.5, db.stop).start()


    def test_address():
        with pytest.raises(OSError, match="tests stay on this machine"):
            socket.create_connection(("192.0.2.1", 80), 0.1)


    def test_datagram():
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            with pytest.raises(OSError, match="tests stay on this machine"):
                sock.sendto(b"x", ("2001:db8::1", 80))


    async def test_name():
        with pytest.raises(OSError, match="tests stay on this machine"):
            await asyncio.open_connection("api.upbit.com", 443)


    def test_log():
        logging.getLogger("backbone").warning("disk full")


    def test_warning():
        warnings.warn("old", DeprecationWarning)


    def test_qt_warning(qtbot):
        from PySide6.QtCore import qWarning

        qWarning("no such slot")


    @pytest.fixture
    def warns_late():
        yield
        from PySide6.QtCore import qWarning

        qWarning("destroyed while running")


    def test_late_qt_warning(warns_late):
        pass


    def test_slot(qtbot):
        from PySide6.QtCore import QTimer

        def fail():
            raise ValueError("in a slot")

        QTimer.singleShot(0, fail)
        qtbot.wait(10)
"""

CAUGHT = {
    "test_task[asyncio]": "task left running: endless",
    "test_task[qasync]": "task left running: endless",
    "test_lost_exception": "unexpected log line: ERROR asyncio: Task exception was never retrieved",
    "test_socket": "unclosed <socket.socket",
    "test_connection[asyncio]": "unclosed transport",
    "test_connection[qasync]": "unclosed transport",
    "test_file": "unclosed file",
    "test_process": "is still running",
    "test_thread": "thread left running: endless",
    "test_database": "thread left running",
    "test_address": "connection to another machine: 192.0.2.1",
    "test_datagram": "connection to another machine: 2001:db8::1",
    "test_name": "connection to another machine: api.upbit.com",
    "test_log": "unexpected log line: WARNING backbone: disk full",
    "test_warning": "DeprecationWarning: old",
    "test_qt_warning": "no such slot",
    "test_late_qt_warning": "Qt warned during tear-down: destroyed while running",
    "test_slot": "in a slot",
}
TIDY = ["test_tidy[asyncio]", "test_tidy[qasync]", "test_tidy_log"]


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name of each bad test -> what pytest had against it, "" if nothing."""
    folder: Path = tmp_path_factory.mktemp("bad")
    (folder / "test_bad.py").write_text(textwrap.dedent(BAD_TESTS))
    report = folder / "report.xml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(folder / "test_bad.py")),
            *("-c", "pyproject.toml", "--rootdir", ".", f"--junitxml={report}"),
            *("-p", "tests.loops", "-p", "tests.guards", "-p", "no:cacheprovider"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        texts = [child.get("message", "") + (child.text or "") for child in case]
        name = case.get("name", "")
        found[name] = found.get(name, "") + "\n".join(texts)
    return found


@pytest.mark.parametrize(("name", "complaint"), CAUGHT.items())
def test_a_guard_catches(verdicts: dict[str, str], name: str, complaint: str) -> None:
    assert complaint in verdicts[name]


@pytest.mark.parametrize("name", TIDY)
def test_a_tidy_test_passes(verdicts: dict[str, str], name: str) -> None:
    assert verdicts[name] == ""


def test_every_bad_test_is_listed(verdicts: dict[str, str]) -> None:
    assert set(verdicts) == {*CAUGHT, *TIDY}
