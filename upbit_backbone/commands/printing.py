"""How commands print: tables that fit the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, NoReturn, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from upbit_backbone.models import KST_OFFSET, Change

RISE = "red"
"""Korean screens show a rise in red and a fall in blue."""
FALL = "blue"
MILLION = 1_000_000
PIPE_WIDTH = 200
"""Where no terminal is there nothing has to be left out."""
Justify = Literal["left", "right"]


class PipeConsole(Console):
    """Lets `run` hear of a reader that went away; rich would end the process itself."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


class Shown(NamedTuple):
    """A column of a table."""

    heading: str
    justify: Justify = "right"
    need: int = 0
    """Where the terminal is too narrow, those with the highest are left out first; 0: never."""
    folds: bool = False
    """Words and paths, that may go on in the next line. A figure is never folded nor cut."""


Cell = str | Text
_FOLDED = 10
"""Narrower than so many columns no text is folded."""
_BETWEEN = 3
"""Between two columns stand three blanks, with the line that this box does not draw."""


def console_for(stream: TextIO | None = None) -> Console:
    """A console on standard output; in a pipe its lines are not folded."""
    console = PipeConsole(file=stream or sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def fitting_table(
    columns: Sequence[Shown], cells: Iterable[Sequence[Cell]], *, width: int
) -> Table:
    """A table without the columns that there is no room for.

    No cell is ever cut: a price without its last digit would be a lie. Where there is no room
    for those that are needed either, each of their values has a line of its own.
    """
    rows = [list(row) for row in cells]
    widths = [_width_of(column, at, rows) for at, column in enumerate(columns)]
    kept = list(range(len(columns)))
    while sum(widths[at] for at in kept) + _BETWEEN * (len(kept) - 1) > width:
        at = max(kept, key=lambda index: columns[index].need)
        if columns[at].need == 0:
            needed = [[row[index] for index in kept] for row in rows]
            return _stacked([columns[index] for index in kept], needed)
        kept.remove(at)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index in kept:
        column = columns[index]
        table.add_column(
            column.heading, justify=column.justify, no_wrap=not column.folds, overflow="fold"
        )
    for row in rows:
        table.add_row(*(row[index] for index in kept))
    return table


def _stacked(columns: Sequence[Shown], rows: Sequence[Sequence[Cell]]) -> Table:
    """A line for each value, after its heading; a blank one between two rows.

    A terminal that is narrower than a value breaks it, as it would break any line.
    """
    table = Table.grid()
    table.add_column(overflow="fold")
    for number, row in enumerate(rows):
        if number:
            table.add_row("")
        for column, cell in zip(columns, row, strict=True):
            heading = f"{column.heading} " if column.heading else ""
            table.add_row(Text.assemble((heading, "dim"), cell))
    return table


def _width_of(column: Shown, at: int, rows: Iterable[Sequence[Cell]]) -> int:
    widest = max((_cell_len(row[at]) for row in rows), default=0)
    return max(Text(column.heading).cell_len, min(widest, _FOLDED) if column.folds else widest)


def _cell_len(cell: Cell) -> int:
    return cell.cell_len if isinstance(cell, Text) else Text(cell).cell_len


def coloured(text: str, change: Change | int) -> Text:
    """In the colour of a rise or a fall."""
    rises = change == "RISE" if isinstance(change, str) else change > 0
    falls = change == "FALL" if isinstance(change, str) else change < 0
    return Text(text, style=RISE if rises else FALL if falls else "")


def change_text(rate: float, change: Change) -> Text:
    """A rate of change, with a sign that needs no colour."""
    arrow = {"RISE": "▲", "FALL": "▼", "EVEN": " "}[change]
    return coloured(f"{arrow} {rate:+.2%}", change)


def value_text(symbol: str, value: float) -> str:
    """A traded value; of won in millions, as the exchange's own screen has it."""
    quote = symbol.partition("-")[0]
    if quote == "KRW":
        return f"{value / MILLION:,.0f}"
    return f"{value:,.3f}" if quote == "USDT" else f"{value:,.4f}"


def value_heading(symbols: Iterable[str]) -> str:
    """The heading over traded values; with the unit, if all have the same."""
    quotes = {symbol.partition("-")[0] for symbol in symbols}
    return f"24h ({value_unit(quotes.pop())})" if len(quotes) == 1 else "24h value"


def value_cell(symbol: str, value: float, heading: str) -> str:
    """A traded value; with its unit, if the heading has none."""
    unit = "" if "(" in heading else f" {value_unit(symbol.partition('-')[0])}"
    return value_text(symbol, value) + unit


def value_unit(quote: str) -> str:
    """The unit of `value_text`."""
    return "KRW m" if quote == "KRW" else quote


def kst(moment: datetime, form: str = "%H:%M:%S") -> str:
    """A time as a screen in Korea shows it."""
    return f"{moment + KST_OFFSET:{form}}"


def say(console: Console, line: str | Text) -> None:
    """A line of words: a terminal breaks it between two of them, a pipe has it whole."""
    console.print(line, soft_wrap=not console.is_terminal, markup=False)


def tell(sentence: str) -> None:
    """A line of words, beside what is printed."""
    sys.stderr.write(f"{sentence}\n")
