"""The demo's data: labels fit frames, one seed gives the same files, sound and face follow their signals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affuse.errors import AffuseError, UsageError
from affuse.pipelines.demo import data as demo_data
from affuse.pipelines.demo import face as demo_face
from affuse.pipelines.demo import words as demo_words
from affuse.pipelines.demo.data import make_dataset, smooth, truth
from affuse.pipelines.demo.face import Look, Motion, render
from affuse.pipelines.demo.voice import Voice, synthesiser

SMALL = {"speakers": 2, "clips": 1, "seconds": 3.0, "fps": 8, "size": (160, 120)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("demo") / "data", **SMALL)


def decode(path: Path) -> tuple[list[float], np.ndarray, int]:
    """Frame times, sound (n,), sample rate."""
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    return times, sound, rate


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_speakers_are_split_and_labels_fit_frames(dataset):
    assert (dataset.train, dataset.validation) == (("speaker01-01",), ("speaker02-01",))
    for split, ids in (("train", dataset.train), ("validation", dataset.validation)):
        assert [p.stem for p in (dataset.labels / split).iterdir()] == list(ids)
        for video in ids:
            header, *rows = (dataset.labels / split / f"{video}.txt").read_text().splitlines()
            values = np.array([row.split(",") for row in rows], dtype=float)
            times, _, _ = decode(dataset.videos / f"{video}.mp4")
            assert header == "valence,arousal"
            assert values.shape == (len(times), 2)
            assert np.abs(values).max() <= 1
            assert np.ptp(values, axis=0).min() > 0.1
            np.testing.assert_allclose(times, np.arange(len(times)) / SMALL["fps"], atol=1e-3)


def test_sound_is_there_and_as_long_as_the_pictures(dataset):
    for video in dataset.train + dataset.validation:
        times, sound, rate = decode(dataset.videos / f"{video}.mp4")
        assert len(times) >= SMALL["seconds"] * SMALL["fps"]
        assert len(sound) / rate == pytest.approx(len(times) / SMALL["fps"], abs=0.1)
        assert np.sqrt(np.square(sound).mean()) > 0.01


def test_words_are_sentences_of_the_lexicon(dataset):
    known = set(demo_words.ADJECTIVES.words + demo_words.NOUNS.words)
    for video in dataset.train + dataset.validation:
        sentences = dataset.words(video).splitlines()
        assert sentences
        assert all(known & set(s.rstrip(".").split()) and s.endswith(".") for s in sentences)


def test_same_parameters_give_the_same_files_in_another_process(dataset, tmp_path):
    code = (
        "import pathlib, sys; from affuse.pipelines.demo.data import make_dataset;"
        f"make_dataset(pathlib.Path(sys.argv[1]), **{SMALL!r})"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "again")], check=True, cwd=Path(__file__).parents[1]
    )
    assert contents(tmp_path / "again") == contents(dataset.root)


def test_a_missing_video_is_remade_alone_and_the_same(dataset):
    before = contents(dataset.root)
    first, second = (dataset.videos / f"{v}.mp4" for v in dataset.train + dataset.validation)
    kept = first.stat().st_mtime_ns
    second.unlink()
    seen = []
    make_dataset(dataset.root, **SMALL, done=seen.append)
    assert seen == ["speaker01-01", "speaker02-01"]
    assert first.stat().st_mtime_ns == kept
    assert contents(dataset.root) == before


def test_other_parameters_remake_and_leave_nothing_behind(tmp_path):
    small = {**SMALL, "seconds": 0.5, "size": (64, 48)}
    old = contents(make_dataset(tmp_path / "d", **small, seed=1).root)
    (tmp_path / "d" / "notes.txt").write_text("mine")
    new = contents(make_dataset(tmp_path / "d", **small, seed=2).root)
    assert new.pop("notes.txt") == b"mine"
    assert old.keys() == new.keys()
    assert all(old[k] != new[k] for k in old if k != "README.txt")


def test_foreign_folder_and_senseless_parameters_are_refused(tmp_path):
    (tmp_path / "thesis.doc").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        make_dataset(tmp_path, **SMALL)
    with pytest.raises(UsageError, match="at least 2 speakers"):
        make_dataset(tmp_path / "new", **{**SMALL, "speakers": 1})
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "parameters.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        make_dataset(tmp_path / "bad", **SMALL)


@pytest.mark.parametrize(
    ("name", "reach"), [("espeakng_loader", synthesiser), ("skimage", demo_face.photograph.__wrapped__)]
)
def test_a_missing_extra_is_named(monkeypatch, name, reach):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(AffuseError, match=r"pip install 'affuse\[demo\]'"):
        reach()


def test_voices_lie_in_a_deep_folder(monkeypatch, tmp_path):
    import espeakng_loader

    deep = tmp_path / ("x" * 100) / ("y" * 100)
    deep.mkdir(parents=True)
    (deep / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path())
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(deep / "espeak-ng-data"))
    assert synthesiser().speak("A table.", Voice("en-us+m1"), 160, 45, 50).any()


def test_a_full_disk_is_one_sentence(monkeypatch, tmp_path):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(AffuseError, match="No space left on device"):
        make_dataset(tmp_path / "d", **SMALL)


def fundamental(samples: np.ndarray, rate: int) -> float:
    """Median of the autocorrelation pitch over loud 40 ms frames, Hz."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, int(0.04 * rate))[:: int(0.02 * rate)]
    frames = frames[np.square(frames).mean(axis=1) > np.square(samples).mean()]
    low, high = int(rate / 400), int(rate / 60)
    power = np.abs(np.fft.rfft(frames, 2 * frames.shape[1])) ** 2
    correlation = np.fft.irfft(power)[:, low:high]
    return float(np.median(rate / (low + correlation.argmax(axis=1))))


