"""`affuse report`: the facts that a page has, and what it does with hostile names."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner

import affuse
import tiny
from affuse import fuse
from affuse.commands import main
from affuse.features import FeatureStore, Status
from affuse.files import file_name, name_of_file
from affuse.fuse.scoring.predict import Predictions
from affuse.pipelines.report.collect import collect
from affuse.pipelines.report.media import find_media
from affuse.pipelines.report.series import boxes, gaps, thin
from affuse.pipelines.report.sources import read_source
from media import talking_head
from pages import (
    AROUSAL,
    FRAMES,
    HOSTILE,
    TALK,
    VALENCE,
    WORDS,
    make_scene,
    prediction,
    record,
    train_run,
    write_comparison,
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return make_scene(tmp_path_factory.mktemp("scene"))


def facts_in(page: Path) -> dict:
    """What the page says, as its script reads it."""
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', text, re.DOTALL)
    assert not {*"<>&"} & {*data}
    return json.loads(data)


# ---- numbers


def test_gaps_last_until_the_next_frame_and_the_last_one_until_the_end():
    assert gaps(np.array([0.0, 1, 2, 3]), np.array([True, False, False, True]), 4.0) == [[1.0, 3.0]]
    assert gaps(np.array([0.0, 1, 2]), np.array([False, True, False]), 2.5) == [[0.0, 1.0], [2.0, 2.5]]
    assert gaps(np.zeros(0), np.zeros(0, bool), 0.0) == []


def test_a_thinned_curve_keeps_its_ends_and_peaks():
    values = np.zeros((100_000, 2))
    values[12_345, 0], values[54_321, 1], values[77_777, 1] = 1.0, -1.0, np.nan
    kept = thin(values)
    assert len(kept) <= 4002
    assert {0, 12_345, 54_321, 99_999} <= {*kept.tolist()}
    assert np.array_equal(thin(values[:50]), np.arange(50))


def test_boxes_are_few_but_say_when_a_face_goes():
    time_, valid = np.arange(100) / 25, np.ones(100, bool)
    valid[50:60] = False
    rows = boxes(time_, valid, np.tile(np.float32([1, 2, 3, 4]), (100, 1)))
    assert len(rows) < 30
    assert [1.96, 1, 2, 3, 4] in rows
    assert [2.0] in rows
    assert [2.4, 1, 2, 3, 4] in rows


@pytest.mark.parametrize("name", ["a/b", 'x"<>|?*', "50%2F", "ü:\\"])
def test_an_id_is_known_from_its_file_name(name):
    assert name_of_file(file_name(name)) == name


# ---- facts


def test_predictions_bring_their_own_store(scene):
    facts = collect(read_source(scene / "predictions"), scene / "labels")
    assert (facts.kind, facts.targets) == ("predictions", ["valence", "arousal"])
    assert facts.failed == {"gone": "no <video> in it"}
    talk = next(clip for clip in facts.clips if clip.id == TALK)
    assert talk.gaps["face"] == [[1.0, 2.0]]
    assert talk.gaps["sound"] == []
    assert talk.gaps["words"][0] == [0.0, 0.6]  # no frame lies in the word before
    assert talk.words == [list(word) for word in WORDS]
    assert talk.summary["valence mean"] == pytest.approx(VALENCE.mean(), abs=1e-3)
    assert talk.summary["arousal spread"] == pytest.approx(AROUSAL.std(), abs=1e-3)
    assert talk.summary["face seen"] == pytest.approx(0.75)
    assert talk.summary["valence CCC"] == pytest.approx(1.0, abs=1e-3)
    assert talk.curves["valence truth"] == pytest.approx(talk.curves["valence"], abs=2e-3)
    assert {*facts.scores} >= {"ccc", "interval", "per_video"}


def test_predictions_alone_have_gaps_but_no_words(scene, tmp_path):
    prediction("alone").save(tmp_path, figures=False)
    (clip,) = collect(read_source(tmp_path)).clips
    assert clip.gaps == {"face": [[1.0, 2.0]], "sound": []}
    assert (clip.words, clip.boxes, clip.pairs) == ([], [], {})


def test_labels_with_a_clock_of_their_own_are_scored_on_it(trained, tmp_path):
    run, store, labels = trained
    for path in labels.rglob("*.txt"):
        values = np.loadtxt(path, delimiter=",", skiprows=1)[::5]
        rows = [f"{0.2 * i:.1f},{v},{a}" for i, (v, a) in enumerate(values)]
        to = (tmp_path / path.relative_to(labels)).with_suffix(".csv")
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text("\n".join(["time,valence,arousal", *rows]) + "\n")
    found = collect(read_source(run, store.path), tmp_path)
    assert {own["frames"] for own in found.scores["per_video"].values()} <= {*range(15, 21)}
    assert len(found.clips[0].curves["valence truth"]) == len(found.clips[0].curves["valence"])


def test_a_deviation_becomes_a_band(tmp_path):
    made = dataclasses.replace(prediction("sure"), deviation=np.full((FRAMES, 2), 0.1))
    made.save(tmp_path, figures=False)
    (clip,) = collect(read_source(tmp_path)).clips
    width = np.subtract(clip.curves["valence high"], clip.curves["valence low"])
    assert width == pytest.approx(2 * 0.1645, abs=2e-3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, undrawn) -> tuple[Path, FeatureStore, Path]:
    return train_run(tmp_path_factory.mktemp("run"))


def test_a_run_has_its_scores_and_learning_curves(trained):
    run, store, labels = trained
    alone = collect(read_source(run))
    assert alone.kind == "run"
    assert alone.scores == {"ccc": fuse.load_run(run).best["ccc"]}
    assert alone.histories["0"]["epoch"] == [1, 2]
    assert ["model", "rjcma, visual, audio, text"] in alone.about
    judged = collect(read_source(run, store.path), labels)
    told = fuse.evaluate(run, store, labels, permutations=0)
    for score in ("ccc", "pearson", "rmse"):
        assert judged.scores[score] == pytest.approx(told[score], abs=1e-4)  # the CSVs have six digits
    assert judged.clips[0].words


def test_a_run_of_several_seeds_has_a_curve_of_each(tmp_path, undrawn):
    store, labels = tiny.make_data(tmp_path, 2, 1)
    run = tmp_path / "run"
    fuse.train_seeds(store, labels, run, [0, 1], tiny.small(epochs=1))
    facts = collect(read_source(run), labels)
    assert [*facts.histories] == ["0", "1"]
    assert "valence low" in facts.clips[0].curves
    (run / "ensemble.json").unlink()
    with pytest.raises(affuse.AffuseError, match="not finished"):
        read_source(run)


def test_a_store_has_coverage_and_failures(scene):
    store = next((scene / "predictions" / "features").iterdir())
    facts = collect(read_source(store))
    assert facts.kind == "store"
    assert {clip.id for clip in facts.clips} == {TALK, HOSTILE}
    assert facts.failed == {"gone": "no <video> in it"}
    assert facts.clips[0].summary["words"] == len(WORDS)
    assert facts.clips[0].curves == {"time": []}
    assert ["audio", "audio-net, 6 wide"] in facts.about


def test_reasons_and_damage_are_told(tmp_path):
    store = FeatureStore(tmp_path / "store", create=True)
    silent, _ = tiny.make_video("silent", 30, 1, without=("text",))
    for video in (silent, record("other")):
        store.write(video, tiny.provenance())
    other = store.shard("other")
    other.write_bytes(other.read_bytes()[:-100])
    facts = collect(read_source(store.path))
    assert [clip.reasons for clip in facts.clips] == [{"words": "nobody speaks"}]
    assert silent.text.status == Status.NO_SPEECH
    assert [*facts.failed] == ["other"]
    assert "damaged" in facts.failed["other"] or "shorter" in facts.failed["other"]


# ---- the page


def test_names_and_words_are_data_and_never_tags(scene, tmp_path):
    page = affuse.report(scene / "predictions", tmp_path / "report.html")
    assert [clip["id"] for clip in facts_in(page)["clips"]].count(HOSTILE) == 1
    text = page.read_text(encoding="utf-8")
    for written in (HOSTILE, "<i>no</i>", "no <video> in it"):
        assert written not in text


def test_media_are_linked_embedded_or_left_out(scene, tmp_path):
    page = tmp_path / "deep" / "report.html"

    def held(media: str) -> dict:
        made = affuse.report(scene / "predictions", page, video_dir=scene / "videos", media=media)
        return facts_in(made)["media"]

    for video, media in held("link").items():
        assert (page.parent / unquote(media["link"])).samefile(scene / "videos" / f"{video}.mp4")
        assert not {*"<>#?&'\""} & {*media["link"]}
    assert {media["type"] for media in held("embed").values()} == {"video/mp4"}
    assert page.read_text(encoding="utf-8").count('<script type="text/plain" id="media-') == 2
    assert held("none") == {}


def test_videos_too_large_for_a_page_are_refused(scene, tmp_path, monkeypatch):
    monkeypatch.setattr("affuse.pipelines.report.media.MOST", 1000)
    with pytest.raises(affuse.UsageError, match=r"2 videos of .* Link them instead"):
        affuse.report(scene / "predictions", tmp_path / "a.html", video_dir=scene / "videos", media="embed")


def test_a_video_is_found_wherever_it_lies_if_it_is_the_only_one_of_its_name(tmp_path):
    for path in ("deep/er/a.mp4", "deep/b.mp4", "other/b.mp4"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    files = {"a": "a.mp4", "b": "b.mp4", "c": ""}
    assert find_media(tmp_path, files) == {"a": tmp_path / "deep/er/a.mp4"}
    assert find_media(tmp_path, files | {"deep/b": ""})["deep/b"] == tmp_path / "deep/b.mp4"


def test_the_people_of_a_file_share_it(tmp_path):
    for number in (1, 2):
        prediction(f"pair#{number}").save(tmp_path / "predictions", figures=False)
    talking_head(tmp_path / "videos" / "pair.mp4")
    options = {"video_dir": tmp_path / "videos", "media": "embed"}
    page = affuse.report(tmp_path / "predictions", tmp_path / "report.html", **options)
    assert {video: media["embedded"] for video, media in facts_in(page)["media"].items()} == {
        "pair#1": 0,
        "pair#2": 0,
    }


def test_the_command_writes_the_same_page(scene, tmp_path):
    arguments = [
        "report",
        scene / "predictions",
        "--out",
        tmp_path / "a.html",
        "--labels",
        scene / "labels",
        "--json",
    ]
    done = CliRunner().invoke(main, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    affuse.report(scene / "predictions", tmp_path / "b.html", labels=scene / "labels")
    assert json.loads(done.stdout)["page"] == str(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nowhere", {}, "is not a folder"),
        ("videos", {}, "no folder of predictions, no run and no feature store"),
        ("predictions", {"features": "others"}, r"the store .*others has none of 2 videos"),
        ("predictions", {"features": "videos"}, "no features in it"),
        ("predictions", {"labels": "elsewhere"}, r"--labels: the folder .* has none of 2 videos"),
        ("predictions", {"labels": "nowhere"}, "does not exist"),
        ("predictions", {"video_dir": "nowhere"}, "is not a folder of videos"),
        ("predictions", {"video_dir": "strange"}, r"--video-dir: the folder .* has none of 2 videos"),
        ("predictions", {"media": "inline"}, "expected link, embed or none"),
        ("others", {"features": "others"}, "is a feature store itself"),
        (5, {}, "Expected a folder of predictions"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(scene, tmp_path, source, options, message):
    store = FeatureStore(tmp_path / "others", create=True)
    store.write(record("stranger"), tiny.provenance())
    tiny.write_labels(tmp_path / "elsewhere" / "validation" / "stranger.txt", np.zeros((3, 2)))
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "stranger.mp4").touch()

    def place(name):
        return next((p for p in (tmp_path / name, scene / name) if p.exists()), tmp_path / name)

    options = {key: value if key == "media" else place(value) for key, value in options.items()}
    with pytest.raises(affuse.UsageError, match=message):
        affuse.report(place(source) if isinstance(source, str) else source, tmp_path / "page.html", **options)
    assert not (tmp_path / "page.html").exists()


def test_features_of_another_video_of_the_same_name_are_refused(tmp_path):
    prediction("clip").save(tmp_path / "predictions", figures=False)
    store = FeatureStore(tmp_path / "store", create=True)
    store.write(tiny.make_video("clip", 50, 0)[0], tiny.provenance())
    with pytest.raises(affuse.AffuseError, match="is not the one that was predicted: it has 50 frames"):
        affuse.report(tmp_path / "predictions", tmp_path / "page.html", features=store.path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,valence,face,valid\n0,x,1,1\n", "no number"),
        ("time,valence,face,valid\n1,0,1,1\n0,0,1,1\n", "not as predictions are"),
        ("time,valence,face,valid\n", "not as predictions are"),
        ("time,valid\n0,1\n", "not as predictions are"),
    ],
)
def test_damaged_predictions_are_named(tmp_path, text, message):
    (tmp_path / "clip.csv").write_text(text)
    with pytest.raises(affuse.AffuseError, match=rf"clip\.csv .*{message}"):
        read_source(tmp_path)


def test_another_table_beside_predictions_is_left_out(tmp_path, caplog):
    prediction("clip").save(tmp_path, figures=False)
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert [*read_source(tmp_path).predictions] == ["clip"]
    assert "notes.csv is no table of predictions" in caplog.text


def test_the_summary_beside_predictions_tells_what_failed(tmp_path, caplog):
    silent = "nothing to work on"
    made = Predictions({"clip": prediction("clip")}, {"NA": silent, "gone": "no video"})
    made.save(tmp_path, figures=False)
    facts = collect(read_source(tmp_path))
    assert ([clip.id for clip in facts.clips], facts.failed) == (["clip"], {"NA": silent, "gone": "no video"})
    prediction("gone").save(tmp_path, figures=False)  # a later attempt
    assert collect(read_source(tmp_path)).failed == {"NA": silent}
    assert "summary" not in caplog.text


def test_rows_of_several_frames_are_told_from_damage(tmp_path):
    prediction("clip").save(tmp_path, figures=False, every=1)
    with pytest.raises(affuse.UsageError, match=r"clip\.csv has a row for several frames.* without --every"):
        read_source(tmp_path)


def test_predictions_that_all_failed_are_a_page_too(scene, tmp_path):
    Predictions({}, {"gone": "no <video>"}).save(tmp_path)
    given = {"labels": scene / "labels", "features": scene / "predictions" / "features" / "0123456789ab"}
    facts = facts_in(affuse.report(tmp_path, tmp_path / "page.html", **given))
    assert (facts["clips"], facts["failed"]) == ([], {"gone": "no <video>"})


def test_untrained_networks_are_told_on_the_page_and_beside_it(tmp_path, caplog, undrawn):
    store, labels = tiny.make_data(tmp_path, 2, 1, made=tiny.provenance(trained=False))
    run = tmp_path / "run"
    fuse.train(store, labels, run, tiny.small(epochs=1))
    fuse.predict(run, store, tmp_path / "predictions", figures=False)
    names = ["visual (resnet50)", "audio (audio-net)", "text (text-net)", "speech (speech-net)"]
    for source in ("run", "store", "predictions"):
        caplog.clear()
        given = {"features": store.path} if source == "run" else {}
        page = affuse.report(tmp_path / source, tmp_path / "page.html", **given)
        assert sorted(facts_in(page)["untrained"]) == sorted(names), source
        assert len(re.findall(r"from untrained backbones: .*visual \(resnet50\)", caplog.text)) == 1
        assert (["predicted by", str(run)] in facts_in(page)["about"]) is (source == "predictions")
    (tmp_path / "predictions" / "predicted.json").write_text("[]")
    with pytest.raises(affuse.AffuseError, match=r"predicted\.json cannot be read"):
        affuse.report(tmp_path / "predictions", tmp_path / "page.html")
    caplog.clear()
    prediction("clip").save(tmp_path / "saved", figures=False)
    assert facts_in(affuse.report(tmp_path / "saved", tmp_path / "page.html"))["untrained"] == []
    assert "untrained" not in caplog.text


def test_a_demo_is_reported_with_all_that_lies_in_it(scene, tmp_path, monkeypatch):
    demo = tmp_path / "demo"
    for name, place in {
        "store": "predictions/features/0123456789ab",
        "data/labels": "labels",
        "data/videos": "videos",
    }.items():
        (demo / name).parent.mkdir(parents=True, exist_ok=True)
        (demo / name).symlink_to(scene / place)
    prediction(TALK).save(demo / "predictions", figures=False)
    write_comparison(demo / "comparison")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["report", "demo"])
    assert done.exit_code == 0, done.output
    facts = facts_in(tmp_path / "report.html")
    (talk,) = facts["clips"]
    assert talk["words"]
    assert talk["summary"]["CCC"] == pytest.approx(1, abs=1e-3)
    assert [*facts["media"]] == [TALK]
    assert facts["comparison"]["rows"][1]["model"] == facts["comparison"]["reference"] == "rjcma"
