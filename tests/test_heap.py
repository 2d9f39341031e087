"""What is freed between what is still held goes back to the system, now and then."""

import sys

import psutil
import pytest

from affuse.extract import heap


def resident() -> int:
    return psutil.Process().memory_info().rss


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is another")
def test_what_is_freed_between_what_is_held_is_given_back_but_not_all_the_time(monkeypatch):
    monkeypatch.setattr(heap, "_given_back", 0.0)
    blocks = [bytearray(b"x") * 60_000 for _ in range(2000)]  # 120 MB
    held, blocks = blocks[::2], None
    before = resident()
    heap.give_back()
    after = resident()
    assert after < before - 40e6
    given = heap._given_back
    heap.give_back()
    assert heap._given_back == given
    assert len(held) == 1000


def test_another_c_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(heap, "_given_back", 0.0)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    heap.give_back()
    heap.save_memory()
    monkeypatch.setattr(
        heap.ctypes, "CDLL", lambda name: name + 1
    )  # as on Windows, where there is no such name
    heap.save_memory()
