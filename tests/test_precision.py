"""Precision: which one suits a machine, that a store keeps to its own, and that rows are nearly the same in either."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from affuse.device import pick_device, pick_precision
from affuse.errors import UsageError
from affuse.extract.extraction import Compute, extract_jobs, extract_settings
from affuse.extract.extractor import Extractor
from affuse.extract.networks import extraction_device, locate_backbones, make_provenance
from affuse.extract.profiles import PROFILES
from affuse.extract.run import here
from affuse.extract.settings import ExtractSettings
from affuse.extract.videos import Job, find_jobs
from affuse.features.store import FeatureStore
from builders_extract import seeded_extractor
from media import talking_head

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")
CLIP = Path(__file__).resolve().parents[2] / "shared" / "clips" / "talking-2.mp4"


@pytest.fixture
def tiles(monkeypatch):
    """Sets whether the CPU has tiles for bfloat16."""

    def there(answer: bool):
        monkeypatch.setattr(torch.cpu, "_init_amx", lambda: answer, raising=False)

    return there


@pytest.mark.parametrize(("there", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_cpu_with_tiles_computes_in_bfloat16(tiles, there, precision):
    tiles(there)
    assert pick_precision("auto", CPU) == precision
    assert [pick_precision(name, CPU) for name in ("float32", "bfloat16")] == ["float32", "bfloat16"]


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((12, 0), "bfloat16")]
)
def test_a_gpu_from_ampere_on_computes_in_bfloat16(monkeypatch, tiles, capability, precision):
    tiles(True)  # of the CPU beside it
    monkeypatch.setattr(torch.cuda, "get_device_capability", {GPU: capability}.__getitem__)
    assert pick_precision("auto", GPU) == precision


def test_where_torch_cannot_tell_it_is_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_init_amx", raising=False)
    assert pick_precision("auto", CPU) == "float32"
    assert pick_precision("auto", torch.device("meta")) == "float32"


def test_float32_is_never_tf32():
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    pick_device("cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_extraction_picks_a_gpu_without_opening_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert extraction_device("cuda:1") == GPU  # here, where there is none, whatever is asked of it fails
    for pick, name in ((extraction_device, "cuda:2"), (pick_device, "cuda:1")):
        with pytest.raises(UsageError, match=f"Device '{name}' cannot be used: "):
            pick(name)


@pytest.mark.parametrize(("begun_with", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_store_keeps_the_precision_it_was_begun_in(tmp_path, tiles, monkeypatch, begun_with, precision):
    """Also on a machine of another kind, and whoever works there; another one is asked for by name."""
    recipes = []

    def engine(self, recipe, extractor, store, announce):
        recipes.append(recipe)
        return here(extractor, store)

    def extract(**settings):
        settings = extract_settings("offline", None, ["modalities=[audio]"], **settings)
        summary, made = extract_jobs(find_jobs(tmp_path / "videos"), store, settings, allow_untrained=True)
        assert (
            made.settings["precision"] == made.backbones["audio"].precision == recipes[-1].settings.precision
        )
        return summary.made, recipes[-1].settings.precision

    monkeypatch.setattr(Compute, "engine", engine)
    store = tmp_path / "store"
    talking_head(tmp_path / "videos" / "a.mp4", seconds=0.3)
    tiles(begun_with)
    assert extract() == (["a"], precision)
    tiles(not begun_with)
    talking_head(tmp_path / "videos" / "b.mp4", seconds=0.3)
    assert extract() == (["b"], precision)
    other = ({"float32", "bfloat16"} - {precision}).pop()
    assert extract(precision=precision) == ([], precision)
    assert extract(precision=other) == (["a", "b"], other)
    assert FeatureStore(store).provenance.settings["precision"] == other


def test_a_damaged_video_does_not_decide(tmp_path, tiles):
    tiles(False)
    for name in "ab":
        talking_head(tmp_path / "videos" / f"{name}.mp4", seconds=0.3)
    asked = {"settings": extract_settings("offline", None, ["modalities=[audio]"]), "allow_untrained": True}
    extract_jobs(find_jobs(tmp_path / "videos"), tmp_path / "store", **asked)
    shard = FeatureStore(tmp_path / "store").shard("a")
    shard.write_bytes(shard.read_bytes()[:1000])
    tiles(True)
    summary, made = extract_jobs(find_jobs(tmp_path / "videos"), tmp_path / "store", **asked)
    assert (summary.made, made.settings["precision"]) == (["a"], "float32")


def test_the_hash_of_a_store_in_float32_does_not_change():
    settings = extract_settings("offline", precision="float32")
    located = locate_backbones(settings.model_copy(update={"modalities": ("visual", "audio")}), None, True)
    assert make_provenance(settings, located).settings_hash == (
        "b9b9ce706ad539b8de5fcf16ba2dc32fea5b209a63c917b0b99b376c13544b27"
    )


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """The least cosine of rows."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    return ((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min()


def test_rows_point_the_same_way_in_either(tmp_path):
    talking_head(tmp_path / "a.mp4", seconds=1.0)
    (job,) = find_jobs(tmp_path)
    (one,), (other,) = (seeded_extractor(precision=name)(job) for name in ("float32", "bfloat16"))
    assert one.visual.valid.all()
    assert alike(one.visual.embedding, other.visual.embedding) >= 0.999
    assert alike(one.audio.embedding, other.audio.embedding) >= 0.999


@pytest.mark.weights
@pytest.mark.skipif(not CLIP.is_file(), reason=f"no real clip at {CLIP}")
def test_real_rows_point_the_same_way_and_words_are_the_same_in_either():
    made = []
    for name in ("float32", "bfloat16"):
        settings = ExtractSettings(backbones=PROFILES["offline"], precision=name)
        extractor = Extractor(settings, locate_backbones(settings, None, True), CPU, 2)
        extractor.load()
        made += extractor(Job(CLIP.stem, CLIP.name, CLIP))
    one, other = made
    for attribute in ("word", "start", "end", "confidence"):
        np.testing.assert_array_equal(getattr(one.text, attribute), getattr(other.text, attribute))
    faces = one.visual.valid & other.visual.valid
    assert alike(one.visual.embedding[faces], other.visual.embedding[faces]) >= 0.999
    assert alike(one.audio.embedding, other.audio.embedding) >= 0.999
    assert alike(one.text.embedding, other.text.embedding) >= 0.999


@pytest.mark.weights
def test_word_times_leave_a_lane_its_one_kernel_thread():
    """numba, with which Whisper aligns words, sets the number of whichever thread uses it first."""
    script = """
import numpy as np, torch, whisper
from affuse.extract.speech import Transcriber
from affuse.extract.weights.locate import locate
torch.set_num_threads(1)
Transcriber(locate("whisper-tiny.en"), "en", torch.device("cpu"))
before = torch.get_num_threads()
whisper.timing.dtw_cpu(np.zeros((3, 3)))
print(before, torch.get_num_threads())
"""
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert made.stdout.split() == ["1", "1"]
