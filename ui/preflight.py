"""What the machine must have before anything imports Qt.

Qt ends the process when a system library is missing: with `libGL.so.1: cannot open
shared object file`, or with an abort that names one library of several. So this module
looks first, with the standard library alone, and says in Korean and English what to
type. `run_desktop_ui.py` and the root `conftest.py` call `run_preflight` before any
other import of theirs.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

APT_LINE = (
    "sudo apt-get install -y --no-install-recommends"
    " libgl1 libegl1 libfontconfig1 libglib2.0-0 libdbus-1-3 libxkbcommon0"
    " libxcb-cursor0 libxkbcommon-x11-0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0"
    " fonts-nanum"
)
"""Everything a bare Debian or Ubuntu lacks, measured in a minimal Debian 12."""

EXIT_NOT_READY = 2

# Soname -> Debian package. Qt loads the first group on every platform plug-in (without it
# `import PySide6.QtWidgets` fails), the second for windows of an X server.
_LIBRARIES = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libdbus-1.so.3": "libdbus-1-3",
    "libxkbcommon.so.0": "libxkbcommon0",
}
_XCB_LIBRARIES = {
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-shape.so.0": "libxcb-shape0",
}

# Shiboken of 6.12.0 loses one reference to None or True per call on these Pythons and
# the process aborts within seconds; to be measured again with each later release.
_FIRST_BAD_PYSIDE = (6, 12)
_FIRST_GOOD_PYTHON = (3, 12)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing the machine lacks, and what to do about it."""

    korean: str
    english: str
    command: str | None = None
    """What to type, if one command repairs it."""
    fatal: bool = True
    """False: the program runs, but not as it should."""

    def __str__(self) -> str:
        lines = [self.korean, self.english]
        if self.command is not None:
            lines.append(f"    {self.command}")
        return "\n".join(lines)


KOREAN_FONT_MISSING = Problem(
    "한글 글꼴이 없어 한글이 네모(□)로 보입니다. 다음 명령으로 설치하세요.",
    "No Korean font: Korean text shows as boxes. Install one:",
    APT_LINE,
    fatal=False,
)


def check(*, want_window: bool) -> list[Problem]:
    """Look for everything Qt needs; imports nothing of it and changes nothing.

    Args:
        want_window: A window on the screen is wanted, so its libraries are too where
            there is a screen. Without one Qt draws off-screen and needs fewer.
    """
    found = [*_pyside_problems(_installed_pyside(), sys.version_info[:2])]
    if sys.platform == "linux":
        found += _library_problems(wanted_libraries(os.environ, want_window=want_window), _loads)
        if korean_font_missing():
            found.append(KOREAN_FONT_MISSING)
    return found


def run_preflight(*, want_window: bool = True) -> None:
    """Check, tell the person at the terminal, and choose off-screen drawing if needed.

    Raises:
        SystemExit: with 2, after everything that is missing was printed.
    """
    problems = check(want_window=want_window)
    for problem in problems:
        print(problem, file=sys.stderr)
    if any(problem.fatal for problem in problems):
        raise SystemExit(EXIT_NOT_READY)
    notice = choose_platform(os.environ, want_window=want_window)
    if notice is not None:
        print(notice, file=sys.stderr)


def ready_line() -> str:
    """What is said when nothing is missing."""
    python = ".".join(map(str, sys.version_info[:3]))
    versions = f"Python {python}, PySide6 {_installed_pyside() or '?'}"
    return f"필요한 것이 모두 있습니다. · Everything needed is there. ({versions})"


def choose_platform(
    environ: MutableMapping[str, str],
    *,
    want_window: bool,
    x_answers: Callable[[str], bool] | None = None,
) -> str | None:
    """Set ``QT_QPA_PLATFORM=offscreen`` where no window can or should be shown.

    What the user has set stays. Returns the line that says so, None if nothing was set.
    """
    if sys.platform != "linux" or environ.get("QT_QPA_PLATFORM"):
        return None
    if not want_window:
        reason_ko, reason_en = "", ""
    elif environ.get("WAYLAND_DISPLAY"):
        return None
    elif not (display := environ.get("DISPLAY")):
        reason_ko, reason_en = "화면이 없어 ", " No display (DISPLAY, WAYLAND_DISPLAY):"
    elif not (x_answers or _x_server_answers)(display):
        # A name left over from another session: Qt would abort over it.
        reason_ko, reason_en = f"화면 {display}이(가) 응답하지 않아 ", f" {display} is silent:"
    else:
        return None
    environ["QT_QPA_PLATFORM"] = "offscreen"
    return f"{reason_ko}창 없이(offscreen) 실행합니다. ·{reason_en} running off-screen."


