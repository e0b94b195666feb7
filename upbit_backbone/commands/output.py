"""Standard output of a program: signs that its encoding lacks, and what cannot be written at all.

A screen or a file may speak cp949 or ASCII, a disk be full, a reader go away. None of it is a
traceback.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO

_HANDLER = "upbit_backbone.plain_signs"
_PLAIN = {
    "✔": "+",
    "✘": "x",
    "→": ">",
    "▲": "^",
    "▼": "v",
    "█": "#",
    "·": "-",
    "–": "-",
    "…": "...",
}
"""What stands for a sign of ours where there is none; nothing that means something else."""


class OutputLost(Exception):
    """Standard output takes nothing any more; its cause says why.

    No `OSError`: rich and typer would end the process with a code of their own.
    """

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror or str(cause))
        self.reader_gone = isinstance(cause, BrokenPipeError) or (
            # What Windows says of a pipe that nobody reads.
            os.name == "nt" and cause.errno == errno.EINVAL
        )


class Output(io.TextIOWrapper):
    """Standard output that says when it is lost."""

    def write(self, text: str, /) -> int:
        """Write a text.

        Raises:
            OutputLost: it cannot be written.
        """
        with _lost():
            return super().write(text)

    def flush(self) -> None:
        """Hand on what was written.

        Raises:
            OutputLost: it cannot be.
        """
        with _lost():
            super().flush()


class Errors(io.TextIOWrapper):
    """Standard error; where it cannot be written either, nobody is left to be told."""

    def write(self, text: str, /) -> int:
        """Write a text, if that is possible."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, if that is possible."""
        with suppress(OSError):
            super().flush()


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputLost(error) from error


def run_with_output(program: Callable[[], object]) -> NoReturn:
    """Run a program that ends with `SystemExit`, and end as it does.

    When the reader goes away that is no failure, and nothing is said of it: it ends with 0.
    What cannot be written is told in a sentence on standard error, and ends with 1.
    """
    _prepare()
    code: object = 0
    try:
        try:
            program()
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
    except OutputLost as lost:
        # What is still buffered would fail again when Python ends.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
        if not lost.reader_gone:
            sys.stderr.write(f"the output cannot be written: {lost}\n")
            code = 1
    sys.exit(code)  # type: ignore[arg-type]


def _prepare() -> None:
    # Python has no stream for what was closed (`>&-`): the next file to be opened is in its place.
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stderr.write("standard output is closed: let it go somewhere, e.g. > /dev/null\n")
        sys.exit(1)
    codecs.register_error(_HANDLER, plain_signs)
    sys.stdout = _wrapped(sys.stdout, Output)
    sys.stderr = _wrapped(sys.stderr, Errors)


def _wrapped(given: TextIO, into: type[io.TextIOWrapper]) -> TextIO:
    if not isinstance(given, io.TextIOWrapper):
        return given
    # Whoever asks for another way to replace signs (PYTHONIOENCODING) has it.
    chosen = given.errors not in ("strict", "surrogateescape")
    errors = given.errors if chosen else _HANDLER
    encoding, lines, at_once = given.encoding, given.line_buffering, given.write_through
    return into(
        given.detach(),
        encoding=encoding,
        errors=errors,
        line_buffering=lines,
        write_through=at_once,
    )


def plain_signs(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: plain signs, as wide as those that cannot be written."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(_plain(sign) for sign in wrong), error.end


def _plain(sign: str) -> str:
    if "\ud800" <= sign <= "\udfff":  # a byte of a path that is no UTF-8
        return f"\\u{ord(sign):04x}"
    return _PLAIN.get(sign) or ("??" if unicodedata.east_asian_width(sign) in "WF" else "?")
