"""A folder of predictions is of one run and one way to predict; the truth beside them; each reason told once."""

import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import tiny
from affuse import fuse
from affuse.commands import main
from affuse.errors import AffuseError, UsageError, by_reason, listed
from affuse.extract.videos import find_jobs
from affuse.features import FeatureStore
from affuse.files import file_name
from affuse.fuse.scoring.predict import Prediction
from affuse.fuse.training.outputs import MADE, Outputs
from affuse.pipelines.prediction import apart, predict_videos
from affuse.pipelines.report.sources import read_failures


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    store, labels = tiny.make_data(folder, 2, 2, frames=40)
    for seed in (0, 1):
        fuse.train(store, labels, folder / f"run{seed}", tiny.small(epochs=1, seed=seed))
    return folder, store, labels


def predict(trained, out, *options, run="run0"):
    folder, store, _ = trained
    given = ["--run", folder / run, "--features", store.path, "--out", out, *options]
    return CliRunner().invoke(main, ["fuse", "predict", *map(str, given)])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("run", "options", "said"),
    [
        ("run1", (), "run: "),
        ("run0", ("--smooth", 1), "smooth: 0.0 → 1.0"),
        ("run0", ("--every", 1), "every: None → 1.0"),
    ],
)
def test_another_run_or_way_is_refused_and_nothing_touched(trained, tmp_path, run, options, said):
    assert predict(trained, tmp_path).exit_code == 0
    (tmp_path / "notes.csv").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    refused = predict(trained, tmp_path, *options, run=run)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert "Choose another folder" in refused.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("undrawn")
def test_explanations_and_predictions_do_not_share_a_folder(trained, tmp_path):
    folder, store, _ = trained
    fuse.explain(folder / "run0", store, tmp_path)
    with pytest.raises(UsageError, match="explained: True → None"):
        fuse.predict(folder / "run0", store, tmp_path)


def test_videos_are_refused_before_any_is_extracted(trained, tmp_path, monkeypatch):
    folder, store, _ = trained
    fuse.predict(folder / "run0", store, tmp_path, figures=False)
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UsageError, match="made otherwise"):
        predict_videos(folder / "run1", tmp_path / "clip.mp4", tmp_path)


def test_a_later_call_of_the_same_adds_to_the_summary(trained, tmp_path):
    folder, store, _ = trained
    one, two = store.ids[:2]
    whole = tmp_path / "whole"
    fuse.predict(folder / "run0", store, whole, [one, two], figures=False)
    for video in (one, two):
        fuse.predict(folder / "run0", store, tmp_path / "parts", [video], figures=False)
    tables = [pd.read_csv(path / "summary.csv") for path in (whole, tmp_path / "parts")]
    pd.testing.assert_frame_equal(*tables)
    next((tmp_path / "parts").rglob(f"{one.replace('/', '%2F')}.csv")).unlink()
    fuse.predict(folder / "run0", store, tmp_path / "parts", [two], figures=False)
    assert list(pd.read_csv(tmp_path / "parts" / "summary.csv")["video"]) == [two]


def test_a_video_that_fails_later_leaves_nothing_that_passes_for_new(trained, tmp_path):
    folder, store, _ = trained
    one, two = store.ids[:2]
    given = {"ids": [one, two], "failed": {"NA": "no face"}}
    fuse.predict(folder / "run0", store, tmp_path, **given)
    (tmp_path / f"{file_name(one)}-annotated.mp4").touch()
    (tmp_path / "notes.csv").write_text("mine")
    fuse.predict(folder / "run0", store, tmp_path, [two], failed={one: "cannot be opened"})
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {MADE, "summary.csv", f"{file_name(two)}.csv", f"{file_name(two)}.png", "notes.csv"}
    table = pd.read_csv(tmp_path / "summary.csv", keep_default_na=False)
    assert dict(zip(table["video"], table["failure"], strict=True)) == {
        "NA": "no face", two: "", one: "cannot be opened",
    }  # fmt: skip
    fuse.predict(folder / "run0", store, tmp_path, [one], figures=False)  # it can be had again
    assert read_failures(tmp_path) == {"NA": "no face"}
    (tmp_path / "summary.csv").write_text("no table")
    with pytest.raises(AffuseError, match=r"summary\.csv cannot be read"):
        fuse.predict(folder / "run0", store, tmp_path, [one], figures=False)


def test_what_showed_earlier_values_does_not_stand_beside_others(trained, tmp_path, caplog):
    folder, store, _ = trained
    store = FeatureStore(shutil.copytree(store.path, tmp_path / "store"))
    same, changed, renewed = store.ids[:3]
    out = tmp_path / "out"
    films = {video: out / f"{file_name(video)}-annotated.mp4" for video in (same, changed, renewed)}

    def draw(made):
        films[made.id].write_text("new")
        return {}

    fuse.predict(folder / "run0", store, out, films)
    for film in films.values():
        film.write_text("old")
        film.with_name(film.name.replace("-annotated.mp4", ".vtt")).touch()
    for video in (changed, renewed):
        tiny.extract_again(store, video, 99)
    with caplog.at_level("WARNING"):
        fuse.predict(folder / "run0", store, out, [same, changed], figures=False)
        fuse.predict(folder / "run0", store, out, [renewed], beside=draw)
    stems = [file_name(video) for video in films]
    assert films[same].read_text() == "old"
    assert films[renewed].read_text() == "new"
    assert {path.name for path in out.iterdir()} == {
        MADE, "summary.csv", *(f"{stem}.csv" for stem in stems), f"{stems[0]}.png", f"{stems[0]}.vtt",
        f"{stems[0]}-annotated.mp4", f"{stems[2]}.png", f"{stems[2]}-annotated.mp4",
    }  # fmt: skip
    said = [message for message in caplog.messages if "earlier ones" in message]
    assert [f"removed: {stems[1]}.vtt, {stems[1]}-annotated.mp4." in one for one in said] == [True, False]
    assert f"removed: {stems[2]}.vtt." in said[1]


