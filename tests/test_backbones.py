"""Backbones of strangers: a user's own file, an installed package, and what names they have."""

import re
import subprocess
import sys
import threading
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from affuse import plugins
from affuse.commands import main
from affuse.errors import UsageError
from affuse.extract import strangers
from affuse.extract.backbones import public_name, whole_name
from affuse.extract.extraction import extract_settings
from affuse.extract.networks import make_provenance
from affuse.extract.transcripts import Word
from affuse.extract.weights import doctor
from affuse.features.store import FeatureStore
from affuse.files import sha256_of
from builders_extract import built, located
from media import talking_head

OWN = """
import torch


class Tiny:
    width = 6
    size = 32
    licence = "CC0"

    @classmethod
    def load(cls, device, dtype):
        return cls()

    def encode(self, crops):
        assert crops.dtype == torch.float32 and crops.shape[1:] == (3, 32, 32)
        return torch.cat([crops.mean(dim=(2, 3)), crops.std(dim=(2, 3))], dim=1)


class Loud:
    width = 2

    def __init__(self, device, dtype):
        pass

    def encode(self, samples, begin):
        return [[abs(samples[int(t * 16000) :][:1600]).max(), t] for t in begin]


class Letters:
    def __init__(self, device, dtype):
        self.width = 1

    def encode(self, words):
        return [[len(word)] for word in words]
"""
WHO = {"visual": "Tiny", "audio": "Loud", "text": "Letters"}
SAID = "1\n00:00:00,000 --> 00:00:00,400\nGood morning\n"


@pytest.fixture
def own(tmp_path):
    """A file with an encoder for each part, beside a video with a face and what is said in it."""
    talking_head(tmp_path / "videos" / "a.mp4", seconds=0.4)
    (tmp_path / "said").mkdir()
    (tmp_path / "said" / "a.srt").write_text(SAID)
    path = tmp_path / "my_backbone.py"
    path.write_text(OWN)
    return path


def extract(own, store, *more, visual="Tiny"):
    who = {**WHO, "visual": visual}
    parts = [word for part, name in who.items() for word in ("--set", f"{part}={own}:{name}")]
    folder = own.parent
    call = ["--video-dir", folder / "videos", "--out", store, "--transcripts", folder / "said", *parts, *more]
    result = CliRunner().invoke(main, [str(word) for word in ("extract", *call)])
    assert "Traceback" not in result.output
    return result


def test_a_users_own_file_encodes_every_part(own, tmp_path):
    store = tmp_path / "store"
    assert extract(own, store).exit_code == 0
    kept = FeatureStore(store)
    video = kept.read("a")
    assert video.visual.embedding.shape == (4, 6)
    assert (video.visual.embedding[video.visual.valid] > 0).all()
    assert video.audio.embedding[:, 0] == pytest.approx(0.3, abs=0.05)
    np.testing.assert_allclose(video.audio.embedding[:, 1], video.audio.time, rtol=1e-3)
    assert video.text.embedding.tolist() == [[4], [7]]
    made = kept.provenance.backbones["visual"]
    assert (made.name, made.source) == ("my_backbone.py:Tiny", "file:my_backbone.py")
    assert (made.sha256, made.width, made.licence, made.trained) == (sha256_of(own), 6, "CC0", True)
    assert str(tmp_path) not in str(kept.provenance.as_dict())


def test_an_edited_file_makes_other_features_and_a_moved_one_the_same(own, tmp_path):
    extract(own, tmp_path / "store")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("videos", "said", "my_backbone.py"):
        (tmp_path / name).rename(moved / name)
    moved_file = moved / "my_backbone.py"
    assert "0 extracted, 1 already there" in extract(moved_file, tmp_path / "store").stdout
    moved_file.write_text(OWN.replace("[len(word)]", "[-len(word)]"))
    assert "1 extracted" in extract(moved_file, tmp_path / "store").stdout
    assert FeatureStore(tmp_path / "store").read("a").text.embedding.tolist() == [[-4], [-7]]


def test_a_worker_loads_it_too_and_a_relative_path_will_do(own, tmp_path):
    parts = [w for part in ("visual", "audio") for w in ("--set", f"{part}=my_backbone.py:{WHO[part]}")]
    call = [
        "--video-dir",
        "videos",
        "--out",
        "store",
        "--set",
        "modalities=[visual, audio]",
        "--workers",
        "1",
        *parts,
    ]
    subprocess.run(
        [sys.executable, "-m", "affuse", "extract", *call], cwd=tmp_path, check=True, capture_output=True
    )
    kept = FeatureStore(tmp_path / "store")
    assert kept.read("a").visual.embedding.shape == (4, 6)
    assert kept.provenance.backbones["visual"].sha256 == sha256_of(own)


