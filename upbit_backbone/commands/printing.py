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


Cell = str | Text


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

    No cell is ever cut: a price without its last digit would be a lie.
    """
    rows = [list(row) for row in cells]
    kept = list(range(len(columns)))
    while _width_of(columns, rows, kept) > width:
        at = max(kept, key=lambda index: columns[index].need)
        if columns[at].need == 0:
            break
        kept.remove(at)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index in kept:
        column = columns[index]
        table.add_column(column.heading, justify=column.justify, no_wrap=True)
    for row in rows:
        table.add_row(*(row[index] for index in kept))
    return table


def _width_of(columns: Sequence[Shown], rows: list[list[Cell]], kept: Sequence[int]) -> int:
    widest = (
        max([Text(columns[at].heading).cell_len, *(_cell_len(row[at]) for row in rows)])
        for at in kept
    )
    # Between two columns stand three blanks, with the line that this box does not draw.
    return sum(widest) + 3 * (len(kept) - 1)


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
