"""The layers as rows: health, since when, and why."""

from __future__ import annotations

from datetime import datetime

from ui.bridge import RequestAnswer
from ui.moments import korean_time
from ui.monitor.figure_grid import NOTHING, Cell, Column, Ink
from ui.monitor.words import connection_word, health_word, layer_name, translate
from upbit_backbone.clock import epoch_ms
from upbit_backbone.protocol import Health, SystemStatus

LAYERS = ("layer_4", "layer_3", "layer_2", "layer_1")
COLUMNS = (
    Column("●", right=False),
    Column("3 Coordinator", right=False),
    Column("degraded", right=False),
    Column("88:88:88", right=False),
    Column("a reason", right=False, stretch=True),
)
SOURCE_COLUMNS = (Column("Connection", right=False), Column("simulator", right=False, stretch=True))
_INKS: dict[Health, Ink] = {
    "healthy": "text",
    "degraded": "warning",
    "down": "bad",
    "starting": "dim",
}


def layer_rows(status: SystemStatus, today_ms: int) -> list[list[Cell]]:
    """A row for each layer, from the API down."""
    rows = []
    for name in LAYERS:
        layer = status.health.layers[name]
        ink = _INKS[layer.health]
        since = translate("MonitorPanel", "since {0}").format(_moment(layer.since))
        rows.append(
            [
                Cell(light=layer.health),
                Cell(layer_name(name)),
                Cell(health_word(layer.health), ink),
                Cell(_short_moment(layer.since, today_ms), "dim", since),
                Cell(layer.reason, "dim"),
            ]
        )
    return rows


def source_rows(status: SystemStatus, answer: RequestAnswer | None) -> list[list[Cell]]:
    """Where the data comes from, and how the candles that were loaded last came."""
    mark = translate("MonitorPanel", "SIMULATED")
    origin = f"{status.identity} · {mark}" if status.simulated else status.identity
    connection = f"{connection_word(status.connection)} · {origin}"
    return [
        [
            Cell(translate("MonitorPanel", "Connection"), "dim"),
            Cell(connection, "text" if status.connection == "live" else "warning", status.reason),
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


def _short_moment(moment: datetime, today_ms: int) -> str:
    """The time of a moment of today, the date of an earlier one."""
    then, today = korean_time(epoch_ms(moment)), korean_time(today_ms)
    return f"{then:%H:%M:%S}" if then.date() == today.date() else f"{then:%m-%d}"


def _moment(moment: datetime) -> str:
    return f"{korean_time(epoch_ms(moment)):%Y-%m-%d %H:%M:%S} KST"
