"""A strict reader of Prometheus' text format 0.0.4.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*,?)\}})? (\S+)(?: (-?\d+))?")
_HELP = re.compile(rf"# HELP ({_NAME}) ((?:[^\\]|\\[\\n])*)")
_TYPE = re.compile(rf"# TYPE ({_NAME}) (counter|gauge|histogram|summary|untyped)")
_UNESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


class Family(NamedTuple):
    """All samples of one name, by their labels."""

    type: str
    help: str
    samples: dict[frozenset[tuple[str, str]], float]


def families(text: str) -> dict[str, Family]:
    """Read a whole answer.

    Each name has HELP, then TYPE, then all its samples, and comes once.

    Raises:
        AssertionError: not in the format.
    """
    assert text.endswith("\n"), "the last line must end"
    found: dict[str, Family] = {}
    helped, name = "", ""
    for line in text.removesuffix("\n").split("\n"):
        if match := _HELP.fullmatch(line):
            assert match[1] not in found, line
            name, helped = match[1], match[2]
        elif match := _TYPE.fullmatch(line):
            assert match[1] == name, line
            assert match[1] not in found, line
            found[name] = Family(match[2], helped, {})
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] == name, line
            assert name in found, line
            labels = [(key, _unescape(value)) for key, value in re.findall(_LABEL, match[2] or "")]
            assert len({key for key, _ in labels}) == len(labels), line
            assert not any(key.startswith("__") for key, _ in labels), line
            assert frozenset(labels) not in found[name].samples, line
            found[name].samples[frozenset(labels)] = float(match[7])
    return found


def _unescape(value: str) -> str:
    return re.sub(r'\\[\\"n]', lambda match: _UNESCAPED[match[0]], value)
