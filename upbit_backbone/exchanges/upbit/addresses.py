"""Where Upbit answers, and which limit each path counts against.

Source: https://docs.upbit.com/kr/reference/rest-api-guide and …/rate-limits (2026-10).
"""

from __future__ import annotations

from typing import NamedTuple

from upbit_backbone.models import Timeframe
from upbit_backbone.routing.exchange import RateGroup

REST_URL = "https://api.upbit.com/v1"
WS_URL = "wss://api.upbit.com/websocket/v1"


class Endpoint(NamedTuple):
    """A path below the REST address, and the group whose ten calls a second it shares."""

    path: str
    group: RateGroup


MARKETS = Endpoint("/market/all", "market")
TICKERS = Endpoint("/ticker", "ticker")
ALL_TICKERS = Endpoint("/ticker/all", "ticker")
ORDERBOOKS = Endpoint("/orderbook", "orderbook")
TRADES = Endpoint("/trades/ticks", "trades")
CANDLES = {
    timeframe: Endpoint(f"/candles/{unit}", "candles")
    for timeframe, unit in {
        Timeframe.S1: "seconds",
        Timeframe.M1: "minutes/1",
        Timeframe.M3: "minutes/3",
        Timeframe.M5: "minutes/5",
        Timeframe.M10: "minutes/10",
        Timeframe.M15: "minutes/15",
        Timeframe.M30: "minutes/30",
        Timeframe.H1: "minutes/60",
        Timeframe.H4: "minutes/240",
        Timeframe.D1: "days",
        Timeframe.W1: "weeks",
        Timeframe.MO1: "months",
        Timeframe.Y1: "years",
    }.items()
}
