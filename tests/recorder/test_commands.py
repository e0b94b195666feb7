"""`record` and `replay` as a person meets them: processes, their output, their exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
from asyncio.subprocess import Process
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from tests.eventually import eventually
from tests.recorder.events import decoded
from tests.recorder.fake_exchange import FakeExchange
from tests.recorder.processes import Addresses, command, ended, run, server
from tests.recorder.samples import begin, frame, trade, write
from tests.recorder.samples import ended as end_at
from upbit_backbone import cli
from upbit_backbone.clock import SystemClock
from upbit_backbone.errors import StorageCorruptError
from upbit_backbone.origin import Origin
from upbit_backbone.recorder.command import record, replay, summary
from upbit_backbone.recorder.opening import open_recording
from upbit_backbone.recorder.record import Recorder, Source, Tally, Wanted
from upbit_backbone.recorder.records import AnyRecord, RestAnswer, StreamFrame, duration_s
from upbit_backbone.recorder.replay import ReplayServer
from upbit_backbone.simulator import Simulator

SYMBOLS = ("KRW-BTC", "KRW-XRP")


def flags_of(exchange: FakeExchange) -> tuple[str, ...]:
    return (*Addresses(exchange.rest_url, exchange.ws_url).flags, "--symbols", "KRW-XRP")


async def at_work(process: Process) -> None:
    """Wait until the recorder says that it has subscribed."""
    assert process.stderr is not None
    async with asyncio.timeout(20):
        said = await process.stderr.readline()
    assert said.startswith(b"recording KRW-XRP to "), said


async def test_one_recorder_is_killed_and_one_ended_and_both_can_be_replayed(
    tmp_path: Path,
) -> None:
    killed, whole = tmp_path / "killed.rec", tmp_path / "whole.rec"
    async with (
        FakeExchange() as first,
        FakeExchange() as second,
        command("record", killed, *flags_of(first)) as doomed,
        command("record", whole, *flags_of(second)) as other,
    ):
        await at_work(doomed)
        await at_work(other)
        await eventually(lambda: len(first.sent) > 320, timeout=20)
        sent = len(first.sent)
        code, out, _ = await ended(doomed, signal.SIGKILL)
        assert (code, out) == (-signal.SIGKILL, "")
        code, out, err = await ended(other, signal.SIGINT)
    assert (code, err) == (0, "")
    counts = Counter(map(type, open_recording(whole).records()))
    assert f"{counts[RestAnswer]} answers, {counts[StreamFrame]:,} frames, 0 breaks" in out
    assert open_recording(whole).complete

    recording = open_recording(killed)
    frames = [record.data for record in recording.records() if isinstance(record, StreamFrame)]
    assert not recording.complete
    # Chunks are written at least every second, and here at most 200 frames a second came.
    assert sent - 250 < len(frames) <= sent
    assert frames == first.sent[: len(frames)]
    async with server("replay", killed, "--speed", 1_000) as (served, process):
        events = await decoded(served, SYMBOLS, len(frames), 20)
        code, out, err = await ended(process, signal.SIGTERM)
    assert len(events) == len(frames)
    assert (code, out) == (0, "")
    notice, end = err.splitlines()
    assert str(killed) in notice
    assert "the end is missing" in notice
    assert f"the {duration_s(recording):.1f} s that are whole" in notice
    assert end == "ended"


class ShortSeconds(SystemClock):
    """Of an exchange whose limits count twenty seconds in one; its market lives as ever."""

    def monotonic(self) -> float:
        return 20 * super().monotonic()


async def test_at_1_and_at_100_times_the_events_are_the_same_in_the_same_order(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.rec"
    async with Simulator(first_symbol="KRW-BTC", clock=ShortSeconds()) as simulator:
        source = Source(simulator.rest_url, simulator.ws_url, Origin("simulator-1"))
        wanted = Wanted(("KRW-BTC",), ("ticker", "trade", "orderbook"), "DEFAULT", 1.2)
        recorder = Recorder(
            source, wanted, file, clock=SystemClock(), rng=random.Random(1), spacing_s=0.006
        )
        await recorder.run(asyncio.Event())
    recording = open_recording(file)
    assert recording.header.mark == "simulator-1"
    answers = [record for record in recording.records() if isinstance(record, RestAnswer)]
    assert {answer.status for answer in answers if "/candles/minutes" in answer.target} == {200}
    number = sum(isinstance(record, StreamFrame) for record in recording.records())
    events = {}
    for speed in (1, 100):
        async with ReplayServer(recording, speed=speed) as served:
            addresses = Addresses(served.rest_url, served.ws_url)
            events[speed] = await decoded(addresses, ("KRW-BTC",), number, 20)
    assert events[1] == events[100]
    assert {values["kind"] for _, values in events[1]} == {"Ticker", "Trade", "Orderbook"}
    assert all(values["simulated"] for _, values in events[1])


@pytest.mark.parametrize(
    ("content", "words", "code"),
    [
        (None, "there is no such file", 2),
        (b"", "is empty", 2),
        (b"time,open,high,low,close\n", "is no recording", 2),
        (b"UPBITREC\x01\x00\x00\x00CHN", "breaks off before its header", 1),
        (b"UPBITREC\x01\x00\x00\x00" + bytes(64), "is damaged at byte 12", 1),
    ],
)
def test_what_cannot_be_replayed_is_one_sentence(
    tmp_path: Path, content: bytes | None, words: str, code: int
) -> None:
    file = tmp_path / "a file"
    if content is not None:
        file.write_bytes(content)
    told = CliRunner().invoke(cli.app, ["replay", str(file)])
    assert (told.exit_code, told.stdout) == (code, "")
    assert words in told.stderr
    assert str(file) in told.stderr
    assert len(told.stderr.splitlines()) == 1, told.stderr


async def test_a_bad_speed_and_a_taken_port_are_one_sentence(tmp_path: Path) -> None:
    file = write(tmp_path / "a.rec", [begin(), frame(1.0, trade(1)), end_at(2.0)])
    async with FakeExchange() as exchange:
        port = exchange.rest_url.split(":")[2].split("/")[0]
        taken, slow = await asyncio.gather(
            run("replay", file, "--port", port), run("replay", file, "--speed", "0.5")
        )
    for (code, out, err), words, expected in (
        (taken, f"{port}: the port is taken", 1),
        (slow, "was 0.5", 2),
    ):
        assert (code, out) == (expected, "")
        assert words in err
        assert len(err.splitlines()) == 1, err


async def test_a_recording_that_is_damaged_during_its_replay_ends_it_with_its_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = frame(0.2, random.Random(1).randbytes(100_000))  # more than is read ahead
    records: list[AnyRecord] = [begin(), frame(0.1, trade(1)), large, frame(0.3, trade(2))]
    file = write(tmp_path / "a.rec", records, chunk_after_each=True)
    task = asyncio.create_task(replay(file, speed=1, host="127.0.0.1", port=0))
    printed = ""
    while not printed:
        await asyncio.sleep(0.005)
        printed = capsys.readouterr().out
    os.truncate(file, 20_000)
    async with aiohttp.ClientSession() as session, asyncio.timeout(10):
        async with session.get(json.loads(printed)["rest_url"] + "/market/all"):
            pass  # the time runs from the first question on
        with pytest.raises(StorageCorruptError, match="is damaged at byte"):
            await task
    assert "ended" not in capsys.readouterr().err


async def test_a_recorder_that_is_ended_before_the_first_answer_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.rec"
    async with FakeExchange() as exchange:
        exchange.answering.clear()
        source = Source(exchange.rest_url, exchange.ws_url, Origin("fake"))
        wanted = Wanted(("KRW-XRP",), ("trade",), "DEFAULT", None)
        task = asyncio.create_task(
            record(file, source, wanted, clock=SystemClock(), overwrite=False)
        )
        await eventually(lambda: exchange.asked)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await task
        exchange.answering.set()
    assert capsys.readouterr() == ("", "ended before the first answer: nothing was recorded\n")
    assert not file.exists()


def test_a_recording_is_summed_up_as_json_too(tmp_path: Path) -> None:
    file, tally = tmp_path / "a.rec", Tally(1.25, 4, 1_000, 0, 12_345)
    assert json.loads(summary(file, tally, as_json=True)) == {
        "file": str(file), "seconds": 1.25, "answers": 4, "frames": 1_000, "breaks": 0,
        "size_bytes": 12_345,
    }  # fmt: skip


async def test_what_cannot_be_recorded_is_one_sentence(tmp_path: Path) -> None:
    there = tmp_path / "there.rec"
    there.write_bytes(b"precious")
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))  # and does not listen
    port = silent.getsockname()[1]
    async with FakeExchange() as exchange:
        flags = Addresses(exchange.rest_url, exchange.ws_url).flags
        nobody = Addresses(f"http://127.0.0.1:{port}/v1", exchange.ws_url).flags
        told = await asyncio.gather(
            run("record", there, *flags, "--symbols", "KRW-XRP"),
            run("record", tmp_path / "no" / "a.rec", *flags, "--symbols", "KRW-XRP"),
            run("record", tmp_path / "a.rec", *flags, "--symbols", "KRW-BTX"),
            run("record", tmp_path / "a.rec", *nobody),
        )
    silent.close()
    expected = [
        (2, "exists already"),
        (1, "folder that exists"),
        (2, "closest: KRW-BTC"),
        (1, "was not reached"),
    ]
    for (code, out, err), (failed, words) in zip(told, expected, strict=True):
        assert (code, out) == (failed, "")
        assert words in err
        assert len(err.splitlines()) == 1, err
    assert there.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["there.rec"]
