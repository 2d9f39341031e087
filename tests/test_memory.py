"""What of the process's memory grows with a video, and what is given back."""

import mmap
import sys

import numpy as np
import pytest
from affuse.extract import memory
from affuse.extract.memory import KEPT, KEPT_PER_LANE, Holes, resident
from affuse.features.layout import ROWS, _finite

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@linux
def test_resident_memory_is_what_is_held():
    before, size = resident(), 2**27
    held = mmap.mmap(-1, size)  # apart from the heap, which may have room for it already
    np.frombuffer(held, np.uint8)[:] = 1
    assert 0.9 * size < resident() - before < 1.2 * size


@linux
def test_holes_are_given_back_once_for_each_growth(monkeypatch):
    holes, trimmed = Holes(), []
    holes.trim = lambda pad: trimmed.append(pad)
    held = iter([10, 20, 20 + KEPT + 2 * KEPT_PER_LANE, 21 + KEPT + 2 * KEPT_PER_LANE, 50, 40])
    monkeypatch.setattr(memory, "resident", lambda: next(held))
    holes.after = 20
    for _ in range(3):
        holes.give_back(2)  # 10, 20 and just the bound: nothing to do
    assert trimmed == []
    holes.give_back(2)  # beyond it: given back, and 50 is what was held then
    assert (trimmed, holes.after) == ([0], 50)
    holes.give_back(2)
    assert trimmed == [0]


def test_where_the_c_library_keeps_nothing_nothing_is_given_back(monkeypatch):
    holes = Holes()
    holes.trim = None
    monkeypatch.setattr(memory, "resident", lambda: 1 / 0)
    holes.give_back(1)


@pytest.mark.parametrize("rows", [0, 1, ROWS, ROWS + 1, 3 * ROWS])
def test_a_number_that_is_none_is_found_in_any_row(rows):
    array = np.zeros((rows, 3), np.float16)
    assert _finite(array)
    if rows:
        array[-1, 2] = np.nan
        assert not _finite(array)
