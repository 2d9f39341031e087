"""Modality dropout does what it is for: a model trained on three modalities reads videos that have two."""

import numpy as np

import tiny
from affuse import fuse
from affuse.features import FeatureStore
from affuse.fuse.training.run import Run


def test_a_model_trained_on_three_modalities_runs_on_two(tmp_path):
    store, labels = tiny.make_data(tmp_path / "whole", 6, 2, frames=60)
    settings = tiny.small(model="rjcma", modality_dropout=0.3, epochs=8, learning_rate=3e-3, warmup_epochs=0)
    fuse.train(store, labels, tmp_path / "run", settings)
    deaf = FeatureStore(tmp_path / "deaf", create=True)
    for seed, name in ((6, "set/v0"), (7, "set/v1")):  # the validation videos, without their words
        deaf.write(tiny.make_video(name, 60 + 7 * seed, seed, ("text",))[0], tiny.provenance())
    result = fuse.predict(tmp_path / "run", deaf, tmp_path / "out", figures=False)
    assert not result["failed"]
    table = np.genfromtxt(result["written"]["set/v0"]["csv"], delimiter=",", names=True)
    assert np.isfinite(table["valence"]).all()
    run = fuse.load_run(tmp_path / "run")
    assert run.model.options.modality_dropout == 0.3
    scored = fuse.evaluate(run, deaf, labels)
    assert scored["ccc"]["mean"] > 0.6  # most of what the model knew is still read
    _, (with_text, _) = Run.predict_partition(run, store, labels, "validation")
    _, (without, _) = Run.predict_partition(run, deaf, labels, "validation")
    assert np.abs(with_text - without).max() > 0.01
