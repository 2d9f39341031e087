"""One language per video, from several of its windows, none of them encoded twice."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from whisper.model import ModelDimensions, Whisper

from affuse.extract import speech
from affuse.extract.speech import ChunkedTranscriber, Transcriber, likeliest, listened_to

CPU = torch.device("cpu")
RATE = 16_000
BOTH = pytest.mark.parametrize("kind", [Transcriber, ChunkedTranscriber])


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A transcriber over a tiny network of seeded weights, multilingual unless its vocabulary says otherwise."""

    def make(kind, language=None, vocabulary=51865):
        sizes = {"n_audio_ctx": 1500, "n_audio_state": 8, "n_audio_head": 1, "n_audio_layer": 1}
        sizes |= {"n_text_ctx": 448, "n_text_state": 8, "n_text_head": 1, "n_text_layer": 1}
        dims = {"n_mels": 80, "n_vocab": vocabulary, **sizes}
        path = tmp_path_factory.getbasetemp() / f"tiny-{vocabulary}.pt"
        if not path.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = Whisper(ModelDimensions(**dims))
            torch.save({"dims": dims, "model_state_dict": network.state_dict()}, path)
        return kind(SimpleNamespace(path=path, name="whisper-seeded"), language, CPU)

    return make


@pytest.fixture
def spoken(monkeypatch):
    """The languages in which anything is transcribed; nothing is, since the weights are random."""
    languages = []

    def transcribe(self, piece, language):
        languages.append(language)
        return {"segments": []}

    def decode(self, windows):
        languages.extend(window.language for window in windows)
        self._encoded(windows)
        return [{"words": [], "no_speech_prob": 0, "avg_logprob": 0, "compression_ratio": 1} for _ in windows]

    monkeypatch.setattr(Transcriber, "transcribe", transcribe)
    monkeypatch.setattr(ChunkedTranscriber, "decode", decode)
    return languages


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def probabilities(monkeypatch, *heard: dict[str, float]):
    """Makes Whisper hear these languages in the windows, one after the other."""
    asked = []

    def detect(model, encoded):
        asked.append(len(encoded))
        return None, list(heard[: len(encoded)])

    monkeypatch.setattr(speech, "detect_language", detect)
    return asked


@BOTH
def test_the_language_is_that_of_most_windows_and_not_of_the_first(build, spoken, monkeypatch, kind):
    english, french = {"en": 0.9, "fr": 0.1}, {"en": 0.3, "fr": 0.7}
    asked = probabilities(monkeypatch, english, *[french] * 4)
    build(kind)(noise(400))
    assert asked == [5]
    assert set(spoken) == {"fr"}
    spoken.clear()
    probabilities(monkeypatch, english, *[french] * 4)
    build(kind)(noise(55))  # two windows: 0.9 + 0.3 against 0.1 + 0.7
    assert set(spoken) == {"en"}


def test_windows_are_spread_evenly_and_only_those_that_sound(build, spoken, monkeypatch):
    assert [listened_to(n) for n in (1, 2, 5, 9, 13)] == [
        [0], [0, 1], [0, 1, 2, 3, 4], [0, 2, 4, 6, 8], [0, 3, 6, 9, 12]
    ]  # fmt: skip
    assert likeliest([{"de": 0.4, "en": 0.6}, {"de": 0.9, "en": 0.1}]) == "de"
    samples = noise(100)
    samples[20 * RATE :] = 0
    asked = probabilities(monkeypatch, {"en": 1.0})
    build(Transcriber)(samples)
    assert asked == [1]
    assert build(Transcriber)(np.zeros(100 * RATE, np.float32)) == []
    assert asked == [1]


@BOTH
def test_no_language_is_looked_for_where_it_is_known(build, spoken, monkeypatch, kind):
    asked = probabilities(monkeypatch)
    build(kind, "pt")(noise(40))
    build(kind, None, vocabulary=51864)(noise(40))  # English only
    build(kind, "pt", vocabulary=51864)(noise(40))
    assert asked == []
    assert list(dict.fromkeys(spoken)) == ["pt", "en"]


def test_both_ways_find_the_same_language_each_time(build, spoken):
    """With Whisper's own detection, over random weights."""
    for _ in range(2):
        for kind in (Transcriber, ChunkedTranscriber):
            build(kind)(noise(70))
    assert len(set(spoken)) == 1
    assert len(spoken.pop()) in (2, 3)


def test_no_window_is_encoded_twice(build, spoken, monkeypatch):
    transcriber, encoded = build(ChunkedTranscriber), []
    encoder = transcriber.model.encoder.encoder
    encoder.register_forward_hook(lambda module, given, made: encoded.extend(given[0]))
    transcriber(noise(170))
    assert len(encoded) == len(spoken) >= 6
    assert len({window.numpy().tobytes() for window in encoded}) == len(encoded)
    windows = [transcriber._window(noise(3)), transcriber._window(noise(4))]
    known = windows[1]._replace(encoded=transcriber._encoded(windows)[1])
    torch.testing.assert_close(transcriber._encoded([windows[0], known]), transcriber._encoded(windows))


def test_windows_of_several_languages_share_a_batch(build, monkeypatch):
    transcriber = build(ChunkedTranscriber)
    asked = []

    def decoded(encoded, temperature, language):
        asked.append((language, len(encoded)))
        said = {"tokens": [], "no_speech_prob": 0.0, "avg_logprob": 0.0, "compression_ratio": 1.0}
        return [SimpleNamespace(language=language, audio_features=row, **said) for row in encoded]

    monkeypatch.setattr(transcriber, "_decoded", decoded)
    windows = [
        transcriber._window(noise(s), language)
        for s, language in ((3, "de"), (4, "en"), (5, "de"), (6, "fr"))
    ]
    assert [segment["end"] for segment in transcriber.decode(windows)] == [3, 4, 5, 6]
    assert asked == [("de", 2), ("en", 1), ("fr", 1)]
