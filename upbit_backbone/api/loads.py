"""Long loads of candles, as the figures see them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, Protocol
from weakref import WeakSet

from upbit_backbone.clock import Clock
from upbit_backbone.models import CandleSeries
from upbit_backbone.protocol import DataType, Priority, Progress
from upbit_backbone.telemetry.alerts import IN_STRETCHES
from upbit_backbone.telemetry.calls import CallRecorder

_PATH: Final = f"{IN_STRETCHES}: api → coordinator → storage"
_WAITING: Final = ("waiting for load", "paused")
_OVER: Final = ("done", "ended")


class Load(Protocol):
    """One of them."""

    @property
    def priority(self) -> Priority: ...
    @property
    def progress(self) -> Progress: ...


class Loads:
    """Counts what loads give: each stretch is a call that was answered.

    Its latency is how long the reader waited for it, pauses included: nothing is promised of that,
    so that no alert comes of it. Of where stretches were found nothing is
    counted: a load of months that nobody has asked before says nothing of how well others are
    served from memory.
    """

    def __init__(self, recorder: CallRecorder, clock: Clock) -> None:
        """Begin without any.

        Args:
            recorder: Told of every stretch.
            clock: The exchange's time.
        """
        self._recorder = recorder
        self._clock = clock
        self._loads: WeakSet[Load] = WeakSet()

    async def told(self, load: Load, work: Coroutine[Any, Any, CandleSeries]) -> CandleSeries:
        """Await the next stretch of a load, and tell of it.

        Raises:
            StopAsyncIteration: there is none.
            BackboneError: as the load.
        """
        self._loads.add(load)
        started = self._clock.monotonic()
        try:
            series = await work
        except StopAsyncIteration:
            raise
        except asyncio.CancelledError:
            self._recorder.happened("cancelled")
            raise
        except Exception as error:
            name, taken_s = type(error).__name__, self._clock.monotonic() - started
            self._recorder.failed(load.priority, DataType.CANDLE, _PATH, name, taken_s)
            raise
        path = f"{_PATH} → router" if series.source == "rest" else _PATH
        taken_s = self._clock.monotonic() - started
        self._recorder.answered(load.priority, DataType.CANDLE, path, None, taken_s)
        return series

    def count(self, priority: Priority) -> tuple[int, int]:
        """How many of a priority are in work, and how many wait for the load or are paused."""
        states = [load.progress.state for load in self._loads if load.priority is priority]
        waiting = sum(state in _WAITING for state in states)
        return len(states) - waiting - sum(state in _OVER for state in states), waiting
