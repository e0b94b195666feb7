"""The captured socket of April 2021: all 1,733 frames, to our adapter and to any client."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from tests.exchanges.recordings import PAYLOADS, captured_frames
from tests.recorder.clients import frames, get, silent, subscribed
from upbit_backbone.clock import ExchangeClock, SystemClock
from upbit_backbone.errors import BackboneError, InvalidRequestError, StorageCorruptError
from upbit_backbone.exchanges.upbit import UpbitAdapter
from upbit_backbone.models import Orderbook, Trade
from upbit_backbone.origin import Origin
from upbit_backbone.recorder.opening import open_recording
from upbit_backbone.recorder.records import StreamRequest, duration_s
from upbit_backbone.recorder.replay import ReplayServer
from upbit_backbone.routing.exchange import StreamEvent

CAPTURE = PAYLOADS / "ws" / "ws_simple_trade_orderbook.20210405.jsonl.gz"
NUMBER = 1_733


def codes_of(kind: str) -> list[str]:
    return sorted({row["cd"] for row in map(json.loads, captured_frames()) if row["ty"] == kind})


def test_it_is_recognised_and_described() -> None:
    recording = open_recording(CAPTURE)
    records = recording.records()
    first = next(records)
    assert isinstance(first, StreamRequest)
    assert "KRW-DAWN" in first.text
    assert sum(1 for _ in records) == NUMBER + 1
    assert (recording.header.form, recording.header.mark) == ("SIMPLE", None)
    assert recording.header.types == ("orderbook", "trade")
    assert recording.header.started_ms // 1_000 == 1_617_646_620  # 2021-04-05 18:17:00 UTC
    assert duration_s(recording) == pytest.approx(118.8, abs=0.5)


@pytest.mark.parametrize("form", ["SIMPLE", "DEFAULT"])
async def test_a_foreign_client_gets_every_frame(form: str) -> None:
    wanted = [{"type": kind, "codes": codes_of(kind)} for kind in ("trade", "orderbook")]
    async with (
        ReplayServer(open_recording(CAPTURE), speed=1_000) as server,
        subscribed(server, *wanted, form=form) as client,
    ):
        assert client.response is not None
        assert client.response.headers["Date"] == "Mon, 05 Apr 2021 18:17:00 GMT"
        got = await frames(client, NUMBER)
        assert await silent(client)
    if form == "SIMPLE":
        assert got == [text.encode() for text in captured_frames()]
    else:
        ids = [json.loads(text).get("sid") for text in captured_frames()]
        assert [json.loads(frame).get("sequential_id") for frame in got] == ids


async def test_our_adapter_decodes_every_frame() -> None:
    kinds: Counter[type] = Counter()
    clock = SystemClock()
    async with (
        ReplayServer(open_recording(CAPTURE), speed=1_000) as server,
        aiohttp.ClientSession() as session,
    ):
        adapter = UpbitAdapter(
            session, rest_url=server.rest_url, ws_url=server.ws_url, origin=Origin("a replay"),
            clock=ExchangeClock(clock), local=clock,
        )  # fmt: skip
        async with adapter.connect() as socket:
            await socket.subscribe({"trade": codes_of("trade"), "orderbook": codes_of("orderbook")})
            async for event in socket.events():
                assert isinstance(event, StreamEvent)
                kinds[type(event.value)] += 1
                if kinds.total() == NUMBER:
                    break
    assert kinds == {Trade: 672, Orderbook: 1_061}


async def test_it_has_no_rest_and_none_is_invented() -> None:
    async with ReplayServer(open_recording(CAPTURE)) as server:
        for target in ("/market/all", "/ticker?markets=KRW-DAWN", "/trades/ticks?market=KRW-DAWN"):
            got = await get(server, target)
            assert got.status == 404
            assert json.loads(got.body)["error"]["message"] == "Code not found"


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"\x1f\x8b", StorageCorruptError, "is damaged"),
        (CAPTURE.read_bytes()[:5_000], StorageCorruptError, "is damaged"),
        (gzip.compress(b"a,b,c\n1,2,3\n"), InvalidRequestError, "is no recording"),
        (gzip.compress(b""), InvalidRequestError, "holds no frame"),
        (
            gzip.compress(b'{"dir":"in","recv_ts":1.0,"raw":"{}"}\n{"dir":"in","raw":"{}"}\n'),
            StorageCorruptError,
            "damaged in line 2",
        ),
    ],
    # A name of their own: gzip puts the second into its bytes, and two workers must agree on it.
    ids=["header", "cut", "no recording", "empty", "line 2"],
)
def test_a_broken_capture_is_named(
    tmp_path: Path, content: bytes, error: type[BackboneError], words: str
) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(content)
    with pytest.raises(error, match=words):
        open_recording(file)


def test_a_capture_with_a_flipped_bit_is_never_replayed(tmp_path: Path) -> None:
    content = CAPTURE.read_bytes()
    for at in random.Random(3).sample(range(200, len(content)), 5):
        file = tmp_path / "a.jsonl.gz"
        file.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        with pytest.raises(BackboneError):
            open_recording(file)
