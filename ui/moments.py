"""Moments as the screen writes them: always Korean time, which knows no summer time."""

from __future__ import annotations

from datetime import datetime, timedelta

from PySide6.QtCore import QLocale

from upbit_backbone.clock import utc_datetime
from upbit_backbone.models import KST_OFFSET, Timeframe

KST_OFFSET_MS = KST_OFFSET // timedelta(milliseconds=1)


def korean_time(ms: int) -> datetime:
    """The wall time in Korea at epoch milliseconds."""
    return utc_datetime(ms) + KST_OFFSET


def date_label(ms: int) -> str:
    """``2026-11-20 (금)``, the weekday in the language of the program."""
    moment = korean_time(ms)
    day = QLocale().dayName(moment.isoweekday(), QLocale.FormatType.ShortFormat)
    return f"{moment:%Y-%m-%d} ({day})"


def moment_label(ms: int, timeframe: Timeframe) -> str:
    """What names a candle: its year, month or date, and from hours down the time.

    A week has the date of its Monday. Days and longer periods begin at 09:00.
    """
    if timeframe in (Timeframe.Y1, Timeframe.MO1):
        return f"{korean_time(ms):{'%Y' if timeframe is Timeframe.Y1 else '%Y-%m'}}"
    if timeframe.typical_ms >= Timeframe.D1.typical_ms:
        return date_label(ms)
    pattern = "%H:%M" if timeframe is not Timeframe.S1 else "%H:%M:%S"
    return f"{date_label(ms)} {korean_time(ms):{pattern}}"
