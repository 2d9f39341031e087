"""Boxes, tracks and crops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from affuse.extract.faces import NOBODY, Detected, crop, follow, link, overlap, read_crop, resize, square
from media import plain_frames


def detected(*boxes, confidence=0.99):
    return Detected(np.array(boxes, float).reshape(-1, 4), np.full(len(boxes), confidence))


def test_overlap_by_hand():
    a, b = np.array([[0, 0, 2, 2.0]]), np.array([[1, 1, 3, 3], [5, 5, 6, 6.0], [0, 0, 2, 2]])
    np.testing.assert_allclose(overlap(a, b), [[1 / 7, 0, 1]])


def test_two_people_are_two_tracks_and_a_gap_is_bridged():
    near, far = [0, 0, 40, 40], [100, 0, 120, 20]
    frames = [detected(near, far), detected(far, near), NOBODY, detected(far), detected(near, far)]
    tracks = link(frames, np.arange(5) * 0.1)
    assert sorted(t.frame for t in tracks) == [[0, 1, 3, 4], [0, 1, 4]]


def test_a_track_ends_when_unseen_for_long():
    box = [0, 0, 40, 40]
    tracks = link([detected(box), detected(box)], np.array([0.0, 5.0]))
    assert len(tracks) == 2


def test_the_main_track_is_followed_not_the_passer_by():
    big, small = [0, 0, 40, 40], [100, 0, 120, 20]
    tracks = link([detected(big, small)] * 3 + [detected(small)] * 2, np.arange(5) * 0.1)
    box, confidence = follow(tracks, 5, 160)
    np.testing.assert_array_equal(box[:3], [big] * 3)
    assert np.isnan(box[3:]).all()  # the other person is not taken for the one followed
    assert (confidence[3:] == 0).all()
    right, _ = follow(tracks, 5, 160, "right")
    np.testing.assert_array_equal(right, [small] * 5)
    largest, _ = follow(tracks, 5, 160, "largest")
    np.testing.assert_array_equal(largest, [big] * 3 + [small] * 2)


@given(
    st.lists(
        st.lists(st.tuples(*[st.floats(0, 100)] * 2, *[st.floats(1, 50)] * 2), max_size=3),
        min_size=1,
        max_size=12,
    )
)
def test_every_sighting_is_in_one_track_once(frames):
    frames = [detected(*[(x, y, x + w, y + h) for x, y, w, h in boxes]) for boxes in frames]
    tracks = link(frames, np.arange(len(frames)) * 0.1)
    for index, faces in enumerate(frames):
        held = [t.box[t.frame.index(index)] for t in tracks if index in t.frame]
        assert sorted(map(tuple, held)) == sorted(map(tuple, faces.boxes))
    assert all(len(set(t.frame)) == len(t.frame) for t in tracks)


@given(st.tuples(*[st.floats(-50, 150)] * 2, *[st.floats(1, 120)] * 2), st.floats(0, 1))
def test_crops_are_square_around_the_box_wherever_it_lies(box, margin):
    x, y, w, h = box
    left, top, side = square(np.array([x, y, x + w, y + h]), margin)
    assert side >= max(w, h) * (1 + margin) - 0.51
    assert abs(left + side / 2 - (x + w / 2)) <= 1
    assert abs(top + side / 2 - (y + h / 2)) <= 1
    cut = crop(plain_frames(1, (100, 80))[0], np.array([x, y, x + w, y + h]), margin)
    assert cut.shape == (side, side, 3)
    picture = resize(cut, 32)
    assert picture.shape == (3, 32, 32)
    assert (picture - 90).abs().max() < 1e-3


def test_given_crops(tmp_path):
    from PIL import Image

    Image.fromarray(plain_frames(1, (112, 112), 200)[0]).save(tmp_path / "00001.jpg")
    (tmp_path / "00002.jpg").write_bytes(b"not a picture")
    damage = []
    assert (read_crop(tmp_path / "00001.jpg", damage).float() - 200.0).abs().max() < 3
    assert read_crop(tmp_path / "00002.jpg", damage) is None
    assert "00002.jpg" in damage[0]
    assert read_crop(tmp_path / "00003.jpg", damage) is None
    assert len(damage) == 1
