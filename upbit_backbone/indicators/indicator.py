"""What every indicator can do, and how its parameters are checked."""

from __future__ import annotations

from collections.abc import Mapping
from sys import float_info
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from upbit_backbone.errors import InvalidRequestError, shown

Closes = npt.NDArray[np.float64]
NO_VALUE = float("nan")
"""What an indicator says while it has seen too few closes."""
MAX_PERIOD = 10_000


class Period(NamedTuple):
    """A parameter that counts candles."""

    default: int
    least: int
    most: int = MAX_PERIOD

    def check(self, name: str, value: Any) -> int:
        """Give the value back.

        Raises:
            InvalidRequestError: not a whole number within the bounds.
        """
        if type(value) is not int or not self.least <= value <= self.most:
            raise InvalidRequestError(
                f"{name} must be a whole number, {self.least}..{self.most:,}, was {shown(value)}"
            )
        return value


class Indicator(Protocol):
    """An indicator of closes, told one after another; NaN until it has seen enough of them."""

    name: ClassVar[str]
    parameters: ClassVar[Mapping[str, Period]]

    def update(self, close: float) -> float:
        """The value with the close of the next candle.

        Raises:
            InvalidRequestError: the close is no finite number; nothing has changed.
        """
        ...

    def revise(self, close: float) -> float:
        """The value with another close of the last candle, as one that forms has many.

        Raises:
            InvalidRequestError: the close is no finite number, or there was none to revise.
        """
        ...


def check_close(close: Any) -> float:
    """Refuse what would make every later value NaN.

    Raises:
        InvalidRequestError: not a finite number.
    """
    if not isinstance(close, int | float) or not abs(close) <= float_info.max:
        raise InvalidRequestError(f"a close must be a finite number, was {shown(close)}")
    return float(close)


def nothing_to_revise() -> InvalidRequestError:
    return InvalidRequestError("there is no close to revise: call update with the first one")
