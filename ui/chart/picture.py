"""All that one frame of the chart shows, decided before anything is painted."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from PySide6.QtCore import QPointF, QRectF

from ui.chart.bars import Bars, FloatColumn
from ui.chart.ticks import TimeTick


@dataclass(frozen=True, slots=True)
class Words:
    """The chart's words in the language of the program."""

    open: str
    high: str
    low: str
    close: str
    change: str
    """Of a close against the close before."""
    volume: str
    simulated: str


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame: what is in view, and what is written over it."""

    bars: Bars
    title: str
    words: Words
    left: float
    right: float
    low: float
    high: float
    volume_top: float
    time_ticks: list[TimeTick] = field(default_factory=list)
    price_ticks: list[float] = field(default_factory=list)
    price_labels: list[str] = field(default_factory=list)
    volume_ticks: list[tuple[float, str]] = field(default_factory=list)
    """Round volumes with their labels."""
    simulated: bool = False
    stale: bool = False
    edge_note: str = ""
    """At the left edge: history is being loaded, or there is none before."""
    centre_note: str = ""
    """In the middle, instead of bars."""

    @property
    def newest(self) -> FloatColumn | None:
        """The newest bar, in view or not."""
        return self.bars.bar(self.bars.last)

    def rows_in_view(self) -> tuple[FloatColumn, int]:
        """The bars that are in view, whole or in part, and the index of the first."""
        first = max(math.floor(self.left), self.bars.first)
        return self.bars.rows(first, math.ceil(self.right) + 1), first


@dataclass(frozen=True, slots=True)
class Pane:
    """A pane on the screen: its pixels, and the values at its bottom and top."""

    box: QRectF
    left: float
    right: float
    low: float
    high: float

    def x(self, index: float) -> float:
        return self.box.left() + (index - self.left) / (self.right - self.left) * self.box.width()

    def y(self, value: float) -> float:
        return self.box.bottom() - (value - self.low) / (self.high - self.low) * self.box.height()

    def index(self, x: float) -> float:
        return self.left + (x - self.box.left()) / self.box.width() * (self.right - self.left)

    def value(self, y: float) -> float:
        return self.low + (self.box.bottom() - y) / self.box.height() * (self.high - self.low)

    @property
    def px_per_bar(self) -> float:
        return self.box.width() / (self.right - self.left)

    @property
    def px_per_value(self) -> float:
        return self.box.height() / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything stands on the screen."""

    price: Pane
    volume: Pane
    time_axis: QRectF
    price_axis: QRectF
    volume_axis: QRectF
    pointer: QPointF | None
