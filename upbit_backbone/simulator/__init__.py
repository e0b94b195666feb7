"""An Upbit exchange in a box: the same REST and WebSocket, on markets that repeat for ever.

The market is a pure function of a seed and the time (`market.py`). September 2025 of
KRW-BTC, KRW-XRP and KRW-DOGE was recorded; all other markets are invented. Tables of 28
days repeat, so every question about any instant is answered in bounded time; the price
is that weeks and months repeat too.
"""

from upbit_backbone.simulator.server import Simulator

__all__ = ["Simulator"]
