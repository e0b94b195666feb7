"""Technical indicators: exact against TA-Lib, over whole series and candle by candle.

Pure: no clock, no input, no output. `compute` takes a `CandleSeries`; `create` gives an
indicator that is told one close after another.
"""

from upbit_backbone.indicators.catalogue import candles_needed, compute, create
from upbit_backbone.indicators.indicator import Indicator
from upbit_backbone.indicators.rsi import RSI
from upbit_backbone.indicators.series import IndicatorSeries
from upbit_backbone.indicators.sma import SMA

__all__ = [
    "RSI",
    "SMA",
    "Indicator",
    "IndicatorSeries",
    "candles_needed",
    "compute",
    "create",
]
