"""Replays of recordings that a test makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.manual_clock import ManualClock
from tests.recorder.samples import write
from upbit_backbone.recorder.opening import open_recording
from upbit_backbone.recorder.records import AnyRecord
from upbit_backbone.recorder.replay import ReplayServer

ReplayOf = Callable[..., ReplayServer]


@pytest.fixture
def replay_of(tmp_path: Path, clock: ManualClock) -> ReplayOf:
    """Make a server of these records, whose time passes in the test's `clock`."""

    def make(records: Iterable[AnyRecord], *, speed: float = 1.0, **of: Any) -> ReplayServer:
        path = write(tmp_path / "a.rec", records, **of)
        return ReplayServer(open_recording(path), speed=speed, clock=clock)

    return make
