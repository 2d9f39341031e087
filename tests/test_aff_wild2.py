"""The challenge's layout in miniature: 12 videos, two people in a file, gaps, early −5, a label too many, 73 frames."""

import csv
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import tiny
from affuse import commands as cli
from affuse import fuse
from affuse.extract.extraction import extract_settings
from affuse.features import AffuseError, FeatureStore, Status, UsageError
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.pool import load_corpus
from affuse.fuse.data.windows import Normalisation, Windows
from affuse.fuse.experiments.folds import Fold
from affuse.pipelines.aff_wild2.data import (
    AffWild2,
    check,
    describe_check,
    discover,
    shared_over_folds,
    six_folds,
    write_submission,
)
from affuse.pipelines.aff_wild2.recipe import run_aff_wild2, table
from media import plain_frames, tone, write_media

TRAIN = ["10-a", "2-b", "video1", "video1_left", "video1_right", "video5"]
VALIDATION = ["video7", "video8_left", "video8_right"]
TEST = ["test1", "test2_left", "test2_right"]
FRAMES = dict.fromkeys([*TRAIN, *VALIDATION, *TEST], 90) | {"2-b": 73, "video5": 130}
HOME = {"10-a": "batch1", "2-b": "batch2", "test1": "new_vids"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("aff") / "Aff-Wild2"
    for partition, videos in (("Train_Set", TRAIN), ("Validation_Set", VALIDATION)):
        for seed, video in enumerate(videos):
            frames = FRAMES[video]
            _, truth = tiny.make_video(video, frames, seed + 20 * (partition == "Validation_Set"))
            truth[:4] = -5  # nobody rated the first frames
            truth[20, 0] = -5
            if video == "10-a":
                truth = np.vstack([truth, truth[-1:]])
            tiny.write_labels(
                root / "annotations" / "VA_Estimation_Challenge" / partition / f"{video}.txt", truth
            )
            (root / "annotations" / "AU_Detection_Challenge" / partition).mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (16, 16), (120, 90, 60))
    for video, frames in FRAMES.items():
        if video != "video7":  # has no crops at all
            folder = root / "cropped_aligned" / video
            folder.mkdir(parents=True)
            for frame in range(1, frames + 1):
                if not 30 <= frame < 40:  # a gap: no face found
                    picture.save(folder / f"{frame:05d}.jpg")
        name = video.removesuffix("_left").removesuffix("_right")
        suffix = "mkv" if video == "2-b" else "mp4"
        path = root / HOME.get(name, "batch1") / f"{name}.{suffix}"
        if not path.exists():
            write_media(path, plain_frames(frames, (32, 32)), 25, tone(frames / 25))
    (root / "test_list.txt").write_text("\n".join(TEST) + "\n")
    rows = [f"{video}/{frame:05d}.jpg,-5,-5" for video in reversed(TEST) for frame in (1, 2, 90, 91)]
    (root / "sample.txt").write_text("\n".join(["image_location,valence,arousal", *rows]) + "\n")
    return root


