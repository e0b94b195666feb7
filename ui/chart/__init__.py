"""The candlestick chart: what it holds, how it is drawn, how it is moved about."""
