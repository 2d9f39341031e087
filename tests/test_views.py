"""Views of a face: what each is of, how the setting is written, and that the centre is what it was without them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from affuse.errors import UsageError
from affuse.extract.crops import resize
from affuse.extract.extraction import extract_settings
from affuse.extract.networks import make_provenance
from affuse.extract.profiles import PROFILES
from affuse.extract.videos import find_jobs
from affuse.extract.visual import CORNERS, cut_view
from builders_extract import seeded_extractor
from media import face_frames, plain_frames, talking_head, write_media

STORED = ["flip", "top-left", "top-right", "bottom-left", "bottom-right"]


@pytest.fixture
def given_faces(tmp_path):
    """A video of three frames, with given crops for the first and the last."""
    write_media(tmp_path / "videos" / "a.mp4", plain_frames(3))
    folder = tmp_path / "crops" / "a"
    folder.mkdir(parents=True)
    for number, face in zip((1, 3), face_frames(2, (130, 112), drift=9), strict=True):
        Image.fromarray(face).save(folder / f"{number:05d}.jpg")
    return tmp_path / "videos", tmp_path / "crops"


@pytest.mark.parametrize(
    ("backbone", "size", "room", "seen"),
    [
        ("resnet50-imagenet-caffe", 224, 256, 224),  # sees the whole square: corners are of a larger one
        ("ir50-ferplus", 48, 48, 40),  # sees the centre of a square, whose corners are there
    ],
)
def test_each_view_is_the_embedding_of_its_crop(given_faces, backbone, size, room, seen):
    videos, crops = given_faces
    (job,) = find_jobs(videos, faces_dir=crops)
    options = {
        "modalities": ("visual",),
        "faces": "given",
        "backbones": {**PROFILES["offline"], "visual": backbone},
    }
    extractor = seeded_extractor(views="corners,flip", **options)
    visual = extractor(job)[0].visual
    pictures = [torch.from_numpy(np.array(Image.open(job.crop(i)))) for i in (0, 2)]
    small, large = (torch.stack([resize(p, side) for p in pictures]).numpy() for side in (size, room))
    far, edge = room - seen, (size - seen) // 2
    expected = {
        "flip": small[:, :, edge : edge + seen, edge : edge + seen][..., ::-1],
        "top-left": large[:, :, :seen, :seen],
        "top-right": large[:, :, :seen, far:],
        "bottom-left": large[:, :, far:, :seen],
        "bottom-right": large[:, :, far:, far:],
    }
    assert list(visual.views) == list(expected) == STORED
    for view, pixels in expected.items():
        rows = visual.views[view]
        np.testing.assert_array_equal(
            rows[[0, 2]], extractor.networks.face_encoder(torch.tensor(pixels.copy())), view
        )
        assert not rows[1].any()  # no face, in no view
        assert rows.dtype == np.float16
        assert all((rows[0] != other[0]).any() for name, other in visual.views.items() if name != view)
    centre = seeded_extractor(**options)(job)[0].visual
    assert centre.views == {}
    np.testing.assert_array_equal(visual.embedding, centre.embedding)


def test_views_of_detected_faces(tmp_path):
    talking_head(tmp_path / "a.mp4", seconds=0.3)
    (job,) = find_jobs(tmp_path)
    with_corners, without = (
        seeded_extractor(modalities=("visual",), views=views)(job)[0].visual
        for views in ("corners", "centre")
    )
    assert list(with_corners.views) == list(CORNERS)
    np.testing.assert_array_equal(with_corners.embedding, without.embedding)
    assert all(rows[without.valid].any(axis=1).all() for rows in with_corners.views.values())


def test_a_video_without_pictures_has_no_views_and_one_without_a_face_has_zeros(tmp_path):
    write_media(tmp_path / "a.mp4", plain_frames(2))
    (tmp_path / "b.mp4").write_text("hello")
    extractor = seeded_extractor(modalities=("visual",), views="flip")
    faceless, undecodable = (extractor(job)[0].visual for job in find_jobs(tmp_path))
    assert {view: rows.shape for view, rows in faceless.views.items()} == {"flip": (2, 2048)}
    assert not faceless.views["flip"].any()
    assert undecodable.views == {}


@given(edges=st.tuples(st.integers(1, 9), st.integers(0, 6)), seed=st.integers(0, 99))
def test_corners_are_each_others_mirror_images(edges, seed):
    """Mirroring the square exchanges left and right corners, upending it upper and lower ones."""
    seen, beyond = edges
    encoder = SimpleNamespace(size=seen + beyond, room=seen + beyond, centre=seen)
    square = torch.from_numpy(np.random.default_rng(seed).random((2, 3, encoder.room, encoder.room)))
    for view in CORNERS:
        cut = cut_view(view, {encoder.room: square}, encoder)
        assert cut.shape == (2, 3, seen, seen)
        vertical, horizontal = view.split("-")
        beside = f"{vertical}-{'right' if horizontal == 'left' else 'left'}"
        above = f"{'bottom' if vertical == 'top' else 'top'}-{horizontal}"
        for other, axis in ((beside, 3), (above, 2)):
            mirrored = cut_view(other, {encoder.room: square.flip(axis)}, encoder).flip(axis)
            assert torch.equal(cut, mirrored)


# ---- the setting


@pytest.mark.parametrize(
    ("assignments", "option", "expected"),
    [
        ([], None, ("centre",)),
        (["views=centre"], None, ("centre",)),
        (["views=[]"], None, ("centre",)),
        (["views=flip"], None, ("centre", "flip")),
        (["views=[corners, flip, corners]"], None, ("centre", "flip", "corners")),
        ([], "corners, flip", ("centre", "flip", "corners")),
        (["views=flip"], "corners", ("centre", "corners")),
    ],
)
def test_views_have_one_order_however_they_are_written(assignments, option, expected):
    assert extract_settings("offline", None, assignments, views=option).views == expected


def test_equal_views_are_equal_settings():
    def made(*assignments, views=None):
        return make_provenance(extract_settings("offline", None, assignments, views=views), {}).settings_hash

    assert made() == made(views="centre") == made("views=[centre]")
    assert made(views="corners,flip") == made("views=[flip,centre,corners]") != made()


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["views=flipp"], r"unknown view 'flipp'; did you mean 'flip'\? Known: centre, flip, corners"),
        (["views=[corner]"], "did you mean 'corners'"),
        (["views=3"], "Setting views: Input should be a valid tuple"),
        (["views=flip,"], "unknown view ''"),
        (["views=flip", "modalities=[audio]"], "Setting views: these are views of faces"),
    ],
)
def test_views_that_cannot_be(assignments, message):
    with pytest.raises(UsageError, match=message):
        extract_settings("offline", None, assignments)
