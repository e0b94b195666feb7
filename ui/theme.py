"""How the program looks: one table of colours, the palette and font made of it.

The table is a file under ``resources/themes``; widgets take a `Theme` and name no colour
of their own, so another table is another look. Rising is red and falling is blue, as in
Korea, and never told by colour alone: a sign or an arrow stands beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cached_property

from PySide6.QtGui import QColor, QFont, QFontDatabase, QPalette
from PySide6.QtWidgets import QApplication

from upbit_backbone.models import Change
from upbit_backbone.resources import resource_path

# First match wins. Noto's Korean face is named, because its family lists others first.
_FONTS = (
    "NanumGothic",
    "NanumBarunGothic",
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
)
_FONT_POINTS = 10.0

ARROWS: dict[Change, str] = {"RISE": "▲", "FALL": "▼", "EVEN": "–"}


@dataclass(frozen=True)
class Theme:
    """Colours by what they mean, as ``#rrggbb``."""

    window: str
    panel: str
    raised: str
    line: str
    grid: str
    text: str
    dim: str
    faint: str
    selection: str
    accent: str
    rise: str
    fall: str
    even: str
    rise_volume: str
    fall_volume: str
    even_volume: str
    crosshair: str
    tag: str
    simulated: str
    simulated_text: str
    error: str
    error_text: str
    notice: str
    notice_text: str
    healthy: str
    degraded: str
    down: str
    starting: str

    @cached_property
    def by_change(self) -> dict[Change, QColor]:
        """The colour of a rise, a fall and of no change."""
        return {
            "RISE": QColor(self.rise),
            "FALL": QColor(self.fall),
            "EVEN": QColor(self.even),
        }


def load_theme(name: str = "dark") -> Theme:
    """Read a table of ``resources/themes``.

    Raises:
        FileNotFoundError: no theme of that name.
        ValueError: the table lacks a colour, has one too many, or one that is none.
    """
    table = json.loads(resource_path(f"themes/{name}.json").read_text("utf-8"))
    wanted = {field.name for field in fields(Theme)}
    if set(table) != wanted:
        raise ValueError(f"theme {name!r}: differs in {sorted(set(table) ^ wanted)}")
    for meaning, colour in table.items():
        if not QColor.isValidColorName(colour):
            raise ValueError(f"theme {name!r}: {meaning} must be a colour, was {colour!r}")
    return Theme(**table)


def apply_theme(app: QApplication, theme: Theme) -> None:
    """Give the program its style, palette and font.

    Fusion with an own palette, because the colour scheme of `QStyleHints` does nothing
    where no platform theme is loaded (off-screen, bare X).
    """
    app.setStyle("Fusion")
    app.setPalette(_palette(theme))
    app.setFont(_font(app.font()))
    app.setStyleSheet(_style_sheet(theme))


def _palette(theme: Theme) -> QPalette:
    palette = QPalette()
    roles = {
        QPalette.ColorRole.Window: theme.window,
        QPalette.ColorRole.WindowText: theme.text,
        QPalette.ColorRole.Base: theme.panel,
        QPalette.ColorRole.AlternateBase: theme.raised,
        QPalette.ColorRole.Text: theme.text,
        QPalette.ColorRole.PlaceholderText: theme.faint,
        QPalette.ColorRole.Button: theme.raised,
        QPalette.ColorRole.ButtonText: theme.text,
        QPalette.ColorRole.BrightText: theme.error_text,
        QPalette.ColorRole.ToolTipBase: theme.raised,
        QPalette.ColorRole.ToolTipText: theme.text,
        QPalette.ColorRole.Highlight: theme.selection,
        QPalette.ColorRole.HighlightedText: theme.text,
        QPalette.ColorRole.Link: theme.accent,
        QPalette.ColorRole.Accent: theme.accent,
        QPalette.ColorRole.Light: theme.line,
        QPalette.ColorRole.Midlight: theme.raised,
        QPalette.ColorRole.Mid: theme.line,
        QPalette.ColorRole.Dark: theme.window,
        QPalette.ColorRole.Shadow: theme.window,
    }
    for role, colour in roles.items():
        palette.setColor(role, QColor(colour))
    for role in (
        QPalette.ColorRole.WindowText,
        QPalette.ColorRole.Text,
        QPalette.ColorRole.ButtonText,
    ):
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor(theme.faint))
    return palette


