"""What the monitor calls things, in the language of the program."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from upbit_backbone.protocol import DataType, EventKind, Health, Severity

# lupdate finds what is to be translated by the name of this function.
translate = QCoreApplication.translate


def health_word(health: Health) -> str:
    """One word for the state of a layer."""
    match health:
        case "healthy":
            return translate("MonitorPanel", "healthy")
        case "degraded":
            return translate("MonitorPanel", "degraded")
        case "down":
            return translate("MonitorPanel", "down")
        case "starting":
            return translate("MonitorPanel", "starting")


def layer_name(layer: str) -> str:
    """``1 Routing`` … ``4 API``."""
    match layer:
        case "layer_4":
            return translate("MonitorPanel", "4 API")
        case "layer_3":
            return translate("MonitorPanel", "3 Coordinator")
        case "layer_2":
            return translate("MonitorPanel", "2 Storage")
        case "layer_1":
            return translate("MonitorPanel", "1 Routing")
    return layer


def connection_word(connection: str) -> str:
    """How prices come."""
    match connection:
        case "live":
            return translate("MonitorPanel", "live")
        case "connecting":
            return translate("MonitorPanel", "connecting")
        case "polling":
            return translate("MonitorPanel", "polled by REST")
        case "offline":
            return translate("MonitorPanel", "offline")
    return connection


def data_word(data_type: DataType) -> str:
    """What was asked for."""
    match data_type:
        case DataType.CANDLE:
            return translate("MonitorPanel", "candles")
        case DataType.TICKER:
            return translate("MonitorPanel", "ticker")
        case DataType.ORDERBOOK:
            return translate("MonitorPanel", "order book")
        case DataType.TRADE:
            return translate("MonitorPanel", "trades")


def term_name(name: str) -> str:
    """A reason for load."""
    match name:
        case "event loop":
            return translate("MonitorPanel", "Event loop")
        case "CRITICAL waits":
            return translate("MonitorPanel", "CRITICAL waits")
        case "HIGH waits":
            return translate("MonitorPanel", "HIGH waits")
        case "NORMAL waits":
            return translate("MonitorPanel", "NORMAL waits")
        case "memory":
            return translate("MonitorPanel", "Memory")
        case "processor":
            return translate("MonitorPanel", "Processor")
    return name


def alert_sentence(name: str, sentence: str) -> str:
    """An alert in a few words; the service's own where it is not known."""
    if name == "load":
        return translate("MonitorPanel", "the load stays high")
    if name == "hit rate":
        return translate("MonitorPanel", "too few answers come from memory and disk")
    if name.startswith("errors "):
        priority = name.removeprefix("errors ")
        return translate("MonitorPanel", "too many {0} calls fail").format(priority)
    if name == "slow large NORMAL":
        return translate("MonitorPanel", "NORMAL loads of many candles are slower than promised")
    if name.startswith("slow "):
        priority = name.removeprefix("slow ")
        return translate("MonitorPanel", "{0} is slower than promised").format(priority)
    return sentence


def count_name(name: str) -> str:
    """Something that is counted."""
    match name:
        case "coalesced":
            return translate("MonitorPanel", "Coalesced")
        case "retried":
            return translate("MonitorPanel", "Retried")
        case "shed":
            return translate("MonitorPanel", "Held back by load")
        case "http_429":
            return translate("MonitorPanel", "Too many (429)")
        case "http_418":
            return translate("MonitorPanel", "Blocked (418)")
        case "reconnects":
            return translate("MonitorPanel", "Reconnects")
        case "gaps":
            return translate("MonitorPanel", "Gaps in trades")
        case "revisions":
            return translate("MonitorPanel", "Revised candles")
        case "cancelled":
            return translate("MonitorPanel", "Given up by callers")
    return name


def severity_word(severity: Severity) -> str:
    """How grave an event is."""
    match severity:
        case "info":
            return translate("MonitorPanel", "note")
        case "warning":
            return translate("MonitorPanel", "warning")
        case "error":
            return translate("MonitorPanel", "error")


def kind_word(kind: EventKind) -> str:
    """What an event is about."""
    match kind:
        case "gap":
            return translate("MonitorPanel", "gap")
        case "ban":
            return translate("MonitorPanel", "block")
        case "reconnect":
            return translate("MonitorPanel", "reconnect")
        case "health":
            return translate("MonitorPanel", "health")
        case "load":
            return translate("MonitorPanel", "load")
        case "revision":
            return translate("MonitorPanel", "revision")
        case "alert":
            return translate("MonitorPanel", "alert")


def milliseconds(value: float) -> str:
    """Three figures: ``0.42``, ``4.20``, ``42.0``, ``420``; from ten seconds on ``12.3s``."""
    if value >= 9_999.5:
        return f"{value / 1e3:.1f}s"
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def count(times: float) -> str:
    """How often, in at most six signs: ``12,345``, ``123k``, ``12.3M``."""
    if times >= 999_500:
        return f"{times / 1e6:.1f}M"
    return f"{times / 1e3:.0f}k" if times >= 99_999.5 else f"{times:,.0f}"


def rate(value: float) -> str:
    """A rate in at most four signs: ``0.02``, ``3.4``, ``120``, ``1.3k``."""
    if 0 < value < 0.995:
        return f"{value:.2f}"
    if value >= 999.5:
        return f"{value / 1e3:.{1 if value < 9_950 else 0}f}k"
    return f"{value:,.{1 if value < 99.95 else 0}f}"


def size(size_bytes: float) -> str:
    """``640 KB``, ``12.3 MB``, ``1.25 GB``."""
    for unit, name, decimals in ((2**30, "GB", 2), (2**20, "MB", 1)):
        if size_bytes >= unit:
            return f"{size_bytes / unit:,.{decimals}f} {name}"
    return f"{size_bytes / 2**10:,.0f} KB"
