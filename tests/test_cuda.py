"""On a GPU: what is computed there is what the CPU computes. `--device cpu` rehearses it where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from affuse import fuse
from affuse.device import pick_device
from affuse.extract.extractor import Extractor
from affuse.extract.gpu import captured
from affuse.extract.run import here
from affuse.extract.videos import find_jobs
from affuse.features.store import FeatureStore
from affuse.fuse.training.checkpoint import read_tensors
from builders_extract import seeded_extractor
from media import talking_head

pytestmark = pytest.mark.cuda
ALIKE = 0.999  # cosine


@pytest.fixture(scope="module")
def device(pytestconfig) -> torch.device:
    """The device asked for; of several GPUs the last, so that whatever is left on the first is seen."""
    name = pytestconfig.getoption("device")
    if name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{torch.cuda.device_count() - 1}"
    elif name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("there is no GPU here; --device cpu rehearses this test")
    return torch.device(name)


@pytest.fixture(scope="module")
def videos(tmp_path_factory, device) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(3):
        talking_head(folder / f"{i}.mp4", seconds=0.4 + 0.1 * i)
    return folder


@pytest.fixture(scope="module")
def expected(videos, tmp_path_factory) -> FeatureStore:
    """As the CPU extracts them in float32."""
    return extracted(seeded_extractor(), videos, tmp_path_factory.mktemp("cpu"))


def extracted(extractor: Extractor, videos: Path, folder: Path) -> FeatureStore:
    store = FeatureStore(folder / "store", create=True)
    receipts = list(here(extractor, store)(find_jobs(videos)))
    assert [receipt.failure for receipt in receipts] == [None] * 3
    return store


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """The least, over rows."""
    one, other = one.astype(float), other.astype(float)
    return ((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min()


@pytest.mark.parametrize("threads", [1, 4])  # on a GPU as many videos at once
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_faces_and_sound_are_those_of_the_cpu(videos, expected, device, tmp_path, threads, precision):
    extractor = seeded_extractor(threads, device, precision=precision)
    store = extracted(extractor, videos, tmp_path)
    for video_id in expected:
        one, other = expected[video_id], store[video_id]
        np.testing.assert_array_equal(one.visual.valid, other.visual.valid)
        np.testing.assert_allclose(
            one.visual.box, other.visual.box, atol=2
        )  # pixels; NVDEC's colours are one off
        assert cosine(one.visual.embedding, other.visual.embedding) >= ALIKE
        assert cosine(one.audio.embedding, other.audio.embedding) >= ALIKE


def test_the_networks_are_on_the_device_asked_for(device):
    networks = seeded_extractor(1, device).networks
    modules = [networks.detector.mtcnn, networks.sound_encoder.network]
    if device.type == "cuda":  # on a CPU its layers are fused, into no module
        modules.append(networks.face_encoder.network)
    assert {parameter.device for module in modules for parameter in module.parameters()} == {device}


def test_a_captured_network_computes_what_it_computes(device):
    """Also for the second input, and in the order in which they are given."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).to(device).requires_grad_(False)
    inputs = torch.rand(2, 4, 3, 16, 16, device=device)
    run = captured(network, torch.zeros_like(inputs[0]))
    for x in inputs:
        torch.testing.assert_close(run(x).clone(), network(x))
    assert (run is network) == (device.type == "cpu")


def test_float32_is_float32(device):
    """TF32 would round to 10 bits."""
    device = pick_device(str(device))
    matrix = torch.rand(512, 512, generator=torch.Generator().manual_seed(0))
    found = (matrix.to(device) @ matrix.to(device)).cpu()
    np.testing.assert_allclose(found, matrix.double() @ matrix.double(), rtol=1e-5)


@pytest.mark.usefixtures("undrawn")
def test_a_training_gives_the_same_weights_again(device, tmp_path):
    store, labels = tiny.make_data(tmp_path)
    settings = tiny.small(device=str(device), epochs=2)
    for name in ("one", "other"):
        fuse.train(store, labels, tmp_path / name, settings)
    one, other = (read_tensors(tmp_path / name / "model.safetensors")[0] for name in ("one", "other"))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
