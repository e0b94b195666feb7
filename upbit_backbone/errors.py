"""Everything this package raises on purpose, by what the caller does next.

BackboneError
├── InvalidRequestError (ValueError)   the call is wrong: mend it
│   └── UnknownSymbolError             no such market: `suggestions` names the closest
├── DataUnavailableError               the exchange has no such data: do not retry
├── TransportError                     not reached or cut off: retry with backoff
├── RateLimitedError                   too fast: retry after `retry_after_s`
├── ProtocolError                      not understood: log the excerpt, do not retry
├── StaleDataError                     only older data than `max_age` is to be had
├── SlowConsumerError                  a reader of every value fell too far behind
├── SystemOverloadedError              shed to protect others: retry after `retry_after_s`
├── DeadlineError (TimeoutError)       not finished in the time given
├── StorageError
│   ├── StorageUnavailableError        disk full, read-only, locked: the environment
│   ├── StorageCorruptError            rebuild from the exchange
│   └── StorageOriginError             this folder holds data of another origin
└── ClosedError                        used after close: our own bug
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from upbit_backbone.models import Span


_PATH_CHARACTERS = 300
_NAME_CHARACTERS = 40
_FEW = 1_000


def shown(value: object) -> str:
    """How a sentence names a value: on one line, and not all of a long one.

    Takes any value: one that cannot be shown is named by its type, and so are many at once
    (`reprlib` would sort a set to show six of it).
    """
    kind = type(value)
    name = kind.__name__[:_NAME_CHARACTERS]
    if kind in (dict, set, frozenset) and len(value) > _FEW:  # type: ignore[arg-type]
        return f"a {name} of {len(value)}"  # type: ignore[arg-type]
    try:
        text = reprlib.repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = f"a long {name}"
    except Exception:  # noqa: BLE001  what a value does when it is looked at is its own affair
        text = f"a {name}"
    return " ".join(text.split())


def shown_path(path: object) -> str:
    """How a sentence names a file: all of its path, but for the middle of one that is none."""
    text = str(path)
    if len(text) > _PATH_CHARACTERS:
        text = f"{text[:60]} … {text[-60:]}"
    return text if text.isprintable() else ascii(text)


class BackboneError(Exception):
    """Base of all errors of this package.

    Attributes:
        retry_after_s: Seconds to wait before another try; None when unknown or pointless.
        partial: What exists of the answer (a `CandleSeries` or a list), or None.
        missing: The spans that `partial` lacks.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        partial: Any = None,
        missing: tuple[Span, ...] = (),
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.partial = partial
        self.missing = missing


class InvalidRequestError(BackboneError, ValueError):
    """The call itself is wrong; the message says what was given and what is expected."""


class UnknownSymbolError(InvalidRequestError):
    """The exchange lists no such market.

    Attributes:
        symbol: What was asked for.
        suggestions: The closest listed symbols, best first.
    """

    def __init__(
        self, symbol: str, suggestions: tuple[str, ...] = (), *, all_listed: tuple[str, ...] = ()
    ) -> None:
        """Name the closest ones, or all of a few."""
        hint = f"; closest: {', '.join(suggestions)}" if suggestions else ""
        if all_listed:
            hint = f"; this exchange lists {', '.join(all_listed)} only"
        super().__init__(
            f"unknown symbol {shown(symbol)}: expected a listed market such as 'KRW-BTC'"
            f" (quote first){hint}"
        )
        self.symbol = symbol
        self.suggestions = suggestions


class DataUnavailableError(BackboneError):
    """The exchange answered, and it has no such data."""


class TransportError(BackboneError):
    """The exchange was not reached or cut us off; a retry may help."""


class RateLimitedError(BackboneError):
    """The exchange answered 429, or 418 during a temporary block.

    Attributes:
        blocked: True for a 418: nothing may be asked, of no kind, until the block is over.
    """

    def __init__(
        self,
        message: str,
        *,
        blocked: bool = False,
        retry_after_s: float | None = None,
        partial: Any = None,
        missing: tuple[Span, ...] = (),
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s, partial=partial, missing=missing)
        self.blocked = blocked


class ProtocolError(BackboneError):
    """The exchange's answer was not understood; a retry will not help."""


class StaleDataError(BackboneError):
    """Only data older than the `max_age` asked for could be had."""


class SlowConsumerError(BackboneError):
    """A reader with ``policy="all"`` fell too far behind; its stream has ended."""


class SystemOverloadedError(BackboneError):
    """The request was shed to protect more important ones."""


class DeadlineError(BackboneError, TimeoutError):
    """The answer was not there in the time given."""


class StorageError(BackboneError):
    """Something is wrong with the local store."""


class StorageUnavailableError(StorageError):
    """The store cannot be used now: disk full, read-only folder, locked file."""


class StorageCorruptError(StorageError):
    """The file is damaged; its content can be asked for again."""


class StorageOriginError(StorageError):
    """The folder holds data of another origin; nothing was written."""


class ClosedError(BackboneError):
    """Used after close."""
