"""Parameters of REST calls, read and refused as the exchange does (upbit-api, sections 2 and 6).

What nobody has published is decided here: a parameter given twice is joined with a comma if
it is a text and counts once, the first time, if it is a number; a code named twice in a list
is answered once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Final

from multidict import MultiMapping

from upbit_backbone.clock import DAY_MS, SECOND_MS, epoch_ms
from upbit_backbone.simulator.gateway import RestError

INT32, INT64 = 31, 63
"""How many bits a number may have besides its sign."""

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
_TO_FORMS = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?"
)
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):?([0-5][0-9]):?([0-5][0-9])")
_YES_AND_NO: Final[Mapping[str, bool]] = {
    "true": True,
    "1": True,
    "": False,
    "false": False,
    "0": False,
}


class Parameters:
    """The query of one call.

    Args:
        query: As it came, decoded.
        old_names: Whether camelCase names are understood where the new one is not given.

    Every method raises `RestError`, 400 or 404, for what the exchange refuses. An empty
    value counts as none.
    """

    def __init__(self, query: MultiMapping[str], *, old_names: bool = True) -> None:
        self._query = query
        self._old_names = old_names

    def text(self, name: str) -> str:
        """A text; empty if it was not given."""
        return ",".join(self._given(name))

    def required(self, name: str) -> str:
        """A text that must be given."""
        text = self.text(name)
        if not text:
            raise RestError(400, "Missing request parameter error. Check the required parameters!")
        return text

    def codes(self, name: str) -> list[str]:
        """The codes of a comma list that must be given, upper-case, each once."""
        return list(dict.fromkeys(self.required(name).upper().split(",")))

    def number(self, name: str, bits: int = INT32) -> int | None:
        """A whole number; None if it was not given."""
        given = self._given(name)
        return whole_number(given[0], bits) if given and given[0] else None

    def flag(self, name: str) -> bool:
        """Yes or no; no if it was not given."""
        answer = _YES_AND_NO.get(self.text(name).lower())
        if answer is None:
            raise type_mismatch()
        return answer

    def count(self, *, default: int) -> int:
        """How many rows are wanted, at least 1."""
        count = self.number("count")
        if count is None:
            return default
        if count < 1:
            raise invalid()
        return count

    def instant(self, name: str) -> int | None:
        """A time as UTC milliseconds; one without zone is UTC. None if it was not given."""
        text = self.text(name)
        if not text:
            return None
        # The date alone and other forms of ISO 8601 are not known to be accepted. An
        # unencoded `+` arrives as a blank, and the exchange refuses it too.
        if not _TO_FORMS.fullmatch(text):
            raise invalid()
        try:
            moment = datetime.fromisoformat(text)
            return epoch_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            raise invalid() from None

    def time_of_day(self, name: str) -> int:
        """``HHmmss`` or ``HH:mm:ss`` in milliseconds; the day's end if it was not given."""
        text = self.text(name)
        if not text:
            return DAY_MS
        match = _TIME_OF_DAY.fullmatch(text)
        if match is None:
            raise invalid()
        hours, minutes, seconds = map(int, match.groups())
        return ((hours * 60 + minutes) * 60 + seconds) * SECOND_MS

    def level(self) -> Fraction:
        """The level of order books; 0 if it was not given."""
        try:
            level = Decimal(self.text("level") or "0")
        except InvalidOperation:
            raise invalid() from None
        if not level.is_finite() or abs(level.adjusted()) > _MOST_DIGITS:
            raise invalid()
        return Fraction(level)

    def _given(self, name: str) -> list[str]:
        given = self._query.getall(name, [])
        if self._old_names and not any(given):
            given = self._query.getall(_old_name(name), given)
        return given


_MOST_DIGITS = 20


def whole_number(text: str, bits: int = INT32) -> int:
    """A whole number of at most so many bits.

    Raises:
        RestError: anything else, as 400 `Type mismatch`.
    """
    if not _WHOLE_NUMBER.fullmatch(text) or abs(number := int(text)) >= 1 << bits:
        raise type_mismatch()
    return number


def invalid() -> RestError:
    """A value that the parameter cannot have."""
    return RestError(400, "Invalid parameter. Check the given value!")


def type_mismatch() -> RestError:
    """A text where a number or a flag is expected."""
    return RestError(400, "Type mismatch error. Check the parameters type!")


def code_not_found() -> RestError:
    """A code that is not listed, or not any more."""
    return RestError(404, "Code not found")


def _old_name(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)
