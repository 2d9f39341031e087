"""Every data set in the layout it is released in, in miniature: checked, and run."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import layouts
import tiny
from affuse import commands as cli
from affuse.errors import AffuseError, UsageError, counted
from affuse.extract.extraction import extract_settings
from affuse.features import FeatureStore
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.training import parallel
from affuse.fuse.training.checkpoint import read_tensors
from affuse.pipelines.recipes.dataset import check, find_data
from affuse.pipelines.recipes.joining import join
from affuse.pipelines.recipes.known import RECIPES, named
from affuse.pipelines.recipes.recipe import run_recipe

pytestmark = pytest.mark.usefixtures("undrawn")
NAMES = list(layouts.LAYOUTS)


def affuse(*arguments):
    return CliRunner().invoke(cli.main, ["recipe", *map(str, arguments)])


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return layouts.make_all(tmp_path_factory)


@pytest.fixture
def miniature(monkeypatch):
    """As many as there are in miniature are known."""
    for name, known in layouts.KNOWN.items():
        monkeypatch.setitem(RECIPES, name, dataclasses.replace(RECIPES[name], known=known))


def test_the_list_has_them_all_with_licence_and_address():
    rows = json.loads(affuse("list", "--json").stdout)
    assert [row["name"] for row in rows] == ["aff-wild2", *NAMES]
    assert all(row["has"] and row["licence"] and row["ask"].startswith("https://") for row in rows)
    said = affuse("list").stdout
    assert "CC BY-NC-SA 3.0 DE" in said
    assert "https://sail.usc.edu/iemocap/iemocap_release.htm" in said


@pytest.mark.usefixtures("miniature")
@pytest.mark.parametrize("name", NAMES)
def test_a_whole_data_set_passes_and_one_with_a_video_less_does_not(roots, tmp_path, name):
    root, files = roots[name]
    said = affuse("check", name, root, "--json")
    report = json.loads(said.stdout)
    assert report["counts"] == {what: {"found": n, "known": n} for what, n in layouts.KNOWN[name].items()}
    assert report["without_media"] == []
    assert report["unreadable"] == {}
    assert said.exit_code == 0, said.output
    broken = shutil.copytree(root, tmp_path / "broken")
    lost = files[0].rpartition("_")[0] if name == "iemocap" else files[0]
    for path in broken.rglob(f"{lost}.*"):
        if path.suffix in (".mp4", ".avi", ".wav"):
            path.unlink()
    for path in (broken / lost).glob("*.png"):
        path.unlink()
    said = affuse("check", name, broken)
    assert said.exit_code == 1
    missing = 2 if name == "iemocap" else 1  # two people are in a film
    assert f"{counted(missing, 'video')} without a media file: {files[0]}" in said.stdout


def test_fewer_than_are_known_is_not_whole(roots):
    said = affuse("check", "recola", roots["recola"][0])
    assert said.exit_code == 1
    assert [line.split() for line in said.stdout.splitlines()[1:3]] == [
        ["train", "3", "9"], ["validation", "2", "9"]
    ]  # fmt: skip


def test_pictures_with_sound_go_before_sound_alone(roots):
    jobs = find_data(named("iemocap"), roots["iemocap"][0]).jobs()
    assert {job.path.suffix for job in jobs} == {".avi"}
    assert [(job.id, job.path.stem) for job in jobs[:2]] == [
        ("Ses01F_impro01_F", "Ses01F_impro01"), ("Ses01F_impro01_M", "Ses01F_impro01")
    ]  # fmt: skip


def test_media_that_no_label_names_and_media_that_are_none(roots, tmp_path):
    root = shutil.copytree(roots["sewa"][0], tmp_path / "sewa")
    layouts.film(root / "video/Test_DE_01.mp4")
    (root / "video/Train_DE_02.mp4").write_bytes(b"nothing")
    report = check(find_data(named("sewa"), root))
    assert report["without_labels"] == ["Test_DE_01"]
    assert list(report["unreadable"]) == ["Train_DE_02"]
    assert "Train_DE_02.mp4 cannot be opened" in report["unreadable"]["Train_DE_02"]
    layouts.film(root / "again/Train_DE_01.mp4")
    with pytest.raises(AffuseError, match="are both video 'Train_DE_01'"):
        check(find_data(named("sewa"), root))


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_way(roots, tmp_path, name):
    root, files = roots[name]
    store = layouts.store_of(tmp_path / "store", files, 24 if name in layouts.SHORT else layouts.FRAMES)
    config = tmp_path / "c.json"
    channels = {m: [4, 4] for m in RECIPES[name].modalities}
    config.write_text(json.dumps({**tiny.SMALL, "epochs": 1, "channels": channels}))
    arguments = ["run", name, root, "--out", tmp_path / "out", "--features", store.path, "--config", config]
    arguments += ["--jobs", 1]  # soonest at this size
    arguments += ["--model", "concat"] * (len(channels) > 1)
    said = affuse(*arguments, "--json")
    assert said.exit_code == 0, said.output
    result = json.loads(said.stdout)
    ((folder, ours),) = result["models"].items()
    split = find_labels(tmp_path / "out/labels")
    official = "train" in layouts.KNOWN[name]
    assert {part: len(videos) for part, videos in split.items()} == {
        {"recordings": "all"}.get(part, part): n
        for part, n in layouts.KNOWN[name].items()
        if part not in ("subjects", "utterances")
    }
    targets = [target for target in ours["ccc"] if target != "mean"]
    assert targets == list(RECIPES[name].target)
    assert all(abs(ours["ccc"][target]) <= 1 for target in targets)
    assert (list(ours["folds"]) == ["official"]) == official
    assert ("test" in ours) == ("test" in layouts.KNOWN[name])
    for published in RECIPES[name].published:
        assert published.method in result["table"]
        assert all(f"{score:.3f}" in result["table"] for score in published.scores.values())
    unit, own = tmp_path / "out" / folder / "predictions", tmp_path / "out" / folder / "own_scale/predictions"
    (low, high), *_ = (RECIPES[name].scales[target] for target in targets)
    assert own.exists() == ((low, high) != (-1, 1))
    for path in own.glob("*.csv"):
        (mine, theirs) = (
            np.genfromtxt(place / path.name, delimiter=",", names=True) for place in (unit, own)
        )
        np.testing.assert_allclose(
            theirs[targets[0]], (low + high) / 2 + mine[targets[0]] * (high - low) / 2, rtol=1e-4
        )
        np.testing.assert_allclose(theirs["time"], mine["time"], rtol=1e-4)
    again = affuse(*arguments)
    assert again.stdout.strip() == (tmp_path / "out/table.txt").read_text().strip()
    assert "trained" not in again.stderr


def test_models_and_folds_side_by_side_are_one_after_another(roots, tmp_path, monkeypatch):
    root, files = roots["msp-improv"]
    store, config = layouts.store_of(tmp_path / "store", files, 24), tmp_path / "c.json"
    config.write_text(json.dumps({**tiny.SMALL, "epochs": 2, "channels": {m: [4, 4] for m in tiny.WIDTHS}}))
    started, start = [], parallel._start
    monkeypatch.setattr(parallel, "_start", lambda *given: started.append(given) or start(*given))
    results = []
    for jobs in (1, 2):
        arguments = ["run", "msp-improv", root, "--out", tmp_path / str(jobs), "--features", store.path]
        arguments += ["--config", config, "--model", "concat", "--model", "rjcma", "--jobs", jobs, "--json"]
        said = affuse(*arguments)
        assert said.exit_code == 0, said.output
        results.append(json.loads(said.stdout))
        assert results[-1]["models"].keys() == {"concat", "rjcma"}
        assert [model.pop("run") for model in results[-1]["models"].values()]
        assert said.stderr.count(": trained\n") == 4  # two folds of each
    assert len(started) == 2
    assert results[0] == results[1]
    runs = [path.relative_to(tmp_path / "1") for path in (tmp_path / "1").glob("*/*/model.safetensors")]
    assert len(runs) == 4
    for run in runs:
        one, other = (read_tensors(tmp_path / jobs / run)[0] for jobs in "12")
        assert all(torch.equal(one[name], other[name]) for name in {**one, **other})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "rjcm"], "did you mean 'rjcma'"),
        (["--jobs", 2, "--device", "cuda:77"], "Device 'cuda:77'"),
    ],
)
@pytest.mark.parametrize("name", ["sewa", "aff-wild2"])
def test_what_cannot_be_trained_is_said_before_anything_is_made(tmp_path, name, options, message):
    said = affuse("run", name, tmp_path / "data", "--out", tmp_path / "out", *options)
    assert said.exit_code == 2
    assert message in said.stderr
    assert not (tmp_path / "out").exists()


def tracks(name, roots, tmp_path, **options):
    """Label files {id: track} that a run leaves, whose training fails: there is nothing to train."""
    root, files = roots[name]
    store = layouts.store_of(tmp_path / "store", files, 24 if name in layouts.SHORT else layouts.FRAMES)
    run_recipe(
        named(name), root, tmp_path / "out", [], extract_settings("offline"), tiny.small(), features=store.path,
        **options,
    )  # fmt: skip
    return {
        video: read_track(path)
        for part in find_labels(tmp_path / "out/labels").values()
        for video, path in part.items()
    }


def test_labels_lie_on_one_scale_at_their_own_times(roots, tmp_path):
    afew = tracks("afew-va", roots, tmp_path / "a")["002"]
    truth = layouts.truth_of(roots["afew-va"][1])["002"]
    np.testing.assert_allclose(afew.values, (10 * truth).round() / 10, atol=1e-6)
    assert afew.time is None
    turns = tracks("iemocap", roots, tmp_path / "i")["Ses01F_impro01_M"]
    truth = layouts.truth_of(roots["iemocap"][1])["Ses01F_impro01_M"][[15, 35, 55]]
    np.testing.assert_allclose(turns.pick(["valence", "arousal"])[0], truth, atol=1e-3)
    np.testing.assert_allclose(turns.time, [0.4, 1.2, 2.0])
    np.testing.assert_allclose(turns.end, [0.8, 1.6, 2.4])
    sewa = tracks("sewa", roots, tmp_path / "s")
    for video in ("Train_DE_01", "Train_HU_01"):
        truth = layouts.truth_of(roots["sewa"][1])[video]
        rated = sewa[video].pick(["valence", "arousal"])[0]
        np.testing.assert_allclose(rated[::2], truth[::5], atol=1e-4)  # every fifth of a second
        np.testing.assert_allclose(np.diff(sewa[video].time), 0.1, atol=1e-6)
    opinions = tracks("cmu-mosei", roots, tmp_path / "m")["v1"]
    truth = layouts.truth_of(roots["cmu-mosei"][1])["v1"][[7, 22, 37, 52], :1]
    np.testing.assert_allclose(opinions.pick(["sentiment"])[0], truth, atol=1e-6)
    np.testing.assert_allclose(opinions.pick(["happy"])[0], 0, atol=1e-6)  # 1.5 of 0 to 3
    heard = tracks("omg-emotion", roots, tmp_path / "o")["aaa"]
    np.testing.assert_allclose(heard.end, [0.6, 1.2, 1.8, 2.42])  # cut where the next one begins


def test_utterances_are_spans_of_what_they_are_joined_to(roots, tmp_path):
    found = tracks("msp-podcast", roots, tmp_path)
    assert sorted(found) == [
        "MSP-PODCAST_0001/30", "MSP-PODCAST_0002/Unknown", "MSP-PODCAST_0003/31", "MSP-PODCAST_0004/32"
    ]  # fmt: skip
    track = found["MSP-PODCAST_0001/30"]
    np.testing.assert_allclose(track.time, np.arange(4) * 0.96)  # 24 frames each
    joined = FeatureStore(tmp_path / "out/joined")["MSP-PODCAST_0001/30"]
    parts = [
        FeatureStore(tmp_path / "store")[part]
        for part in roots["msp-podcast"][1]
        if part.startswith("MSP-PODCAST_0001")
    ]
    assert joined.frames == 96
    np.testing.assert_allclose(joined.visual.time, np.arange(96) / tiny.FPS)
    np.testing.assert_array_equal(joined.visual.embedding[24:48], parts[1].visual.embedding)
    np.testing.assert_array_equal(joined.audio.embedding[72:], parts[3].audio.embedding)
    words = len(parts[0].text.word)
    np.testing.assert_allclose(joined.text.start[words], parts[1].text.start[0] + 0.96)
    truth = layouts.truth_of(roots["msp-podcast"][1], 24)
    np.testing.assert_allclose(
        track.pick(["valence", "arousal"])[0],
        [truth[f"MSP-PODCAST_0001_000{k}"][12] for k in range(1, 5)],
        atol=1e-3,
    )


def test_a_part_without_a_modality_leaves_its_place(tmp_path):
    whole, _ = tiny.make_video("a", 20, 0)
    mute, _ = tiny.make_video("b", 20, 1, without=("audio", "text"))
    joined = join("ab", [mute, whole, mute], np.array([0.0, 0.8, 1.6]))
    assert joined.duration == pytest.approx(2.4)
    np.testing.assert_allclose(joined.audio.time, whole.audio.time + 0.8)
    assert (joined.audio.status, joined.text.status) == (whole.audio.status, whole.text.status)
    FeatureStore(tmp_path / "s", create=True).write(joined, tiny.provenance())


# ---- the folds


@pytest.mark.parametrize(
    ("name", "folds"),
    [("omg-empathy", 3), ("iemocap", 2), ("msp-improv", 2), ("afew-va", 3)],
)
def test_a_subject_is_on_one_side_of_every_fold(roots, tmp_path, name, folds):
    tracks(name, roots, tmp_path, split="subject")
    with open(tmp_path / "out/videos.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert not any(row["video"].endswith("_Story_3") for row in rows)  # the test partition
    from affuse.fuse import choose_folds

    made = choose_folds(
        tmp_path / "out/labels",
        tmp_path / "out/videos.csv",
        *((None, None) if "fold" in rows[0] else (None, 3)),
    )
    assert len(made) == folds
    subject = {row["video"]: row["subject"] for row in rows}
    sides = [{subject[video] for video in fold.validation} for fold in made]
    assert sum(map(len, sides)) == len(set(subject.values()))
    assert len(set(subject.values())) == {"omg-empathy": 3, "iemocap": 4, "msp-improv": 4, "afew-va": 3}[name]


def test_a_split_that_there_is_not(roots, tmp_path):
    for split in ("official", "story"):
        with pytest.raises(UsageError, match=f"IEMOCAP has no split '{split}'. It has: subject"):
            tracks("iemocap", roots, tmp_path / split, split=split)


def test_recola_of_the_university_has_no_split(tmp_path):
    names = layouts.recola_public(tmp_path / "data")
    found = tracks("recola", {"recola": (tmp_path / "data", names)}, tmp_path, gold="mean")
    np.testing.assert_allclose(found["P16"].pick(["valence", "arousal"])[0], 0, atol=1e-6)  # v and −v
    assert (tmp_path / "out/videos.csv").exists()


# ---- several raters


def test_three_gold_standards_of_recola(roots, tmp_path):
    truth = layouts.truth_of(roots["recola"][1])["train_1"]
    for how, expected in (("published", truth / 2), ("mean", truth)):
        track = tracks("recola", roots, tmp_path / how, gold=how)["train_1"]
        np.testing.assert_allclose(track.pick(["valence", "arousal"])[0], expected, atol=2e-2)
    spread = track.pick(["valence_disagreement"])[0][:, 0]
    clear = np.abs(truth[:, 0]) < 0.85
    np.testing.assert_allclose(spread[clear], np.std(np.linspace(-0.1, 0.1, 6)), atol=1e-3)
    with pytest.raises(UsageError, match="Unknown gold standard 'median'"):
        tracks("recola", roots, tmp_path / "x", gold="median")
    with pytest.raises(AffuseError, match=r"no ratings of single raters .* --gold published"):
        tracks("sewa", roots, tmp_path / "y", gold="ewe")
    said = affuse("run", "sewa", roots["sewa"][0], "--out", tmp_path / "z", "--gold", "ewe")
    assert "no ratings of single raters" in said.stderr  # before hours of extraction
    assert not (tmp_path / "z/store").exists()


def test_actors_do_not_rate_themselves(roots, tmp_path):
    """They gave 5 throughout; of the two others one skipped dominance, and gave one less for valence."""
    rated = tracks("iemocap", roots, tmp_path, gold="mean")["Ses01F_impro01_F"]
    truth = layouts.truth_of(roots["iemocap"][1])["Ses01F_impro01_F"][[5, 25, 45]]
    one = np.round(layouts.scaled(truth, 1, 5))
    valence = (one[:, 0] + np.maximum(1, one[:, 0] - 1)) / 2
    expected = np.column_stack([valence, one[:, 1], np.full(3, 2)])
    np.testing.assert_allclose(
        rated.pick(["valence", "arousal", "dominance"])[0], (expected - 3) / 2, atol=1e-6
    )


def test_pictures_and_sounds_are_extracted_too(tmp_path):
    layouts.afew_va(tmp_path / "afew", frames=4)
    settings = extract_settings("offline", assignments=["modalities=[visual]"])
    run = {"allow_untrained": True}
    run_recipe(named("afew-va"), tmp_path / "afew", tmp_path / "a", [], settings, tiny.small(), **run)
    store = FeatureStore(tmp_path / "a/store")
    assert {store[video].frames for video in store.ids} == {4}
    layouts.msp_podcast(tmp_path / "podcast", turns=2)
    settings = extract_settings("offline", assignments=["modalities=[audio]"])
    run_recipe(named("msp-podcast"), tmp_path / "podcast", tmp_path / "p", [], settings, tiny.small(), **run)
    joined = FeatureStore(tmp_path / "p/joined")["MSP-PODCAST_0001/30"]
    assert joined.duration == pytest.approx(1.0, abs=0.1)
    assert len(joined.audio.embedding) == pytest.approx(25, abs=2)
