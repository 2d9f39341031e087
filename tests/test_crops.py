"""Squares cut from the pictures of a video: whose, where, and how much of it is read for them."""

import numpy as np
import torch

from affuse.extract.crops import crop, cut_squares
from affuse.extract.media import read_frames, read_pictures
from affuse.extract.people import Layer, Track
from media import face_frames, write_media


def layer(frames: int, *seen: int, left: float) -> Layer:
    made = Layer(frames, 3)
    box = np.tile(np.array([left, 20, left + 40, 60], np.float32), (len(seen), 1))
    made.hang(Track(np.array(seen), box, np.ones(len(seen), np.float32)))
    return made


def test_squares_are_of_the_frames_and_boxes_they_say_up_to_the_last(tmp_path):
    path, read = write_media(tmp_path / "a.mp4", face_frames(12)), []
    one, other = layer(12, 1, 2, 7, left=30), layer(12, 2, 5, left=-10)
    pictures = (read.append(picture.time) or picture for picture in read_pictures(path))
    cut = list(cut_squares(pictures, [one, other], 0.3))
    assert [(own, index) for own, index, _ in cut] == [(one, 1), (one, 2), (other, 2), (other, 5), (one, 7)]
    (frames,) = read_frames(read_pictures(path))
    for own, index, square in cut:
        assert torch.equal(square, crop(frames.pixels[index], own.box[index], 0.3))
    np.testing.assert_array_equal(read, frames.time[:8])


def test_where_there_is_no_face_nothing_is_read_and_where_frames_are_gone_their_faces_are():
    def none():
        raise AssertionError("it was read")
        yield

    assert list(cut_squares(none(), [Layer(5, 3)], 0.3)) == []
    assert list(cut_squares(iter(()), [layer(5, 1, left=0)], 0.3)) == []
