"""What `benchmarks/live.py` watches: a clip over and over, without a gap."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from affuse.extract.media import read_pictures
from affuse.extract.sound import SAMPLE_RATE, read_audio
from live import clip


def test_a_clip_goes_on_over_and_over(tmp_path):
    """Three times to its end, so that it lasts as long as was asked for."""
    live = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "live.py"))
    once = clip(tmp_path / "clip.mkv", 1.2)
    assert live["over_and_over"](once, 3.0, tmp_path / "long.mkv") == pytest.approx(10)
    times = [picture.time for picture in read_pictures(tmp_path / "long.mkv")]
    assert len(times) == 36
    assert np.diff(times) == pytest.approx(
        0.1, abs=0.09
    )  # sound begins before pictures, and lasts a block longer
    heard = np.abs(read_audio(tmp_path / "long.mkv")[:])
    assert len(heard) / SAMPLE_RATE == pytest.approx(3.6, abs=0.25)
    assert heard[: SAMPLE_RATE // 5].max() < heard[SAMPLE_RATE : SAMPLE_RATE * 6 // 5].max()
