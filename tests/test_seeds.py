"""A run of several seeds: its mean, how sure it says it is, and whether it is right about that."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import tiny
from affuse import commands, fuse, load_run
from affuse.__main__ import main
from affuse.errors import AffuseError, UsageError
from affuse.fuse.options import parse_seeds
from affuse.fuse.scoring.estimate import REACH, Estimate
from affuse.fuse.scoring.evaluate import unexplained, within
from affuse.fuse.scoring.predict import Predictions

SHORT = tiny.small(gaps="mask", epochs=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    store, labels = tiny.make_data(folder, 3, 2)
    result = fuse.train_seeds(store, labels, folder / "run", [0, 3], SHORT)
    return folder / "run", store, labels, result


def test_predictions_are_the_mean_and_as_far_apart_as_the_seeds(trained):
    path, store, labels, result = trained
    run, each = fuse.load_run(path), [fuse.load_run(path / f"seed{k}") for k in (0, 3)]
    made = run.predict(store)["set/v0"]
    values = np.stack([one.predict(store)["set/v0"].values for one in each])
    np.testing.assert_allclose(made.values, values.mean(0), atol=1e-12)
    np.testing.assert_allclose(made.deviation, np.sqrt(values.var(0) + run.noise), atol=1e-12)
    assert list(made.frame)[:5] == ["time", "valence", "arousal", "valence_deviation", "arousal_deviation"]
    table = pd.read_csv(path / "predictions" / "set%2Fv0.csv")
    np.testing.assert_allclose(table["arousal_deviation"], made.deviation[:, 1], atol=1e-6)
    assert (path / "figures" / "set%2Fv0.png").exists()
    assert result["alone"]["mean"] == pytest.approx(np.mean([one.best["ccc"]["mean"] for one in each]))
    scored = run.evaluate(store, labels)
    assert scored["ccc"] == pytest.approx(result["ccc"])
    assert set(scored["within"]) == {"valence", "arousal", "mean"}
    assert "within" not in run.evaluate(store, labels, smooth="0.4")
    assert "2 models together" in repr(run)


def test_more_seeds_train_only_what_is_missing(trained, tmp_path):
    _, store, labels, _ = trained
    path = shutil.copytree(trained[0], tmp_path / "run")
    told = []
    assert fuse.train_seeds(store, labels, path, [0, 3], SHORT, told.append)["seeds"] == [0, 3]
    assert not told
    assert fuse.train_seeds(store, labels, path, [4], SHORT, told.append)["seeds"] == [0, 3, 4]
    assert len(told) == SHORT.epochs
    assert len(fuse.load_run(path).others) == 2
    with pytest.raises(UsageError, match="other settings"):
        fuse.train_seeds(store, labels, path, [7, 0], tiny.small(gaps="mask", epochs=3))
    assert not (path / "seed7").exists()
    with pytest.raises(UsageError, match="several seeds"):
        fuse.train(store, labels, path, SHORT)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    for taken in (path / "seed0", tmp_path / "other"):
        with pytest.raises(UsageError, match="Choose another folder"):
            fuse.train_seeds(store, labels, taken, [0, 1], SHORT)


def test_a_killed_run_goes_on_with_the_seed_that_was_not_done(trained, tmp_path):
    _, store, labels, result = trained
    fuse.train(store, labels, tmp_path / "run" / "seed0", SHORT)
    with pytest.raises(tiny.Stop):
        fuse.train_seeds(store, labels, tmp_path / "run", [0, 3], SHORT, tiny.stop_after(1))
    with pytest.raises(AffuseError, match="not a run folder"):
        fuse.load_run(tmp_path / "run")
    told = []
    again = fuse.train_seeds(store, labels, tmp_path / "run", [0, 3], SHORT, told.append)
    assert [row["epoch"] for row in told] == [2]
    assert again["ccc"] == result["ccc"]


def test_runs_given_together_predict_their_mean_within_a_band(trained, tmp_path):
    """Of two runs by path, in Python and on the command line, and of a run of seeds beside a third: each model once."""
    path, store, labels, _ = trained
    fuse.train(store, labels, tmp_path / "third", tiny.small(gaps="mask", epochs=1, seed=9))
    paths = [path / "seed0", path / "seed3", tmp_path / "third"]
    each = [fuse.load_run(one) for one in paths]
    values = np.stack([one.predict(store)["t1"].values for one in each])
    noise = np.mean([one.noise for one in each], axis=0)
    made = load_run(paths).predict(store)["t1"]
    np.testing.assert_allclose(made.values, values.mean(0), atol=1e-12)
    np.testing.assert_allclose(made.deviation, np.sqrt(values.var(0) + noise), atol=1e-12)
    assert {"valence_deviation"} <= {*Predictions({"t1": made}).table()}
    assert any(band.get_label() == "9 of 10 arousal" for band in made.plot().axes[1].collections)
    assert "3 models together" in repr(load_run([path, tmp_path / "third"]))
    np.testing.assert_allclose(
        load_run([path, paths[2]]).predict(store)["t1"].values, made.values, atol=1e-12
    )
    given = [word for one in paths for word in ("--run", str(one))]
    answer = CliRunner().invoke(
        commands.main,
        ["fuse", "predict", *given, "--features", str(store.path), "--out", str(tmp_path / "out")],
    )
    assert answer.exit_code == 0, answer.output
    np.testing.assert_allclose(
        pd.read_csv(tmp_path / "out" / "t1.csv")["valence"], made.values[:, 0], atol=1e-6
    )


def test_runs_that_do_not_go_together_say_how_they_differ(trained, tmp_path):
    path, store, labels, _ = trained
    first = path / "seed0"
    for changes, sentence in (
        ({"target": "valence"}, "targets: valence, arousal → valence"),
        ({"modalities": ["visual", "audio"]}, "modalities: visual, audio, text → visual, audio"),
        ({"fps": 5}, "frames per second: 25 → 5"),
    ):
        other = tmp_path / next(iter(changes))
        fuse.train(store, labels, other, tiny.small(epochs=1, **changes))
        with pytest.raises(UsageError, match=f"cannot predict together: {sentence}. Leave one"):
            load_run([first, other])
    strange, labels = tiny.make_data(tmp_path / "strange", 2, 1, made=tiny.provenance("iresnet50"))
    fuse.train(strange, labels, tmp_path / "run", SHORT)
    with pytest.raises(UsageError, match="visual backbone: resnet50 → iresnet50"):
        load_run([first, tmp_path / "run"])
    for twice in ([first, first], [path, first]):
        with pytest.raises(UsageError, match="given twice"):
            load_run(twice)
    with pytest.raises(UsageError, match="no run among none"):
        load_run([])


def test_attention_is_that_of_one_model(trained):
    path, store, _, _ = trained
    with pytest.raises(UsageError, match="seed3"):
        fuse.load_run(path).explain(store)
    assert load_run(path / "seed0").explain(store)


def test_the_command_line_takes_a_range(trained, tmp_path, capsys, monkeypatch):
    _, store, labels, _ = trained
    settings = [
        f"--set={key}={value}" for key, value in {**tiny.SMALL, "epochs": 1}.items() if key != "channels"
    ]
    given = [
        "train",
        "--features",
        str(store.path),
        "--labels",
        str(labels),
        "--out",
        str(tmp_path / "run"),
        *settings,
    ]
    monkeypatch.setattr("sys.argv", ["affuse", "fuse", *given, "--seeds", "0..1"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "2 seeds: validation CCC" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["affuse", "fuse", *given, "--seeds", "0..1", "--seed", "0"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert parse_seeds("0..2,7") == [0, 1, 2, 7]
    for wrong in ("", "a", "3..1..2", "3..1,5", "-1", "0..b", "0..99999999999"):
        with pytest.raises(UsageError, match="whole numbers"):
            parse_seeds(wrong)


def test_a_mixture_has_the_moments_of_its_draws():
    """Against draws from the normal distributions themselves."""
    rng = np.random.default_rng(0)
    values, deviation = rng.uniform(-0.5, 0.5, (3, 4, 2)), rng.uniform(0.1, 0.3, (3, 4, 2))
    together = Estimate.together([Estimate(*each) for each in zip(values, deviation, strict=True)])
    draws = np.concatenate([rng.normal(values[k], deviation[k], (200_000, 4, 2)) for k in range(3)])
    np.testing.assert_allclose(together.values, draws.mean(0), atol=3e-3)
    np.testing.assert_allclose(together.deviation, draws.std(0), atol=3e-3)
    assert Estimate.together([Estimate(values[0])]).deviation is None


def test_noise_makes_the_band_as_wide_as_the_errors(trained):
    """Errors of a spread of 0.3, of which the seeds know 0.1: with the noise nine of ten truths are in the band."""
    path, store, labels, _ = trained
    corpus, _ = fuse.load_run(path).predict_partition(store, labels, "validation")
    rng = np.random.default_rng(1)
    wrong = corpus.truth.numpy() + rng.normal(0, 0.3, corpus.truth.shape)
    estimate = Estimate(wrong, np.full_like(wrong, 0.1))
    noise = unexplained(corpus, estimate)
    error = (wrong - corpus.truth.numpy())[corpus.annotated.numpy()]
    np.testing.assert_allclose(noise, (error**2).mean(0) - 0.1**2)
    assert within(corpus, estimate)["within"]["mean"] < 0.5
    assert within(corpus, estimate.widened(noise))["within"]["mean"] == pytest.approx(0.9, abs=0.05)
    assert pytest.approx(1.6449, abs=1e-4) == REACH
    surer = Estimate(wrong, np.full_like(wrong, 0.9))
    assert not unexplained(corpus, surer).any()


def test_seeds_are_checked_before_the_first_is_trained(trained, tmp_path):
    _, store, labels, _ = trained
    for seeds, match in (
        ([], "two at least"),
        ([0, 0], "two at least"),
        (3, "whole numbers"),
        ([0, -1], "seed"),
    ):
        with pytest.raises(UsageError, match=match):
            fuse.train_seeds(store, labels, tmp_path / "run", seeds, SHORT)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="Every seed of 'linear' is the same"):
        fuse.train_seeds(store, labels, tmp_path / "run", [0, 1], tiny.small(model="linear"))


@pytest.mark.parametrize(
    "facts", ["", "{", "[]", {"seeds": {}}, {"seeds": ["0"]}, {"seeds": {"x": ""}}, {"noise": ["x", 0]},
              {"noise": [0.1]}, {"noise": [-1, 0]}, {"noise": [float("nan"), 0]}, {"ccc": None}],
)  # fmt: skip
def test_a_damaged_list_of_seeds_is_named(trained, tmp_path, facts):
    path = shutil.copytree(trained[0], tmp_path / "run") / "ensemble.json"
    whole = json.loads(path.read_bytes())
    path.write_text(facts if isinstance(facts, str) else json.dumps({**whole, **facts}))
    with pytest.raises(AffuseError, match=r"ensemble\.json cannot be read"):
        fuse.load_run(path.parent)


def test_seeds_predict_together_as_they_were_put_together(trained, tmp_path):
    """One that is gone, or that was trained anew in another way, is named, and what to do."""
    _, store, labels, _ = trained
    path = shutil.copytree(trained[0], tmp_path / "run")
    shutil.rmtree(path / "seed3")
    with pytest.raises(AffuseError, match="seed3 is not as it was"):
        fuse.load_run(path)
    fuse.train(store, labels, path / "seed3", tiny.small(gaps="mask", epochs=1, seed=3, target="valence"))
    with pytest.raises(AffuseError, match="Give the same training again"):
        fuse.load_run(path)
    shutil.rmtree(path / "seed3")
    assert fuse.train_seeds(store, labels, path, [0, 3], SHORT)["ccc"] == trained[3]["ccc"]
    assert fuse.load_run(path).others
