"""One video in, one record out: whatever the video is."""

import numpy as np
import pytest
from PIL import Image

from affuse.errors import AffuseError
from affuse.extract.crops import square
from affuse.extract.extractor import Extractor
from affuse.extract.videos import find_jobs
from affuse.features.parts import Status
from affuse.features.record import VideoFeatures
from builders_extract import seeded_extractor
from media import face_frames, plain_frames, talking_head, tone, write_media


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return seeded_extractor()


def extract(extractor, folder, **given) -> VideoFeatures:
    (job,) = find_jobs(folder, **given)
    (record,) = extractor(job)
    return record


def test_a_talking_head(tmp_path, extractor):
    talking_head(tmp_path / "sub" / "a.mp4", seconds=1.2, fps=10)
    video = extract(extractor, tmp_path)
    assert (video.id, video.source.name, video.frames, video.fps) == ("sub/a", "sub/a.mp4", 12, 10)
    assert video.visual.status is Status.OK
    assert video.visual.valid.all()
    assert video.visual.embedding.shape == (12, 2048)
    assert (video.visual.embedding.astype(np.float32).std(axis=1) > 0).all()
    np.testing.assert_allclose(video.visual.time, np.arange(12) / 10, atol=2e-3)
    np.testing.assert_array_equal(video.audio.time, video.visual.time)
    assert video.audio.embedding.shape == (12, 128)
    assert video.text.status is Status.SKIPPED
    assert set(video.seconds) >= {"decode", "detect", "crop", "visual", "audio"}


def test_rows_are_the_frames_they_say(tmp_path, extractor):
    """Faces in some frames only: embeddings sit at those frames, and equal those of the frames alone."""
    frames = face_frames(9)
    frames[[0, 4, 5]] = 90
    write_media(tmp_path / "a.mp4", frames)
    video = extract(extractor, tmp_path)
    np.testing.assert_array_equal(np.flatnonzero(~video.visual.valid), [0, 4, 5])
    assert not video.visual.embedding[[0, 4, 5]].any()
    assert np.isnan(video.visual.box[[0, 4, 5]]).all()
    assert video.visual.embedding[[1, 8]].any(axis=1).all()


def test_boxes_are_in_pixels_of_the_full_frame(tmp_path, extractor):
    small, large = face_frames(2, (480, 360)), face_frames(2, (960, 720))
    write_media(tmp_path / "1" / "a.mp4", small)
    write_media(tmp_path / "2" / "a.mp4", large)
    one, two = (extract(extractor, tmp_path / n).visual.box[0] for n in "12")
    np.testing.assert_allclose(two, one * 2, atol=12)
    assert square(two, 0)[2] > 200


def statuses(video) -> dict:
    return {m: getattr(video, m).status.value for m in ("visual", "audio")}


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        ({"frames": face_frames(4)}, {"visual": "ok", "audio": "no_audio"}),
        ({"frames": plain_frames(4), "samples": tone(0.4)}, {"visual": "no_face", "audio": "ok"}),
        ({"samples": tone(1.0)}, {"visual": "no_video", "audio": "ok"}),
        ({"frames": face_frames(1), "samples": tone(0.05)}, {"visual": "ok", "audio": "ok"}),
    ],
)
def test_what_is_missing_is_a_status(tmp_path, extractor, media, expected):
    write_media(tmp_path / "a.mkv", **media)
    video = extract(extractor, tmp_path)
    assert statuses(video) == expected
    for modality, status in expected.items():
        assert bool(getattr(video, modality).reason) == (status != "ok")
    if expected["visual"] == "no_video":
        np.testing.assert_allclose(np.diff(video.audio.time), 1 / 25)


def test_sound_shorter_than_the_pictures_has_fewer_rows(tmp_path, extractor):
    write_media(tmp_path / "a.mkv", face_frames(20), samples=tone(1.0))
    video = extract(extractor, tmp_path)
    assert video.frames == 20
    assert 10 <= len(video.audio.time) <= 12
    np.testing.assert_array_equal(video.audio.time, video.visual.time[: len(video.audio.time)])


def test_what_cannot_be_decoded_is_a_record_that_says_so(tmp_path, extractor):
    (tmp_path / "a.mp4").write_text("hello")
    video = extract(extractor, tmp_path)
    assert video.failure
    assert "a.mp4 cannot be opened" in video.visual.reason


@pytest.mark.parametrize(("silent", "failure"), [(False, False), (True, True)])
def test_pictures_in_an_unknown_codec_leave_the_sound(tmp_path, extractor, silent, failure):
    path = talking_head(tmp_path / "a.mp4", seconds=0.3, **({"samples": None} if silent else {}))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    video = extract(extractor, tmp_path)
    assert video.visual.status is Status.UNDECODABLE
    assert "no decoder" in video.visual.reason
    assert video.audio.status is (Status.NO_AUDIO if silent else Status.OK)
    assert (video.failure is not None) is failure


def test_given_crops_replace_detection(tmp_path):
    write_media(tmp_path / "videos" / "a.mp4", plain_frames(5))
    crops = tmp_path / "crops" / "a"
    crops.mkdir(parents=True)
    for number in (2, 3, 5):
        Image.fromarray(face_frames(1, (112, 112))[0]).save(crops / f"{number:05d}.jpg")
    (crops / "00005.jpg").write_bytes(b"broken")
    extractor = seeded_extractor(modalities=("visual",), faces="given")
    video = extract(extractor, tmp_path / "videos", faces_dir=tmp_path / "crops")
    np.testing.assert_array_equal(video.visual.valid, [False, True, True, False, False])
    np.testing.assert_array_equal(video.visual.embedding[1], video.visual.embedding[2])
    assert "00005.jpg" in video.visual.reason


def test_the_largest_face_is_followed_or_the_one_on_a_side(tmp_path):
    frames = np.full((3, 144, 320, 3), 90, np.uint8)
    frames[:, :, :144] = face_frames(3, (144, 144), drift=0)
    frames[:, 40:130, 220:310] = face_frames(3, (90, 90), drift=0)
    write_media(tmp_path / "a.mp4", frames)
    centres = {}
    for face in ("main", "left", "right", "largest"):
        extractor = seeded_extractor(modalities=("visual",), detection={"face": face})
        box = extract(extractor, tmp_path).visual.box
        centres[face] = box[:, [0, 2]].mean()
    assert centres["main"] < 144
    assert centres["left"] < 144
    assert centres["largest"] < 144
    assert centres["right"] > 220


def test_names_that_would_collide_are_refused(tmp_path):
    talking_head(tmp_path / "a.mp4", 0.2)
    talking_head(tmp_path / "a.mkv", 0.2)
    with pytest.raises(AffuseError, match="would both be called 'a'"):
        find_jobs(tmp_path)


def test_a_renamed_crop_changes_the_source(tmp_path):
    write_media(tmp_path / "videos" / "a.mp4", plain_frames(3))
    crops = tmp_path / "crops" / "a"
    crops.mkdir(parents=True)
    Image.fromarray(face_frames(1, (112, 112))[0]).save(crops / "00001.jpg")
    before = find_jobs(tmp_path / "videos", faces_dir=tmp_path / "crops")[0]
    key = (before.size, before.mtime_ns, before.digest())
    (crops / "00001.jpg").rename(crops / "00002.jpg")
    after = find_jobs(tmp_path / "videos", faces_dir=tmp_path / "crops")[0]
    assert after.size == key[0]
    assert after.mtime_ns > key[1]
    assert after.digest() != key[2]
