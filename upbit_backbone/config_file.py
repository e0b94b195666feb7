"""The file of settings: TOML, one line a setting, written by a person.

What is wrong in it is told in a sentence that names the file and the line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from upbit_backbone.errors import InvalidRequestError, shown_path

MOST_BYTES = 1 << 20
"""Settings are some lines; whatever is larger is another file."""
_SHOWN = 60


def default_config_file() -> Path:
    """Where the user's settings are looked for."""
    return Path(platformdirs.user_config_dir("upbit-backbone", appauthor=False)) / "config.toml"


class SettingsFile(NamedTuple):
    """What a file says: the values by the names of their settings, and where each stands."""

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int]

    def place(self, name: str) -> str:
        """Where a setting stands, for a sentence."""
        line = self.lines.get(name)
        path = shown_path(self.path)
        return path if line is None else f"line {line} of {path}"


def read_settings_file(path: Path, known: Collection[str]) -> SettingsFile:
    """Read a file of settings.

    Args:
        path: The file.
        known: The names that it may use.

    Raises:
        InvalidRequestError: there is none, it cannot be read, it is no TOML, or it names a
            setting that does not exist; the sentence says where, and what is meant perhaps.
    """
    text = _text(path)
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(_damaged(path, text, error)) from error
    strange = next((name for name in values if name not in known), None)
    told = values if strange is None else (strange,)
    lines = {name: line for name in told if (line := _line_of(name, text)) is not None}
    found = SettingsFile(path, values, lines)
    if strange is not None:
        table = " (settings stand in no table)" if isinstance(values[strange], dict) else ""
        raise InvalidRequestError(
            f"{unknown_setting(strange, known)}; it stands in {found.place(strange)}{table}"
        )
    return found


def unknown_setting(name: str, known: Collection[str]) -> str:
    """That there is no such setting, and which one is nearest."""
    # To compare a long text takes time.
    word = name[:_SHOWN].lower().replace("-", "_")
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return f"no setting is called {_short(name)!r}: {meant}"


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise InvalidRequestError(
            f"there is no settings file {shown_path(path)}: 'upbit-backbone config init' writes one"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequestError(
            f"the settings file {shown_path(path)} cannot be read ({reason}):"
            " name a file that can be"
        ) from error
    if len(content) > MOST_BYTES:
        raise InvalidRequestError(
            f"{shown_path(path)} is larger than a megabyte: settings are lines such as"
            " memory_limit_mb = 512"
        )
    try:
        # Windows' editor puts a byte order mark before the text.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidRequestError(
            f"line {line} of {shown_path(path)} is no UTF-8 text: save the file as UTF-8"
        ) from error


def _damaged(path: Path, text: str, error: ValueError | RecursionError) -> str:
    example = 'a setting is written as in memory_limit_mb = 512 or exchange = "simulator"'
    if isinstance(error, RecursionError) or not isinstance(error, tomllib.TOMLDecodeError):
        # Brackets in brackets without end, or a number of thousands of digits.
        what = "brackets" if isinstance(error, RecursionError) else "digits"
        return f"{shown_path(path)} is not understood (too many {what}): {example}"
    # "Invalid value (at line 3, column 5)" or "… (at end of document)".
    what, _, where = str(error).rpartition(" (at ")
    at = re.match(r"line (\d+)", where)
    lines = text.splitlines()
    number = int(at[1]) if at else max(1, len(lines))
    line = _short(lines[number - 1].strip()) if number <= len(lines) else ""
    return (
        f"line {number} of {shown_path(path)} is not understood ({_short(what.lower())}):"
        f" {line!r}; {example}"
    )


def _line_of(name: str, text: str) -> int | None:
    """The line that gives a name its value, or begins a table of it."""
    if len(name) > _SHOWN:
        return None
    key = rf"(?:{re.escape(name)}|\"{re.escape(name)}\"|'{re.escape(name)}')"
    found = re.search(rf"^[ \t]*(?:{key}[ \t]*[=.]|\[+[ \t]*{key}\b)", text, re.MULTILINE)
    return None if found is None else text.count("\n", 0, found.start()) + 1


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
