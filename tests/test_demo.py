"""The demonstration's own arithmetic; the demonstration itself is `make demo`."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from affuse.pipelines.demo.recipe import plain, word_errors

WORDS = st.lists(st.sampled_from("abc"), max_size=5)


def slow_word_errors(spoken, heard):
    if not spoken or not heard:
        return len(spoken) + len(heard)
    same = slow_word_errors(spoken[1:], heard[1:]) + (spoken[0] != heard[0])
    return min(same, slow_word_errors(spoken[1:], heard) + 1, slow_word_errors(spoken, heard[1:]) + 1)


@given(WORDS, WORDS)
def test_word_errors_are_the_edit_distance(spoken, heard):
    assert word_errors(spoken, heard) == slow_word_errors(spoken, heard)


def test_word_errors_by_hand():
    assert word_errors(plain("It is a fine day."), plain("it's a fine, fine day")) == 3
    for order in itertools.permutations("ab"):
        assert word_errors(list("ab"), list(order)) == (0 if order == ("a", "b") else 2)
