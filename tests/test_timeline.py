"""Alignment against a slow, obvious implementation of its rules."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affuse.features import MODALITIES, AffuseError, Status, align
from affuse.features.timeline import LONE_ROW, SLACK
from builders import WIDTHS, random_video

# Times on a grid of 1/64 s are exact in binary, so ties and edges are ties and edges.
moments = st.lists(st.integers(-64, 640).map(lambda n: n / 64), max_size=30).map(np.array)
clocks = st.lists(st.integers(0, 512).map(lambda n: n / 64), max_size=20).map(sorted)
words = st.lists(st.tuples(st.integers(0, 512), st.integers(0, 128)), max_size=12)


def obvious(video, time, modality):
    """One moment and one row at a time."""
    part = getattr(video, modality)
    embedding = np.zeros((len(time), WIDTHS[modality]), np.float16)
    valid = np.zeros(len(time), bool)
    for i, t in enumerate(time):
        row = None
        if modality == "text":
            for w in range(len(part.start)):
                later = row is None or part.start[w] >= part.start[row]
                if part.start[w] < t < part.end[w] and later:
                    row = w
        else:
            gaps = [b - a for a, b in zip(part.time[:-1], part.time[1:], strict=True)]
            reach = (np.median(gaps) / 2 if gaps else LONE_ROW) + SLACK
            for r in range(len(part.time)):
                near = abs(part.time[r] - t) <= reach
                if near and (row is None or abs(part.time[r] - t) < abs(part.time[row] - t)):
                    row = r
            if row is not None and modality == "visual" and not part.valid[row]:
                row = None
        if row is not None:
            embedding[i], valid[i] = part.embedding[row], True
    return embedding, valid


def video_with(clock=None, spoken=None):
    video = random_video(frames=len(clock or []), words=len(spoken or []))
    time = np.array(clock or [], float)
    start = np.array([s for s, _ in spoken or []], float) / 64
    end = start + np.array([n for _, n in spoken or []], float) / 64
    return dataclasses.replace(
        video,
        visual=dataclasses.replace(video.visual, time=time),
        audio=dataclasses.replace(video.audio, time=time),
        text=dataclasses.replace(video.text, start=start, end=end),
    )


@given(time=moments, clock=clocks, spoken=words)
def test_equals_the_obvious_implementation(time, clock, spoken):
    video = video_with(clock, spoken)
    time = time.astype(float)
    aligned = align(video, time, MODALITIES, WIDTHS)
    assert list(aligned) == list(MODALITIES)
    for modality, (embedding, valid) in aligned.items():
        expected, expected_valid = obvious(video, time, modality)
        np.testing.assert_array_equal(valid, expected_valid, modality)
        np.testing.assert_array_equal(embedding, expected, modality)
        assert embedding.dtype == np.float16
        assert valid.dtype == bool


@given(time=moments, clock=clocks, spoken=words)
def test_each_moment_is_aligned_on_its_own(time, clock, spoken):
    """The order of the moments and their company change nothing."""
    video = video_with(clock, spoken)
    time = time.astype(float)
    order = np.random.default_rng(0).permutation(len(time))
    straight, shuffled = align(video, time), align(video, time[order])
    for modality in MODALITIES:
        for mine, theirs in zip(straight[modality], shuffled[modality], strict=True):
            np.testing.assert_array_equal(mine[order], theirs)


def test_own_frame_times_give_the_rows_back():
    video = random_video(frames=50)
    aligned = align(video, video.visual.time)
    np.testing.assert_array_equal(aligned["visual"][0], video.visual.embedding)
    np.testing.assert_array_equal(aligned["visual"][1], video.visual.valid)
    np.testing.assert_array_equal(aligned["audio"][0], video.audio.embedding)
    assert aligned["audio"][1].all()


def test_equally_near_rows_give_the_earlier():
    video = video_with(clock=[0.0, 1.0])
    embedding, valid = align(video, [0.5])["audio"]
    assert valid.all()
    np.testing.assert_array_equal(embedding[0], video.audio.embedding[0])


def test_a_gap_in_the_frames_is_masked():
    video = video_with(clock=[0, 1 / 64, 2 / 64, 100 / 64])
    assert align(video, np.array([2, 3, 50, 100]) / 64)["audio"][1].tolist() == [True, False, False, True]


def test_a_word_lasts_from_after_its_start_to_before_its_end():
    video = video_with(spoken=[(64, 64)])
    assert align(video, [1.0, 1.01, 1.99, 2.0])["text"][1].tolist() == [False, True, True, False]


def test_of_overlapping_words_the_later_start_wins_until_it_ends():
    video = video_with(spoken=[(0, 256), (64, 64)])
    embedding, valid = align(video, [0.5, 1.5, 3.0])["text"]
    assert valid.all()
    np.testing.assert_array_equal(embedding, video.text.embedding[[0, 1, 0]])


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_missing_modality_is_masked_zeros_of_the_width_asked_for(modality):
    video = random_video(frames=0, words=0, widths=dict.fromkeys(MODALITIES, 0))
    assert getattr(video, modality).status is not Status.OK
    embedding, valid = align(video, np.arange(5.0), [modality], {modality: 7})[modality]
    assert embedding.shape == (5, 7)
    assert not embedding.any()
    assert not valid.any()


def test_no_moments_give_no_rows():
    aligned = align(random_video(), np.zeros(0))
    assert {m: e.shape for m, (e, _) in aligned.items()} == {m: (0, w) for m, w in WIDTHS.items()}


def test_another_width_is_an_error_that_names_the_video():
    with pytest.raises(AffuseError, match=r"'clip01' are 24 wide where 512 are expected"):
        align(random_video(), [0.0], ["visual"], {"visual": 512})


def test_an_unknown_modality_is_an_error():
    with pytest.raises(AffuseError, match="no text features here, only visual"):
        align(random_video(), [0.0], ["text"], {"visual": 24})
