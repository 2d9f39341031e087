"""What every test gets: a cache folder of the tests' own, and its number of threads back."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("affuse", deadline=None)  # a test never races the machine
settings.load_profile("affuse")

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start, too
torch.set_num_threads(1)  # at the sizes of tests several only wait for each other

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a job in the background: what tests start must hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--device", default="cuda", help="where tests marked cuda compute; cpu rehearses them")


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
def no_waiting_for_ever():
    """A run that nobody works for would never end."""

    def end(*_):
        raise TimeoutError("the test took longer than ten minutes")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True, scope="session")
def loose_figures():
    """Axes stay where they are: to fit them to what is written takes half of the time of a small figure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.layout_engine.ConstrainedLayoutEngine.execute", lambda engine, figure: None)
        yield


@pytest.fixture(scope="module")
def undrawn():
    """Figures are empty files: to draw them takes longer than to train at these sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, file, **options: None)
        yield


@pytest.fixture(scope="session")
def say():
    """Speaks a sentence between two seconds of silence: (samples,) at 16 kHz."""
    pytest.importorskip("espeakng_loader")
    from affuse.pipelines.demo.voice import Voice, synthesiser

    def speak(text: str) -> np.ndarray:
        engine = synthesiser()  # a new one each time: what it says depends on what it has said
        pause = np.zeros(engine.sample_rate, np.float32)
        whole = np.concatenate([pause, engine.speak(text, Voice("en-us+m3"), 160, 45, 50), pause])
        at = np.arange(0, len(whole), engine.sample_rate / 16_000)
        return np.interp(at, np.arange(len(whole)), whole).astype(np.float32)

    return speak


@pytest.fixture
def read(monkeypatch):
    """(video, array) of all embeddings that fusion reads from a store, in a list that grows."""
    from affuse.features import FeatureStore

    told, read_rows = [], FeatureStore.read_rows

    def watched(self, video, wanted):
        told.extend((video, array) for array, *_ in wanted)
        return read_rows(self, video, wanted)

    monkeypatch.setattr(FeatureStore, "read_rows", watched)
    return told
