"""Upbit: its public market data, as an `ExchangeAdapter`."""

from upbit_backbone.exchanges.upbit.adapter import UpbitAdapter
from upbit_backbone.exchanges.upbit.addresses import REST_URL, WS_URL

__all__ = ["REST_URL", "WS_URL", "UpbitAdapter"]