@pytest.mark.parametrize(
    ("old", "new", "visual", "message"),
    [
        ("", "", "Tny", r"has no 'Tny'; did you mean 'Tiny'\? Known: Letters, Loud, Tiny"),
        ("width = 6\n", "\n", "Tiny", "has no `width`"),
        ("size = 32\n", "\n", "Tiny", "has no `size`"),
        ("def encode(self, crops)", "def code(self, crops)", "Tiny", "has no `encode`"),
        ("import torch", "import torch, no_such_thing", "Tiny", r"ModuleNotFoundError: .* \(line 2\)"),
        ("return cls()", "return cls(1)", "Tiny", r"cannot be loaded: TypeError: .* \(line 12\)"),
        ("dim=1)", "dim=1)[:, :5]", "Tiny", r"gave \(1, 5\), where \(1, 6\) is wanted"),
        ("dim=1)", "dim=1) / 0 * 0", "Tiny", "gave NaN"),
        ("dim=1)", "dim=9)", "Tiny", r"failed: IndexError: .* \(line 16\)"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_before_the_first_video(own, tmp_path, old, new, visual, message):
    own.write_text(OWN.replace(old, new, 1))
    result = extract(own, tmp_path / "store", visual=visual)
    assert result.exit_code in (1, 2)
    assert re.search(message, result.stderr), result.stderr
    assert "failed: a" not in result.stderr


def test_a_file_that_is_not_there_is_said_so_and_may_lie_among_the_weights(own, tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.py of backbone .* check its path"):
        located("visual", "nowhere.py:Tiny")
    found = located("visual", "my_backbone.py:Tiny", weights_dir=tmp_path)
    assert found.path == own


def test_a_users_encoder_serves_one_thread_at_a_time(own):
    encoder = built("text", located("text", f"{own}:Letters"))
    other = threading.Thread(target=lambda: encoder([Word("good", 0, 1)]))
    encode, steps = encoder.encoder.encode, []

    def noted(words):
        steps.append("in")
        if len(steps) == 1:
            other.start()
            other.join(0.5)  # were it let in, it would be out by then
        steps.append("out")
        return encode(words)

    encoder.encoder.encode = noted
    encoder([Word("morning", 0, 1)])
    other.join()
    assert steps == ["in", "out", "in", "out"]


# ---- names


@pytest.mark.parametrize(
    ("part", "name", "message"),
    [
        ("visual", "resnet50", "did you mean 'resnet50-"),
        ("visual", "my_backbone.py", r"Or FILE\.py:NAME"),
        ("audio", "timm:resnet18", "unknown audio backbone"),
        ("speech", "hf:openai/whisper-tiny", "unknown speech backbone"),
        ("text", "timm:vit", "unknown text backbone"),
    ],
)
def test_names_that_no_backbone_has(part, name, message):
    with pytest.raises(UsageError, match=message):
        extract_settings("offline", None, [f"{part}={name}"])


def test_paths_travel_whole_and_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    (tmp_path / "model").mkdir()
    assert whole_name("audio", "mine.py:A") == f"{tmp_path}/mine.py:A"
    assert whole_name("text", "hf:model") == f"hf:{tmp_path}/model"
    assert whole_name("text", "hf:org/model@v1") == "hf:org/model@v1"
    names = [f"{tmp_path}/mine.py:A", f"hf:{tmp_path}/model", "hf:org/model@v1", "timm:resnet18", "vggish"]
    kept = ["mine.py:A", "hf:model", "hf:org/model@v1", "timm:resnet18", "vggish"]
    assert [public_name(name) for name in names] == kept
    long = extract_settings("offline", None, ["backbones.text=hf:model"])
    assert long == extract_settings("offline", None, ["text=hf:model"])
    assert str(tmp_path) not in str(make_provenance(long, {}).settings)


def test_an_installed_package_offers_backbones(own, monkeypatch):
    monkeypatch.syspath_prepend(own.parent)
    entry = EntryPoint("tiny", "my_backbone:Tiny", strangers.GROUP)
    vars(entry).update(dist=SimpleNamespace(name="tiny-faces", version="1.2"))
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    found = located("visual", "tiny")
    assert (found.name, found.source) == ("tiny", "package:tiny-faces 1.2")
    assert found.sha256 == sha256_of(own)
    assert built("visual", found)(torch.zeros(2, 3, 32, 32)).shape == (2, 6)
    row = doctor.report()[-1]
    assert (row["name"], row["state"], row["where"]) == ("tiny", "found", "my_backbone:Tiny")
    with pytest.raises(UsageError, match="unknown visual backbone 'tinny'"):
        located("visual", "tinny")
    sys.modules.pop("my_backbone")
