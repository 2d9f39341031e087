"""Shared fixtures: real weights where they can be had, and a cache folder of the tests' own."""

from __future__ import annotations

import os
from pathlib import Path

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


@pytest.fixture
def clips() -> Path:
    """Real talking-head videos, where the checkout has them beside it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "clips"
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder}")
    return folder
