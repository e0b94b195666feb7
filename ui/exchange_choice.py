"""Which exchange the program opens when it is left to it: decided once, at the start."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from upbit_backbone import BackboneConfig, BackboneManager

TRY_FOR_S = 2.0

Reason = Literal["asked", "reached", "stored", "simulator"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What to open, and why.

    ``asked``: it was given; ``reached``: the exchange answers; ``stored``: it does not, but
    its data are here; ``simulator``: neither, so one is started in this process.
    """

    config: BackboneConfig
    reason: Reason


async def choose_exchange(config: BackboneConfig, *, automatic: bool) -> Choice:
    """Decide; takes `TRY_FOR_S` at most, and asks nobody unless `automatic`."""
    if not automatic:
        return Choice(config, "asked")
    if await BackboneManager.reachable(config, timeout_s=TRY_FOR_S):
        return Choice(config, "reached")
    if await BackboneManager.has_stored_data(config):
        return Choice(config, "stored")
    return Choice(replace(config, exchange="simulator", rest_url=None, ws_url=None), "simulator")
