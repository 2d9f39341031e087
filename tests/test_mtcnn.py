"""MTCNN over many frames at once finds what facenet-pytorch finds, however candidates are kept."""

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode

from affuse.extract import mtcnn
from affuse.extract.mtcnn import Counted, Detector, Roomy, cut_out, pyramid, running_sums, shrunk
from cast import LEFT, RIGHT, Part, scene
from media import face_frames, photograph, plain_frames

CPU = torch.device("cpu")
CLOSE = Part("ann", 100, 140, 220, 10)
SCENES = {
    "one": (photograph()[None], 20),
    "two": (scene(0.3, LEFT, RIGHT), 24),
    "crossing": (scene(0.4, Part("ann", 90, 230), Part("cid", 230, 90, 80)), 24),
    "someone and nobody": (np.concatenate([face_frames(2), plain_frames(2)]), 20),
    "nobody": (plain_frames(2), 20),
    "beyond the edge": (scene(0.2, CLOSE, level=0)[:, 60:], 40),
    "noise": (np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3), dtype=np.uint8), 20),
}


@pytest.fixture(scope="module")
def peer() -> MTCNN:
    return MTCNN(keep_all=True).eval()


@pytest.mark.parametrize("room", [None, 128, 2])  # of two places most are lacking
@pytest.mark.parametrize("name", SCENES)
def test_faces_are_those_that_facenet_pytorch_finds(peer, name, room):
    pixels, smallest = SCENES[name]
    peer.min_face_size = smallest
    found = Detector(CPU, room)(torch.from_numpy(pixels.copy()), smallest)
    for frame, (boxes, score) in zip(
        pixels, found, strict=True
    ):  # alone: it fails where one of several has none
        expected, sure = peer.detect(frame.copy())
        assert len(boxes) == (0 if expected is None else len(expected))
        if len(boxes):
            np.testing.assert_allclose(boxes, expected.astype(float), atol=1e-3)  # pixels
            np.testing.assert_allclose(score, sure.astype(float), atol=1e-5)


def test_scenes_have_faces_to_find():
    counts = {
        name: [len(boxes) for boxes, _ in Detector(CPU)(torch.from_numpy(pixels.copy()), smallest)]
        for name, (pixels, smallest) in SCENES.items()
    }
    assert counts["two"] == [2, 2, 2]
    assert counts["someone and nobody"] == [1, 1, 0, 0]
    assert counts["beyond the edge"] == [1, 1]


class Told(TorchDispatchMode):
    """Notes whatever would have a GPU waited for: sizes and numbers that only the data tell."""

    asking = ("nonzero", "_local_scalar_dense", "masked_select", "nms", "unique")

    def __init__(self):
        super().__init__()
        self.asked = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        indices = args[1] if name == "index" else ()
        if any(word in name for word in self.asking) or any(
            i is not None and i.dtype == torch.bool for i in indices
        ):
            self.asked.add(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("roomy", "asked"), [(True, False), (False, True)])
def test_in_places_of_a_fixed_number_nothing_is_asked_on_the_way(roomy, asked):
    pixels, smallest = SCENES["two"]
    way = Roomy(len(pixels), 64, CPU) if roomy else Counted()
    with torch.no_grad(), Told() as told:
        found = Detector(CPU).found(torch.from_numpy(pixels), smallest, way)
    assert bool(told.asked) == asked
    assert not way.lacking
    assert int(found.held.sum()) == 2 * len(pixels)


def test_too_many_candidates_are_noticed():
    pixels, smallest = SCENES["two"]
    way = Roomy(len(pixels), 2, CPU)
    with torch.inference_mode():
        Detector(CPU).found(torch.from_numpy(pixels), smallest, way)
    assert way.lacking


def settled(length: int) -> tuple[list[bool], bool]:
    """Who stays of candidates of which each lies on the one before, and whether that was not settled in time."""
    way = Roomy(1, length, CPU)
    left = 50.0 * torch.arange(length)
    box = torch.stack([left, torch.zeros(length), left + 100, torch.full((length,), 100.0)], 1)
    found = mtcnn.Candidates(
        box, torch.linspace(1, 0.5, length), torch.zeros(length, dtype=torch.int64),
        torch.ones(length, dtype=torch.bool), torch.zeros(length, 4),
    )  # fmt: skip
    return way.apart(found, 0.3).held.tolist(), bool(way.lacking)


def test_who_falls_to_one_that_falls_stays():
    assert settled(9) == ([True, False] * 4 + [True], False)
    assert settled(2 * mtcnn.ROUNDS)[1]


@pytest.mark.parametrize("size", [(97, 131), (12, 17)])
def test_sums_give_the_means_of_areas(size):
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, *size, 3), dtype=np.uint8))
    sums, pictures = running_sums(pixels), pixels.permute(0, 3, 1, 2).float()
    expected = (interpolate(pictures, (9, 11), mode="area") - 127.5) * 0.0078125
    torch.testing.assert_close(shrunk(sums, 9, 11), expected)
    window = torch.tensor([[3, 2, 12, 11], [0, 0, size[1], size[0]], [5, 4, 6, 5]])
    frame = torch.tensor([0, 1, 1])
    expected = [
        (interpolate(pictures[i, None, :, top:bottom, left:right], (24, 24), mode="area") - 127.5) * 0.0078125
        for i, (left, top, right, bottom) in zip(frame.tolist(), window.tolist(), strict=True)
    ]
    torch.testing.assert_close(cut_out(sums, frame, window, 24), torch.cat(expected))


def test_sums_of_large_frames_do_not_overflow():
    pixels = torch.full((1, 2900, 2910, 3), 255, dtype=torch.uint8)
    assert running_sums(pixels)[0, -1, -1].tolist() == [255 * 2900 * 2910] * 3


def test_the_pyramid_ends_where_a_frame_is_a_cell():
    assert pyramid(40, 20) == pytest.approx([0.6, 0.6 * 0.709, 0.6 * 0.709**2])
    assert pyramid(19, 20) == []
