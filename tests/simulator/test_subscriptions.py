import json
from fractions import Fraction

import pytest

from upbit_backbone.simulator.settings import SimulatorSettings
from upbit_backbone.simulator.stream_frames import FORMATS
from upbit_backbone.simulator.subscriptions import (
    ListRequest,
    StreamError,
    Subscription,
    read_request,
    split_depth,
)

TICKET = {"ticket": "test"}
DEFAULTS = SimulatorSettings()


def subscription_of(*parts: object, settings: SimulatorSettings = DEFAULTS) -> Subscription:
    read = read_request(json.dumps([TICKET, *parts]), settings)
    assert isinstance(read, Subscription)
    return read


def test_a_request_names_types_codes_and_format_in_any_order() -> None:
    subscription = subscription_of(
        {"format": "SIMPLE"},
        {"type": "trade", "codes": ["KRW-BTC"], "isOnlyRealtime": True},
        {"type": "orderbook", "codes": ["KRW-BTC.5"], "level": "0"},
        {"type": "ticker", "codes": ["KRW-XRP"], "is_only_snapshot": True},
    )
    assert subscription.form is FORMATS["SIMPLE"]
    kinds = [(wish.type, wish.snapshot, wish.realtime) for wish in subscription.wishes]
    assert kinds == [("trade", False, True), ("orderbook", True, True), ("ticker", True, False)]


@pytest.mark.parametrize(
    ("request_text", "name", "message"),
    [
        ("no json", "WRONG_FORMAT", "Format 이 맞지 않습니다."),
        ('{"ticket":"x"}', "WRONG_FORMAT", "Format 이 맞지 않습니다."),
        ('["x"]', "WRONG_FORMAT", "Format 이 맞지 않습니다."),
        ('[{"ticket":"x"},{"type":"ticker","codes":["A"]},{"format":"XML"}]', "WRONG_FORMAT", None),
        (
            '[{"type":"ticker","codes":["KRW-BTC"]}]',
            "NO_TICKET",
            "티켓이 존재하지 않거나, 유효하지 않습니다.",
        ),
        (
            '[{"ticket":""},{"type":"ticker","codes":["KRW-BTC"]}]',
            "NO_TICKET",
            "티켓이 존재하지 않거나, 유효하지 않습니다.",
        ),
        ('[{"ticket":7},{"type":"ticker","codes":["A"]}]', "NO_TICKET", None),
        ('[{"ticket":"x"},{"type":["ticker"],"codes":["A"]}]', "INVALID_PARAM", None),
        ('[{"ticket":"x"},{"type":"candle.2m","codes":["A"]}]', "INVALID_PARAM", None),
        ('[{"ticket":"x"},{"type":"ticker","codes":["A"]},{"format":[]}]', "WRONG_FORMAT", None),
        ('[{"ticket":"x"},{"method":"NOPE"}]', "INVALID_PARAM", None),
        ('[{"ticket":"x"},{"type":"orderbook","codes":["A"],"level":"x"}]', "WRONG_FORMAT", None),
        ('[{"ticket":"x"},{"type":"orderbook","codes":["A"],"level":[]}]', "WRONG_FORMAT", None),
        ('[{"ticket":"x"},{"type":"orderbook","codes":["A"],"level":"inf"}]', "WRONG_FORMAT", None),
        ('[{"ticket":"x"}]', "NO_TYPE", None),
        ('[{"ticket":"x"},{"codes":["KRW-BTC"]}]', "NO_TYPE", None),
        ('[{"ticket":"x"},{"type":"ticker"}]', "NO_CODES", None),
        ('[{"ticket":"x"},{"type":"ticker","codes":[]}]', "NO_CODES", None),
        (
            '[{"ticket":"x"},{"type":"nope","codes":["KRW-BTC"]}]',
            "INVALID_PARAM",
            "nope 은 지원하지 않는 타입입니다.",
        ),
        (
            (
                '[{"ticket":"x"},{"type":"ticker","codes":["A"],"is_only_snapshot":true,'
                '"is_only_realtime":true}]'
            ),
            "INVALID_PARAM",
            None,
        ),
    ],
)
def test_a_wrong_request_has_the_exchanges_name_for_it(
    request_text: str, name: str, message: str | None
) -> None:
    with pytest.raises(StreamError) as caught:
        read_request(request_text, DEFAULTS)
    assert caught.value.name == name
    assert message in (None, caught.value.message)


def test_the_depth_of_a_book_is_a_suffix_of_its_code() -> None:
    assert split_depth("KRW-BTC") == ("KRW-BTC", 30)
    assert split_depth("KRW-BTC.5") == ("KRW-BTC", 5)
    assert split_depth("KRW-BTC.7") == ("KRW-BTC", 30)
    assert split_depth("KRW-BTC.x") == ("KRW-BTC", 30)
    assert split_depth("KRW-BTC.15") == ("KRW-BTC", 15)
    assert split_depth("KRW-BTC.٥") == ("KRW-BTC", 30)
    assert split_depth("KRW-BTC." + "9" * 5_000) == ("KRW-BTC", 30)


@pytest.mark.parametrize(
    ("sent", "level"),
    [(0, 0), (None, 0), (10_000, 10_000), ("10000", 10_000), (0.1, "1/10"), ("0.1", "1/10")],
)
def test_a_level_is_a_number_or_a_numeric_string(sent: object, level: object) -> None:
    wishes = subscription_of({"type": "orderbook", "codes": ["KRW-BTC"], "level": sent}).wishes
    assert wishes[0].level == Fraction(str(level))


def test_both_flags_may_ask_for_nothing() -> None:
    both = {"type": "ticker", "codes": ["A"], "is_only_snapshot": True, "is_only_realtime": True}
    wish = subscription_of(both, settings=SimulatorSettings(both_flags_invalid=False)).wishes[0]
    assert (wish.snapshot, wish.realtime) == (False, False)


def test_old_spellings_may_be_ignored() -> None:
    old = {"type": "ticker", "codes": ["A"], "isOnlySnapshot": True}
    assert not subscription_of(old).wishes[0].realtime
    strict = SimulatorSettings(old_names_accepted=False)
    assert subscription_of(old, settings=strict).wishes[0].realtime


def test_every_candle_stream_is_known() -> None:
    units = ["1s", "1m", "3m", "5m", "10m", "15m", "30m", "60m", "240m"]
    parts = [{"type": f"candle.{unit}", "codes": ["KRW-BTC"]} for unit in units]
    assert len(subscription_of(*parts).wishes) == 9


def test_a_question_for_the_list_names_its_ticket_and_format() -> None:
    read = read_request('[{"ticket":"x"},{"method":"LIST_SUBSCRIPTIONS"}]', DEFAULTS)
    assert read == ListRequest("x", None)
    read = read_request(
        '[{"ticket":"x"},{"method":"LIST_SUBSCRIPTIONS"},{"format":"SIMPLE"}]', DEFAULTS
    )
    assert read == ListRequest("x", FORMATS["SIMPLE"])
