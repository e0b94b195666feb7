"""Messages of the stream in the other format of the exchange."""

from __future__ import annotations

from typing import Any

from upbit_backbone.short_keys import SHORT_KEYS


def simple(message: Any) -> Any:
    """The same message with the names of format SIMPLE."""
    if isinstance(message, dict):
        return {SHORT_KEYS.get(name, name): simple(value) for name, value in message.items()}
    return [simple(value) for value in message] if isinstance(message, list) else message
