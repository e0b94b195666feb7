"""What went wrong, in one sentence of the user's language.

The service says it in English for programs and logs; the window says what it means and
what to do, and keeps the service's words for whoever asks for details.
"""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from upbit_backbone.errors import (
    BackboneError,
    DeadlineError,
    InvalidRequestError,
    ProtocolError,
    RateLimitedError,
    StorageCorruptError,
    StorageOriginError,
    StorageUnavailableError,
    SystemOverloadedError,
    TransportError,
    UnknownSymbolError,
)

# lupdate finds what is to be translated by the name of this function.
translate = QCoreApplication.translate


def error_sentence(error: BackboneError) -> str:
    """What an error means to the person at the window, and what to do."""
    if isinstance(error, UnknownSymbolError):
        if error.suggestions:
            sentence = translate("Sentences", "There is no market {0}. Closest: {1}.")
            return sentence.format(error.symbol, ", ".join(error.suggestions))
        sentence = translate("Sentences", "There is no market {0}. Choose one from the list.")
        return sentence.format(error.symbol)
    return f"{_meaning(error)}."


def error_details(error: BaseException) -> str:
    """What the service said, where that is more than the sentence tells."""
    if isinstance(error, UnknownSymbolError):
        return ""
    return str(error) if isinstance(error, BackboneError) else f"{type(error).__name__}: {error}"


def partial_sentence(symbol: str) -> str:
    """Part of what was asked for is missing."""
    sentence = translate(
        "Sentences", "Only stored candles of {0} are shown; the rest could not be loaded."
    )
    return sentence.format(symbol)


def unexpected_sentence() -> str:
    """Our own mistake; the log has the rest."""
    return translate("Sentences", "Something unexpected happened; the log says more.")


def _meaning(error: BackboneError) -> str:
    match error:
        case InvalidRequestError():
            return translate("Sentences", "This cannot be asked for")
        case DeadlineError():
            return translate("Sentences", "The exchange did not answer in time; try again")
        case RateLimitedError():
            return translate("Sentences", "The exchange allows no more requests; wait a little")
        case TransportError():
            return translate("Sentences", "The exchange cannot be reached; check the network")
        case ProtocolError():
            return translate("Sentences", "The exchange's answer was not understood")
        case StorageOriginError():
            return translate(
                "Sentences", "The data folder holds data of another exchange; use --data-dir"
            )
        case StorageUnavailableError():
            return translate(
                "Sentences", "The data folder cannot be used; check space and rights, or --data-dir"
            )
        case StorageCorruptError():
            return translate(
                "Sentences", "The stored data are damaged; move the data folder away and restart"
            )
        case SystemOverloadedError():
            return translate("Sentences", "The program is overloaded; try again in a moment")
    return translate("Sentences", "Something went wrong")
