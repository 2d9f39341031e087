"""Word embeddings: a text encoder whose weights are not there is never made up."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from affuse.errors import AffuseError
from affuse.extract.text import WordEncoder
from affuse.extract.transcripts import Word
from affuse.extract.weights.locate import locate

CPU = torch.device("cpu")
SAID = [Word(text, i, i + 0.5) for i, text in enumerate(["Good", "morning.", "My", "name", "is", "Anna."])]


def renamed(state):
    return {f"model.text.{name}": value for name, value in state.items()}


def narrower(state):
    return {name: value[..., :-1].contiguous() for name, value in state.items()}


@pytest.mark.weights
@pytest.mark.parametrize("spoil", [renamed, narrower])
def test_weights_that_do_not_fit_are_refused(tmp_path, spoil):
    source = locate("minilm-l6").path
    shutil.copytree(source, tmp_path / "minilm-l6", copy_function=shutil.copyfile)
    path = tmp_path / "minilm-l6" / "model.safetensors"
    save_file(spoil(load_file(path)), path)
    with pytest.raises(AffuseError, match="minilm-l6 is not a transformers folder of a BERT encoder"):
        WordEncoder(locate("minilm-l6", tmp_path), CPU)


@pytest.mark.weights
def test_a_sentence_is_embedded_in_its_own_context_alone():
    encoder = WordEncoder(locate("minilm-l6"), CPU)
    whole, second = encoder(SAID), encoder(SAID[2:])
    assert whole.shape == (6, 384)
    np.testing.assert_allclose(whole[2:].astype(float), second.astype(float), rtol=2e-3, atol=2e-2)
    other = encoder([Word("Bad", 0, 0.5), *SAID[1:]])
    assert np.abs(other[1].astype(float) - whole[1]).max() > 0.1


def test_layers_are_summed_in_full_precision(tmp_path):
    """Whatever the precision of the network: four numbers of bfloat16 whose sum has more digits than that holds."""
    encoder = object.__new__(WordEncoder)
    layers = torch.tensor([256.0, 1.0, 1.0, 1.0], dtype=torch.bfloat16)
    tokens = SimpleNamespace(to=lambda device: {}, word_ids=lambda sentence: [0])
    encoder.tokenizer, encoder.length, encoder.device = lambda *_, **options: tokens, 8, CPU
    encoder.network = lambda output_hidden_states: SimpleNamespace(
        hidden_states=list(layers[:, None, None, None])
    )
    assert list(encoder._encode([["word"]])) == [[259.0]]
