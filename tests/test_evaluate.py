"""Scores and predictions: equal to a slow, obvious computation and to what training recorded; gaps shown."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from affuse import fuse
from affuse.errors import AffuseError, UsageError
from affuse.features import align
from affuse.features.record import Provenance
from affuse.fuse.data.labels import read_abaw
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.pool import load_corpus
from affuse.fuse.reports.tables import model_table, score_table
from affuse.fuse.scoring.evaluate import score
from affuse.fuse.scoring.metrics import ccc


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    store, labels = tiny.make_data(folder, 3, 3, frames=50, without=("audio", "text"))
    result = fuse.train(store, labels, folder / "run", tiny.small(epochs=3, warmup_epochs=1, gaps="mask"))
    return folder / "run", store, labels, result


def slowly(run, video):
    """Every window alone through the model, every frame joined of its windows; where there is anything."""
    frames, length, hop = video.frames, run.settings.window, run.settings.hop
    aligned = align(video, video.visual.time, run.settings.modalities, tiny.WIDTHS)
    starts = sorted({*range(0, max(frames - length, 0) + 1, hop), max(frames - length, 0)})
    covering = [[] for _ in range(frames)]
    for start in starts:
        inputs, mask = {}, {}
        for m, (embedding, valid) in aligned.items():
            part = slice(start, start + length)
            x = torch.from_numpy(embedding[part].astype(np.float32))
            inputs[m] = ((x - run.normalisation.mean[m]) / run.normalisation.std[m])[None]
            mask[m] = torch.from_numpy(valid[part])[None]
        with torch.no_grad():
            for i, row in enumerate(run.model(inputs, mask=mask)[0].double().numpy()):
                covering[start + i].append(row)
    present = np.any([valid for _, valid in aligned.values()], axis=0)
    join = {"mean": lambda rows: np.mean(rows, axis=0), "past": lambda rows: rows[0]}[run.settings.overlap]
    return np.clip([join(rows) for rows in covering], -1, 1), present


def test_evaluate_prints_what_training_recorded(trained):
    run, store, labels, result = trained
    scored = fuse.evaluate(run, store.path, labels)
    assert scored["ccc"] == result["best"]["ccc"]
    assert fuse.load_run(run).best["ccc"] == scored["ccc"]
    assert scored["videos"] == 3
    assert f"{scored['ccc']['mean']:.4f}" in score_table(scored)
    assert fuse.evaluate(run, store, labels, "train")["videos"] == 3
    for partition, advice in (
        ("test", r"into a subfolder test/ \(or Test_Set/\)"),
        ("tset", "--partition train"),
    ):
        with pytest.raises(UsageError, match=f"no '{partition}' partition .*{advice}") as raised:
            fuse.evaluate(run, store, labels, partition)
        assert "--set" not in str(raised.value)


@pytest.mark.parametrize("overlap", ["mean", "past"])
def test_the_score_is_that_of_a_slow_obvious_implementation(trained, overlap):
    path, store, labels, _ = trained
    run = fuse.load_run(path)
    run = replace(run, settings=run.settings.model_copy(update={"overlap": overlap}))
    truths, predictions, own = [], [], []
    for name, file in find_labels(labels)["validation"].items():
        track = read_abaw(file)
        prediction, present = slowly(run, store[name])
        for k in range(2):  # frames without anything to go by lie on a line between their neighbours
            prediction[~present, k] = np.interp(
                np.flatnonzero(~present), np.flatnonzero(present), prediction[present, k]
            )
        truths.append(track.values[track.valid])
        predictions.append(prediction[track.valid])
        own.append([ccc(truths[-1][:, k], predictions[-1][:, k]) for k in range(2)])
    x, y = np.concatenate(truths), np.concatenate(predictions)
    scored = fuse.evaluate(run, store, labels)
    assert scored["frames"] == len(x)
    for k, target in enumerate(("valence", "arousal")):
        assert scored["ccc"][target] == pytest.approx(ccc(x[:, k], y[:, k]), abs=1e-5)
        assert scored["pearson"][target] == pytest.approx(np.corrcoef(x[:, k], y[:, k])[0, 1], abs=1e-5)
        assert scored["rmse"][target] == pytest.approx(np.sqrt(np.mean((x[:, k] - y[:, k]) ** 2)), abs=1e-5)
        assert scored["ccc_per_video"][target] == pytest.approx(np.mean(own, axis=0)[k], abs=1e-5)
    assert scored["ccc"]["mean"] == pytest.approx((scored["ccc"]["valence"] + scored["ccc"]["arousal"]) / 2)


def test_a_perfect_prediction_scores_one_and_unannotated_frames_do_not_count(trained):
    _, store, labels, _ = trained
    files = find_labels(labels)["validation"]
    tracks = {video: read_abaw(path) for video, path in files.items()}
    corpus = load_corpus(store, files, ["visual"], ["valence", "arousal"], tracks)
    prediction = corpus.truth.double().numpy().copy()
    prediction[~corpus.annotated.numpy()] = 1.0
    result = score(corpus, prediction)
    assert result["ccc"] == {
        "valence": pytest.approx(1),
        "arousal": pytest.approx(1),
        "mean": pytest.approx(1),
    }
    assert result["frames"] == int(corpus.annotated.sum()) == len(prediction) - 3 * 3


def test_predictions_are_written_for_every_video(trained, tmp_path):
    path, store, _, _ = trained
    run = fuse.load_run(path)
    result = fuse.predict(path, store.path, tmp_path / "out")
    assert list(result["written"]) == store.ids
    assert not result["failed"]
    for name, made in result["written"].items():
        with open(made["csv"]) as file:
            rows = list(csv.DictReader(file))
        expected, present = slowly(run, store[name])
        assert list(rows[0]) == ["time", "valence", "arousal", "face", "sound", "words", "valid"]
        assert [row["face"] for row in rows] == [str(int(face)) for face in store[name].visual.valid]
        assert made["face"] == store[name].visual.valid.sum()
        assert made["words"] == [row["words"] for row in rows].count("1")
        assert len(rows) == made["frames"] == store[name].frames
        assert [row["valid"] == "1" for row in rows] == present.tolist()
        assert made["valid"] == present.sum()
        values = np.array([[float(row["valence"]), float(row["arousal"])] for row in rows])
        np.testing.assert_allclose(values[present], expected[present], atol=2e-6)
        assert np.isfinite(values).all()
    assert any(made["valid"] < made["frames"] for made in result["written"].values())
    assert (tmp_path / "out" / "set%2Fv0.png").stat().st_size > 1000


def test_predictions_in_the_run_folder_are_those_of_predict(trained, tmp_path):
    path, store, _, _ = trained
    fuse.predict(path, store, tmp_path, ids=["set/v1"], figures=False)
    one, other = (
        np.genfromtxt(folder / "set%2Fv1.csv", delimiter=",", skip_header=1)
        for folder in (path / "predictions", tmp_path)
    )
    np.testing.assert_allclose(one, other, atol=2e-6)
    assert not list(tmp_path.glob("*.png"))


def test_a_video_without_any_modality_fails_with_its_reasons_and_the_others_go_on(trained, tmp_path):
    path, _, _, _ = trained
    store, _ = tiny.make_data(tmp_path / "new", 2, 1, without=("visual", "audio", "text"))
    result = fuse.predict(path, store, tmp_path / "out", ids=["t0", "t1"])
    assert list(result["written"]) == ["t1"]
    assert "no_face" in result["failed"]["t0"]
    assert "no_audio (no track)" in result["failed"]["t0"]
    with pytest.raises(UsageError, match=r"'t11' is not in the store.*did you mean 't1'"):
        fuse.predict(path, store, tmp_path / "out", ids=["t11"])


def test_features_of_another_kind_are_refused_with_the_difference(trained, tmp_path):
    path, _, labels, _ = trained
    store, _ = tiny.make_data(tmp_path, 1, 1, made=tiny.provenance("iresnet50"))
    assert isinstance(store.provenance, Provenance)
    for use in (
        lambda: fuse.predict(path, store, tmp_path / "out"),
        lambda: fuse.evaluate(path, store, labels),
    ):
        with pytest.raises(AffuseError, match=r"visual backbone: resnet50 → iresnet50"):
            use()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes", [{"model": "unimodal", "modalities": ["audio"]}, {"target": "arousal"}])
def test_fewer_modalities_and_targets(trained, tmp_path, changes):
    _, store, labels, _ = trained
    channels = {m: [4, 4] for m in changes.get("modalities", tiny.WIDTHS)}
    result = fuse.train(store, labels, tmp_path / "run", tiny.small(epochs=1, **changes, channels=channels))
    scored = fuse.evaluate(tmp_path / "run", store, labels)
    assert scored["ccc"] == result["best"]["ccc"]
    if "target" in changes:
        assert set(scored["ccc"]) == {"arousal", "mean"}
        assert scored["ccc"]["arousal"] == scored["ccc"]["mean"]
    else:
        assert "no audio: no_audio (no track)" in scored["left_out"]["set/v0"]
        assert scored["videos"] == 2


def test_the_table_of_models_has_a_row_for_each():
    rows = fuse.describe()
    table = model_table(rows).splitlines()
    assert [line.split()[0] for line in table[1 : 1 + len(rows)]] == [row["name"] for row in rows]
    assert "12.21 M/13.10 M" in table[1]
