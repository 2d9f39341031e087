"""The measurement of memory: what it makes, and that its numbers are those of the extraction."""

import json
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from affuse.errors import AffuseError, UsageError
from affuse.extract.extraction import extract_settings
from affuse.extract.media import probe, read_frames, read_pictures
from affuse.extract.sound import SAMPLE_RATE, read_audio
from affuse.extract.speech import SILENCE, loudness
from affuse.extract.weights.doctor import environment
from affuse.pipelines.bench import machine
from affuse.pipelines.bench import memory as bench_memory
from affuse.pipelines.bench.machine import peak
from affuse.pipelines.bench.memory import SIZE, describe_memory, film, measure_memory


def measure(**changes) -> dict:
    settings = extract_settings("offline", assignments=["modalities=[visual, audio]"])
    return measure_memory(settings, None, True, **changes)


def test_a_face_and_noise_in_the_first_minute_of_ten(tmp_path, monkeypatch):
    pytest.importorskip("skimage")
    monkeypatch.setattr(bench_memory, "SHOWN", 3)
    monkeypatch.setattr(bench_memory, "PERIOD", 6)
    path = film(tmp_path / "a.mp4", 7.5, 4)
    media = probe(path)
    assert (media.width, media.height, media.fps) == (*SIZE, 4)
    pixels = np.concatenate([chunk.pixels for chunk in read_frames(read_pictures(path))])
    assert len(pixels) == 30
    shown = pixels.std(axis=(1, 2, 3)) > 10
    np.testing.assert_array_equal(shown, np.arange(30) / 4 % 6 < 3)
    level = loudness(read_audio(path)[: 7 * SAMPLE_RATE])
    loud = np.array([np.median(level[s * 33 + 5 : s * 33 + 28]) > SILENCE for s in range(7)])
    np.testing.assert_array_equal(loud, [True, False, False, False, False, False, True])


def test_a_short_film_is_measured():
    pytest.importorskip("skimage")
    found = measure(hours=0.001, fps=3)
    assert found["video"]["frames"] == 11
    assert found["video"]["statuses"] == {"visual": "ok", "audio": "ok", "text": "skipped"}
    assert 100e6 < found["short"] <= found["long"]
    assert found["growth"] == found["long"] - found["short"]
    assert found["record"] >= 11 * (2048 + 128) * 2
    assert json.loads(json.dumps(found))["machine"] == environment()
    said = describe_memory(found)
    assert f"{found['long'] / 2**20:.0f} MiB" in said
    assert "visual ok" in said
    assert f"cpu {environment()['cpu']}" in said


@pytest.mark.parametrize("hours", [0, -1, 5, float("nan")])
def test_lengths_that_are_not_read_are_refused(hours):
    with pytest.raises(UsageError, match="--hours"):
        measure(hours=hours)


def test_the_peak_is_the_most_that_was_held():
    before = peak()
    held = np.ones(2**26)  # 512 MiB, more than was held before or not
    assert peak() >= held.nbytes
    assert peak() >= before
    del held
    assert peak() >= 2**29


def test_windows_says_it_too_and_where_no_system_does_it_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "STATUS", tmp_path / "status")
    with pytest.raises(AffuseError, match="Linux or Windows"):
        measure()
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: SimpleNamespace(peak_wset=5))
    assert peak() == 5
