"""`docs/api.md` says of every public name what its docstring says today."""

from __future__ import annotations

import inspect
import re

import pytest

from tests.project.source_rules import REPOSITORY
from tools.build_api_docs import PAGE, api_page, public_names

NAMES = public_names()


@pytest.fixture(scope="module")
def page() -> str:
    return api_page()


def test_the_page_is_what_the_docstrings_make_it(page: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == page, (
        "docs/api.md is out of date: run `uv run python tools/build_api_docs.py`"
    )


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_public_name_has_a_heading_and_words(name: str, page: str) -> None:
    plain = name.removeprefix("compat.")
    found = re.search(rf"^### `{plain}`[^\n]*\n\n(.+)", page, re.MULTILINE)
    assert found is not None, f"{name} is not in docs/api.md"
    value = NAMES[name]
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value), f"{name} has no docstring"


def test_public_methods_stand_below_their_class(page: str) -> None:
    for call in ("get_candle_data", "get_indicator", "stream_trades", "iter_candle_chunks"):
        assert f"#### `MarketDataAPI.{call}`" in page
    assert "MarketDataAPI._" not in page


def test_no_path_of_a_machine_is_on_the_page(page: str) -> None:
    assert str(REPOSITORY) not in page
    assert " object at 0x" not in page
