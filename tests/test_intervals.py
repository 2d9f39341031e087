"""Intervals that cover, chance that is chance, and smoothing and delay that only training videos decide."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import tiny
from affuse import commands as cli
from affuse import fuse
from affuse.errors import UsageError
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.pool import load_corpus
from affuse.fuse.reports.tables import score_table
from affuse.fuse.scoring.evaluate import Adjustment, fit, judge, later, score, smooth
from affuse.fuse.scoring.metrics import _sums, bootstrap, ccc, pearson, permuted, rmse
from affuse.fuse.scoring.metrics import scores_of_moments as _scores


def simulated(rng, videos, frames=30):
    """Videos whose means differ, and predictions whose bias differs from video to video."""
    made = {}
    for video in range(videos):
        x = rng.normal(0, 0.3) + 0.2 * rng.normal(size=(frames + video % 7, 1))
        made[str(video)] = x, 0.7 * x + rng.normal(0, 0.15) + 0.15 * rng.normal(size=x.shape)
    return made


def test_scores_from_sums_are_the_metrics_of_the_concatenation():
    made = simulated(np.random.default_rng(0), 9)
    x, y = (np.concatenate(side)[:, 0] for side in zip(*made.values(), strict=True))
    found = _scores(_sums(made).sum(0, keepdims=True))
    for name, metric in (("ccc", ccc), ("pearson", pearson), ("rmse", rmse)):
        assert found[name][0, 0] == pytest.approx(metric(x, y), abs=1e-12)


@pytest.mark.parametrize("videos", [24, 60])
def test_the_interval_covers_at_its_nominal_rate(videos):
    rng = np.random.default_rng(videos)
    x, y = (np.concatenate(side)[:, 0] for side in zip(*simulated(rng, 20_000).values(), strict=True))
    truth = {"ccc": ccc(x, y), "pearson": pearson(x, y), "rmse": rmse(x, y)}
    hits = dict.fromkeys(truth, 0)
    for seed in range(400):
        found = bootstrap(simulated(rng, videos), ["valence"], resamples=300, seed=seed)
        for name, value in truth.items():
            low, high = found[name]["valence"]
            hits[name] += low <= value <= high
            assert found[name]["mean"] == found[name]["valence"]
    for name, count in hits.items():
        assert 0.905 <= count / 400 <= 0.985, (name, count)  # 0.95; a standard error is 0.011


def test_more_videos_make_the_interval_narrow_and_one_gives_none():
    rng = np.random.default_rng(1)
    widths = [np.ptp(bootstrap(simulated(rng, n), ["v"])["ccc"]["v"]) for n in (10, 1000)]
    assert widths[1] < widths[0] / 4
    assert bootstrap(simulated(rng, 1), ["v"]) == {}


def test_chance_is_near_zero_and_a_prediction_that_knows_stands_out():
    rng = np.random.default_rng(2)
    made = {
        str(i): (x := rng.normal(size=(40 + i, 1)), x + 0.5 * rng.normal(size=x.shape)) for i in range(20)
    }
    chance = permuted(made, ["v"], 200)["v"]
    assert abs(chance["mean"]) < 0.02
    assert chance["high"] < 0.15
    assert chance["p"] == pytest.approx(1 / 201)
    blind = {name: (x, rng.normal(size=x.shape)) for name, (x, _) in made.items()}
    assert permuted(blind, ["v"], 200)["v"]["p"] > 0.01
    # predictions that only know the level all videos share are worth nothing here either
    assert permuted({name: (x, 0 * x + 0.1) for name, (x, _) in made.items()}, ["v"], 10)["v"]["high"] == 0


def test_one_video_has_no_chance_level_and_the_table_says_so():
    rng = np.random.default_rng(3)
    text = score_table({"partition": "all", "left_out": {}, **judge(one := simulated(rng, 1), ["v"], 10)})
    assert judge(one, ["v"], 10)["chance"] == {}
    assert "interval and chance need several videos" in text
    several = score_table({"partition": "all", "left_out": {}, **judge(simulated(rng, 2), ["v"], 10)})
    assert "chance: 95 of 100" in several
    assert "need several videos" not in several


def test_the_moving_mean_and_the_shift_by_hand():
    time = np.arange(6) / 10
    values = np.array([0.0, 0, 6, 0, 0, 12])
    np.testing.assert_array_equal(smooth(time, values, 0), values)
    np.testing.assert_allclose(smooth(time, values, 0.2), [0, 2, 2, 2, 4, 6])
    np.testing.assert_allclose(later(time, values, 0.2), [0, 0, 0, 0, 6, 0], atol=1e-9)


def test_the_delay_of_the_raters_is_found_again(tmp_path):
    store, labels = tiny.make_data(tmp_path, 3, 1, frames=200)
    files = find_labels(labels)["train"]
    tracks = {video: read_track(path) for video, path in files.items()}
    corpus = load_corpus(store, files, ["visual"], ["valence", "arousal"], tracks)
    truth = corpus.truth.double().numpy()
    early = np.roll(truth, -20, axis=0)  # the model sees at once what raters mark 0.8 s later
    found = fit(corpus, early, "none", "fit")
    assert found.delay == {"valence": 0.8, "arousal": 0.8}
    assert found.smoothing == {"valence": 0, "arousal": 0}
    noisy = truth + np.random.default_rng(0).normal(0, 0.5, truth.shape)
    found = fit(corpus, noisy, "fit", "0")
    assert 0.2 <= found.smoothing["valence"] <= 1.6
    assert score(corpus, found(corpus, noisy))["ccc"]["mean"] > score(corpus, noisy)["ccc"]["mean"] + 0.1
    fixed = fit(corpus, noisy, "0.5", "1.5")
    assert fixed == Adjustment(dict.fromkeys(corpus.targets, 0.5), dict.fromkeys(corpus.targets, 1.5))
    for text in ("-1", "much", "inf"):
        with pytest.raises(UsageError, match="expected none, fit, or a number"):
            fit(corpus, noisy, text)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("intervals")
    store, labels = tiny.make_data(folder, 3, 3, frames=60)
    fuse.train(store, labels, folder / "run", tiny.small(epochs=2))
    return folder, store, labels


def test_what_is_fitted_depends_on_the_training_labels_alone(trained, tmp_path):
    folder, store, labels = trained
    adjusted = fuse.evaluate(folder / "run", store, labels, smooth="fit", delay="fit", permutations=0)
    assert set(adjusted["adjustment"]["smoothing"]) == {"valence", "arousal"}
    for path in (labels / "validation").rglob("*.txt"):  # other labels to score, the same to fit on
        rows = np.loadtxt(path, delimiter=",", skiprows=1)
        tiny.write_labels(tmp_path / "labels" / path.relative_to(labels), np.where(rows == -5, -5, -rows))
    for path in (labels / "train").rglob("*.txt"):
        tiny.write_labels(
            tmp_path / "labels" / path.relative_to(labels), np.loadtxt(path, delimiter=",", skiprows=1)
        )
    other = fuse.evaluate(
        folder / "run", store, tmp_path / "labels", smooth="fit", delay="fit", permutations=0
    )
    assert other["adjustment"] == adjusted["adjustment"]
    assert other["ccc"] != adjusted["ccc"]
    with pytest.raises(UsageError, match="fitted on training videos"):
        fuse.evaluate(folder / "run", store, labels, "all", smooth="fit")


def test_the_command_line_says_it_all(trained):
    folder, store, labels = trained
    args = ["fuse", "evaluate", "--run", folder / "run", "--features", store.path, "--labels", labels]
    args = [*map(str, args), "--smooth", "0.4", "--permutations", "20"]
    result = CliRunner().invoke(cli.main, [*args, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    low, high = found["interval"]["ccc"]["mean"]
    assert low < found["ccc"]["mean"] < high
    assert found["adjustment"]["smoothing"] == {"valence": 0.4, "arousal": 0.4}
    assert set(found["chance"]["mean"]) == {"mean", "high", "p"}
    text = CliRunner().invoke(cli.main, args).stdout
    assert "95 % interval" in text
    assert "smoothing: valence 0.4 s, arousal 0.4 s" in text
