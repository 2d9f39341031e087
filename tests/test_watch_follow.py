"""Watching: one face followed as pictures come."""

from __future__ import annotations

import numpy as np
import pytest

from affuse.extract.faces import Detected, Detection
from affuse.pipelines.watch.follow import Follower


class Looks:
    """A detector that finds what it is told, by the number of the look."""

    def __init__(self, *found: list, **settings):
        self.settings, self.found, self.near = Detection(**settings), list(found), []

    def look_near(self, pixels: np.ndarray, box: np.ndarray) -> Detected:
        self.near.append(box.tolist())
        return self.look(pixels)[0]

    def look(self, pixels: np.ndarray) -> list[Detected]:
        boxes = self.found.pop(0)
        return [Detected(np.array(boxes, float).reshape(-1, 4), np.full(len(boxes), 0.9))]


RANDOM = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
OTHER = np.random.default_rng(1).integers(0, 60, (90, 160, 3), np.uint8)
SMALL_FACE, LARGE_FACE, MOVED = [10, 10, 30, 30], [100, 20, 150, 70], [14, 10, 34, 30]


def follow(follower: Follower, *pictures: np.ndarray) -> list:
    return [None if (box := follower(p, i / 10)[0]) is None else box.tolist() for i, p in enumerate(pictures)]


def test_a_box_stays_until_the_next_look():
    follower = Follower(Looks([LARGE_FACE, SMALL_FACE], [], [SMALL_FACE], every=3))
    assert follow(follower, *[RANDOM] * 4) == [LARGE_FACE] * 3 + [None]
    assert follower.looks == 2


def test_the_face_that_was_followed_is_followed_on():
    follower = Follower(Looks([SMALL_FACE], [LARGE_FACE, MOVED], every=2))
    assert follow(follower, *[RANDOM] * 3) == [SMALL_FACE, SMALL_FACE, MOVED]
    assert (follower.detector.near, follower.looks) == ([SMALL_FACE], 2)


def test_where_the_face_is_not_about_where_it_was_the_whole_picture_is_looked_at():
    looks = Looks([SMALL_FACE], [], [MOVED], [LARGE_FACE], [LARGE_FACE], every=1)
    assert follow(Follower(looks), *[RANDOM] * 3) == [SMALL_FACE, MOVED, None]
    assert looks.near == [SMALL_FACE, MOVED]
    assert looks.found == []


def test_of_the_largest_face_nothing_is_known_from_a_part_of_the_picture():
    looks = Looks([SMALL_FACE], [SMALL_FACE, LARGE_FACE], every=1, face="largest")
    assert follow(Follower(looks), *[RANDOM] * 2) == [SMALL_FACE, LARGE_FACE]
    assert looks.near == []


def test_after_a_second_without_it_another_face_is_taken():
    follower = Follower(Looks([SMALL_FACE], [], *[[LARGE_FACE]] * 12, every=1))
    boxes = follow(follower, *[RANDOM] * 13)
    assert boxes[:2] == [SMALL_FACE, None]
    assert boxes[-1] == LARGE_FACE


def test_a_cut_or_another_picture_in_the_box_is_looked_at_at_once():
    follower = Follower(Looks([SMALL_FACE], [LARGE_FACE], every=32))
    assert follow(follower, RANDOM, OTHER) == [SMALL_FACE, LARGE_FACE]
    changed = RANDOM.copy()
    changed[5:35, 5:35] = OTHER[5:35, 5:35]
    follower = Follower(Looks([SMALL_FACE], [MOVED], every=32))
    assert follow(follower, RANDOM, changed) == [SMALL_FACE, MOVED]


@pytest.mark.parametrize(("face", "box"), [("main", LARGE_FACE), ("left", SMALL_FACE), ("right", LARGE_FACE)])
def test_the_setting_says_whom_to_follow(face, box):
    assert follow(Follower(Looks([SMALL_FACE, LARGE_FACE], face=face)), RANDOM) == [box]
