"""The sound of a file: read by slices while several lanes ask, and what is said where it cannot be kept."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from affuse.extract import sound
from affuse.extract.run import process
from affuse.extract.sound import SAMPLE_RATE, Sound
from affuse.extract.videos import find_jobs
from affuse.features.store import FeatureStore
from builders_extract import seeded_extractor
from media import tone, write_media

MINUTE = 60 * SAMPLE_RATE


def test_slices_are_those_of_an_array_whoever_reads_beside():
    samples = np.random.default_rng(0).standard_normal(MINUTE).astype(np.float32)
    kept = Sound()
    for first in range(0, MINUTE, 1000):
        kept.put(first, samples[first : first + 1000])
    spans = [slice(i * 37, i * 997 + 5) for i in range(400)] + [slice(None), slice(-9, None), slice(7, 3)]
    with ThreadPoolExecutor(8) as threads:
        for span, read in zip(spans, threads.map(kept.__getitem__, spans), strict=True):
            np.testing.assert_array_equal(read, samples[span])


def test_half_an_hour_of_it_takes_no_memory():
    before, kept = psutil.Process().memory_info().rss, Sound()
    for minute in range(30):
        kept.put(minute * MINUTE, np.ones(MINUTE, np.float32))
    assert len(kept) == 30 * MINUTE
    assert psutil.Process().memory_info().rss - before < 30 * MINUTE * 4 / 2


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_where_there_is_no_room_the_video_fails_and_is_tried_again(tmp_path, monkeypatch):
    write_media(tmp_path / "videos" / "a.mkv", samples=tone(1.0))
    (job,) = find_jobs(tmp_path / "videos")
    extractor, store = seeded_extractor(), FeatureStore(tmp_path / "store", create=True)
    with monkeypatch.context() as full:
        full.setattr(sound, "TemporaryFile", lambda **_: open("/dev/full", "r+b"))  # noqa: SIM115
        receipt = process(job, extractor, store)
    assert "cannot be kept in" in receipt.failure
    assert "No space left on device" in receipt.failure
    assert "TMPDIR" in receipt.failure
    assert len(store) == 0
    assert process(job, extractor, store).failure is None
