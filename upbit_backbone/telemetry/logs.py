"""How a program of ours writes its log; a program that embeds the service keeps its own way."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection

import structlog


def configure_logging(
    level: int = logging.WARNING, *, told_otherwise: Collection[str] = ()
) -> None:
    """Write the log of everything in this process to standard error, one line an event.

    Libraries and this package log to the standard library's `logging`; structlog renders.

    Args:
        level: What is less important is left out.
        told_otherwise: Loggers whose warnings the program tells in its own words: of these
            only errors are written.
    """

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.name not in told_otherwise or record.levelno >= logging.ERROR

    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(is_wanted)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
