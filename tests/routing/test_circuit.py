"""A 418 stops every request of this program, also after it was started again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.eventually import eventually
from tests.manual_clock import ManualClock
from tests.routing.conftest import OpenRouter
from tests.routing.fake_exchange import FakeExchange
from tests.routing.test_router import CANDLE, TICKER, ask
from upbit_backbone.errors import RateLimitedError
from upbit_backbone.routing.circuit import LONGEST_S, Circuit


def test_a_block_lasts_as_long_as_the_exchange_says(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    circuit = Circuit(clock, None)
    circuit.check()
    circuit.open(37.0)
    with pytest.raises(RateLimitedError, match=r"until 00:00:37 UTC \(418\)") as caught:
        circuit.check()
    assert caught.value.blocked
    assert caught.value.retry_after_s == pytest.approx(37.0)
    circuit.open(5.0)  # a shorter one changes nothing
    clock.advance(36.9)
    assert circuit.left_s == pytest.approx(0.1)
    clock.advance(0.2)
    circuit.check()
    assert circuit.blocks == 1


def test_where_the_exchange_does_not_say_how_long_it_doubles_from_a_minute(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    circuit = Circuit(clock, None)
    waits = []
    for _ in range(3):
        circuit.open(None)
        waits.append(circuit.left_s)
        clock.advance(circuit.left_s)
    circuit.answered(clock.monotonic())
    circuit.open(None)
    assert [*waits, circuit.left_s] == [60.0, 120.0, 240.0, 60.0]


def test_the_answer_to_a_request_sent_before_a_block_does_not_end_the_doubling(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    circuit = Circuit(clock, None)
    sent_s = clock.monotonic()
    clock.advance(0.1)
    circuit.open(None)
    circuit.answered(sent_s)
    clock.advance(circuit.left_s)
    circuit.open(None)
    assert circuit.left_s == 120.0


async def test_a_block_survives_a_restart(
    clock: ManualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "upbit" / "block.json"
    before = Circuit(clock, file)
    before.open(100.0)
    await before.note()
    clock.advance(40)
    after = Circuit(clock, file)
    await after.recall()
    assert after.left_s == pytest.approx(60.0, abs=0.01)
    clock.advance(61)
    over = Circuit(clock, file)
    await over.recall()
    assert over.left_s == 0


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"blocked_until_ms": "soon"}', b"\xff\xfe", b"{}"]
)
async def test_a_note_that_is_not_understood_is_said_and_not_used(
    clock: ManualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    file = tmp_path / "block.json"
    file.write_bytes(text)
    circuit = Circuit(clock, file)
    await circuit.recall()
    circuit.check()
    assert "was not understood" in caplog.text


async def test_a_block_that_a_wrong_clock_noted_is_not_believed(
    clock: ManualClock, tmp_path: Path
) -> None:
    file = tmp_path / "block.json"
    file.write_text(f'{{"blocked_until_ms": {clock.now_ms() + int(LONGEST_S + 60) * 1_000}}}')
    circuit = Circuit(clock, file)
    await circuit.recall()
    circuit.check()


async def test_a_note_that_cannot_be_written_stops_nothing(
    clock: ManualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    circuit = Circuit(clock, tmp_path / "file" / "block.json")
    circuit.open(5.0)
    await circuit.note()
    assert "was not kept" in caplog.text
    assert circuit.left_s == pytest.approx(5.0)


@pytest.mark.steered_time
async def test_after_a_418_no_group_is_asked_anything_until_it_is_over(
    open_router: OpenRouter, exchange: FakeExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.fail_next(RateLimitedError("418", blocked=True, retry_after_s=0.4))
    async with open_router() as router:
        with pytest.raises(RateLimitedError) as caught:
            await router.fetch(ask(CANDLE))
        assert caught.value.blocked
        asked = sum(exchange.rest_calls.values())
        with pytest.raises(RateLimitedError, match="blocks this address until"):
            await router.fetch(ask(TICKER))
        assert sum(exchange.rest_calls.values()) == asked
        status = router.status()
        assert status.health == "degraded"
        assert "418" in status.reason
        await eventually(lambda: router.status().counters["blocked_s"] == 0)
        await router.fetch(ask(TICKER))
        assert router.status().health == "healthy"