def test_pitch_rate_and_loudness_follow_the_voice_signal():
    engine, generator = synthesiser(), np.random.default_rng(3)
    steps = 6000
    effort = smooth(generator, steps)
    speech = demo_data._speak(engine, Voice("en-us+m1"), effort, 40.0, generator)
    rows = []
    for start, end, sentence in zip(speech.start, speech.end, speech.sentences, strict=True):
        samples = speech.samples[int(start * engine.sample_rate) : int(end * engine.sample_rate)]
        at, until = (round(t * demo_data.GRID) for t in (start, end))
        letters_per_second = len(sentence) / (end - start)
        level = np.log(np.square(samples).mean())
        rows.append(
            [effort[at:until].mean(), level, fundamental(samples, engine.sample_rate), letters_per_second]
        )
    followed = np.corrcoef(np.array(rows).T)[0, 1:]
    assert (followed > [0.95, 0.88, 0.6]).all(), followed


def test_only_mouth_and_brows_follow_the_expression():
    def show(expression):
        zero = np.zeros(1)
        return render(
            Look(), Motion(zero + expression, *[zero] * 4, zero + 1), (320, 240), np.random.default_rng(0)
        )[0]

    sad, glad = show(-1.0).astype(float), show(1.0).astype(float)
    changed = np.abs(glad - sad).mean(axis=2)
    centre = np.array(demo_face.CENTRE)
    mouth, forehead = ((np.array(p) - centre) * 1.2 + [160, 120] for p in ((225, 147), (225, 50)))
    at = [changed[int(y) - 8 : int(y) + 8, int(x) - 24 : int(x) + 24].mean() for x, y in (mouth, forehead)]
    assert at[0] > 10 * at[1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_truth_is_bounded_and_nobody_knows_all_of_it(seed):
    generator = np.random.default_rng(seed)
    face, voice = smooth(generator, 3000), smooth(generator, 3000)
    words = generator.uniform(-1, 1, (2, 3000))
    valence, arousal = truth(face, voice, words)
    assert np.abs([face, voice, valence, arousal]).max() <= 1
    for known, part in ((valence, face), (valence, words[0]), (arousal, voice), (arousal, words[1])):
        assert 0.4 < np.corrcoef(known, part)[0, 1] < 0.9
    np.testing.assert_array_equal(truth(face, -voice, words)[0], valence)
    np.testing.assert_array_equal(truth(-face, voice, words)[1], arousal)


@settings(max_examples=50, deadline=None)
@given(valence=st.floats(-1, 1), arousal=st.floats(-1, 1), seed=st.integers(0, 1000))
def test_a_sentence_says_about_what_is_meant(valence, arousal, seed):
    meant = np.array([valence, arousal])
    sentence, place = demo_words.write_sentence(meant, np.random.default_rng(seed))
    assert "{" not in sentence
    assert np.linalg.norm(place - meant) < 1.6
    assert np.abs(place).max() <= 1


def test_parameters_are_kept_with_the_data(dataset):
    kept = json.loads((dataset.root / "parameters.json").read_text())
    assert kept == {**SMALL, "size": list(SMALL["size"]), "seed": 0, "format": demo_data.FORMAT}
