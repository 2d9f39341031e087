"""Whisper's words, and none where nobody speaks."""

import numpy as np
import pytest
import torch
from media import tone

from extract.speech import Transcriber, loudness
from extract.weights import locate

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber(locate("whisper-tiny.en"), None, torch.device("cpu"))


def test_loudness_by_hand():
    samples = np.concatenate([np.full(480, 0.1), np.zeros(100)]).astype(np.float32)
    np.testing.assert_allclose(loudness(samples), [-20, -120], atol=0.01)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros(48_000, np.float32),
        np.random.default_rng(0).normal(0, 1e-4, 80_000).astype(np.float32),
        tone(5.0, 440),
        sum(tone(8.0, 220 * 2 ** (k / 12), 0.1) for k in (0, 4, 7, 12)),
    ],
    ids=["nothing", "silence", "hiss", "tone", "chord"],
)
def test_no_words_are_invented(transcriber, samples):
    assert transcriber(samples) == []


def test_spoken_words_come_with_their_times(transcriber):
    pytest.importorskip("espeakng_loader")
    from pipelines.demo_voice import Voice, synthesiser

    engine = synthesiser()
    samples = engine.speak("The weather is wonderful today.", Voice("en-us+m3"), 160, 45, 50)
    pause = np.zeros(engine.sample_rate, np.float32)
    rate = engine.sample_rate
    spoken = np.concatenate([pause, samples, pause])
    at = np.arange(0, len(spoken), rate / 16_000)
    words = transcriber(np.interp(at, np.arange(len(spoken)), spoken).astype(np.float32))
    text = " ".join(w.text for w in words).lower()
    assert "wonderful" in text
    assert "today" in text
    assert 1.0 < words[-1].start < words[-1].end
    assert words[-1].end < 1.2 + len(samples) / rate
    assert all(w.start <= w.end and 0 <= w.confidence <= 1 for w in words)
