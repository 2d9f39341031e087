"""Odd recordings: pixels have their true shape, and damage is alike each time."""

import hashlib
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from affuse.extract.media import read_frames
from hostile import patched
from media import face_frames


def squeezed(path, aspect, size=(96, 72)):
    """Frames of H.264 whose pixels are `aspect` times as wide as high."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        for picture in face_frames(3, size):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("aspect", "width", "height"),
    [("4/3", 128, 72), ("3/4", 96, 96), ("1", 96, 72), ("4", 384, 72), ("9/2", 96, 72), ("1/5", 96, 72)],
)
def test_pixels_are_made_square(tmp_path, aspect, width, height):
    path = squeezed(tmp_path / "a.mkv", aspect)
    (frames,) = read_frames(path)
    assert frames.pixels.shape == (3, height, width, 3)
    np.testing.assert_array_equal(frames.size, [[width, height]] * 3)
    (small,) = read_frames(path, short_side=36)
    scale = 36 / min(width, height)
    assert small.pixels.shape == (3, round(height * scale), round(width * scale), 3)
    np.testing.assert_array_equal(small.size, frames.size)


def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path):
    quarter = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    patched(b"tkhd", 44, quarter, lambda path: squeezed(path, "4/3"))(tmp_path / "a.mp4")
    (frames,) = read_frames(tmp_path / "a.mp4")
    assert frames.pixels.shape == (3, 128, 72, 3)
    np.testing.assert_array_equal(frames.size, [[72, 128]] * 3)


def broken(path):
    """60 frames of H.264, two in three of them bidirectional, with bytes flipped in every seventh packet."""
    generator = np.random.default_rng(3)
    grain = generator.integers(0, 60, (60, 144, 192, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "2", "g": "30", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = 192, 144, "yuv420p"
        pixels = (face_frames(60) * 0.7 + grain).astype(np.uint8)
        pictures = [*(av.VideoFrame.from_ndarray(picture, "rgb24") for picture in pixels), None]
        for i, packet in enumerate([packet for picture in pictures for packet in stream.encode(picture)]):
            data = bytearray(bytes(packet))
            if i % 7 == 5:
                for place in generator.integers(len(data) // 3, len(data), 4):
                    data[place] ^= 0xFF
            sent = av.Packet(bytes(data))
            sent.pts, sent.dts, sent.time_base, sent.stream = packet.pts, packet.dts, packet.time_base, stream
            sent.is_keyframe = packet.is_keyframe
            container.mux(sent)
    return path


def test_a_damaged_video_is_the_same_each_time(tmp_path):
    path, runs = broken(tmp_path / "a.mkv"), set()
    for _ in range(6):
        damage, digest = [], hashlib.sha256()
        for chunk in read_frames(path, damage=damage):
            digest.update(chunk.pixels.tobytes())
        runs.add((digest.hexdigest(), tuple(damage)))
    assert len(runs) == 1


def test_damaged_frames_are_noted_and_used(tmp_path):
    damage = []
    frames = sum(len(chunk.time) for chunk in read_frames(broken(tmp_path / "a.mkv"), damage=damage))
    assert frames == 60
    assert damage
    assert all("is damaged" in reason for reason in damage)
