"""Which bars are in view while one pans, zooms and the market goes on."""

from __future__ import annotations

import pytest

from ui.chart.viewport import MAX_SPAN, MIN_SPAN, Viewport


@pytest.fixture
def view() -> Viewport:
    found = Viewport()
    found.show_latest(999, span=100)
    return found


def test_it_goes_along_with_the_newest_bar_only_while_that_is_in_view(view: Viewport) -> None:
    right = view.right
    view.extend(999, 1_001)
    assert view.right == right + 2
    view.pan(-200, 0, 1_001)
    right = view.right
    view.extend(1_001, 1_002)
    assert view.right == right


def test_zooming_keeps_what_is_under_the_mouse(view: Viewport) -> None:
    view.pan(-300, 0, 999)
    at = view.left + 30
    view.zoom(0.5, at, 0, 999)
    assert view.span == 50
    assert view.left + 15 == pytest.approx(at)


def test_zooming_out_does_not_open_empty_room_behind_the_newest_bar(view: Viewport) -> None:
    for _ in range(10):
        view.zoom(1.3, view.left + 5, 0, 999)
    assert view.right <= 999 + 0.5 + 4


def test_some_bars_stay_in_view_however_far_one_pans(view: Viewport) -> None:
    view.pan(-1e9, 0, 999)
    assert view.right >= 3
    view.pan(1e9, 0, 999)
    assert view.left <= 999


def test_the_span_is_bounded(view: Viewport) -> None:
    view.zoom(1e-9, 500, 0, 999)
    assert view.span == MIN_SPAN
    view.zoom(1e9, 500, 0, 999)
    assert view.span == MAX_SPAN