def wanted_libraries(environ: Mapping[str, str], *, want_window: bool) -> dict[str, str]:
    """Soname -> Debian package of everything that Qt will load in this environment."""
    chosen = environ.get("QT_QPA_PLATFORM", "")
    if chosen:
        xcb = "xcb" in chosen
    else:
        xcb = want_window and bool(environ.get("DISPLAY"))
    return {**_LIBRARIES, **_XCB_LIBRARIES} if xcb else dict(_LIBRARIES)


def check_data_dir(path: Path) -> Problem | None:
    """Make the data folder and try to write into it; None if that works."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return None
    except OSError as exc:
        reason = exc.strerror or str(exc)
        return Problem(
            f"데이터 폴더에 쓸 수 없습니다: {path} ({reason})."
            " --data-dir로 쓸 수 있는 폴더를 지정하세요.",
            f"The data folder cannot be written: {path} ({reason})."
            " Give a writable one with --data-dir.",
        )


def korean_font_missing() -> bool:
    """Whether no installed font has Korean letters; asks fontconfig, as Qt itself does.

    Only Linux is asked: Windows and macOS bring Korean fonts along. False where
    fontconfig itself is missing, which is a problem of its own.
    """
    if sys.platform != "linux":
        return False
    try:
        fontconfig = ctypes.CDLL("libfontconfig.so.1")
    except OSError:
        return False
    for name, result in (
        ("FcNameParse", ctypes.c_void_p),
        ("FcObjectSetCreate", ctypes.c_void_p),
        ("FcObjectSetAdd", ctypes.c_int),
        ("FcFontList", ctypes.POINTER(_FontSet)),
        ("FcFontSetDestroy", None),
        ("FcObjectSetDestroy", None),
        ("FcPatternDestroy", None),
    ):
        getattr(fontconfig, name).restype = result
    pattern = ctypes.c_void_p(fontconfig.FcNameParse(b":lang=ko"))
    wanted = ctypes.c_void_p(fontconfig.FcObjectSetCreate())
    fontconfig.FcObjectSetAdd(wanted, b"family")
    fonts = fontconfig.FcFontList(None, pattern, wanted)
    missing = not fonts or fonts.contents.count == 0
    if fonts:
        fontconfig.FcFontSetDestroy(fonts)
    fontconfig.FcObjectSetDestroy(wanted)
    fontconfig.FcPatternDestroy(pattern)
    return missing


class _FontSet(ctypes.Structure):
    """fontconfig's FcFontSet."""

    _fields_ = (
        ("count", ctypes.c_int),
        ("capacity", ctypes.c_int),
        ("fonts", ctypes.c_void_p),
    )


def _x_server_answers(display: str) -> bool:
    try:
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError:
        return True  # then libraries are missing, which is told elsewhere
    xcb.xcb_connect.restype = ctypes.c_void_p
    connection = ctypes.c_void_p(xcb.xcb_connect(display.encode(), None))
    silent = xcb.xcb_connection_has_error(connection)
    xcb.xcb_disconnect(connection)
    return not silent


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


def _library_problems(wanted: Mapping[str, str], loads: Callable[[str], bool]) -> list[Problem]:
    missing = [soname for soname in wanted if not loads(soname)]
    if not missing:
        return []
    names = ", ".join(missing)
    return [
        Problem(
            f"Qt에 필요한 라이브러리가 없습니다: {names}. 다음 명령으로 설치하세요.",
            f"Libraries that Qt needs are missing: {names}. Install them (Debian, Ubuntu):",
            APT_LINE,
        )
    ]


def _installed_pyside() -> str | None:
    try:
        return metadata.version("PySide6-Essentials")
    except metadata.PackageNotFoundError:
        return None


def _pyside_problems(version: str | None, python: Sequence[int]) -> list[Problem]:
    if version is None:
        return [
            Problem(
                "PySide6가 설치되어 있지 않습니다. 다음 명령은 필요한 것을 모두 설치합니다.",
                "PySide6 is not installed. This command installs all that is needed:",
                "pip install uv && uv run run_desktop_ui.py",
            )
        ]
    if _release(version) >= _FIRST_BAD_PYSIDE and tuple(python) < _FIRST_GOOD_PYTHON:
        running = ".".join(map(str, python))
        return [
            Problem(
                f"PySide6 {version}은(는) Python {running}에서 참조 횟수를 망가뜨려 곧 종료됩니다."
                " PySide6 6.11을 설치하거나 Python 3.12 이상을 쓰세요.",
                f"PySide6 {version} corrupts reference counts on Python {running} and aborts."
                " Install PySide6 6.11, or use Python 3.12 or newer:",
                'pip install "PySide6-Essentials>=6.11.3,<6.12"',
            )
        ]
    return []


def _release(version: str) -> tuple[int, ...]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)
