"""What the service says of itself, in the language of the screen.

The service speaks English sentences, without codes. Here each sentence that a person meets at the
window has its pattern: the sentence itself, with places for what changes. It is the source text of
the translation, too. What stands in a place may be a sentence of its own, e.g. the reason of a
layer's health. What is not known is shown as the service put it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, get_args

from PySide6.QtCore import QCoreApplication

from ui.monitor.words import data_word, health_word, layer_name
from upbit_backbone.protocol import DataType, Health

if TYPE_CHECKING:

    def QT_TRANSLATE_NOOP(context: str, text: str) -> str: ...  # Qt's own is said to give objects

else:
    from PySide6.QtCore import QT_TRANSLATE_NOOP

# lupdate finds what is to be translated by the names of these functions.
translate = QCoreApplication.translate

_CONTEXT: Final = "ServiceWords"
_INDEXED: Final = 6
"""So many first letters choose the few patterns that are tried."""
_KEPT: Final = 512

PATTERNS: Final[tuple[str, ...]] = (
    # The load
    QT_TRANSLATE_NOOP("ServiceWords", "the event loop is {0} ms late (p95)"),
    QT_TRANSLATE_NOOP("ServiceWords", "a {0} call has waited for {1} ms, promised are {2} ms"),
    QT_TRANSLATE_NOOP("ServiceWords", "memory: {0} MB of {1} MB"),
    QT_TRANSLATE_NOOP("ServiceWords", "processors: {0} of the machine, {1} of it for LOW"),
    QT_TRANSLATE_NOOP("ServiceWords", "load {0} %, {1}: {2}"),
    QT_TRANSLATE_NOOP("ServiceWords", "every priority may run"),
    QT_TRANSLATE_NOOP("ServiceWords", "LOW waits"),
    QT_TRANSLATE_NOOP("ServiceWords", "all but CRITICAL wait"),
    QT_TRANSLATE_NOOP("ServiceWords", "LOW is paused: {0}"),
    QT_TRANSLATE_NOOP("ServiceWords", "LOW is not paused any more"),
    QT_TRANSLATE_NOOP("ServiceWords", "emergency throttle"),
    # Alerts
    QT_TRANSLATE_NOOP("ServiceWords", "the load has been above {0} %: {1}"),
    QT_TRANSLATE_NOOP("ServiceWords", "{0} of {1} is {2} ms, promised are {3} ms"),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "only {0} of the answers came from memory and the store, expected are {1}",
    ),
    QT_TRANSLATE_NOOP("ServiceWords", "{0} of {1} failed, expected are at most {2}"),
    QT_TRANSLATE_NOOP("ServiceWords", "no longer: {0}"),
    # What layers count
    QT_TRANSLATE_NOOP("ServiceWords", "the exchange blocked this address: {0} time(s)"),
    QT_TRANSLATE_NOOP("ServiceWords", "streams lost their connection: {0} time(s)"),
    QT_TRANSLATE_NOOP("ServiceWords", "streams were connected again: {0} time(s)"),
    QT_TRANSLATE_NOOP("ServiceWords", "trades that the stream lost are read back: {0}: {1}"),
    QT_TRANSLATE_NOOP("ServiceWords", "trades that the stream lost were read back: {0}: {1}"),
    QT_TRANSLATE_NOOP("ServiceWords", "trades that the stream lost cannot be had: {0}: {1}"),
    QT_TRANSLATE_NOOP("ServiceWords", "candles were revised, {0}: {1}"),
    QT_TRANSLATE_NOOP("ServiceWords", "the exchange states it differently now"),
    QT_TRANSLATE_NOOP("ServiceWords", "the self-audit read it otherwise"),
    QT_TRANSLATE_NOOP("ServiceWords", "a trade came late"),
    QT_TRANSLATE_NOOP("ServiceWords", "{0}, and {1} more"),
    # Health
    QT_TRANSLATE_NOOP("ServiceWords", "{0} is {1}: {2}; it was {3} for {4} s"),
    QT_TRANSLATE_NOOP("ServiceWords", "{0} is {1}; it was {2} for {3} s"),
    QT_TRANSLATE_NOOP("ServiceWords", "not running"),
    QT_TRANSLATE_NOOP("ServiceWords", "it was stopped"),
    QT_TRANSLATE_NOOP("ServiceWords", "it was cancelled"),
    QT_TRANSLATE_NOOP("ServiceWords", "it ended"),
    QT_TRANSLATE_NOOP("ServiceWords", "the task {0} is gone: {1}"),
    QT_TRANSLATE_NOOP("ServiceWords", "it could not be begun anew: {0}"),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "{0} did not start within {1} s: look at disk and network, and try again",
    ),
    QT_TRANSLATE_NOOP("ServiceWords", "the event bus failed and calls go down directly: {0}"),
    QT_TRANSLATE_NOOP("ServiceWords", "the event bus works again"),
    QT_TRANSLATE_NOOP("ServiceWords", "the service is not watched: {0}"),
    QT_TRANSLATE_NOOP("ServiceWords", "figures are served at {0}"),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "metrics cannot be served on {0}:{1}: {2}; expected a free port of this machine: give"
        " another metrics_port, or 0 for any",
    ),
    QT_TRANSLATE_NOOP("ServiceWords", "the port is taken"),
    # The stream
    QT_TRANSLATE_NOOP("ServiceWords", "nobody reads a stream"),
    QT_TRANSLATE_NOOP("ServiceWords", "somebody reads a stream"),
    QT_TRANSLATE_NOOP("ServiceWords", "the service closes"),
    QT_TRANSLATE_NOOP("ServiceWords", "the block is over"),
    QT_TRANSLATE_NOOP("ServiceWords", "the connection ended"),
    QT_TRANSLATE_NOOP("ServiceWords", "the exchange closed the stream"),
    QT_TRANSLATE_NOOP("ServiceWords", "polled by REST once a second: {0}"),
    QT_TRANSLATE_NOOP("ServiceWords", "{0} of {1} is silent for {2} s (usually at most {3} s)"),
    QT_TRANSLATE_NOOP("ServiceWords", "trades of {0} were lost on the way"),
    QT_TRANSLATE_NOOP("ServiceWords", "{0}: not proved to be complete"),
    QT_TRANSLATE_NOOP("ServiceWords", "{0}; nobody reads all trades, so they were not read back"),
    QT_TRANSLATE_NOOP("ServiceWords", "the exchange's history lacks trades that were streamed"),
    QT_TRANSLATE_NOOP(
        "ServiceWords", "this computer stood still for {0} s: open another connection"
    ),
    QT_TRANSLATE_NOOP("ServiceWords", "nothing that came was understood any more: {0}"),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "stream: nothing came for {0} s and a ping was not answered within {1} s: the connection"
        " is dead",
    ),
    QT_TRANSLATE_NOOP(
        "ServiceWords", "stream: {0} answered {1} instead of opening; try again later"
    ),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "stream: {0} was not reached ({1}); check the connection and try again",
    ),
    QT_TRANSLATE_NOOP("ServiceWords", "stream: the connection was lost ({0}); open another"),
    # Requests
    QT_TRANSLATE_NOOP("ServiceWords", "{0}: no answer from {1} within {2} s; try again"),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "{0}: {1} was not reached or cut the answer off ({2}); check the connection and try again",
    ),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "{0}: {1} answered {2} ({3}); it may be under maintenance: try again later",
    ),
    QT_TRANSLATE_NOOP(
        "ServiceWords", "{0}: the exchange refused the call as too fast (429); wait {1} s"
    ),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "{0}: the exchange has blocked this address for {1} (418); asking sooner lengthens the"
        " block",
    ),
    QT_TRANSLATE_NOOP("ServiceWords", "a while"),
    QT_TRANSLATE_NOOP("ServiceWords", "{0}: the exchange gave up waiting (408); try again"),
    QT_TRANSLATE_NOOP("ServiceWords", "the exchange blocks REST for another {0} s (418)"),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "the exchange blocks this address until {0} UTC (418): nothing is asked before, for that"
        " would lengthen the block",
    ),
    QT_TRANSLATE_NOOP("ServiceWords", "the exchange blocks this address until {0} UTC (418)"),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "the exchange blocks this address for another {0} s (418), as another program on this"
        " machine was told: nothing is asked before, for that would lengthen the block",
    ),
    QT_TRANSLATE_NOOP("ServiceWords", "half the request rate: {0}"),
    QT_TRANSLATE_NOOP("ServiceWords", "its file did not answer for {0} s"),
    QT_TRANSLATE_NOOP("ServiceWords", "another program holds {0} and does not let go"),
    # The store
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "{0} cannot be used now ({1}): check that the folder can be written, the disk is not full"
        " and no other program holds the file",
    ),
    QT_TRANSLATE_NOOP("ServiceWords", "{0} is damaged ({1})"),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "{0} was found damaged ({1}): it is mended when the program starts next, and what cannot"
        " be read is asked again",
    ),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "{0} is being brought up to date or mended by another program: try again when it is done",
    ),
    QT_TRANSLATE_NOOP("ServiceWords", "the store's writer is gone: it is opened anew"),
    QT_TRANSLATE_NOOP("ServiceWords", "the disk is full"),
    QT_TRANSLATE_NOOP("ServiceWords", "an unexpected error, told in the log: {0}"),
    QT_TRANSLATE_NOOP("ServiceWords", "an unexpected error: {0}"),
    QT_TRANSLATE_NOOP("ServiceWords", "a pinned market has no candles to keep: {0}"),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "unknown symbol {0}: expected a listed market such as 'KRW-BTC' (quote first)",
    ),
    QT_TRANSLATE_NOOP(
        "ServiceWords",
        "unknown symbol {0}: expected a listed market such as 'KRW-BTC' (quote first); closest:"
        " {1}",
    ),
)
NAMES: Final[tuple[str, ...]] = (
    QT_TRANSLATE_NOOP("ServiceWords", "{0} {1} calls"),
    QT_TRANSLATE_NOOP("ServiceWords", "{0} {1} calls from memory"),
    QT_TRANSLATE_NOOP("ServiceWords", "NORMAL loads of {0} to {1} candles"),
    QT_TRANSLATE_NOOP("ServiceWords", "{0} to {1} pages"),
    QT_TRANSLATE_NOOP("ServiceWords", "more than {0} pages"),
    QT_TRANSLATE_NOOP("ServiceWords", "market list"),
    QT_TRANSLATE_NOOP("ServiceWords", "candles of {0} {1}"),
    QT_TRANSLATE_NOOP("ServiceWords", "tickers of {0}"),
    QT_TRANSLATE_NOOP("ServiceWords", "all tickers in {0}"),
    QT_TRANSLATE_NOOP("ServiceWords", "order books of {0}"),
    QT_TRANSLATE_NOOP("ServiceWords", "trades of {0}"),
)
"""What was asked for; a place is one word here, for sentences begin and end so as well."""
FOREIGN: Final[tuple[str, ...]] = (
    QT_TRANSLATE_NOOP("ServiceWords", "database or disk is full"),
    QT_TRANSLATE_NOOP("ServiceWords", "disk I/O error"),
    QT_TRANSLATE_NOOP("ServiceWords", "unable to open database file"),
    QT_TRANSLATE_NOOP("ServiceWords", "attempt to write a readonly database"),
    QT_TRANSLATE_NOOP("ServiceWords", "database is locked"),
    QT_TRANSLATE_NOOP("ServiceWords", "Connection refused"),
    QT_TRANSLATE_NOOP("ServiceWords", "Connection reset by peer"),
    QT_TRANSLATE_NOOP("ServiceWords", "Network is unreachable"),
    QT_TRANSLATE_NOOP("ServiceWords", "No route to host"),
    QT_TRANSLATE_NOOP("ServiceWords", "Temporary failure in name resolution"),
    QT_TRANSLATE_NOOP("ServiceWords", "Name or service not known"),
)
"""What SQLite and the system say, in places of the sentences above."""


def service_words(sentence: str) -> str:
    """A sentence of the service in the language of the screen; itself where it is not known."""
    language = translate(_CONTEXT, PATTERNS[0])
    # English is what the service speaks.
    return sentence if language == PATTERNS[0] else _said(sentence, language)


@lru_cache(_KEPT)
def _said(sentence: str, language: str) -> str:
    """`language` is what tells one from another: what is kept of one is no use to the next."""
    for pattern, expression in _candidates(sentence):
        if found := expression.fullmatch(sentence):
            return translate(_CONTEXT, pattern).format(*map(_word, found.groups()))
    return sentence


def _word(text: str) -> str:
    """What stands in a place of a sentence: a figure, a state, a name, or a sentence."""
    if text[0].isdigit() and " " not in text:
        return text
    for health in get_args(Health):
        if text == health:
            return health_word(health)
    for data_type in DataType:
        if text == data_type.value:
            return data_word(data_type)
    if text.startswith("layer_"):
        return layer_name(text)
    return service_words(text)


_Known = tuple[str, re.Pattern[str]]


def _expression(pattern: str) -> re.Pattern[str]:
    place = r"([^\s:]+)" if pattern in NAMES else "(.+?)"
    parts = re.split(r"\{\d}", pattern)
    return re.compile(place.join(map(re.escape, parts)), re.DOTALL)


def _indexed() -> dict[str, list[_Known]]:
    """The patterns by how they begin; those that begin with a place under the empty text."""
    index: dict[str, list[_Known]] = {"": []}
    for pattern in (*PATTERNS, *NAMES, *FOREIGN):
        begin = pattern.partition("{")[0][:_INDEXED]
        key = begin if len(begin) == _INDEXED else ""
        index.setdefault(key, []).append((pattern, _expression(pattern)))
    return index


_INDEX: Final = _indexed()


def _candidates(sentence: str) -> list[_Known]:
    return [*_INDEX.get(sentence[:_INDEXED], ()), *_INDEX[""]]
