"""The service's English sentences on a Korean screen: each pattern is one that the service says."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import msgspec
import pytest

import upbit_backbone
from tests.manual_clock import ManualClock
from tests.ui.samples import M1, NOON_MS, calls, event, gap
from ui.language import Translations
from ui.monitor.event_list import EventModel
from ui.service_words import NAMES, PATTERNS, service_words
from ui.theme import Theme
from upbit_backbone.api.event_bus import EventBusIntegration
from upbit_backbone.api.load_manager import LoadReading, SystemLoadManager, load_terms
from upbit_backbone.api.monitor import _TOLD
from upbit_backbone.errors import UnknownSymbolError
from upbit_backbone.protocol import DataType, Priority
from upbit_backbone.telemetry.alerts import LARGE, Alerts
from upbit_backbone.telemetry.events import EventLog, SpanEvents
from upbit_backbone.telemetry.layer_health import LayerHealthTracker

MB = 2**20
UNKNOWN = UnknownSymbolError("KRW-BTX", ("KRW-BTC",))
SPOKEN_TOGETHER = {
    "{0} is {1}: {2}; it was {3} for {4} s",
    "{0} is {1}; it was {2} for {3} s",
    "LOW waits",
    "trades that the stream lost are read back: {0}: {1}",
    "trades that the stream lost were read back: {0}: {1}",
    "trades that the stream lost cannot be had: {0}: {1}",
    "{0}, and {1} more",
    "{0} {1} calls from memory",
    ("unknown symbol {0}: expected a listed market such as 'KRW-BTC' (quote first); closest: {1}"),
}
"""Not one text of the source, but put together there; the tests below let the service say them."""


@cache
def texts_of_the_service() -> str:
    """Every text in the source of the service, with ``{}`` where something is put in."""
    texts = []
    for module in Path(upbit_backbone.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "{}" for part in node.values
                )
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"{\w+}", "{}", node.value))
    return "\n".join(texts)


@pytest.mark.parametrize("pattern", sorted({*PATTERNS, *NAMES} - SPOKEN_TOGETHER))
def test_the_service_still_says_it(pattern: str) -> None:
    assert re.sub(r"{\d}", "{}", pattern) in texts_of_the_service()


@pytest.fixture
def korean(translations: Translations) -> Translations:
    translations.use("ko")
    return translations


class Service:
    """What the service says when things go wrong, each said by the part that says it."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOON_MS)
        self.log = EventLog(self.clock)

    def sentences(self) -> list[str]:
        return [one.sentence for one in self.log.since(0)]


def test_the_load_and_its_reasons_are_korean(korean: Translations) -> None:
    waits = {Priority.CRITICAL: 0.02, Priority.HIGH: 0.04, Priority.NORMAL: 0.25}
    reading = LoadReading(0.017, waits, 1_500 * MB, 0.64, 0.11)
    terms = load_terms(reading, 2_048 * MB)
    assert [service_words(term.sentence) for term in terms] == [
        "이벤트 루프가 17 ms 늦습니다 (p95)",
        "CRITICAL 호출이 20 ms 기다렸습니다 (목표 50 ms)",
        "HIGH 호출이 40 ms 기다렸습니다 (목표 100 ms)",
        "NORMAL 호출이 250 ms 기다렸습니다 (목표 500 ms)",
        "메모리: 1,500 / 2,048 MB",
        "프로세서: 전체의 64%, 그중 LOW 11%",
    ]


def test_every_band_is_korean_with_its_reason(korean: Translations) -> None:
    service = Service()
    manager = SystemLoadManager(memory_limit_bytes=1_000 * MB, events=service.log)
    for second, used_mb in enumerate((100, 750, 950, 100, 100, 100, 100)):
        manager.observe(LoadReading(rss_bytes=used_mb * MB), float(second))
    assert [service_words(one) for one in service.sentences()] == [
        "부하 75 %, LOW 대기: 메모리: 750 / 1,000 MB",
        "부하 95 %, CRITICAL만 실행, 나머지는 대기: 메모리: 950 / 1,000 MB",
        "부하 10 %, 모든 우선순위 실행: 메모리: 100 / 1,000 MB",
    ]


