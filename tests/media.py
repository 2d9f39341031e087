"""Small media made on the fly: a photographed face that drifts across the frame, with sound beside it."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from PIL import Image

RATE = 16_000  # Hz


@cache
def photograph() -> np.ndarray:
    """A public-domain portrait, (512, 512, 3) uint8: scikit-image's astronaut (NASA)."""
    from skimage.data import astronaut

    return astronaut()


def face_frames(count: int, size: tuple[int, int] = (192, 144), drift: float = 1.0) -> np.ndarray:
    """(count, H, W, 3) uint8: a face that moves `drift` pixels a frame; size is width, height."""
    width, height = size
    portrait = Image.fromarray(photograph()[0:300, 90:390]).resize((height, height))
    frames = np.full((count, height, width, 3), 90, np.uint8)
    for i in range(count):
        left = round((width - height) / 2 + drift * i) % max(1, width - height + 1)
        frames[i, :, left : left + height] = np.asarray(portrait)[:, : width - left]
    return frames


def plain_frames(count: int, size: tuple[int, int] = (192, 144), level: int = 90) -> np.ndarray:
    """(count, H, W, 3) uint8 without a face."""
    return np.full((count, size[1], size[0], 3), level, np.uint8)


def tone(seconds: float, hertz: float = 440.0, level: float = 0.3, rate: int = RATE) -> np.ndarray:
    """A sine, (samples,) float32."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_media(
    path: Path,
    frames: np.ndarray | None = None,
    fps: int = 10,
    samples: np.ndarray | None = None,
    rate: int = RATE,
    times: np.ndarray | None = None,
    audio_start: float = 0.0,
    channels: int = 1,
) -> Path:
    """Write a video file with PyAV.

    frames (n, H, W, 3) uint8 at `fps`, or at `times` (seconds, a variable rate); samples (n,) float32 at `rate` Hz.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = audio = None
        if frames is not None:
            video = container.add_stream("libx264", rate=fps, options={"crf": "18", "preset": "ultrafast"})
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
        if samples is not None:
            audio = container.add_stream(
                "aac", rate=rate, layout={1: "mono", 2: "stereo", 6: "5.1"}[channels]
            )
        if video is not None:
            times = np.arange(len(frames)) / fps if times is None else times
            for picture, time in zip(frames, times, strict=True):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if audio is not None:
            for first in range(0, len(samples), 1024):
                block = np.tile(samples[first : first + 1024], (channels, 1))
                sound = av.AudioFrame.from_ndarray(block, format="fltp", layout=audio.layout.name)
                sound.sample_rate, sound.time_base = rate, Fraction(1, rate)
                sound.pts = first + round(audio_start * rate)
                container.mux(audio.encode(sound))
            container.mux(audio.encode())
    return path


def squeezed(path: Path, aspect: str, size: tuple[int, int] = (96, 72)) -> Path:
    """Frames of H.264 whose pixels are `aspect` times as wide as high."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        for picture in face_frames(3, size):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


def talking_head(path: Path, seconds: float = 1.2, fps: int = 10, **changes) -> Path:
    """A short video with a face and a tone."""
    options = {"frames": face_frames(round(seconds * fps)), "fps": fps, "samples": tone(seconds), **changes}
    return write_media(path, **options)


def cut_clip(source: Path, path: Path, start: float, seconds: float, width: int = 320) -> Path:
    """Write a part of a video, made smaller, with its sound; start in seconds."""
    frames, times, blocks = [], [], []
    with av.open(str(source)) as container:
        for frame in container.decode(video=0):
            if start <= frame.time < start + seconds:
                height = round(width * frame.height / frame.width / 2) * 2
                frames.append(frame.to_ndarray(width=width, height=height, format="rgb24"))
                times.append(frame.time - start)
    with av.open(str(source)) as container:
        resampler = av.AudioResampler("fltp", "mono", RATE)
        for frame in container.decode(audio=0):
            blocks += [block.to_ndarray()[0] for block in resampler.resample(frame)]
    samples = np.concatenate(blocks)[round(start * RATE) : round((start + seconds) * RATE)]
    return write_media(path, np.stack(frames), samples=samples, times=np.array(times))


def block(samples: np.ndarray) -> av.AudioFrame:
    """Mono sound (n,) at 16 kHz as a decoder gives it."""
    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="flt", layout="mono")
    frame.sample_rate = 16_000
    return frame
