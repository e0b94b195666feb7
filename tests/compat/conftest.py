"""The shared service of compat, against a simulator in this process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from upbit_backbone import compat


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings as earlier programs get them: from the environment alone."""
    for name in [name for name in os.environ if name.startswith("UPBIT_BACKBONE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UPBIT_BACKBONE_EXCHANGE", "simulator")
    monkeypatch.setenv("UPBIT_BACKBONE_DATA_DIR", str(tmp_path))


@pytest.fixture
async def ended() -> AsyncIterator[None]:
    """The shared service is ended after the test, as a program does at its end."""
    yield
    await compat.shutdown()
