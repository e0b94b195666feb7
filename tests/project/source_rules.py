"""What ruff and import-linter cannot say about the sources, as functions over the AST.

A rule takes a parsed file and yields the faults it finds, as (line, sentence).
`RULES` names the files that each of them reads.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

Fault = tuple[int, str]
Check = Callable[[ast.Module], Iterator[Fault]]

REPOSITORY = Path(__file__).resolve().parents[2]

_QT = {"PyQt5", "PyQt6", "PySide2", "PySide6", "pyqtgraph", "qasync", "qtpy", "shiboken6", "ui"}
_SQLITE = {"_sqlite3", "pysqlite3", "sqlite3"}
# What reaches a file, a socket, a process or the environment.
_IO = {
    *_SQLITE,
    "aiohttp",
    "aiosqlite",
    "ftplib",
    "glob",
    "http",
    "io",
    "mmap",
    "multiprocessing",
    "os",
    "pathlib",
    "platformdirs",
    "psutil",
    "select",
    "selectors",
    "shutil",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "urllib.request",
    "websockets",
}
_IO_CALLS = {
    "create_subprocess_exec",
    "create_subprocess_shell",
    "input",
    "open",
    "open_connection",
    "open_unix_connection",
    "print",
    "start_server",
    "start_unix_server",
}
# Static functions of Qt's dialogs: each opens a loop of its own, as exec() does.
_MODAL_CALLS = {
    "QColorDialog": {"getColor"},
    "QFileDialog": {
        "getExistingDirectory",
        "getExistingDirectoryUrl",
        "getOpenFileName",
        "getOpenFileNames",
        "getOpenFileUrl",
        "getOpenFileUrls",
        "getSaveFileName",
        "getSaveFileUrl",
    },
    "QFontDialog": {"getFont"},
    "QInputDialog": {"getDouble", "getInt", "getItem", "getMultiLineText", "getText"},
    "QMessageBox": {"about", "aboutQt", "critical", "information", "question", "warning"},
}
_UPBIT_HOST = re.compile(r"\bupbit\.com\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rule:
    """A check, and the files it holds for (paths relative to the repository)."""

    name: str
    check: Check
    holds_for: tuple[str, ...]
    except_for: tuple[str, ...] = ()

    def covers(self, path: PurePosixPath) -> bool:
        return _within(path, self.holds_for) and not _within(path, self.except_for)


def _within(path: PurePosixPath, places: tuple[str, ...]) -> bool:
    return any(path == PurePosixPath(place) or path.is_relative_to(place) for place in places)


def upbit_address(tree: ast.Module) -> Iterator[Fault]:
    """An address of Upbit in a string; docstrings may name their source."""
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str | bytes)
            and id(node) not in documentation
        ):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            if _UPBIT_HOST.search(text):
                yield node.lineno, "an Upbit address outside exchanges/ and simulator/"


def sqlite_import(tree: ast.Module) -> Iterator[Fault]:
    for line, name in _imported(tree):
        if _is_of(name, _SQLITE):
            yield line, f"{name} blocks the loop: use aiosqlite"


def qt_import(tree: ast.Module) -> Iterator[Fault]:
    for line, name in _imported(tree):
        if _is_of(name, _QT):
            yield line, f"the service runs without Qt, but imports {name}"


def input_output(tree: ast.Module) -> Iterator[Fault]:
    for line, name in _imported(tree):
        if _is_of(name, _IO):
            yield line, f"no input or output here, but it imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            if name in _IO_CALLS:
                yield node.lineno, f"no input or output here, but it calls {name}"


def modal_dialog(tree: ast.Module) -> Iterator[Fault]:
    """A modal dialog inside a coroutine: every other task stops for good (qasync #59)."""
    for coroutine in ast.walk(tree):
        if not isinstance(coroutine, ast.AsyncFunctionDef):
            continue
        for node in _own_nodes(coroutine):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name = node.func.attr
            owner = node.func.value
            owner_name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            if name in ("exec", "exec_") or name in _MODAL_CALLS.get(owner_name, ()):
                yield node.lineno, f"{name}() in a coroutine: use open() and await finished"


def shop_window(tree: ast.Module) -> Iterator[Fault]:
    """The package's public names, taken by the package itself: that is a cycle."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "upbit_backbone":
            yield node.lineno, "import from the module that defines the name"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "upbit_backbone":
                    yield node.lineno, "import from the module that defines the name"


def _imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every module that is imported, also by ``import_module("…")`` and ``__import__``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{node.module or ''}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args:
            called = node.func
            name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
            first = node.args[0]
            if (
                name in ("import_module", "__import__")
                and isinstance(first, ast.Constant)
                and isinstance(first.value, str)
            ):
                yield node.lineno, first.value


def _is_of(name: str, modules: set[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:length]) in modules for length in range(1, len(parts) + 1))


def _own_nodes(function: ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions defined inside it."""
    waiting: list[ast.AST] = [*function.body]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


_PROGRAM = ("upbit_backbone", "ui", "run_desktop_ui.py")

RULES = (
    Rule(
        "upbit_address",
        upbit_address,
        _PROGRAM,
        except_for=("upbit_backbone/exchanges", "upbit_backbone/simulator"),
    ),
    Rule("sqlite_import", sqlite_import, _PROGRAM),
    Rule("qt_import", qt_import, ("upbit_backbone",)),
    Rule(
        "input_output",
        input_output,
        ("upbit_backbone/models.py", "upbit_backbone/indicators", "upbit_backbone/strategy"),
    ),
    Rule("modal_dialog", modal_dialog, _PROGRAM),
    Rule("shop_window", shop_window, ("upbit_backbone",), except_for=("upbit_backbone/cli.py",)),
)


def faults_of(source: str, path: str) -> list[str]:
    """Judge a source text as if it lay at `path` of the repository."""
    tree = ast.parse(source, path)
    place = PurePosixPath(path)
    return [
        f"{path}:{line}: {fault} ({rule.name})"
        for rule in RULES
        if rule.covers(place)
        for line, fault in rule.check(tree)
    ]


def program_files() -> Iterator[Path]:
    """The Python files of the program, without tests, benchmarks and tools."""
    for place in _PROGRAM:
        path = REPOSITORY / place
        if path.is_file():
            yield path
        else:
            yield from sorted(path.rglob("*.py"))
