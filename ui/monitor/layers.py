"""The layers as rows: health, since when, and why."""

from __future__ import annotations

from datetime import date, datetime
from functools import lru_cache
from typing import get_args

from ui.bridge import RequestAnswer
from ui.moments import korean_time
from ui.monitor.figure_grid import NOTHING, Cell, Column, Ink
from ui.monitor.words import connection_word, health_word, layer_name, translate
from ui.service_words import service_words
from upbit_backbone.clock import epoch_ms
from upbit_backbone.protocol import Health, LayerStatus, SystemStatus

LAYERS = ("layer_4", "layer_3", "layer_2", "layer_1")
COLUMNS = (
    Column("●", right=False),
    Column("", right=False),
    Column(lambda: map(health_word, get_args(Health)), right=False),
    Column("88:88:88", right=False),
    Column("a reason", right=False, stretch=True),
)
SOURCE_COLUMNS = (Column("", right=False), Column("simulator", right=False, stretch=True))
_INKS: dict[Health, Ink] = {
    "healthy": "text",
    "degraded": "warning",
    "down": "bad",
    "starting": "dim",
}


def layer_rows(status: SystemStatus, today_ms: int) -> list[list[Cell]]:
    """A row for each layer, from the API down."""
    rows = []
    today = korean_time(today_ms).date()
    for name in LAYERS:
        layer = status.health.layers[name]
        ink = _INKS[layer.health]
        since = translate("MonitorPanel", "since {0}").format(_moment(layer.since))
        rows.append(
            [
                Cell(light=layer.health),
                Cell(layer_name(name)),
                Cell(health_word(layer.health), ink, _restarts(layer)),
                Cell(_short_moment(layer.since, today), "dim", since),
                Cell(service_words(layer.reason), "dim"),
            ]
        )
    return rows


def _restarts(layer: LayerStatus) -> str:
    """How often it failed and was begun anew; empty if it never was."""
    restarts = layer.counters.get("restarts", 0.0)
    if not restarts:
        return ""
    return translate("MonitorPanel", "begun anew {0} times").format(f"{restarts:.0f}")


def source_rows(status: SystemStatus, answer: RequestAnswer | None) -> list[list[Cell]]:
    """Where the data comes from, and how the candles that were loaded last came."""
    mark = translate("MonitorPanel", "SIMULATED")
    origin = f"{status.identity} · {mark}" if status.simulated else status.identity
    connection = f"{connection_word(status.connection)} · {origin}"
    return [
        [
            Cell(translate("MonitorPanel", "Connection"), "dim"),
            Cell(
                connection,
                "text" if status.connection == "live" else "warning",
                service_words(status.reason),
            ),
        ],
        [Cell(translate("MonitorPanel", "Last load"), "dim"), _last_load(answer)],
    ]


def _last_load(answer: RequestAnswer | None) -> Cell:
    if answer is None:
        return Cell(NOTHING, "faint")
    metadata = answer.metadata
    source = {
        "websocket": "WebSocket",
        "rest": "REST",
        "cache": translate("MonitorPanel", "memory"),
        "storage": translate("MonitorPanel", "disk"),
        None: NOTHING,
    }[metadata.source]
    text = translate("MonitorPanel", "{0} candles, {1}, {2} ms").format(
        metadata.data_count, source, f"{metadata.processing_time_ms:.0f}"
    )
    return Cell(text, tip=metadata.path)


@lru_cache
def _short_moment(moment: datetime, today: date) -> str:
    """The time of a moment of today, the date of an earlier one."""
    then = korean_time(epoch_ms(moment))
    return f"{then:%H:%M:%S}" if then.date() == today else f"{then:%m-%d}"


@lru_cache
def _moment(moment: datetime) -> str:
    return f"{korean_time(epoch_ms(moment)):%Y-%m-%d %H:%M:%S} KST"
