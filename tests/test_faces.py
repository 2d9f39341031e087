"""Boxes and crops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from affuse.extract.crops import crop, read_crop, resize, square
from affuse.extract.faces import overlap
from media import plain_frames


def test_overlap_by_hand():
    a, b = np.array([[0, 0, 2, 2.0]]), np.array([[1, 1, 3, 3], [5, 5, 6, 6.0], [0, 0, 2, 2]])
    np.testing.assert_allclose(overlap(a, b), [[1 / 7, 0, 1]])


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