@pytest.fixture(scope="module")
def data(root):
    return discover(root, root / "test_list.txt")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Features as if extracted: valence in the faces, arousal in the sound, no face where there is no crop."""
    store = FeatureStore(tmp_path_factory.mktemp("store"), create=True)
    for seed, (video, frames) in enumerate(FRAMES.items()):
        seed = VALIDATION.index(video) + 20 if video in VALIDATION else seed
        made, _ = tiny.make_video(video, frames, seed, ("visual",) if video == "video7" else ())
        store.write(made, tiny.provenance())
    return store


def test_every_video_finds_its_media_and_its_crops(root, data):
    assert data.split == {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    assert data.media["video1"] == data.media["video1_left"] == root / "batch1/video1.mp4"
    assert data.media["2-b"] == root / "batch2/2-b.mkv"
    assert data.media["test2_right"] == root / "batch1/test2.mp4"
    jobs = {job.id: job for job in data.jobs()}
    assert sorted(jobs) == sorted(FRAMES)
    assert jobs["video1_left"].crops == root / "cropped_aligned/video1_left"
    assert jobs["video1_left"].crop(28).is_file()
    assert not jobs["video1_left"].crop(29).is_file()  # frame 29 is picture 00030
    assert jobs["video1_left"].path == jobs["video1_right"].path
    assert not jobs["video7"].crops.exists()


def test_the_check_says_what_is_missing(root, data, tmp_path):
    report = check(data)
    assert report["videos"] == {
        "train": {"found": 6, "known": 356},
        "validation": {"found": 3, "known": 76},
        "test": {"found": 3, "known": 162},
    }
    assert report["without_media"] == []
    assert report["without_crops"] == ["video7"]
    assert report["one_label_more"] == ["10-a"]
    assert report["lengths_differ"] == {}
    assert report["lengths"]["2-b"] == {
        "labels": 73,
        "annotated": 68,
        "frames": 73,
        "crops": 63,
        "last_crop": 73,
    }
    assert report["shared_over_folds"] == ["video1.mp4"]
    said = CliRunner().invoke(
        cli.main, ["recipe", "check", "aff-wild2", str(root), "--test-list", str(root / "test_list.txt")]
    )
    assert said.exit_code == 0, said.output
    assert said.stdout.rstrip("\n") == describe_check(report)
    assert "1 video without crops" in said.stdout


def test_missing_and_double_files(root, tmp_path):
    with pytest.raises(UsageError, match="Expected one folder VA_Estimation_Challenge"):
        discover(tmp_path)
    labels = tmp_path / "VA_Estimation_Challenge"
    for partition, video in (("Train_Set", "a"), ("Validation_Set", "b")):
        tiny.write_labels(labels / partition / f"{video}.txt", np.zeros((5, 2)))
    tiny.write_labels(labels / "Train_Set" / "c.txt", np.full((5, 2), 2.0))
    report = check(discover(tmp_path))
    assert report["without_media"] == ["a", "c", "b"]
    assert "c.txt, line 2: valence is 2" in report["unreadable"]["c"]
    result = CliRunner().invoke(
        cli.main, ["recipe", "run", "aff-wild2", str(tmp_path), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 1
    assert "3 videos without a media file" in result.stderr
    listed = tmp_path / "list.txt"
    listed.write_text("d\na\n")
    with pytest.raises(AffuseError, match=r"list\.txt, line 2: video 'a' is in train already"):
        discover(tmp_path, listed)
    for name in ("batch1/x.mp4", "batch2/x.avi"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
    with pytest.raises(AffuseError, match="are both video 'x'"):
        discover(tmp_path)


def test_the_six_folds_of_356_and_76_videos(tmp_path):
    train, validation = [f"t{i:03d}" for i in range(356)], [f"v{i:02d}" for i in range(76)]
    folds = six_folds(
        AffWild2(tmp_path, tmp_path, {"train": train, "validation": validation, "test": []}, {}, {})
    )
    expected = [validation, train[284:356], train[213:284], train[142:213], train[71:142], train[0:71]]
    assert [list(fold.validation) for fold in folds] == expected
    assert [fold.name for fold in folds] == [f"fold{i}" for i in range(6)]


def test_six_folds_in_miniature(data):
    # six training videos in chunks of 1, 1, 1, 1 and 2; the people of video1.mp4 lie in three of them
    assert six_folds(data) == [
        Fold("fold0", tuple(VALIDATION)),
        Fold("fold1", ("video1_right", "video5")),
        Fold("fold2", ("video1_left",)),
        Fold("fold3", ("video1",)),
        Fold("fold4", ("2-b",)),
        Fold("fold5", ("10-a",)),
    ]
    assert shared_over_folds(data) == ["video1.mp4"]


def test_windows_and_masks_by_hand(data, tmp_path):
    """Frame i's feature is i, its label i/1000, the first four unrated: they meet in every window, never shifted."""
    store = FeatureStore(tmp_path / "store", create=True)
    for name, frames in (("long", 730), ("short", 73)):
        video, _ = tiny.make_video(name, frames, 0, ("audio", "text"))
        video.visual.embedding[:] = np.arange(frames)[:, None]
        video.visual.valid[:] = True
        video.visual.valid[400:410] = False
        video.visual.embedding[400:410] = 0
        store.write(video, tiny.provenance())
        truth = np.repeat(np.arange(frames)[:, None] / 1000, 2, axis=1)
        truth[:4] = -5
        truth[500:501, 1] = -5
        tiny.write_labels(
            tmp_path / "labels" / f"{name}.txt", np.vstack([truth, truth[-1:]])
        )  # one row too many
    files = find_labels(tmp_path / "labels")["all"]
    corpus = load_corpus(
        store, files, ["visual"], ["valence", "arousal"], {v: read_track(p) for v, p in files.items()}
    )
    zeros = torch.zeros(tiny.WIDTHS["visual"])
    as_it_is = Normalisation({"visual": zeros}, {"visual": zeros + 1})
    windows = Windows(corpus, 300, 200, as_it_is)
    assert [starts.tolist() for starts in windows.starts] == [[0, 200, 400, 430], [0]]
    for number, (start, offset) in enumerate([(0, 0), (200, 0), (400, 0), (430, 0), (0, 730)]):
        batch = windows.gather(windows.first.new_tensor([number]))
        frames = 300 if offset == 0 else 73
        index = start + np.arange(300)
        unrated = (index < 4) | ((index == 500) & (offset == 0))
        faceless = (index >= 400) & (index < 410)
        counted = ~unrated & ~faceless & (np.arange(300) < frames)
        assert batch.counted[0].tolist() == counted.tolist()
        assert batch.mask["visual"][0].tolist() == (~faceless & (np.arange(300) < frames)).tolist()
        np.testing.assert_allclose(
            batch.inputs["visual"][0, counted, 0].numpy() / 1000,
            batch.truth[0, counted, 0].numpy(),
            atol=1e-4,
        )


