"""The demo's videos as MP4 files: H.264 (MPEG-4 where PyAV has no x264) and AAC, the same bytes every time."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np


def encode(path: Path, pictures: np.ndarray, fps: int, samples: np.ndarray, sample_rate: int) -> None:
    """Write an MP4 of frames (T, H, W, 3) uint8 and mono sound (n,), beside first and then in place."""
    beside = path.with_name(f".{path.name}.part")
    with av.open(str(beside), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # x264's macroblock tree reads memory that it never wrote: with it, runs differ.
        if "libx264" in av.codecs_available:
            options = {"crf": "20", "preset": "veryfast", "x264-params": "mbtree=0"}
            video = container.add_stream("libx264", rate=fps, options=options)
        else:
            video = container.add_stream("mpeg4", rate=fps, bit_rate=2_000_000)
        video.height, video.width = pictures.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1  # the same bytes on any machine's number of cores
        sound = container.add_stream("aac", rate=sample_rate, layout="mono")
        sound.bit_rate = 64_000
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        block.sample_rate, block.pts = sample_rate, 0
        container.mux(sound.encode(block))
        container.mux(sound.encode(None))
    os.replace(beside, path)
