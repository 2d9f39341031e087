"""Backbones of strangers: a user's own file, an installed package, timm and transformers, none of it from a network."""

import re
import subprocess
import sys
import threading
from importlib.metadata import EntryPoint
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from affuse import plugins
from affuse.commands import main
from affuse.errors import AffuseError, UsageError
from affuse.extract import audio, strangers
from affuse.extract.backbones import public_name, whole_name
from affuse.extract.extraction import extract_settings
from affuse.extract.networks import build, locate_backbones, make_provenance
from affuse.extract.transcripts import Word
from affuse.extract.weights import doctor
from affuse.features.store import FeatureStore
from affuse.files import sha256_of
from media import talking_head, tone

CPU = torch.device("cpu")
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


def located(part, name, weights_dir=None, allow_untrained=False):
    settings = extract_settings("offline", None, [f"modalities=[{part}]", f"{part}={name}"])
    if part == "text":
        settings = settings.model_copy(update={"transcripts": "given"})
    return locate_backbones(settings, weights_dir, allow_untrained)[part]


def built(part, found, dtype=torch.float32):
    return build(part, found, extract_settings("offline"), CPU, dtype)


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


# ---- transformers


@pytest.fixture
def hub(tmp_path):
    """Save a model of that configuration, seeded, and its preprocessing, as people have them in a folder."""
    transformers = pytest.importorskip("transformers")

    def save(config, *beside, name="model", without=()):
        torch.manual_seed(1)
        folder = tmp_path / name
        for part in (transformers.AutoModel.from_config(config), *beside):
            part.save_pretrained(folder)
        for file in without:
            (folder / file).unlink()
        return folder

    return save


SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}


def test_pictures_of_transformers(hub):
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    processor = ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.25] * 3
    )
    folder = hub(ViTConfig(image_size=32, patch_size=16, **SMALL), processor)
    found = located("visual", f"hf:{folder}")
    assert (found.name, found.source, found.entry.width, found.trained) == (
        "hf:model",
        "file:model/",
        16,
        True,
    )
    encoder = built("visual", found)
    crops = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.manual_seed(0))
    with torch.inference_mode():
        model = ViTModel.from_pretrained(folder).eval()
        theirs = model((crops / 255 - 0.5) / 0.25).pooler_output
    np.testing.assert_allclose(encoder(crops), theirs, atol=2e-3)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert located("visual", f"hf:{folder}").sha256 != found.sha256


def test_a_pooler_without_weights_is_not_made_up(hub):
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    folder = hub(
        ViTConfig(image_size=32, patch_size=16, **SMALL), ViTImageProcessor(size={"height": 32, "width": 32})
    )
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    encoder = built("visual", located("visual", f"hf:{folder}"))
    crops = torch.full((1, 3, 32, 32), 255.0)
    with torch.inference_mode():
        theirs = model(torch.ones(1, 3, 32, 32)).last_hidden_state.mean(dim=1)
    np.testing.assert_allclose(encoder(crops), theirs, atol=2e-3)


def test_weights_that_are_not_there_are_seeded_only_if_told_and_marked(hub):
    from transformers import ViTConfig, ViTImageProcessor

    folder = hub(
        ViTConfig(image_size=32, patch_size=16, **SMALL),
        ViTImageProcessor(size={"height": 32, "width": 32}),
        without=["model.safetensors"],
    )
    with pytest.raises(AffuseError, match=r"'hf:model' cannot be had: .*model has no .*--allow-untrained"):
        located("visual", f"hf:{folder}")
    found = located("visual", f"hf:{folder}", allow_untrained=True)
    assert (found.trained, found.source) == (False, "seed:0")
    ones = torch.ones(1, 3, 32, 32)
    np.testing.assert_array_equal(built("visual", found)(ones), built("visual", found)(ones))


@pytest.fixture
def wav2vec2(hub):
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

    config = Wav2Vec2Config(
        conv_dim=[8] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, vocab_size=4, **SMALL
    )
    return hub(config, Wav2Vec2FeatureExtractor())


def test_sound_of_transformers_is_the_mean_of_its_frames_in_the_patch(wav2vec2):
    from transformers import Wav2Vec2Model

    found = located("audio", f"hf:{wav2vec2}")
    samples = tone(4.0) * np.linspace(0.1, 1, 64_000, dtype=np.float32)
    time = np.array([0.0, 1.5, 3.5, 3.999])
    made = built("audio", found)(samples, time)
    assert (made.shape, made.dtype, found.entry.width) == ((4, 16), np.float16, 16)
    scaled = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    with torch.inference_mode():
        frames = (
            Wav2Vec2Model.from_pretrained(wav2vec2).eval()(torch.tensor(scaled)[None]).last_hidden_state[0]
        )
    middle = (np.arange(len(frames)) + 0.5) * 4.0 / len(frames)
    for row, begin in zip(made[:3], time[:3], strict=True):
        inside = (middle >= begin) & (middle < begin + 0.975)
        np.testing.assert_allclose(row, frames[inside].mean(dim=0), atol=2e-3)
    np.testing.assert_allclose(made[3], frames[-1], atol=2e-3)