def test_every_alert_is_korean_when_it_begins_and_when_it_ends(korean: Translations) -> None:
    service = Service()
    alerts = Alerts(service.log, service.clock)
    slow = [
        calls(Priority.CRITICAL, DataType.TICKER, "peek", 200, 7.0),
        calls(Priority.HIGH, DataType.ORDERBOOK, "direct: api → storage", 200, 700.0),
        calls(Priority.NORMAL, DataType.CANDLE, f"bus: api → router{LARGE}", 200, 2_700.0),
        calls(Priority.NORMAL, DataType.TICKER, "bus: api → router", 99, 1_600.0),
    ]
    failing = calls(Priority.NORMAL, DataType.TRADE, "bus: api → router", 200, 1.0)
    slow.append(msgspec.structs.replace(failing, error_rate=0.5, requests=400))
    for now, bad in ((0.0, True), (40.0, True), (41.0, False), (90.0, False)):
        alerts.observe_load(70.0 if bad else None, "memory: 750 MB of 1,000 MB", now)
        alerts.observe_calls(slow if bad else (), now)
        alerts.observe_hits(0.5 if bad else 0.99, 200, now)
    begun = [
        "부하가 계속 70 %를 넘고 있습니다: 메모리: 750 / 1,000 MB",
        "메모리에서 응답한 CRITICAL 현재가 호출의 p99가 7 ms입니다 (목표 1 ms)",
        "HIGH 호가 호출의 p99가 700 ms입니다 (목표 100 ms)",
        "캔들 401~1,000개 NORMAL 요청의 p99가 2700 ms입니다 (목표 1000 ms)",
        "NORMAL 현재가 호출의 p95가 800 ms입니다 (목표 500 ms)",
        "메모리와 저장소에서 응답한 비율이 50%뿐입니다 (기준 85%)",
    ]
    said = [service_words(one) for one in service.sentences()]
    assert {*begun} <= {*said}
    assert {f"해제됨: {one}" for one in begun} <= {*said}
    assert any("NORMAL 체결 호출의 50%가 실패했습니다" in one for one in said)


def test_what_layers_count_is_korean(korean: Translations) -> None:
    sentences = [sentence.format(times=3) for *_, sentence in _TOLD.values()]
    assert [service_words(one) for one in sentences] == [
        "거래소가 이 주소를 차단했습니다: 3회",
        "실시간 연결이 끊겼습니다: 3회",
        "실시간 연결을 다시 맺었습니다: 3회",
    ]


def test_gaps_and_revisions_are_korean_with_their_names(korean: Translations) -> None:
    service, spans = Service(), SpanEvents()
    for state in ("open", "closed", "unfillable"):
        spans.gap(gap(state, 0, 3))
    for symbol in "ABCDEFG":
        spans.revised(f"KRW-{symbol}", M1, [NOON_MS], "a trade came late")
    spans.tell(service.log)
    where = "KRW-BTC 2025-10-16 12:00:00 – 12:00:03 UTC — the connection was lost"
    *gaps, revised = [service_words(one) for one in service.sentences()]
    assert gaps == [
        f"놓친 체결을 다시 읽는 중: {where}",
        f"놓친 체결을 다시 읽었습니다: {where}",
        f"놓친 체결을 구할 수 없습니다: {where}",
    ]
    assert revised.startswith("캔들을 정정했습니다 (늦게 도착한 체결): KRW-A 1m 2025-10-16")
    assert revised.endswith(" 외 2건")


def test_the_bus_and_its_throttle_are_korean(korean: Translations) -> None:
    service = Service()
    manager = SystemLoadManager(memory_limit_bytes=MB)
    bus = EventBusIntegration(clock=service.clock, events=service.log, load=manager, slots=1)
    bus.emergency_throttle().release()
    bus._go_away("RuntimeError: broken")
    bus._come_back()
    assert [service_words(one) for one in service.sentences()] == [
        "LOW를 멈췄습니다: 긴급 제한",
        "LOW를 다시 실행합니다",
        "이벤트 버스가 멈춰 호출을 직접 보냅니다: RuntimeError: broken",
        "이벤트 버스가 다시 작동합니다",
    ]


