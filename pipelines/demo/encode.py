"""Synthetic videos as MP4 files: H.264 (MPEG-4 where PyAV has no x264) and AAC, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np

from affuse.files import Sink, publish


def encode(
    path: Path, parts: Iterable[tuple[np.ndarray, np.ndarray]], size: tuple[int, int], fps: int, sample_rate: int
) -> None:
    """Write an MP4 whole or not at all; size is width, height.

    parts: one after the other, of frames (T, height, width, 3) uint8 and mono sound (n,) in [-1, 1]. Raises AffuseError
    where it cannot be written.
    """

    def fill(sink: Sink) -> None:
        with av.open(sink, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
            video = add_pictures(container, size, fps)
            sound = container.add_stream("aac", rate=sample_rate, layout="mono")
            sound.bit_rate = 64_000
            heard = 0
            for pictures, samples in parts:
                for picture in pictures:
                    container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                block = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
                block.sample_rate, block.pts = sample_rate, heard
                heard += len(samples)
                container.mux(sound.encode(block))
            container.mux(video.encode(None))
            container.mux(sound.encode(None))

    publish(path, fill)


def add_pictures(container: av.container.OutputContainer, size: tuple[int, int], fps: int) -> av.VideoStream:
    """A stream of pictures in a container, of a width and a height, which are even."""
    # x264's macroblock tree reads memory that it never wrote: with it, runs differ.
    if "libx264" in av.codecs_available:
        options = {"crf": "20", "preset": "veryfast", "x264-params": "mbtree=0"}
        video = container.add_stream("libx264", rate=fps, options=options)
    else:
        video = container.add_stream("mpeg4", rate=fps, bit_rate=2_000_000)
    video.width, video.height = size
    video.pix_fmt = "yuv420p"
    video.codec_context.thread_count = 1  # the same bytes on any machine's number of cores
    return video
