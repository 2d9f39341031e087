"""The paired bootstrap: differences of two models' CCC, drawn by whole videos, and how sure they are."""

import statistics

import numpy as np
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from affuse.fuse.scoring.metrics import ccc, ccc_of_moments, moments, paired_bootstrap


def corpus(seed, videos=5, seeds=2, targets=2):
    """Truth and predictions of videos of different lengths: [(truth, [prediction of each seed])]."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(videos):
        truth = rng.normal(size=(rng.integers(3, 40), targets)) * 0.3 + rng.normal(size=targets) * 0.2
        made.append((truth, [truth + rng.normal(size=truth.shape) * 0.4 for _ in range(seeds)]))
    return made


def sums(videos):
    seeds = len(videos[0][1])
    return np.array([[moments(truth, guesses[s]) for truth, guesses in videos] for s in range(seeds)])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_ccc_from_moments_is_ccc_of_the_concatenation(seed, videos):
    made = corpus(seed, videos)
    for s in range(2):
        x, y = (np.concatenate(part) for part in zip(*((t, g[s]) for t, g in made), strict=True))
        got = ccc_of_moments(sums(made)[s].sum(0))
        np.testing.assert_allclose(got, [ccc(x[:, i], y[:, i]) for i in range(2)], atol=1e-10)
    constant = np.full((7, 1), 0.1)
    assert ccc_of_moments(moments(constant, constant)) == 0
    assert ccc_of_moments(moments(np.linspace(0, 1, 7)[:, None], constant)) == 0


def test_bootstrap_equals_drawing_whole_videos_one_by_one():
    one, other = (
        corpus(1),
        [(truth, guesses) for (truth, _), (_, guesses) in zip(corpus(1), corpus(1), strict=True)],
    )
    rng = np.random.default_rng(5)
    other = [
        (t, [t * 0.5 + rng.normal(size=t.shape) * 0.3 for _ in range(3)]) for t, _ in one
    ]  # three seeds here

    def agreement(videos, chosen):
        scores = []
        for s in range(len(videos[0][1])):
            x = np.concatenate([videos[v][0] for v in chosen])
            y = np.concatenate([videos[v][1][s] for v in chosen])
            scores.append([ccc(x[:, i], y[:, i]) for i in range(2)])
        valence, arousal = np.mean(scores, 0)
        return np.array([valence, arousal, (valence + arousal) / 2])

    counts = np.random.default_rng(0).multinomial(5, np.full(5, 0.2), 200)
    slow = np.array(
        [
            agreement(one, drawn) - agreement(other, drawn)
            for drawn in (np.repeat(range(5), c) for c in counts)
        ]
    )
    found = paired_bootstrap(sums(one), sums(other), resamples=200)
    np.testing.assert_allclose(found.value, agreement(one, range(5)) - agreement(other, range(5)), atol=1e-10)
    spread = [statistics.stdev(column) * (5 / 4) ** 0.5 for column in slow.T]  # resamples are 4 / 5 as varied
    expected = [scipy.stats.t.interval(0.95, 4, m, s) for m, s in zip(found.value, spread, strict=True)]
    np.testing.assert_allclose(np.transpose([found.low, found.high]), expected, atol=1e-10)
    middle = np.percentile(slow, [2.5, 97.5], axis=0)
    assert (found.high - found.low > middle[1] - middle[0]).all()  # five videos: Student's t is wider
    np.testing.assert_allclose(found.above_zero, (slow > 0).mean(0))


def test_bootstrap_of_a_model_against_itself_and_of_one_video():
    m = sums(corpus(2))
    same = paired_bootstrap(m, m)
    assert not same.value.any()
    assert not same.low.any()
    assert not same.above_zero.any()
    alone = paired_bootstrap(m[:, :1], sums(corpus(3))[:, :1])
    assert np.isfinite(alone.value).all()
    assert np.isnan(alone.low).all()
    assert np.isnan(alone.above_zero).all()


def test_intervals_cover_the_true_difference_about_as_often_as_they_say():
    def draw(rng, videos):
        """Videos differ in level and in how far each model is off: what makes the video the unit."""
        truth = rng.normal(size=(videos, 1)) * 0.2 + rng.normal(size=(videos, 30)) * 0.3
        one, other = (
            truth + rng.normal(size=(videos, 1)) * off + rng.normal(size=truth.shape) * noise
            for off, noise in ((0.15, 0.3), (0.25, 0.25))
        )

        def stack(y):
            parts = (truth * 0 + 1, truth, y, truth**2, y**2, truth * y)
            return np.stack([part.sum(1) for part in parts], 1)[None, :, :, None]

        return stack(one), stack(other)

    rng = np.random.default_rng(0)
    one, other = (ccc_of_moments(m.sum((0, 1))).item() for m in draw(rng, 100_000))
    inside = 0
    for i in range(300):
        found = paired_bootstrap(*draw(rng, 50), resamples=400, seed=i)
        inside += found.low[0] <= one - other <= found.high[0]
    assert 0.91 <= inside / 300 <= 0.985
