"""Finding faces: in every frame, and in every n-th with boxes carried between."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affuse.extract.faces import NOBODY, Detected, Detection, FaceDetector, cut, same_faces
from media import face_frames, plain_frames


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(Detection(every=4), torch.device("cpu"))


def test_one_at_a_time_or_together_the_detector_finds_the_same(detector):
    frames = face_frames(6, (240, 180), drift=5)
    together = detector.look(frames)
    alone = [detector.look(frame[None])[0] for frame in frames]
    for a, b in zip(together, alone, strict=True):
        assert len(a.boxes) == 1
        np.testing.assert_allclose(a.boxes, b.boxes, atol=0.01)


def test_no_face_and_tiny_frames_give_nobody(detector):
    assert all(len(d.boxes) == 0 for d in detector(plain_frames(3), np.arange(3.0)))
    assert len(detector(plain_frames(1, (8, 8)), np.zeros(1))[0].boxes) == 0
    mixed = np.concatenate([face_frames(1), plain_frames(1)])
    assert [len(d.boxes) for d in detector(mixed, np.arange(2.0))] == [1, 0]


def test_a_look_near_a_face_finds_it_where_a_look_at_all_does(detector):
    for frame, before in pairwise(face_frames(4, (240, 180), drift=3)[::-1]):
        (whole,), (old,) = detector.look(frame[None]), detector.look(before[None])
        near = detector.look_near(frame, old.boxes[0])
        np.testing.assert_allclose(near.boxes, whole.boxes, atol=6)
    assert len(detector.look_near(plain_frames(1)[0], np.array([40.0, 30, 80, 80])).boxes) == 0
    edge = np.array([-30.0, -20, 20, 30])  # a face that hangs over the edge has less of a part around it
    assert len(detector.look_near(plain_frames(1)[0], edge).boxes) == 0


class Scene(FaceDetector):
    """A detector that knows where the faces are, and writes down where it was asked to look."""

    def __init__(self, boxes: list, every: int):
        self.settings, self.looked = Detection(every=every), []
        self.boxes = [np.array(box, float).reshape(-1, 4) for box in boxes]

    def look(self, pixels):
        index = [int(frame[0, 0, 0]) for frame in pixels]
        self.looked += index
        return [Detected(self.boxes[i], np.full(len(self.boxes[i]), 0.9 + i / 1000)) for i in index]

    def all(self, time=None, grey=0):
        """Frames are grey, but for their number in the first pixel."""
        count = len(self.boxes)
        pixels = np.full((count, 64, 64, 3), 0, np.uint8) + np.reshape(grey, (-1, 1, 1, 1)).astype(np.uint8)
        pixels[:, 0, 0, 0] = np.arange(count)
        return self(pixels, np.arange(count) / 25 if time is None else time)


def moving(start, step, count):
    return [np.array([0, 0, 100, 100]) + start + step * i for i in range(count)]


def test_a_face_that_moves_evenly_is_looked_at_now_and_then():
    scene = Scene(moving(3, 1.5, 11), every=4)
    found = scene.all()
    assert scene.looked == [0, 4, 8, 10]
    np.testing.assert_allclose([f.boxes[0] for f in found], np.stack(scene.boxes)[:, 0], atol=1e-9)
    np.testing.assert_allclose([f.confidence[0] for f in found], 0.9 + np.arange(11) / 1000)


def test_boxes_follow_the_clock_not_the_count():
    """Frames 1 to 3 come late: the face has then moved almost to where it is at frame 4."""
    scene = Scene(moving(0, 1, 5), every=4)
    found = scene.all(time=np.array([0, 0.7, 0.8, 0.9, 1.0]))
    np.testing.assert_allclose([f.boxes[0, 0] for f in found], [0, 2.8, 3.2, 3.6, 4])


def test_two_faces_that_change_places_in_the_list_stay_themselves():
    one, other = [0, 0, 50, 50], [100, 0, 150, 50]
    scene = Scene([[one, other], [], [], [other, one]], every=3)
    found = scene.all()
    assert scene.looked == [0, 3]
    for faces in found[1:3]:
        np.testing.assert_allclose(faces.boxes, [one, other])


@pytest.mark.parametrize(
    "boxes",
    [
        [[0, 0, 50, 50]] * 2 + [[]] * 3,  # it went
        [[]] * 3 + [[0, 0, 50, 50]] * 2,  # it came
        [[0, 0, 50, 50]] * 3 + [[40, 0, 90, 50]] * 2,  # it jumped
    ],
)
def test_what_came_went_or_jumped_is_looked_at_in_every_frame(boxes):
    scene = Scene(boxes, every=4)
    found = scene.all()
    assert sorted(scene.looked) == [0, 1, 2, 3, 4]
    for faces, truth in zip(found, scene.boxes, strict=True):
        np.testing.assert_array_equal(faces.boxes, truth)


def test_a_scene_cut_is_looked_at_in_every_frame():
    scene = Scene(moving(0, 0, 9), every=4)
    scene.all(grey=np.repeat([40, 120], [6, 3]))
    assert sorted(scene.looked) == [0, 4, 5, 6, 7, 8]
    slow = np.linspace(0, 200, 9)[:, None, None, None] * np.ones((1, 8, 8, 3))
    assert not cut(slow.astype(np.uint8))


def test_nobody_before_and_after_is_nobody_between():
    scene = Scene([[]] * 9, every=4)
    assert all(len(faces.boxes) == 0 for faces in scene.all())
    assert scene.looked == [0, 4, 8]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 32), st.integers(1, 40), st.randoms(use_true_random=False))
def test_every_frame_is_answered_and_every_look_is_kept(every, count, random):
    boxes = [
        [[x, 0, x + 20, 20]] if random.random() < 0.8 else []
        for x in (random.randrange(60) for _ in range(count))
    ]
    scene = Scene(boxes, every)
    found = scene.all()
    assert len(found) == count
    assert len(set(scene.looked)) == len(scene.looked)  # no frame is looked at twice
    assert {0, count - 1} <= set(scene.looked)
    for i in scene.looked:
        np.testing.assert_array_equal(found[i].boxes, scene.boxes[i])
    if every == 1:
        assert sorted(scene.looked) == list(range(count))


def test_pairs_are_one_to_one():
    one = Detected(np.array([[0, 0, 10, 10], [1, 0, 11, 10.0]]), np.ones(2))
    near_one_only = Detected(np.array([[0, 0, 10, 10], [80, 0, 90, 10.0]]), np.ones(2))
    assert same_faces(one, near_one_only) is None
    assert same_faces(one, NOBODY) is None
    np.testing.assert_array_equal(same_faces(one, one), [0, 1])
