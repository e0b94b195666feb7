"""The side door: the truth about what happened, and faults by JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import websockets

from tests.manual_clock import AUTUMN_2025_MS, ManualClock
from tests.simulator.worlds import Answer, Caller
from upbit_backbone.clock import DAY_MS, MINUTE_MS
from upbit_backbone.simulator import Simulator
from upbit_backbone.simulator.control import is_loopback

TICKER = "/ticker?markets=KRW-ETH"

pytestmark = pytest.mark.usefixtures("shared_tables")


@dataclass(frozen=True)
class Control:
    """A client of the side door."""

    simulator: Simulator
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str = "", **options: Any) -> Answer:
        url = self.simulator.control_url + path
        async with self.session.request(method, url, **options) as response:
            return Answer(response.status, response.headers, await response.json())

    async def state(self) -> dict[str, Any]:
        answer = await self.ask("GET")
        assert answer.status == 200
        assert isinstance(answer.body, dict)
        return answer.body


@pytest.fixture
async def control(simulator: Simulator) -> AsyncIterator[Control]:
    async with aiohttp.ClientSession() as session:
        yield Control(simulator, session)


async def test_it_tells_what_was_counted(
    simulator: Simulator, caller: Caller, control: Control, clock: ManualClock
) -> None:
    assert await control.state() == {
        "name": "simulator-1",
        "now_ms": AUTUMN_2025_MS,
        "served": {},
        "refused": {},
        "banned": {},
        "peaks": {},
        "bans": {},
        "connections": 0,
        "subscriptions": [],
        "faults": [],
    }
    for _ in range(6):
        await caller.get(TICKER)
    clock.advance(0.9)
    for _ in range(30):
        await caller.get(TICKER)
    clock.advance(4)
    await caller.get("/market/all")
    state = await control.state()
    assert state["now_ms"] == clock.now_ms()
    assert state["served"] == {"ticker": 10}
    assert state["refused"] == {"ticker": 20}
    assert state["banned"] == {"ticker": 6, "market": 1}
    assert state["peaks"] == {"ticker": 36, "market": 1}
    assert state["bans"] == {"127.0.0.1": pytest.approx(6)}


async def test_a_reset_forgets_counts_and_bans(caller: Caller, control: Control) -> None:
    for _ in range(31):
        await caller.get(TICKER)
    assert (await caller.get(TICKER)).status == 418
    assert (await control.ask("POST", "/reset")).status == 200
    state = await control.state()
    assert [state[name] for name in ("served", "refused", "banned", "peaks", "bans")] == [{}] * 5
    assert (await caller.get(TICKER)).status == 200


async def test_it_tells_connections_and_what_they_asked_for(
    simulator: Simulator, control: Control
) -> None:
    async with (
        websockets.connect(simulator.ws_url) as first,
        websockets.connect(simulator.ws_url),
    ):
        await first.send(
            '[{"ticket":"x"},{"type":"ticker","codes":["KRW-BTC","KRW-ETH"]},'
            '{"type":"orderbook","codes":["KRW-BTC.5"]},{"type":"ticker","codes":["KRW-XRP"]}]'
        )
        await first.recv()
        state = await control.state()
    assert state["connections"] == 2
    assert sorted(state["subscriptions"], key=len) == [
        {},
        {"ticker": ["KRW-BTC", "KRW-ETH", "KRW-XRP"], "orderbook": ["KRW-BTC.5"]},
    ]


async def test_it_tells_the_exact_trades_between_two_instants(
    caller: Caller, control: Control, clock: ManualClock
) -> None:
    clock.advance(3_600)
    path = f"/trades?market=KRW-ETH&from_ms={AUTUMN_2025_MS}&to_ms="
    answer = await control.ask("GET", f"{path}{AUTUMN_2025_MS + MINUTE_MS}")
    minute = await caller.rows("/trades/ticks", market="KRW-ETH", to="00:01:00", count=500)
    assert answer.body == minute[::-1] != []
    for bad in (f"{path}{AUTUMN_2025_MS + 2 * DAY_MS}", "/trades?market=KRW-ETH", f"{path}noon"):
        assert (await control.ask("GET", bad)).status == 400
    unknown = await control.ask("GET", "/trades?market=KRW-NONE&from_ms=0&to_ms=1")
    assert unknown.error == (404, 404, "Code not found")


async def test_more_trades_than_it_can_tell_are_refused_and_not_cut(
    control: Control, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/trades?market=KRW-ETH&from_ms={AUTUMN_2025_MS}&to_ms={AUTUMN_2025_MS + MINUTE_MS}"
    clock.advance(60)
    number = len((await control.ask("GET", path)).body)
    monkeypatch.setattr("upbit_backbone.simulator.control.MOST_TRADES", number)
    assert len((await control.ask("GET", path)).body) == number
    monkeypatch.setattr("upbit_backbone.simulator.control.MOST_TRADES", number - 1)
    refused = await control.ask("GET", path)
    assert refused.status == 400
    assert f"more than {number - 1} trades" in refused.error[2]


async def test_trades_that_have_not_happened_are_not_told(
    control: Control, clock: ManualClock
) -> None:
    path = f"/trades?market=KRW-ETH&from_ms={AUTUMN_2025_MS}&to_ms={AUTUMN_2025_MS + MINUTE_MS}"
    clock.advance(20)
    early = (await control.ask("GET", path)).body
    assert max(row["timestamp"] for row in early) <= clock.now_ms()
    clock.advance(40)
    assert len((await control.ask("GET", path)).body) > len(early) > 0


@pytest.mark.parametrize("far_ms", [-(10**18), -1, 10**15, 10**18, 10**40])
async def test_far_times_are_answered_too(control: Control, far_ms: int) -> None:
    path = f"/trades?market=KRW-ETH&from_ms={far_ms}&to_ms={far_ms + 1_000}"
    answer = await control.ask("GET", path)
    assert (answer.status, answer.body) == (200, []) or answer.status == 400


async def test_faults_are_added_listed_and_cleared(caller: Caller, control: Control) -> None:
    words = {"kind": "empty", "group": "ticker", "count": 5, "until": 60}
    added = await control.ask("POST", "/faults", json=words)
    assert (added.status, added.body) == (201, {"id": 1})
    assert (await control.ask("POST", "/faults", json={"kind": "latency", "ms": 0})).body == {
        "id": 2
    }
    assert await caller.rows("/ticker", markets="KRW-ETH") == []
    first, second = (await control.ask("GET", "/faults")).body
    assert first == {
        "id": 1,
        "kind": "empty",
        "group": "ticker",
        "count": 5,
        "rate": 1.0,
        "until_ms": AUTUMN_2025_MS + MINUTE_MS,
        "seed": 0,
        "asked": 1,
        "fired": 1,
    }
    assert (second["id"], second["kind"], second["fired"]) == (2, "latency", 1)
    assert (await control.state())["faults"] == [first, second]
    assert (await control.ask("DELETE", "/faults/1")).status == 200
    assert (await control.ask("DELETE", "/faults/1")).error[:2] == (404, 404)
    assert (await control.ask("DELETE", f"/faults/{'9' * 5_000}")).status == 404
    assert [fault["id"] for fault in (await control.ask("GET", "/faults")).body] == [2]
    assert await caller.rows("/ticker", markets="KRW-ETH")
    assert (await control.ask("DELETE", "/faults")).status == 200
    assert (await control.ask("GET", "/faults")).body == []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "a fault must be a JSON object"),
        (b"[]", "a fault must be a JSON object"),
        (b"{}", "a fault needs its kind"),
        (b'{"kind":"x"}', "no fault is called 'x'"),
        (b'{"kind":"429","count":"x"}', "count of fault '429' was 'x'"),
        (b'{"kind":"429","symbol":7}', "symbol of fault '429' was 7"),
        (b'{"kind":"429","from":1e300}', "from of fault '429' was 1e+300"),
        (b'{"kind":"429","from":[]}', "from of fault '429' was []"),
        (b'{"kind":"418","s":0}', "s of fault '418' was 0: expected more than 0 seconds"),
        (b'{"kind":"\xff"}', "a fault must be a JSON object"),
        (b'{"kind":' + b"[" * 100_000, "a fault must be a JSON object"),
        (b'{"kind":"429","seed":' + b"9" * 400 + b"}", "seed of fault '429' was"),
    ],
)
async def test_what_is_no_fault_is_refused(control: Control, body: bytes, sentence: str) -> None:
    answer = await control.ask("POST", "/faults", data=body)
    assert answer.status == 400
    assert sentence in answer.error[2]
    assert (await control.ask("GET", "/faults")).body == []


async def test_it_is_neither_limited_nor_struck(caller: Caller, control: Control) -> None:
    await control.ask("POST", "/faults", json={"kind": "503"})
    assert [(await control.ask("GET")).status for _ in range(20)] == [200] * 20
    assert "remaining-req" not in (await control.ask("GET")).headers


@pytest.mark.parametrize(
    ("address", "is_ours"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.168.0.7", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("8.8.8.8", False),
        ("", False),
        (None, False),
    ],
)
def test_only_callers_of_this_machine_are_let_in(address: str | None, is_ours: bool) -> None:
    assert is_loopback(address) == is_ours


async def test_for_other_machines_it_does_not_exist(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("upbit_backbone.simulator.control.is_loopback", lambda _: False)
    for method, path in (("GET", ""), ("POST", "/reset"), ("DELETE", "/faults")):
        assert (await control.ask(method, path)).error[:2] == (404, "not_found")
