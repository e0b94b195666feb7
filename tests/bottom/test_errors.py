"""What callers can rely on of the errors."""

from __future__ import annotations

import inspect

import pytest

from upbit_backbone import errors
from upbit_backbone.errors import BackboneError

ALL = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, BackboneError)
]

# The tree of the design, §5: what each one is, besides a BackboneError.
PARENTS: dict[str, type[Exception]] = {
    "BackboneError": Exception,
    "InvalidRequestError": ValueError,
    "UnknownSymbolError": errors.InvalidRequestError,
    "DataUnavailableError": BackboneError,
    "TransportError": BackboneError,
    "RateLimitedError": BackboneError,
    "ProtocolError": BackboneError,
    "StaleDataError": BackboneError,
    "SlowConsumerError": BackboneError,
    "SystemOverloadedError": BackboneError,
    "DeadlineError": TimeoutError,
    "StorageError": BackboneError,
    "StorageUnavailableError": errors.StorageError,
    "StorageCorruptError": errors.StorageError,
    "StorageOriginError": errors.StorageError,
    "ClosedError": BackboneError,
}


def test_the_tree_is_that_of_the_design() -> None:
    assert {error.__name__ for error in ALL} == set(PARENTS)
    for error in ALL:
        assert issubclass(error, PARENTS[error.__name__])
        assert error.__doc__


@pytest.mark.parametrize(
    "error", [error for error in ALL if error is not errors.UnknownSymbolError]
)
def test_every_error_carries_what_exists_and_what_is_missing(error: type[BackboneError]) -> None:
    plain = error("candles of KRW-BTC: no answer")
    assert str(plain) == "candles of KRW-BTC: no answer"
    assert (plain.retry_after_s, plain.partial, plain.missing) == (None, None, ())
    full = error("cut off", retry_after_s=1.5, partial=[1])
    assert (full.retry_after_s, full.partial) == (1.5, [1])
    plain.partial = "set where the whole call is known"
    assert plain.partial is not None


def test_an_unknown_symbol_names_itself_and_the_closest_ones() -> None:
    error = errors.UnknownSymbolError("KRW-BTX", ("KRW-BTC", "KRW-BTT"))
    assert (error.symbol, error.suggestions) == ("KRW-BTX", ("KRW-BTC", "KRW-BTT"))
    assert "'KRW-BTX'" in str(error)
    assert "closest: KRW-BTC, KRW-BTT" in str(error)
    assert "closest" not in str(errors.UnknownSymbolError("KRW-BTX"))


def test_a_caller_may_catch_them_by_python_s_own_names() -> None:
    with pytest.raises(ValueError, match="unknown symbol"):
        raise errors.UnknownSymbolError("BTC-KRW")
    with pytest.raises(TimeoutError, match="2 s"):
        raise errors.DeadlineError("not finished within 2 s")
