"""What Qt itself says goes where all else is logged, and no further."""

from __future__ import annotations

import logging

from PySide6.QtCore import QMessageLogContext, QtMsgType, qInstallMessageHandler

logger = logging.getLogger("qt")

_LEVELS = {
    QtMsgType.QtDebugMsg: logging.DEBUG,
    QtMsgType.QtInfoMsg: logging.INFO,
    QtMsgType.QtWarningMsg: logging.WARNING,
    QtMsgType.QtCriticalMsg: logging.ERROR,
    QtMsgType.QtFatalMsg: logging.CRITICAL,
}
# The offscreen platform says so of every window: it has no window system to pass hints to.
_NO_NEWS = "This plugin does not support "


def log_qt_messages() -> None:
    """Take Qt's messages; before this it writes them to standard error."""
    qInstallMessageHandler(_log)


def _log(kind: QtMsgType, context: QMessageLogContext, text: str) -> None:
    level = logging.DEBUG if text.startswith(_NO_NEWS) else _LEVELS.get(kind, logging.WARNING)
    logger.log(level, "%s", text)
