import json

import pytest

from upbit_backbone.simulator.stream_frames import FORMATS
from upbit_backbone.simulator.subscriptions import StreamError, read_request, split_depth

TICKET = {"ticket": "test"}


def test_a_request_names_types_codes_and_format_in_any_order() -> None:
    subscription = read_request(
        json.dumps(
            [
                TICKET,
                {"format": "SIMPLE"},
                {"type": "trade", "codes": ["KRW-BTC"], "isOnlyRealtime": True},
                {"type": "orderbook", "codes": ["KRW-BTC.5"], "level": "0"},
                {"type": "ticker", "codes": ["KRW-XRP"], "is_only_snapshot": True},
            ]
        )
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
        read_request(request_text)
    assert caught.value.name == name
    assert message in (None, caught.value.message)


def test_the_depth_of_a_book_is_a_suffix_of_its_code() -> None:
    assert split_depth("KRW-BTC") == ("KRW-BTC", 30)
    assert split_depth("KRW-BTC.5") == ("KRW-BTC", 5)
    assert split_depth("KRW-BTC.7") == ("KRW-BTC", 30)
    assert split_depth("KRW-BTC.x") == ("KRW-BTC", 30)
