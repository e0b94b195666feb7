"""Whose data this is: the guard that keeps simulated and real data apart.

A simulator sends its name in a header of every response and upgrade. The first answer of
a session fixes the origin; a store that already holds data fixes it before the first
answer. Whatever arrives afterwards under another mark is refused.
"""

from __future__ import annotations

from upbit_backbone.errors import StorageOriginError

MARK_HEADER = "X-Simulated-Exchange"


class Origin:
    """The origin of one identity's data, shared by the exchange adapter and the store."""

    def __init__(self, identity: str, *, accepts_mark: bool = True) -> None:
        """Name the origin.

        Args:
            identity: The folder's name, e.g. ``"upbit"``.
            accepts_mark: False for the exchange's own addresses: nothing simulated may
                ever come from them.
        """
        self.identity = identity
        self._accepts_mark = accepts_mark
        self._known = False
        self._mark: str | None = None

    @property
    def known(self) -> bool:
        """Whether anything fixed the mark yet."""
        return self._known

    @property
    def mark(self) -> str | None:
        """The simulator's name; None for unmarked data."""
        return self._mark

    @property
    def simulated(self) -> bool:
        return self._mark is not None

    def observe(self, mark: str | None) -> None:
        """Take the mark of an answer of the exchange.

        Raises:
            StorageOriginError: it differs from what was met before, or the exchange's own
                address answered with a mark.
        """
        if mark is not None and not self._accepts_mark:
            raise StorageOriginError(
                f"the address of {self.identity!r} answered as the simulator {mark!r}: expected"
                " real data only; check what intercepts the connection"
            )
        if self._known and mark != self._mark:
            raise self._conflict(held=self._mark, answered=mark)
        self._known, self._mark = True, mark

    def expect(self, stored_mark: str | None) -> None:
        """Take the mark that the store's data carries.

        Raises:
            StorageOriginError: the exchange answered under another mark already.
        """
        if self._known and stored_mark != self._mark:
            raise self._conflict(held=stored_mark, answered=self._mark)
        self._known, self._mark = True, stored_mark

    def _conflict(self, *, held: str | None, answered: str | None) -> StorageOriginError:
        return StorageOriginError(
            f"{self.identity!r} is known with data {_describe(held)}, but the exchange answers"
            f" {_describe(answered)}: use another data folder (--data-dir), or reach the former"
            " exchange"
        )


def _describe(mark: str | None) -> str:
    return "without a mark" if mark is None else f"marked {mark!r}"
