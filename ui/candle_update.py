"""Candles on their way to a chart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from upbit_backbone.models import CandleSeries, Timeframe


@dataclass(frozen=True, slots=True)
class CandleUpdate:
    """Candles of one series: the answer to a request, or news of the newest ones."""

    symbol: str
    timeframe: Timeframe
    series: CandleSeries
    kind: Literal["loaded", "live", "revised"]
    request_id: UUID | None
    """Of the request that a ``loaded`` update answers."""
    more_follows: bool = False
    """It is the newest part of the answer; older ones come with the same id."""
