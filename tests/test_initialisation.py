"""How the weights of every model start: as in its release, asserted over seeds."""

import re

import numpy as np
import pytest
import torch

from affuse.fuse import build_model
from affuse.fuse.models.registry import MODELS, find

SEEDS = 20
WIDTHS = {"visual": 48, "audio": 40, "text": 56}
CHANNELS = {"visual": [32, 64, 32], "audio": [32, 40, 40], "text": [64, 48, 48]}

# Bounds of the uniform draws of weight and bias, from (width out, width in).
DEFAULT = (lambda out, width: width**-0.5, lambda out, width: width**-0.5)
XAVIER = (lambda out, width: np.sqrt(6 / (width + out)), lambda out, width: 0.0)
SKIP = (lambda out, width: np.sqrt(12 / (width + out)), lambda out, width: width**-0.5)

BLOCK, HEAD, GATE, LSTM = (
    r"blocks\..*",
    r"head\.(inner|outer)\..*",
    r"gates\..*",
    r"(encoders\.\w+|fusion)\.linear",
)
TCN = r"encoders\.\w+\.blocks\.\d+\.skip"
STARTS = {
    "rjcma": {BLOCK: DEFAULT, HEAD: DEFAULT, TCN: SKIP},
    "rcma": {BLOCK: DEFAULT, HEAD: DEFAULT, TCN: SKIP},
    "grjca": {BLOCK: XAVIER, HEAD: DEFAULT, TCN: SKIP, GATE: XAVIER},
    "hgrjca": {BLOCK: XAVIER, HEAD: DEFAULT, TCN: SKIP, GATE: XAVIER},
    "rjca": {BLOCK: XAVIER, HEAD: XAVIER, LSTM: XAVIER},
    "dca": {BLOCK: XAVIER, HEAD: XAVIER, LSTM: XAVIER, GATE: XAVIER},
    "jca": {BLOCK: DEFAULT, HEAD: DEFAULT, r"encoders\.\w+": DEFAULT},
    "ca": {HEAD: DEFAULT},
    "lfan": {HEAD: DEFAULT, TCN: SKIP, r"fusion\.(qkv\.\w+|project)": XAVIER},
    "linear": {HEAD: DEFAULT},
    "linear-rescaled": {HEAD: DEFAULT},
    "mean": {},
    "concat": {HEAD: DEFAULT, TCN: SKIP},
    "unimodal": {HEAD: DEFAULT, TCN: SKIP},
}


def drawn(name):
    """{layer: ([weight of every seed], [bias of every seed])} of the model's linear layers."""
    spec, layers = find(name), {}
    modalities = spec.standard
    channels = {m: CHANNELS[m] for m in modalities} if spec.encoder != "none" else None
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = build_model(name, {m: WIDTHS[m] for m in modalities}, window=36, channels=channels)
        for layer, part in model.named_modules():
            if isinstance(part, torch.nn.Linear):
                weights, biases = layers.setdefault(layer, ([], []))
                weights.append(part.weight.detach().numpy())
                biases.append(np.zeros(0) if part.bias is None else part.bias.detach().numpy())
    return layers


@pytest.mark.parametrize("name", MODELS)
def test_weights_start_as_in_the_release(name):
    starts, samples = STARTS[name], {}
    for layer, (weights, biases) in drawn(name).items():
        (kind,) = [pattern for pattern in starts if re.fullmatch(pattern, layer)]
        for part, values, bound in zip(("weight", "bias"), (weights, biases), starts[kind], strict=True):
            limit = bound(*weights[0].shape)
            values = np.concatenate([v.ravel() for v in values])
            if not limit or not values.size:
                assert not values.any(), layer
                continue
            assert np.abs(values).max() <= limit * (1 + 1e-6), layer
            samples.setdefault((kind, part), []).append(values / limit)
    assert {kind for kind, _ in samples} == set(starts)
    for of, values in samples.items():
        whole = np.concatenate(values)
        assert np.abs(whole).max() > 0.9, of
        if len(whole) > 1000:  # the few biases of a last layer have no spread to 3 %
            assert whole.std() == pytest.approx(1 / np.sqrt(3), rel=0.03), of


def test_the_releases_start_of_the_block_is_narrower_than_xaviers():
    spread = {
        name: np.std([w for layer, (w, _) in drawn(name).items() if re.search(r"W_j\.visual", layer)])
        for name in ("rjcma", "grjca")
    }
    assert spread["grjca"] / spread["rjcma"] == pytest.approx(np.sqrt(3), rel=0.03)
