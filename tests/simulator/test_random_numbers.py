import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from upbit_backbone.simulator.random_numbers import bit_field, draws, key_of, one_draw


@given(key=st.integers(0, 2**64 - 1), counters=st.lists(st.integers(-(2**62), 2**62), min_size=1))
def test_a_draw_is_the_same_alone_and_among_others(key: int, counters: list[int]) -> None:
    together = draws(key, np.array(counters))
    assert together.tolist() == [one_draw(key, counter) for counter in counters]


def test_draws_are_those_of_splitmix64() -> None:
    # The first outputs for the seed 1234567 (Vigna's reference, as Rosetta Code prints them).
    assert [one_draw(1234567, counter) for counter in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_keys_tell_their_parts_apart() -> None:
    keys = [key_of(1, "a", "b"), key_of(1, "ab"), key_of("1", "a", "b"), key_of(1, "b", "a")]
    assert len(set(keys)) == len(keys)
    assert key_of(1, "a", "b") == keys[0]


def test_bits_of_a_draw_are_cut_out_where_asked() -> None:
    bits = np.array([0xABCD_0000_0000_1234], np.uint64)
    assert bit_field(bits, 0, 16).tolist() == [0x1234]
    assert bit_field(bits, 48, 16).tolist() == [0xABCD]
