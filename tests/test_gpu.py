"""What a GPU is given, as far as it can be told without one."""

import logging
from contextlib import nullcontext
from threading import Event
from types import SimpleNamespace

import torch

from affuse.extract import gpu, lanes
from affuse.extract.gpu import captured, upload
from affuse.extract.lanes import Lanes

CPU = torch.device("cpu")


def test_on_a_cpu_nothing_is_copied_or_captured():
    values = torch.rand(3)
    assert upload(values, CPU) is values
    assert captured(torch.relu, values) is torch.relu


def test_what_cannot_be_captured_is_computed_as_it_is(monkeypatch, caplog):
    def refuse():
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(gpu, "on", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", refuse)
    example = SimpleNamespace(device=torch.device("cuda:1"), clone=lambda: torch.zeros(2))
    with caplog.at_level(logging.DEBUG, "affuse"):
        assert captured(torch.relu, example) is torch.relu
    assert "not captured as a CUDA graph: operation not permitted when stream is capturing" in caplog.text


def test_words_wait_for_no_lane_and_no_lane_for_words(monkeypatch):
    for name in ("on", "beside"):
        monkeypatch.setattr(lanes, name, lambda device: nullcontext())
    lane, words = Event(), Event()
    with Lanes(1, Event(), torch.device("cuda")) as pool:
        held = pool.submit(lane.wait, 600)
        assert pool.aside(str, "said").result(600) == "said"
        lane.set()
        spoken = pool.aside(words.wait, 600)
        assert pool.submit(str, "seen").result(600) == "seen"
        words.set()
        assert held.result()
        assert spoken.result()
