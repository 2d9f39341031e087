"""What a GPU's decoder gives is made RGB as FFmpeg does it; what it does not decode is decoded on the CPU.

PyAV hands NV12 in memory out as it does on a GPU, so that all but the decoder itself is tested here.
"""

import logging
from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from affuse.extract import nvdec
from affuse.extract.crops import cut_squares
from affuse.extract.media import Picture, UndecodableError, read_frames, read_pictures
from affuse.extract.nvdec import decoded_there, rgb
from affuse.extract.people import Layer
from media import photograph, talking_head

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")
HAS_DLPACK = hasattr(av.video.plane.VideoPlane, "__dlpack__")
needs_dlpack = pytest.mark.skipif(not HAS_DLPACK, reason="this PyAV has no DLPack")
BT709, BT601, LIMITED, FULL = 1, 6, 1, 2  # by FFmpeg's numbers


def coded(colorspace: int, colours: int) -> av.VideoFrame:
    """A photograph as NV12."""
    picture = av.VideoFrame.from_ndarray(photograph(), format="rgb24")
    frame = picture.reformat(
        format="yuv420p",
        src_colorspace=colorspace,
        dst_colorspace=colorspace,
        src_color_range=FULL,
        dst_color_range=colours,
    )
    frame = frame.reformat(format="nv12", src_color_range=colours, dst_color_range=colours)
    frame.colorspace, frame.color_range = colorspace, colours
    return frame


def error(frame: av.VideoFrame) -> float:
    """Mean difference from the photograph, of 255."""
    return np.abs(rgb(frame, 512, 512).numpy().astype(int) - photograph()).mean()


@needs_dlpack
@pytest.mark.parametrize("colorspace", [BT601, BT709])
@pytest.mark.parametrize("colours", [LIMITED, FULL])
def test_colours_are_those_of_the_picture(colorspace, colours):
    frame = coded(colorspace, colours)
    least = error(frame)
    assert least < 3  # colour is halved in both directions
    frame.colorspace = {BT601: BT709, BT709: BT601}[colorspace]
    assert error(frame) > least + 1
    frame.colorspace, frame.color_range = colorspace, {LIMITED: FULL, FULL: LIMITED}[colours]
    assert error(frame) > least + 1


@needs_dlpack
@pytest.mark.parametrize("short_side", [None, 144, 100])
def test_pictures_are_those_of_ffmpeg(tmp_path, short_side):
    usual = next(read_pictures(talking_head(tmp_path / "a.mp4", seconds=0.3)))
    expected = usual.pixels(short_side).astype(int)
    made = rgb(usual.frame.reformat(format="nv12"), *expected.shape[:2]).numpy()
    assert made.shape == expected.shape
    difference = np.abs(made - expected)  # of 255
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99) <= 6


def test_ten_bits_are_as_eight():
    generator = np.random.default_rng(0)
    bright, colour = (
        torch.from_numpy(generator.integers(16, 235, size, np.uint8)) for size in ((8, 6), (4, 3, 2))
    )
    wide = [(plane.int() * 256).to(torch.uint16) for plane in (bright, colour)]
    given = (4, 3, nvdec.USUAL, False)
    assert torch.equal(nvdec.from_planes(*wide, *given), nvdec.from_planes(bright, colour, *given))


@needs_dlpack
@pytest.mark.parametrize("rotation", [0, 90])
def test_pictures_are_cut_where_they_are(tmp_path, monkeypatch, rotation):
    monkeypatch.setattr(Picture, "_quarters", rotation // 90)
    path = talking_head(tmp_path / "a.mp4", seconds=0.3)
    usual = list(read_pictures(path))
    layer = Layer(len(usual), 3)
    layer.box[:], layer.confidence[:] = (20, 10, 90, 80), 1
    expected = [square for *_, square in cut_squares(usual, [layer], 0.3)]
    (small,) = read_frames(usual, short_side=72)
    monkeypatch.setattr(Picture, "on_gpu", property(lambda picture: picture.frame.format.name == "nv12"))
    there = [replace(picture, frame=picture.frame.reformat(format="nv12")) for picture in usual]
    for square, other in zip(expected, cut_squares(there, [layer], 0.3), strict=True):
        assert square.shape == other[2].shape
        assert (square.int() - other[2].int()).abs().float().mean() < 1.5
    (other,) = read_frames(there, short_side=72)
    assert np.abs(small.pixels.astype(int) - other.pixels).mean() < 1.5


def refusing(kind: type, message: str):
    def read(path, damage=None, accelerator=None):
        if accelerator is not None:
            raise kind(message)
        return read_pictures(path, damage)

    return read


@pytest.mark.parametrize("kind", [UndecodableError, TypeError, NotImplementedError])
def test_what_the_gpu_does_not_decode_is_decoded_on_the_cpu(tmp_path, monkeypatch, caplog, kind):
    path = talking_head(tmp_path / "a.mp4", seconds=0.3)
    monkeypatch.setattr(nvdec, "accelerator", lambda device: device)
    monkeypatch.setattr(nvdec, "read_pictures", refusing(kind, "there is no NVDEC here"))
    with caplog.at_level(logging.DEBUG, "affuse"):
        pictures = list(decoded_there(path, GPU))
    assert [picture.time for picture in pictures] == [picture.time for picture in read_pictures(path)]
    assert f"{path} is decoded on the CPU: there is no NVDEC here" in caplog.text


def test_damage_that_the_gpu_met_is_told_only_where_its_pictures_are_taken(tmp_path, monkeypatch):
    path = talking_head(tmp_path / "a.mp4", seconds=0.3)

    able = True

    def read(path, damage=None, accelerator=None):
        damage.append(f"met by {'the GPU' if accelerator else 'the CPU'}")
        return iter(read_pictures(path) if able or not accelerator else ())

    monkeypatch.setattr(nvdec, "accelerator", lambda device: device)
    monkeypatch.setattr(nvdec, "read_pictures", read)
    assert (len(list(decoded_there(path, GPU, damage := []))), damage) == (3, ["met by the GPU"])
    able = False
    assert (len(list(decoded_there(path, GPU, damage := []))), damage) == (3, ["met by the CPU"])


def test_a_machine_without_one_falls_back(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    path = talking_head(tmp_path / "a.mp4", seconds=0.3)
    assert [p.on_gpu for p in decoded_there(path, GPU)] == [False] * 3
