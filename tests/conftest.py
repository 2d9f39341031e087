"""What every test gets: a cache folder of the tests' own, and its number of threads back."""

from __future__ import annotations

import os

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Weights are never taken from, or left in, the user's own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("AFFUSE_WEIGHTS", raising=False)


@pytest.fixture(autouse=True)
def own_threads():
    """Extraction sets the number of torch's threads, and the order of sums depends on it: not from test to test."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
