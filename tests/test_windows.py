"""Windows cover every frame; the overlap mean is what a slow, obvious implementation says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from affuse.fuse.data.windows import cut, overlap_mean


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
def test_overlap_mean_is_the_mean_over_covering_windows(frames, length, data):
    starts, _ = cut(frames, length, data.draw(st.integers(1, length)))
    values = np.random.default_rng(frames).normal(size=(len(starts), length, 2))
    got = overlap_mean(values, starts, frames)
    for frame in range(frames):
        covering = [w[frame - s] for s, w in zip(starts, values, strict=True) if s <= frame < s + length]
        np.testing.assert_allclose(got[frame], np.mean(covering, axis=0), atol=1e-12)