def test_long_sound_is_encoded_in_pieces(wav2vec2):
    encoder = built("audio", located("audio", f"hf:{wav2vec2}"))
    lengths = []
    scaled = encoder.scaled
    encoder.scaled = lambda heard, **options: lengths.append(len(heard)) or scaled(heard, **options)
    samples = np.random.default_rng(0).normal(0, 0.1, 100 * 16_000).astype(np.float32)
    time = np.arange(0, 100, 0.2)
    made = encoder(samples, time)
    assert made.shape == (500, 16)
    assert len(lengths) == 5
    longest = audio.PIECE + 2 * audio.MARGIN + 1
    assert max(lengths) <= longest * 16_000
    assert encoder(samples[:100], np.array([0.0])).shape == (1, 16)  # shorter than a frame


def test_words_of_transformers(hub, tmp_path):
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["good", "morn", "##ing", "all", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    folder = hub(BertConfig(vocab_size=len(words), max_position_embeddings=8, **SMALL), tokenizer)
    found = located("text", f"hf:{folder}")
    said = [Word(text, i, i + 1) for i, text in enumerate(["good", "morning", "all"] * 4)]
    made = built("text", found)(said)
    assert made.shape == (12, found.entry.width) == (12, 16)  # in sentences of at most six pieces
    with torch.inference_mode():
        tokens = tokenizer("good morning all", return_tensors="pt")
        hidden = BertModel.from_pretrained(folder).eval()(**tokens, output_hidden_states=True).hidden_states
    pieces = torch.stack(hidden[-4:]).sum(dim=0)[0]
    assert tokenizer.convert_ids_to_tokens(tokens.input_ids[0])[2:4] == ["morn", "##ing"]
    alone = built("text", found)([*said[:2], Word("all.", 2, 3)])
    assert alone.shape == (3, 16)
    np.testing.assert_allclose(built("text", found)(said[:3])[1], pieces[2:4].mean(dim=0), atol=5e-3)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty .*has no config\.json"):
        located("audio", f"hf:{tmp_path}/empty")
    (tmp_path / "empty" / "config.json").write_text("{}")
    (tmp_path / "empty" / "model.safetensors").write_text("x")
    with pytest.raises(AffuseError, match="is not a transformers folder of a sound encoder"):
        located("audio", f"hf:{tmp_path}/empty")


def test_no_network_for_a_hub_id_is_said_at_once(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(AffuseError, match=r"'hf:org/model' cannot be had: .* refused.*Choices"):
        located("audio", "hf:org/model")


# ---- timm


@pytest.fixture
def timm(monkeypatch):
    """A timm of one model, with published weights or without."""
    stub, data = ModuleType("timm"), ModuleType("timm.data")

    def create_model(name, pretrained, num_classes):
        if pretrained and not stub.online:
            raise OSError("nobody is there")
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))
        network.pretrained_cfg = {"hf_hub_id": "timm/tiny", "license": "apache-2.0"}
        return network

    data.resolve_model_data_config = lambda network: {
        "input_size": (3, 8, 8), "crop_pct": 0.8, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25),
    }  # fmt: skip
    stub.online, stub.create_model, stub.data, stub.__version__ = True, create_model, data, "1.0"
    stub.is_model, stub.list_models = lambda name: name == "tiny", lambda: ["tiny"]
    monkeypatch.setitem(sys.modules, "timm", stub)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    return stub


def test_pictures_of_timm(timm):
    found = located("visual", "timm:tiny")
    assert (found.name, found.source, found.entry.licence) == (
        "timm:tiny",
        "timm 1.0, timm/tiny",
        "apache-2.0",
    )
    assert (found.entry.width, found.trained, len(found.sha256)) == (5, True, 64)
    encoder = built("visual", found)
    assert (encoder.size, encoder.centre) == (10, 8)
    crops = torch.randint(0, 256, (2, 3, 10, 10), generator=torch.manual_seed(0))
    with torch.inference_mode():
        theirs = encoder.network((crops[:, :, 1:9, 1:9] / 255 - 0.5) / 0.25)
    np.testing.assert_allclose(encoder(crops), theirs, atol=2e-3)


def test_timm_offline_is_seeded_only_if_told(timm):
    timm.online = False
    with pytest.raises(AffuseError, match="'timm:tiny' cannot be had: OSError: nobody is there"):
        located("visual", "timm:tiny")
    found = located("visual", "timm:tiny", allow_untrained=True)
    assert (found.trained, found.source) == (False, "seed:0")
    with pytest.raises(UsageError, match="no model 'tny'; did you mean 'tiny'"):
        located("visual", "timm:tny")


def test_timm_that_is_not_installed_says_how(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'affuse\[timm\]'"):
        located("visual", "timm:resnet18")


def test_a_network_of_the_real_timm(monkeypatch):
    timm = pytest.importorskip("timm")
    create = timm.create_model

    def offline(*names, pretrained, **options):
        if pretrained:
            raise OSError("no network in tests")
        return create(*names, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    found = located("visual", "timm:test_resnet", allow_untrained=True)
    encoder = built("visual", found, torch.bfloat16)
    made = encoder(torch.rand(2, 3, encoder.size, encoder.size) * 255)
    assert made.shape == (2, found.entry.width)
    assert np.isfinite(made).all()