def test_an_explanation_that_fails_later_is_gone(trained, tmp_path, monkeypatch):
    folder, store, _ = trained
    video = store.ids[0]
    fuse.explain(folder / "run0", store, tmp_path, [video])

    def fail(*_, **__):
        raise AffuseError("it is damaged")

    monkeypatch.setattr("affuse.fuse.training.run.load_corpus", fail)
    assert fuse.explain(folder / "run0", store, tmp_path, [video])["failed"] == {video: "it is damaged"}
    assert {path.name for path in tmp_path.iterdir()} == {MADE}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "place", ["run0", "run1/new", "run1/predictions", "store/new/deep", "run0/predictions/new"]
)
def test_runs_and_stores_are_no_place_for_predictions(trained, place):
    folder, *_ = trained
    before = set(folder.rglob("*"))
    refused = predict(trained, folder / place)
    assert refused.exit_code == 2
    kind = "store" if place.startswith("store") else "run"
    assert f"a {kind}, to which predictions do not belong. Choose another folder" in refused.stderr
    assert set(folder.rglob("*")) == before


def test_a_run_has_a_place_for_predictions_of_its_own(trained):
    folder, *_ = trained
    assert predict(trained, folder / "run0" / "predictions").exit_code == 0


def test_videos_do_not_lie_where_predictions_go(trained, tmp_path):
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UsageError, match=r"clip\.mp4 lies in the folder for predictions"):
        predict_videos(trained[0] / "run0", tmp_path / "clip.mp4", tmp_path)


def test_films_of_an_earlier_call_are_no_videos_of_this_one(trained, tmp_path):
    """As where all videos below the working folder are meant, and predictions lie there, too."""
    folder, store, _ = trained
    out = tmp_path / "out"
    fuse.predict(folder / "run0", store, out, figures=False)
    for path in (tmp_path / "clip.mp4", out / "clip-annotated.mp4"):
        path.touch()
    (clip, film), outputs = (
        find_jobs(tmp_path),
        Outputs(out, fuse.load_run(folder / "run0"), smooth=0.0, every=None, stream=False),
    )
    assert apart(outputs, [clip, film]) == [clip]
    with pytest.raises(UsageError, match=r"clip-annotated\.mp4 lies in"):
        apart(outputs, [film])


def test_a_damaged_account_is_said(trained, tmp_path):
    (tmp_path / MADE).write_text("{")
    with pytest.raises(AffuseError, match=f"{MADE} cannot be read"):
        fuse.predict(trained[0] / "run0", trained[1], tmp_path)


def test_the_truth_is_drawn_where_it_is_known(trained, tmp_path, monkeypatch):
    _, store, labels = trained
    drawn = {}
    monkeypatch.setattr(Prediction, "plot", lambda made, truth=None: drawn.update({made.id: truth}))
    monkeypatch.setattr("affuse.fuse.scoring.predict.save_figure", lambda figure, path: None)
    for path in (labels / "train").iterdir():
        known = path.stem
    some = tmp_path / "labels"
    some.mkdir()
    (some / f"{known}.txt").write_text((labels / "train" / f"{known}.txt").read_text())
    assert predict(trained, tmp_path / "out", "--labels", some).exit_code == 0
    assert drawn.keys() == {*store.ids}
    assert [video for video, truth in drawn.items() if truth is not None] == [known]
    assert drawn[known].shape == (store.header(known).frames, 2)
    assert np.isfinite(drawn[known]).any()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "nobody.txt").write_text((some / f"{known}.txt").read_text())
    refused = predict(trained, tmp_path / "other", "--labels", tmp_path / "strange")
    assert refused.exit_code == 2
    assert "has labels of none of the videos" in refused.stderr


def test_a_store_is_sent_to_the_command_that_takes_it(trained, tmp_path):
    folder, store, _ = trained
    given = ["predict", "--run", folder / "run0", store.path, "--out", tmp_path]
    result = CliRunner().invoke(main, list(map(str, given)))
    assert result.exit_code == 2
    assert (
        f"`affuse fuse predict --run {folder / 'run0'} --features {store.path} --out {tmp_path}`"
        in result.stderr
    )


def test_of_many_reasons_some_are_told_and_the_rest_counted(capsys):
    from affuse import console

    console.be(console.USUAL)
    console.tell_failures({f"v{i}": f"reason {i}" for i in range(console.MOST + 5)})
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "failed: v0: reason 0"
    assert said[console.MOST :] == ["failed for other reasons: 5 more; --json gives them all."]


def test_a_reason_is_told_once_and_many_names_are_counted(capsys):
    from affuse import console

    console.be(console.USUAL)
    console.show_progress("1 of 12 videos", "a: broken", False)
    console.tell_failures({"a": "broken", **{f"v{i}": "no face" for i in range(10)}})
    said = capsys.readouterr().err.splitlines()
    assert said == ["failed: a: broken", "failed: v0, v1, v2, v3, v4, v5, v6, v7 and 2 more: no face"]
    assert by_reason({"a": "x", "b": "y", "c": "x"}) == {"x": ["a", "c"], "y": ["b"]}
    assert (listed(["a", "b"], 2), listed(["a", "b", "c"], 2)) == ("a, b", "a, b and 1 more")
