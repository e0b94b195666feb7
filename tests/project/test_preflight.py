"""The preflight names what is missing, in two languages, before Qt would fail over it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.source_rules import REPOSITORY
from ui import preflight
from ui.preflight import (
    APT_LINE,
    Problem,
    check,
    check_data_dir,
    choose_platform,
    korean_font_missing,
    run_preflight,
    wanted_libraries,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lacks libraries")

OFFSCREEN_LIBRARIES = {
    "libGL.so.1",
    "libEGL.so.1",
    "libfontconfig.so.1",
    "libglib-2.0.so.0",
    "libdbus-1.so.3",
    "libxkbcommon.so.0",
}
X_LIBRARIES = {
    "libxcb-cursor.so.0",
    "libxkbcommon-x11.so.0",
    "libxcb-icccm.so.4",
    "libxcb-keysyms.so.1",
    "libxcb-shape.so.0",
}


def test_this_machine_is_ready() -> None:
    assert [problem for problem in check(want_window=False) if problem.fatal] == []


def test_the_apt_line_installs_every_library_and_the_font() -> None:
    packages = APT_LINE.split()[5:]
    assert APT_LINE.startswith("sudo apt-get install -y --no-install-recommends ")
    listed = {**preflight._LIBRARIES, **preflight._XCB_LIBRARIES}
    assert {*listed.values(), "fonts-nanum"} == set(packages)
    assert set(listed) == OFFSCREEN_LIBRARIES | X_LIBRARIES


@pytest.mark.parametrize(
    ("environ", "want_window", "needs_x"),
    [
        ({}, True, False),
        ({"DISPLAY": ":0"}, True, True),
        ({"DISPLAY": ":0"}, False, False),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True, False),
        ({"DISPLAY": ":0", "QT_QPA_PLATFORM": "offscreen"}, True, False),
        ({"QT_QPA_PLATFORM": "xcb"}, False, True),
        ({"QT_QPA_PLATFORM": "wayland;xcb"}, True, True),
    ],
)
def test_x_libraries_are_wanted_only_for_an_x_window(
    environ: dict[str, str], want_window: bool, needs_x: bool
) -> None:
    wanted = set(wanted_libraries(environ, want_window=want_window))
    assert wanted == OFFSCREEN_LIBRARIES | (X_LIBRARIES if needs_x else set())


@linux_only
@pytest.mark.parametrize(
    ("environ", "want_window", "platform"),
    [
        ({}, True, "offscreen"),
        ({"DISPLAY": ":left-over"}, True, "offscreen"),
        ({}, False, "offscreen"),
        ({"DISPLAY": ":0"}, True, None),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True, None),
        ({"DISPLAY": ":0"}, False, "offscreen"),
        ({"QT_QPA_PLATFORM": "xcb"}, False, "xcb"),
    ],
)
def test_without_a_display_qt_draws_off_screen(
    environ: dict[str, str], want_window: bool, platform: str | None
) -> None:
    before = dict(environ)
    notice = choose_platform(
        environ, want_window=want_window, x_answers=lambda display: display == ":0"
    )
    assert environ.get("QT_QPA_PLATFORM") == platform
    assert (notice is not None) == (environ != before)
    assert notice is None or ("offscreen" in notice and "\n" not in notice)


@linux_only
def test_a_display_where_nobody_listens_is_none() -> None:
    environ = {"DISPLAY": ":987"}
    notice = choose_platform(environ, want_window=True)
    assert environ["QT_QPA_PLATFORM"] == "offscreen"
    assert notice is not None
    assert ":987" in notice


def test_missing_libraries_are_named_at_once_with_the_command() -> None:
    (problem,) = preflight._library_problems(
        wanted_libraries({"DISPLAY": ":0"}, want_window=True),
        loads=lambda soname: soname not in ("libEGL.so.1", "libxcb-shape.so.0"),
    )
    korean, english, command = str(problem).splitlines()
    for sentence in (korean, english):
        assert "libEGL.so.1, libxcb-shape.so.0" in sentence
    assert "설치하세요" in korean
    assert command.strip() == APT_LINE
    assert problem.fatal


@pytest.mark.parametrize(
    ("version", "python", "refused"),
    [
        ("6.12.0", (3, 11), True),
        ("6.13.1", (3, 11), True),
        ("7.0.0", (3, 11), True),
        ("6.12.0", (3, 12), False),
        ("6.12.0", (3, 13), False),
        ("6.11.3", (3, 11), False),
    ],
)
def test_a_pyside_that_corrupts_this_python_is_refused(
    version: str, python: tuple[int, int], refused: bool
) -> None:
    problems = preflight._pyside_problems(version, python)
    assert [version in problem.english for problem in problems] == ([True] if refused else [])


def test_a_missing_pyside_gets_one_clear_sentence() -> None:
    (problem,) = preflight._pyside_problems(None, (3, 11))
    assert problem.command == "pip install uv && uv run run_desktop_ui.py"


def test_a_writable_data_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    assert check_data_dir(folder) is None
    assert list(folder.iterdir()) == []


def test_a_data_folder_below_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    problem = check_data_dir(tmp_path / "file" / "data")
    assert problem is not None
    assert "--data-dir" in problem.korean
    assert "--data-dir" in problem.english
    assert str(tmp_path / "file" / "data") in problem.english


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_data_folder_is_a_problem(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert check_data_dir(tmp_path) is not None
    finally:
        tmp_path.chmod(0o700)


@linux_only
def test_fontconfig_knows_whether_korean_can_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = subprocess.run(
        [sys.executable, "-c", "from ui.preflight import *; print(korean_font_missing())"],
        cwd=REPOSITORY,
        env={**os.environ, "FONTCONFIG_FILE": str(_no_fonts(tmp_path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == "True"
    if shutil.which("fc-list"):
        listed = subprocess.run(
            ["fc-list", ":lang=ko"], capture_output=True, text=True, check=True
        ).stdout
        assert korean_font_missing() == (not listed)


@linux_only
def test_a_missing_font_is_told_but_stops_nothing(tmp_path: Path) -> None:
    done = _preflight(FONTCONFIG_FILE=str(_no_fonts(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert "한글 글꼴이 없어" in done.stderr
    assert APT_LINE in done.stderr


def test_whatever_is_fatal_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = Problem("고장", "broken", "repair it")
    monkeypatch.setattr(preflight, "check", lambda **_: [problem])
    with pytest.raises(SystemExit) as ended:
        run_preflight()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "고장\nbroken\n    repair it\n"


def test_the_preflight_needs_the_standard_library_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _IMPORTS_OF_PREFLIGHT, str(REPOSITORY)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@linux_only
def test_pytest_ends_with_2_and_no_traceback_where_a_library_is_missing(tmp_path: Path) -> None:
    # An unreadable library comes first in the search path: as good as none.
    (tmp_path / "libEGL.so.1").write_text("no library")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/project/test_loops.py"],
        cwd=REPOSITORY,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert APT_LINE in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


_IMPORTS_OF_PREFLIGHT = """
import sys
sys.path.insert(0, sys.argv[1])
import ui.preflight
known = set(sys.stdlib_module_names) | {"ui", "__main__"}
print(*(name for name in sys.modules if name.partition(".")[0] not in known))
"""


def _no_fonts(folder: Path) -> Path:
    """A fontconfig configuration that knows no font at all."""
    path = folder / "fonts.conf"
    path.write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">'
        f"<fontconfig><cachedir>{folder / 'cache'}</cachedir></fontconfig>"
    )
    return path


def _preflight(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from ui.preflight import run_preflight; run_preflight()"],
        cwd=REPOSITORY,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
