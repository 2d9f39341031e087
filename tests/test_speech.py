"""Whisper's words, and none where nobody speaks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affuse.extract import speech
from affuse.extract.speech import AT_ONCE, BLOCK, HUSH, Transcriber, loudness, pieces
from affuse.extract.weights.locate import locate
from media import tone

RATE = 16_000  # Hz


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber(locate("whisper-tiny.en"), None, torch.device("cpu"))


@pytest.fixture
def short_pieces(monkeypatch):
    """Pieces of 10 s, cut in their last 4."""
    monkeypatch.setattr(speech, "PIECE", 10)
    monkeypatch.setattr(speech, "PIECE_CUT", 4)


class Clicks(Transcriber):
    """Hears every click as a word: where it is, how high, and 20 ms long."""

    def __init__(self, language: str | None = None):
        self.language, self.heard = language, []

    def _listen(self, samples, windows):
        return "de", {}

    def transcribe(self, piece: np.ndarray, language: str | None) -> dict:
        self.heard.append((len(piece), language))
        words = [
            {"word": f" {piece[i]:.2f}", "start": i / RATE, "end": i / RATE + 0.02, "probability": 0.5}
            for i in np.flatnonzero(piece > 0.1)
        ]
        certain = {"no_speech_prob": 0.0, "avg_logprob": 0.0, "compression_ratio": 1.0}
        return {"segments": [{"words": words, **certain}]}


def clicks(seconds: float, at: list[float]) -> np.ndarray:
    """Hiss with clicks of 0.20, 0.21, … at these times."""
    samples = np.random.default_rng(0).normal(0, 1e-4, round(seconds * RATE)).astype(np.float32)
    samples[np.round(np.array(at) * RATE).astype(int)] = 0.2 + 0.01 * np.arange(len(at))
    return samples


def test_loudness_by_hand():
    samples = np.concatenate([np.full(480, 0.1), np.zeros(100)]).astype(np.float32)
    np.testing.assert_allclose(loudness(samples), [-20, -120], atol=0.01)


@pytest.mark.parametrize("count", [0, 1, AT_ONCE, AT_ONCE + 1, 2 * AT_ONCE + 500])
def test_loudness_is_that_of_the_whole_at_once(count):
    samples = np.random.default_rng(count).normal(0, 0.1, count).astype(np.float32)
    whole = np.pad(samples, (0, -count % BLOCK)).reshape(-1, BLOCK).astype(np.float64)
    np.testing.assert_array_equal(loudness(samples), 10 * np.log10((whole**2).mean(axis=1) + 1e-12))


@pytest.mark.parametrize("count", [0, 1, 599 * RATE, 600 * RATE])
def test_what_is_no_longer_than_a_piece_stays_whole(count):
    assert list(pieces(np.zeros(count, np.float32), 600, 60)) == [(0, count)]


@given(seconds=st.floats(0, 45), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_pieces_are_the_whole_in_order_and_none_too_long(seconds, seed):
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    found = list(pieces(samples, 10, 4))
    assert [begin for begin, _ in found] == [0, *(end for _, end in found[:-1])]
    assert found[-1][1] == len(samples)
    assert all(6 * RATE < end - begin <= 10 * RATE for begin, end in found[:-1])
    assert found[-1][1] - found[-1][0] <= 10 * RATE


def test_a_piece_ends_in_the_quietest_half_second():
    samples = np.random.default_rng(0).normal(0, 0.1, 12 * RATE).astype(np.float32)
    samples[3 * RATE : 4 * RATE] = 0  # quieter, but too early
    samples[round(6.5 * RATE) : round(6.5 * RATE) + 4 * BLOCK] = 0  # too brief: a stop inside a word
    samples[8 * RATE : 9 * RATE] *= 0.01
    (_, cut), _ = pieces(samples, 10, 4)
    assert 8 * RATE + HUSH // 2 * BLOCK <= cut <= 9 * RATE - HUSH // 2 * BLOCK + BLOCK


def test_words_on_both_sides_of_a_cut_keep_their_times(short_pieces):
    at = [0.5, 5.9, 6.3, 8.4, 8.7, 9.99, 10.0, 10.01, 14.0, 16.9, 17.2, 20.0, 24.9]
    transcriber = Clicks()
    words = transcriber(clicks(25.0, at))
    assert [w.text for w in words] == [f"{0.2 + 0.01 * i:.2f}" for i in range(len(at))]
    np.testing.assert_allclose([w.start for w in words], at, atol=1 / RATE)
    np.testing.assert_allclose([w.end - w.start for w in words], 0.02)
    assert len(transcriber.heard) > 2


def test_short_sound_is_one_piece_and_equals_many(monkeypatch):
    samples = clicks(25.0, [1.0, 7.0, 13.0, 24.0])
    whole = Clicks()
    words = whole(samples)
    assert whole.heard == [(len(samples), "de")]
    monkeypatch.setattr(speech, "PIECE", 10)
    monkeypatch.setattr(speech, "PIECE_CUT", 4)
    parted = Clicks()(samples)
    assert [(w.text, w.confidence) for w in parted] == [(w.text, w.confidence) for w in words]
    np.testing.assert_allclose([w.start for w in parted], [w.start for w in words])


def test_silent_pieces_are_passed_over_and_the_others_have_one_language(short_pieces):
    transcriber = Clicks()
    words = transcriber(clicks(35.0, [12.0, 31.0]))
    assert [round(w.start) for w in words] == [12, 31]
    assert [language for _, language in transcriber.heard] == ["de", "de"]


@pytest.mark.weights
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


@pytest.mark.weights
def test_a_tone_does_not_keep_whisper_busy(transcriber, monkeypatch):
    """Of 2 s it decodes "beep beep beep …" to its longest, 224 tokens, and again at further temperatures."""
    steps, step = [], transcriber.model.decoder.forward
    monkeypatch.setattr(
        transcriber.model.decoder, "forward", lambda *given, **more: steps.append(1) or step(*given, **more)
    )
    assert transcriber(tone(2.0)) == []
    assert 50 < len(steps) < 150


@pytest.mark.weights
def test_what_is_heard_badly_is_heard_again_at_other_temperatures_if_they_are_wanted(
    transcriber, say, monkeypatch
):
    asked, decode = [], transcriber.model.decode

    def badly(mel, options):
        asked.append(options.temperature)
        return replace(decode(mel, options), avg_logprob=-1.1, no_speech_prob=0.0)

    monkeypatch.setattr(transcriber.model, "decode", badly)
    for fallback, temperatures in ((transcriber.fallback, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), ((), [0.0])):
        asked.clear()
        monkeypatch.setattr(transcriber, "fallback", fallback)
        transcriber(say("Good morning."))
        assert asked == temperatures * (len(asked) // len(temperatures)) != []


@pytest.mark.weights
def test_spoken_words_come_with_their_times(transcriber, say):
    samples = say("The weather is wonderful today.")
    words = transcriber(samples)
    text = " ".join(w.text for w in words).lower()
    assert "wonderful" in text
    assert "today" in text
    assert 1.0 < words[-1].start < words[-1].end
    assert words[-1].end < len(samples) / RATE - 0.8
    assert all(w.start <= w.end and 0 <= w.confidence <= 1 for w in words)


@pytest.mark.weights
def test_speech_in_pieces_has_the_words_of_the_whole(transcriber, say, monkeypatch):
    samples = np.concatenate(
        [say("The children are playing in the garden."), say("Please close the window tonight.")]
    )
    whole = transcriber(samples)
    monkeypatch.setattr(speech, "PIECE", 5)
    monkeypatch.setattr(speech, "PIECE_CUT", 3)
    assert len(list(pieces(samples, 5, 3))) == 2
    parted = transcriber(samples)
    for word in ("children", "garden", "close", "window"):
        (one,) = [w.start for w in whole if word in w.text.lower()]
        (other,) = [w.start for w in parted if word in w.text.lower()]
        assert abs(one - other) < 0.3