def test_the_whole_recipe(root, store, tmp_path):
    config = tmp_path / "c.json"
    settings = {**tiny.SMALL, "epochs": 1, "channels": {m: [4, 4] for m in tiny.WIDTHS}}
    config.write_text(json.dumps(settings))
    args = ["recipe", "run", "aff-wild2", root, "--out", tmp_path / "out", "--features", store.path]
    args += ["--test-list", root / "test_list.txt", "--sample", root / "sample.txt", "--model", "concat"]
    args += ["--config", config, "--jobs", 1]
    result = CliRunner().invoke(cli.main, [*map(str, args), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    ours = found["models"]["concat"]
    official = fuse.load_run(tmp_path / "out/concat/fold0")
    assert official.settings.validation == VALIDATION
    assert ours["folds"]["fold0"]["ccc"] == official.best["ccc"]
    assert {name: fold["videos"] for name, fold in ours["folds"].items()} == {
        "fold0": 3, "fold1": 2, "fold2": 1, "fold3": 1, "fold4": 1, "fold5": 1
    }  # fmt: skip
    assert ours["videos"] == 9
    assert ours["frames"] == sum(FRAMES[v] - 5 for v in (*TRAIN, *VALIDATION))
    assert ours["ensemble"]["videos"] == TEST
    text = (tmp_path / "out/table.txt").read_text()
    line = next(line for line in text.splitlines() if line.startswith("ours: concat"))
    for fold in ("fold0", "fold1"):
        assert (
            f"{ours['folds'][fold]['ccc']['valence']:.3f} / {ours['folds'][fold]['ccc']['arousal']:.3f}"
            in line
        )
    assert "0.455 / 0.652" in text
    with open(tmp_path / "out/concat/submission.txt") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == [
        row.split(",")[0] for row in (root / "sample.txt").read_text().splitlines()
    ]
    for video in TEST:
        made = np.genfromtxt(tmp_path / f"out/concat/ensemble/{video}.csv", delimiter=",", skip_header=1)
        own = [row for row in rows if row[0].startswith(f"{video}/")]
        for row, frame in zip(
            own, (0, 1, 89, 89), strict=True
        ):  # picture 91 is beyond the video's last frame
            np.testing.assert_allclose([float(row[1]), float(row[2])], made[frame, 1:3], atol=1e-6)
    assert ours["submission"]["after_the_end"] == 3
    again = CliRunner().invoke(cli.main, list(map(str, args)))
    assert again.stdout.strip() == text.strip()
    assert again.stderr.count("there") == 6


def test_a_sample_that_names_an_unknown_video(tmp_path):
    sample = tmp_path / "sample.txt"
    sample.write_text("image_location,valence,arousal\nx/00001.jpg,0,0\n")
    with pytest.raises(AffuseError, match=r"sample\.txt, line 2: there is no prediction for video 'x'"):
        write_submission(sample, tmp_path, tmp_path / "out.txt")
    sample.write_text("image_location,valence,arousal\n00001.jpg,0,0\n")
    with pytest.raises(AffuseError, match=r"line 2: '00001\.jpg' is not"):
        write_submission(sample, tmp_path, tmp_path / "out.txt")


@pytest.fixture
def own_threads():
    """Extraction takes every core; other tests compare numbers that depend on how many there are."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("own_threads")
def test_two_people_of_one_file_are_extracted_from_their_own_crops(tmp_path):
    root = tmp_path / "root"
    for partition, videos in (("Train_Set", ("v_left", "v_right")), ("Validation_Set", ("w",))):
        for video in videos:
            tiny.write_labels(root / "VA_Estimation_Challenge" / partition / f"{video}.txt", np.zeros((4, 2)))
    for name in ("v", "w"):
        write_media(root / "batch1" / f"{name}.mp4", plain_frames(4, (32, 32)), 25, tone(0.16))
    for video, colour in (("v_left", (200, 30, 30)), ("v_right", (30, 30, 200))):
        (root / "cropped_aligned" / video).mkdir(parents=True)
        for frame in (1, 3) if video == "v_left" else (2,):
            Image.new("RGB", (112, 112), colour).save(root / f"cropped_aligned/{video}/{frame:05d}.jpg")
    settings = extract_settings("offline", assignments=["modalities=[visual]"], given_faces=True)
    with pytest.raises(AffuseError, match="too few"):  # for six folds; the features are made before
        run_aff_wild2(root, tmp_path / "out", ["rjcma"], settings, tiny.small(), allow_untrained=True)
    store = FeatureStore(tmp_path / "out" / "store")
    assert store["v_left"].visual.valid.tolist() == [True, False, True, False]
    assert store["v_right"].visual.valid.tolist() == [False, True, False, False]
    assert store["w"].visual.status is Status.NO_FACE
    assert np.abs(store["v_left"].visual.embedding[0] - store["v_right"].visual.embedding[1]).max() > 0
    assert "ours" not in table({})
