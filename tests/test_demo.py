"""The demonstration's own arithmetic; the demonstration itself is `make demo`."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from affuse.config import merge
from affuse.fuse import build_model, train_settings
from affuse.pipelines.demo.recipe import FAMILY, MODELS, SCHEDULE, plain, word_errors

WORDS = st.lists(st.sampled_from("abc"), max_size=5)


def slow_word_errors(spoken, heard):
    if not spoken or not heard:
        return len(spoken) + len(heard)
    same = slow_word_errors(spoken[1:], heard[1:]) + (spoken[0] != heard[0])
    return min(same, slow_word_errors(spoken[1:], heard) + 1, slow_word_errors(spoken, heard[1:]) + 1)


@given(WORDS, WORDS)
def test_word_errors_are_the_edit_distance(spoken, heard):
    assert word_errors(spoken, heard) == slow_word_errors(spoken, heard)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_trained_as_the_demo_does(name):
    changes = MODELS[name]
    modalities = changes.get("modalities") or [*FAMILY[changes["model"]].standard]
    settings = train_settings(**merge(SCHEDULE, changes, {"modalities": modalities}))
    widths = dict.fromkeys(modalities, 8)
    with torch.device("meta"):
        build_model(**settings.model_options(widths))


def test_word_errors_by_hand():
    assert word_errors(plain("It is a fine day."), plain("it's a fine, fine day")) == 3
    for order in itertools.permutations("ab"):
        assert word_errors(list("ab"), list(order)) == (0 if order == ("a", "b") else 2)
