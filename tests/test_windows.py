"""Windows cover every frame; how they are joined is what a slow, obvious implementation says."""

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from affuse import fuse
from affuse.errors import UsageError
from affuse.fuse.data.windows import cut, joined
from affuse.fuse.experiments.trials import parse_name


def spans(frames, length=300, hop=200):
    starts, existing = cut(frames, length, hop)
    return [(int(s), int(s + n)) for s, n in zip(starts, existing, strict=True)]


def test_hand_computed_windows():
    assert spans(0) == []
    assert spans(1) == [(0, 1)]
    assert spans(73) == [(0, 73)]
    assert spans(300) == [(0, 300)]
    assert spans(301) == [(0, 300), (1, 301)]
    assert spans(500) == [(0, 300), (200, 500)]  # the last regular window ends with the video: none is added
    assert spans(501) == [(0, 300), (200, 500), (201, 501)]
    assert spans(750) == [(0, 300), (200, 500), (400, 700), (450, 750)]


@given(frames=st.integers(1, 400), length=st.integers(2, 60), data=st.data())
def test_every_frame_is_covered_and_no_window_leaves_the_video(frames, length, data):
    hop = data.draw(st.integers(1, length))
    starts, existing = cut(frames, length, hop)
    covered = np.zeros(frames, int)
    for start, n in zip(starts, existing, strict=True):
        assert start >= 0
        assert start + n <= frames
        assert n == min(length, frames)
        covered[start : start + n] += 1
    assert (covered >= 1).all()
    assert len(set(starts.tolist())) == len(starts)


@given(frames=st.integers(1, 80), length=st.integers(2, 20), data=st.data())
def test_windows_are_joined_by_their_mean_or_by_the_longest_past(frames, length, data):
    starts, _ = cut(frames, length, data.draw(st.integers(1, length)))
    values = np.random.default_rng(frames).normal(size=(len(starts), length, 2))
    mean, past = (joined(values, starts, frames, overlap) for overlap in ("mean", "past"))
    for frame in range(frames):
        covering = {
            frame - s: w[frame - s] for s, w in zip(starts, values, strict=True) if s <= frame < s + length
        }
        np.testing.assert_allclose(mean[frame], np.mean([*covering.values()], axis=0), atol=1e-12)
        np.testing.assert_array_equal(past[frame], covering[max(covering)])


@pytest.fixture
def memory(monkeypatch):
    """Sets how many bytes are free."""
    return lambda free: monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))


@pytest.mark.parametrize("model", ["rjcma", "ca@visual+audio", "jca@visual+audio", "concat"])
def test_windows_that_no_memory_holds_are_refused_before_any_is_taken(tmp_path, memory, model):
    store, labels = tiny.make_data(tmp_path, 2, 1, frames=40)
    memory(30 * 2**20 if model == "concat" else 64 * 2**30)
    settings = tiny.small(window=100_000, hop=100, **parse_name(model))
    with pytest.raises(
        UsageError, match=r"100000 frames, 2 at once, takes at least [\d.]+ GiB .* --set window=300"
    ):
        fuse.train(store, labels, tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()


def test_a_prediction_is_refused_where_no_batch_fits(tmp_path, memory):
    store, labels = tiny.make_data(tmp_path, 2, 1, frames=40)
    fuse.train(store, labels, tmp_path / "run", tiny.small(epochs=1, warmup_epochs=0))
    memory(3 * 32 * (26 + 22) * 4 - 1)  # three windows of features and what the encoders make of them
    with pytest.raises(UsageError, match="Predicting with a window of 32 frames, 3 at once"):
        fuse.load_run(tmp_path / "run").predict(store)
    memory(3 * 32 * (26 + 22) * 4)
    assert len(fuse.load_run(tmp_path / "run").predict(store)) == 3
