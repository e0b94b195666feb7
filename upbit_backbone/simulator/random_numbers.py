"""Random numbers that are a function of what they are for.

A draw is a hash of a key and a counter (splitmix64), so that any one of them is had
alone, in any order, by any process. Everything is integer arithmetic modulo 2**64: the
same on every machine, whatever its numpy or its vector instructions.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
DrawArray = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def key_of(*parts: int | str) -> int:
    """A 64-bit key from the names of what it is for."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def draws(key: int | DrawArray, counters: NDArray[Any]) -> DrawArray:
    """64 random bits for each counter; `key` may be an array that broadcasts against them."""
    start = np.uint64(key) if isinstance(key, int) else key
    # Written in place: a table needs millions of draws, and temporaries would cost more
    # than the arithmetic. `one_draw` says the same in plain integers.
    bits = (counters + 1).astype(np.uint64) * _GOLDEN + start
    bits ^= bits >> np.uint64(30)
    bits *= _FIRST
    bits ^= bits >> np.uint64(27)
    bits *= _SECOND
    bits ^= bits >> np.uint64(31)
    return bits


def one_draw(key: int, counter: int) -> int:
    """The draw of one counter, equal to ``draws(key, np.array([counter]))[0]``."""
    bits = (key + (counter + 1) * int(_GOLDEN)) & _MASK
    bits = ((bits ^ (bits >> 30)) * int(_FIRST)) & _MASK
    bits = ((bits ^ (bits >> 27)) * int(_SECOND)) & _MASK
    return bits ^ (bits >> 31)


def bit_field(bits: DrawArray, low: int, width: int) -> IntArray:
    """`width` bits of each draw from bit `low` up, as integers of 0 to 2**width - 1."""
    return ((bits >> np.uint64(low)) & np.uint64((1 << width) - 1)).astype(np.int64)
