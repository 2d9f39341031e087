"""VGGish patches: torchvggish's own log-mel, anchored at frame times."""

import numpy as np
import pytest
import torch
from torchvggish import vggish_input

from affuse.extract.audio import PART, PATCH, SoundEncoder, cut_patches, log_mel
from affuse.extract.weights.locate import locate
from media import tone


def test_log_mel_is_torchvggishs():
    samples = tone(3.0, 300) + np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    patches = cut_patches(samples, np.array([0.0, 0.37, 1.9]), "start")
    for patch, ours in zip(patches, log_mel(patches), strict=True):
        theirs = vggish_input.waveform_to_examples(patch.numpy(), 16_000, return_tensor=False)
        np.testing.assert_allclose(ours, theirs[0], atol=1e-5)


@pytest.mark.parametrize(("anchor", "shift"), [("start", 0), ("centre", -7680), ("end", -15360)])
def test_anchors_by_hand(anchor, shift):
    samples = np.arange(64_000, dtype=np.float32)
    (patch,) = cut_patches(samples, np.array([2.0]), anchor)
    np.testing.assert_array_equal(patch, samples[32_000 + shift : 32_000 + shift + PATCH])


def test_ends_are_continued():
    samples = np.arange(1, 8001, dtype=np.float32)
    first, last = cut_patches(samples, np.array([0.0, 0.4]), "start")
    assert first[0] == 1
    assert (first[8000:] == 8000).all()
    assert last[0] == 6401
    assert (last[8000 - 6400 :] == 8000).all()


def test_batches_do_not_change_embeddings():
    encoder = SoundEncoder(
        locate("vggish", allow_untrained=True, download=False), "start", torch.device("cpu")
    )
    samples = tone(4.0) * np.linspace(0, 1, 64_000, dtype=np.float32)
    time = np.arange(PART["cpu"] + 3) / 20
    together = encoder(samples, time)
    alone = np.concatenate([encoder(samples, time[i : i + 1]) for i in range(0, len(time), 13)])
    assert together.shape == (PART["cpu"] + 3, 128)
    np.testing.assert_allclose(together[::13], alone, rtol=2e-3, atol=1e-5)
