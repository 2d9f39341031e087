"""What enters a batch: frames and masks, statistics, the order of windows."""

import numpy as np
import pytest
import torch

import tiny
from affuse import fuse
from affuse.errors import AffuseError
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.pool import load_corpus
from affuse.fuse.data.windows import Normalisation, Windows

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("data"), without=("text",))


def test_batches_hold_each_videos_own_frames_and_mask_the_rest(data):
    store, labels = data
    files = find_labels(labels)["train"]
    tracks = {video: read_track(path) for video, path in files.items()}
    corpus = load_corpus(store, files, ["visual", "text"], ["arousal"], tracks)
    windows = Windows(corpus, 80, 50, Normalisation.fit(corpus))  # t0 and t1 have 70 and 77 frames
    batch = next(windows.ordered(2))
    video, truth = store["t1"], tracks["t1"].values
    present = batch.mask["visual"][1, :77].numpy()
    np.testing.assert_array_equal(present, video.visual.valid)
    mean, std = windows.normalisation.mean["visual"].numpy(), windows.normalisation.std["visual"].numpy()
    expected = (video.visual.embedding.astype(np.float32) - mean) / std
    np.testing.assert_allclose(
        batch.inputs["visual"][1, :77].numpy()[present], expected[present], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(batch.truth[1, 6:77, 0].numpy(), truth[6:, 1])
    assert not batch.mask["visual"][1, 77:].any()
    assert not batch.counted[1, 77:].any()
    assert not batch.counted[1, 3:6].any()  # rows of -5
    assert not batch.mask["text"][0].any()  # t0 has no text
    faceless = ~batch.mask["visual"][0]  # and without a word: such a frame does not count, whatever its label
    assert faceless[:70].any()
    assert not batch.counted[0][faceless].any()
    assert batch.counted[0].sum() == (~faceless[:3]).sum() + (~faceless[6:70]).sum()


def test_normalisation_is_of_valid_training_frames_only(data, monkeypatch):
    monkeypatch.setattr("affuse.fuse.data.corpus.CHUNK", 32)
    store, _ = data
    corpus = load_corpus(store, ["t0", "t1"], ["visual"], ["valence"])
    rows = np.concatenate([store[v].visual.embedding[store[v].visual.valid] for v in ("t0", "t1")]).astype(
        np.float64
    )
    fitted = Normalisation.fit(corpus)
    np.testing.assert_allclose(fitted.mean["visual"], rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(fitted.std["visual"], rows.std(0), rtol=1e-5)
    # A channel that never moves must not blow up one that does at test time.
    corpus.features["visual"].values[1:, 0] = 1.5
    assert Normalisation.fit(corpus).std["visual"][0] > 0.01
    with pytest.raises(AffuseError, match="No training video has text"):
        Normalisation.fit(load_corpus(store, ["t0"], ["text", "audio"], ["valence"]))


def test_text_alone_is_scaled_by_one_mean_and_one_deviation(data):
    store, _ = data
    corpus = load_corpus(store, ["t1", "t2"], ["visual", "text"], ["valence"])
    fitted = Normalisation.fit(corpus, "text")
    words = corpus.features["text"][corpus.present["text"]].double().numpy()
    np.testing.assert_allclose(fitted.mean["text"], np.full(words.shape[1], words.mean()), rtol=1e-5)
    np.testing.assert_allclose(fitted.std["text"], np.full(words.shape[1], words.std()), rtol=1e-5)
    assert not np.allclose(words.mean(0), words.mean(), atol=0.1)
    for how, m in (("text", "visual"), ("none", "visual"), ("none", "text")):
        fitted = Normalisation.fit(corpus, how)
        np.testing.assert_array_equal(fitted.mean[m], np.zeros(tiny.WIDTHS[m]))
        np.testing.assert_array_equal(fitted.std[m], np.ones(tiny.WIDTHS[m]))


@pytest.mark.parametrize(("shuffle", "orders"), [("once", 1), ("epoch", 3)])
def test_windows_come_in_one_order_or_in_a_new_one_every_epoch(data, tmp_path, monkeypatch, shuffle, orders):
    drawn, gather = [], Windows.gather

    def watched(self, which, view=None):
        drawn.extend(which.tolist() if view is not None else [])
        return gather(self, which, view)

    monkeypatch.setattr(Windows, "gather", watched)
    fuse.train(*data, tmp_path / "run", tiny.small(epochs=3, shuffle=shuffle))
    epochs = np.array(drawn).reshape(3, -1)
    assert (np.sort(epochs) == np.arange(epochs.shape[1])).all()
    assert (epochs[0] != np.sort(epochs[0])).any()
    assert len({tuple(order) for order in epochs}) == orders


def test_a_run_keeps_its_normalisation(data, tmp_path):
    store, labels = data
    for how in ("channels", "text", "none"):
        fuse.train(store, labels, tmp_path / how, tiny.small(epochs=1, normalisation=how))
    visual, text = (
        {
            how: float(np.ptp(fuse.load_run(tmp_path / how).normalisation.mean[m].numpy()))
            for how in ("channels", "text", "none")
        }
        for m in ("visual", "text")
    )
    assert visual["channels"] > 0 == visual["text"] == visual["none"]
    assert text["channels"] > 0 == text["text"] == text["none"]


def test_every_window_is_drawn_once_an_epoch_in_an_order_of_its_own(data):
    store, _ = data
    corpus = load_corpus(store, ["t0", "t1", "t2", "t3"], ["audio"], ["valence"])
    windows = Windows(corpus, 16, 8, Normalisation.fit(corpus))
    drawn = []
    windows.gather = lambda which, view: which
    for seed in (1, 1, 2):
        drawn.append(torch.cat(list(windows.shuffled(3, seed))).tolist())
    assert sorted(drawn[0]) == list(range(len(windows)))
    assert drawn[0] == drawn[1] != drawn[2]


def test_audio_only_runs_use_the_same_frames(data):
    store, _ = data
    for modality in ("audio", "text"):
        corpus = load_corpus(store, ["t1"], [modality], ["valence"])
        np.testing.assert_array_equal(corpus.time, store["t1"].visual.time)
