"""Chunked transcription: windows cut beforehand, many at once, and every word at its time in the whole."""

from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
import torch

from affuse.extract import speech as chunked
from affuse.extract.speech import FRAMES, ChunkedTranscriber, Transcriber
from affuse.extract.weights.locate import locate
from media import tone

RATE = 16_000
CPU = torch.device("cpu")


class Beeps(ChunkedTranscriber):
    """Hears every beep as a word where its spectrum has one; keeps what it was given."""

    def __init__(self, batch: int):
        self.language, self.batch, self.hear, self.given = "en", batch, self.decode, []

    def _window(self, samples, *known):
        return samples, round(len(samples) / RATE * FRAMES)

    def decode(self, windows):
        self.given.append(len(windows))
        return [self._heard(samples, frames) for samples, frames in windows]

    def _heard(self, samples, frames):
        assert abs(len(samples) / RATE - frames / FRAMES) <= 0.5 / FRAMES
        loud = np.flatnonzero(np.abs(samples) > 0.1)
        beeps = [[i for _, i in run] for _, run in groupby(enumerate(loud), lambda at: at[1] - at[0])]
        words = [
            {"word": f" {len(beep)}", "start": beep[0] / RATE, "end": beep[-1] / RATE, "probability": 0.5}
            for beep in beeps
        ]
        return {"words": words, "no_speech_prob": 0.0, "avg_logprob": 0.0, "compression_ratio": 1.0}


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_every_word_is_at_its_time_in_the_whole_and_silence_is_not_heard(batch):
    samples = np.random.default_rng(0).normal(0, 1e-4, 200 * RATE).astype(np.float32)
    at = [0.5, 12.0, 28.0, 29.0, 30.0, 31.0, 55.0, 119.0, 121.0, 199.0]  # and nothing from 60 to 90 s
    for i, second in enumerate(at):
        samples[round(second * RATE) :][: 100 + i] = 0.5
    transcriber = Beeps(batch)
    words = transcriber(samples)
    assert [word.text for word in words] == [str(100 + i) for i in range(len(at))]
    np.testing.assert_allclose([word.start for word in words], at, atol=1 / RATE)
    assert max(transcriber.given) <= batch
    assert sum(transcriber.given) < 200 / 20 - 1


@pytest.fixture(scope="module")
def both():
    located = locate("whisper-tiny.en")
    return Transcriber(located, None, CPU), ChunkedTranscriber(located, None, CPU)


@pytest.mark.weights
def test_words_and_times_are_those_of_sequential_transcription(both, say):
    samples = np.concatenate(
        [say("The children are playing in the garden."), say("Please close the window tonight.")]
    )
    found = [
        {word.text.lower().strip(".,"): word.start for word in transcriber(samples)} for transcriber in both
    ]
    for word in ("children", "garden", "close", "window"):
        assert abs(found[0][word] - found[1][word]) < 0.3


@pytest.mark.weights
def test_how_many_windows_share_a_batch_changes_no_word(both, say, monkeypatch):
    monkeypatch.setattr(chunked, "WINDOW", 6)
    monkeypatch.setattr(chunked, "WINDOW_CUT", 4)
    said = (
        "My sister works in a hospital.",
        "The children are playing in the garden.",
        "Please close the window.",
    )
    samples = np.concatenate([say(sentence) for sentence in said])
    transcriber = both[1]
    found = []
    for batch in (1, 4):
        monkeypatch.setattr(transcriber, "batch", batch)
        found.append(transcriber(samples))
    assert [word.text for word in found[0]] == [word.text for word in found[1]]
    np.testing.assert_allclose([w.start for w in found[0]], [w.start for w in found[1]], atol=0.05)
    text = " ".join(word.text for word in found[0]).lower()
    assert [word in text for word in ("hospital", "garden", "window")] == [True] * 3
    assert found[0][-1].start > 6


@pytest.mark.weights
@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(48_000, np.float32), tone(0.02, 440)])
def test_no_words_are_invented(both, samples):
    assert both[1](samples) == []


@pytest.mark.weights
def test_only_windows_that_fail_are_decoded_at_other_temperatures(both, say, monkeypatch):
    transcriber, decoded, asked = both[1], both[1]._decoded, []

    def failing_once(encoded, temperature, language):
        asked.append((temperature, len(encoded)))
        fine = {"compression_ratio": 1.0, "avg_logprob": -0.1}
        results = [replace(result, **fine) for result in decoded(encoded, 0.0, language)]
        if temperature < 0.4:
            results[-1] = replace(results[-1], compression_ratio=9.0)
        return results

    monkeypatch.setattr(transcriber, "_decoded", failing_once)
    windows = [
        transcriber._window(say(text), "en")
        for text in ("The children are playing in the garden.", "Please close the window tonight.")
    ]
    segments = transcriber.decode(windows)
    assert asked == [(0.0, 2), (0.2, 1), (0.4, 1)]
    said = ["".join(word["word"] for word in segment["words"]).lower() for segment in segments]
    assert "garden" in said[0]
    assert "window" in said[1]
    asked.clear()
    monkeypatch.setattr(transcriber, "fallback", ())
    transcriber.decode(windows)
    assert asked == [(0.0, 2)]
