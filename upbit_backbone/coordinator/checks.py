"""What an answer of trades has to be before it is merged: a violation is told, never repaired."""

from __future__ import annotations

from collections.abc import Sequence

from upbit_backbone.clock import epoch_ms, utc_datetime
from upbit_backbone.errors import ProtocolError
from upbit_backbone.models import Trade


def check_trades(
    trades: Sequence[Trade], symbol: str, *, asked: int, cursor: int | None, before_ms: int | None
) -> None:
    """Refuse a page of trades that cannot be what was asked for.

    Args:
        trades: Newest first. Late ones may stand out of order: ids and times only nearly descend.
        symbol: Whose trades were asked for.
        asked: How many at most.
        cursor: Only older ones were asked for.
        before_ms: The page's end, exclusive; None: none was given.

    Raises:
        ProtocolError: more than asked, of another market, one twice, or those that were to be
            left out.
    """
    what = f"trades of {symbol}"
    if len(trades) > asked:
        raise ProtocolError(f"{what}: {asked} were asked for, {len(trades)} came")
    for trade in trades:
        if trade.symbol != symbol:
            raise ProtocolError(f"{what}: the answer has one of {trade.symbol}")
        if trade.sequential_id == cursor:
            raise ProtocolError(
                f"{what}: the exchange answered the same page again when asked for what is older"
                f" than {cursor}"
            )
        if before_ms is not None and epoch_ms(trade.exchange_time) >= before_ms:
            raise ProtocolError(
                f"{what} before {utc_datetime(before_ms):%Y-%m-%dT%H:%M:%SZ}: the answer has"
                f" {trade.sequential_id} of {trade.exchange_time.isoformat()}"
            )
    if len({trade.sequential_id for trade in trades}) < len(trades):
        raise ProtocolError(f"{what}: a page holds one of them twice")
