"""KeyTable: the number that a key was added under, whatever else meets it in its slot."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aggregator.services.recording.keytable import Keys, KeyTable

words = st.integers(0, 2**64 - 1) | st.integers(0, 3)


def columns(keys: list[tuple[int, int, int]]) -> Keys:
    array = np.array(keys, np.uint64).reshape(-1, 3)
    return array[:, 0].copy(), array[:, 1].copy(), array[:, 2].copy()


@given(st.lists(st.lists(st.tuples(words, words, words), max_size=40), max_size=6))
def test_it_numbers_like_a_dictionary(parts: list[list[tuple[int, int, int]]]) -> None:
    table = KeyTable()
    numbers: dict[tuple[int, int, int], int] = {}
    for part in parts:
        assert table.find(columns(part)).tolist() == [numbers.get(key, -1) for key in part]
        new = list(dict.fromkeys(key for key in part if key not in numbers))
        table.add(columns(new))
        for key in new:
            numbers[key] = len(numbers)
    known = list(numbers)
    assert table.find(columns(known)).tolist() == list(range(len(known)))
    assert len(table) == len(known)


def test_keys_that_meet_in_one_slot_are_told_apart() -> None:
    table = KeyTable()
    many = columns([(number, number % 7, 0) for number in range(5_000)])
    table._home = lambda keys: np.full(len(keys[0]), 3)  # type: ignore[method-assign]
    few = (many[0][:50], many[1][:50], many[2][:50])
    table.add(few)
    assert table.find(few).tolist() == list(range(50))
    assert set(table.find((many[0][50:], many[1][50:], many[2][50:])).tolist()) == {-1}


def test_it_grows() -> None:
    table = KeyTable()
    keys = columns([(number, 1, 2) for number in range(20_000)])
    table.add(keys)
    assert table.find(keys).tolist() == list(range(20_000))