def _font(present: QFont) -> QFont:
    font = QFont(present)
    installed = set(QFontDatabase.families())
    family = next((name for name in _FONTS if name in installed), None)
    if family is not None:
        font.setFamily(family)
    font.setPointSizeF(_FONT_POINTS)
    # Figures of one width, so that a changing price does not jump.
    font.setFeature(QFont.Tag("tnum"), 1)
    return font


def _style_sheet(theme: Theme) -> str:
    """What a palette cannot say: docks, tabs, headers and flat buttons."""
    return f"""
    QToolTip {{ background: {theme.raised}; color: {theme.text};
        border: 1px solid {theme.line}; padding: 4px; }}
    QMainWindow::separator {{ background: {theme.line}; width: 1px; height: 1px; }}
    QDockWidget {{ color: {theme.dim}; titlebar-close-icon: none; }}
    QDockWidget::title {{ background: {theme.window}; padding: 5px 8px; text-align: left; }}
    QHeaderView::section {{ background: {theme.panel}; color: {theme.dim}; border: none;
        border-bottom: 1px solid {theme.line}; padding: 4px 3px; }}
    QHeaderView::down-arrow, QHeaderView::up-arrow {{ image: none; width: 0; height: 0; }}
    QTableView {{ background: {theme.panel}; border: none; gridline-color: {theme.grid};
        selection-background-color: {theme.selection}; selection-color: {theme.text}; }}
    QListView {{ background: {theme.panel}; border: none; }}
    QListView::item {{ padding: 4px 6px; }}
    QListView::item:selected {{ background: {theme.selection}; color: {theme.text}; }}
    SymbolPalette {{ background: {theme.window}; border: 1px solid {theme.line}; }}
    QLineEdit {{ background: {theme.raised}; border: 1px solid {theme.line};
        border-radius: 4px; padding: 5px 8px; }}
    QLineEdit:focus {{ border-color: {theme.accent}; }}
    QToolButton {{ background: transparent; color: {theme.dim}; border: none;
        border-radius: 4px; padding: 4px 9px; }}
    QToolButton#switch {{ padding: 4px 6px; }}
    QToolButton#symbol {{ color: {theme.text}; }}
    QToolButton#more::menu-indicator {{ image: none; width: 0; }}
    QMenu {{ background: {theme.raised}; border: 1px solid {theme.line}; padding: 4px; }}
    QMenu::item {{ padding: 5px 22px; border-radius: 4px; }}
    QMenu::item:selected {{ background: {theme.selection}; }}
    QToolButton#latest {{ background: {theme.tag}; color: {theme.text}; }}
    QToolButton#latest:hover {{ background: {theme.selection}; }}
    QToolButton:hover {{ background: {theme.raised}; color: {theme.text}; }}
    QToolButton:checked {{ background: {theme.selection}; color: {theme.text}; }}
    QScrollBar:horizontal {{ background: {theme.panel}; height: 9px; margin: 0; }}
    QScrollBar::handle:horizontal {{ background: {theme.line}; border-radius: 4px; }}
    QScrollBar::add-line:horizontal, QScrollBar::sub-line:horizontal {{ width: 0; }}
    QScrollBar:vertical {{ background: {theme.panel}; width: 9px; margin: 0; }}
    QScrollBar::handle:vertical {{ background: {theme.line}; border-radius: 4px;
        min-height: 30px; }}
    QScrollBar::add-line:vertical, QScrollBar::sub-line:vertical {{ height: 0; }}
    QScrollBar::add-page:vertical, QScrollBar::sub-page:vertical {{ background: none; }}
    """