def test_a_layers_health_is_korean_with_its_reason(korean: Translations) -> None:
    service = Service()
    tracker = LayerHealthTracker(service.log, service.clock, ("layer_1", "layer_2"))
    full = (
        "/d/m.db cannot be used now (database or disk is full): check that the folder can"
        " be written, the disk is not full and no other program holds the file"
    )
    for health, reason in (
        ("healthy", ""),
        ("degraded", full),
        ("down", "not running"),
    ):
        service.clock.advance(2.0)
        tracker.observe("layer_2", health, reason)  # type: ignore[arg-type]
    words = [service_words(one) for one in service.sentences()]
    assert words == [
        "2 저장: 정상 (그 전 2초 동안 시작 중)",
        (
            "2 저장: 저하 — 디스크에 남은 공간이 없습니다: /d/m.db 파일을 지금 쓸 수 없습니다."
            " 폴더의 쓰기 권한과 디스크의 남은 공간, 다른 프로그램이 파일을 잡고 있는지 확인하세요"
            " (그 전 2초 동안 정상)"
        ),
        "2 저장: 중단 — 실행 중이 아닙니다 (그 전 2초 동안 저하)",
    ]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        (
            (
                "candles of KRW-BTC 1m: 127.0.0.1:9 was not reached or cut the answer off"
                " (Connection refused); check the connection and try again"
            ),
            (
                "연결 거부: 127.0.0.1:9에 연결할 수 없거나 응답이 끊겼습니다 (KRW-BTC 1m 캔들)."
                " 네트워크를 확인하세요"
            ),
        ),
        (
            "polled by REST once a second: stream: the connection was lost (reset); open another",
            "REST로 1초마다 조회 중: 실시간 연결이 끊겼습니다 (reset). 다시 연결합니다",
        ),
        (
            "the exchange blocks REST for another 42 s (418)",
            "거래소가 REST를 차단 중입니다 (418): 42초 남음",
        ),
        (
            "ticker of KRW-BTC is silent for 12 s (usually at most 3 s)",
            "KRW-BTC 현재가: 12초 동안 소식이 없습니다 (보통 3초 이내)",
        ),
        (
            "p99 of NORMAL loads of 401 to 1,000 candles is 1200 ms, promised are 1000 ms",
            "캔들 401~1,000개 NORMAL 요청의 p99가 1200 ms입니다 (목표 1000 ms)",
        ),
        (
            "p95 of CRITICAL ticker calls from memory is 1.1 ms, promised are 1 ms",
            "메모리에서 응답한 CRITICAL 현재가 호출의 p95가 1.1 ms입니다 (목표 1 ms)",
        ),
        (
            (
                "trades that the stream lost are read back: KRW-BTC 2025-10-16 12:00:00 UTC:"
                " trades of KRW-BTC were lost on the way"
            ),
            (
                "놓친 체결을 다시 읽는 중: KRW-BTC 2025-10-16 12:00:00 UTC"
                " — KRW-BTC 체결이 오는 길에 사라졌습니다"
            ),
        ),
        ("KRW-BTC: not proved to be complete", "KRW-BTC: 빠진 것이 없는지 확인되지 않았습니다"),
        (
            "the connection ended; nobody reads all trades, so they were not read back",
            "연결이 끝났습니다 — 모든 체결을 받는 곳이 없어 다시 읽지 않았습니다",
        ),
        (
            f"a pinned market has no candles to keep: {UNKNOWN}",
            (
                "고정한 마켓에 보관할 캔들이 없습니다: 'KRW-BTX' 마켓은 없습니다."
                " 'KRW-BTC'처럼 상장된 마켓이어야 합니다. 비슷한 마켓: KRW-BTC"
            ),
        ),
        ("reset by peer", "reset by peer"),
        ("", ""),
    ],
)
def test_reasons_are_korean_as_far_as_they_are_known(
    korean: Translations, sentence: str, words: str
) -> None:
    assert service_words(sentence) == words


def test_an_english_screen_shows_the_services_own_words(translations: Translations) -> None:
    translations.use("ko")
    assert service_words("not running") == "실행 중이 아닙니다"
    translations.use("en")
    assert service_words("not running") == "not running"


def test_the_event_log_speaks_korean(theme: Theme, korean: Translations) -> None:
    model = EventModel(theme)
    model.add((event(1, sentence="LOW is not paused any more"), event(2, sentence="unheard of")))
    assert [model.index(row, 4).data() for row in (0, 1)] == [
        "unheard of",
        "LOW를 다시 실행합니다",
    ]
