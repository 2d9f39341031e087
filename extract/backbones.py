"""Any frozen encoder by its name: one of our table, or a stranger's, from a library, a folder or a file of the user's.

    resnet50-ferplus …    of the table, see `affuse doctor`
    timm:NAME             pictures: a network of timm with its published weights
    hf:MODEL[@REVISION]   pictures, sound or words: a transformers model, a hub id or a folder
    FILE.py:NAME          a class in the user's own file
    NAME                  an entry point of the group `affuse.backbones` in an installed package

A class of a file or a package says what it is by three names. `load(device, dtype)` is a class method that gives the
encoder; without it the class itself is called with these. `width` (int) is its embedding's, of the class or of what
was loaded. `encode`, with D for the width, may be called from several threads at once, under torch.inference_mode:

    visual   encode(crops)            RGB (n, 3, S, S) float32 0–255 on the device, S its attribute `size` → (n, D)
    audio    encode(samples, begin)   (N,) float32 at 16 kHz and (T,) seconds: what is heard at a frame begins there, by
                                      the setting audio_anchor at its time; may lie before 0 → (T, D)
    text     encode(words)            a list of W str in spoken order → (W, D)

What it gives is a tensor or an array, finite in float16. `licence` (str) is kept where there is one. The store is
identified by the file's name and sha256, so that an edited file makes other features; of what the file itself imports
or reads, nothing is known.
"""

from __future__ import annotations

import hashlib
import inspect
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import torch

from affuse.config import nearest
from affuse.errors import AffuseError, UsageError
from affuse.extract.weights.download import UnreachableError, sha256_of, snapshot
from affuse.extract.weights.locate import SEED, Located, locate, sha256_of_files, weights_folder
from affuse.extract.weights.table import BACKBONES, BackboneSource
from affuse.plugins import run_file, said, split

GROUP = "affuse.backbones"  # of entry points
DESCRIBING = ("*.json", "*.txt", "*.model")  # files of a transformers folder that are not weights
SAFE, PICKLED = "*.safetensors", "pytorch_model*.bin"
UNSTATED = "not stated"
FORMS = {"visual": ("timm", "hf"), "audio": ("hf",), "speech": (), "text": ("hf",)}  # libraries, by part


def installed() -> dict[str, EntryPoint]:
    """The backbones that installed packages offer, by name."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def whole_name(part: str, name: str) -> str:
    """The name with its path absolute, as other processes need it. Raises ValueError where no backbone can have it."""
    known = [entry.name for entry in BACKBONES.values() if entry.part == part]
    forms = FORMS[part]
    if name in known or (forms and name in installed()):
        return name
    scheme, _, rest = name.partition(":")
    if rest and scheme in forms:
        path = Path(rest).expanduser()
        return f"hf:{path.resolve()}" if scheme == "hf" and path.is_dir() else name
    path, member = split(name)
    if forms and path and member:
        return f"{path}:{member}" if path.is_file() else name
    others = "".join(f" Or {form}:NAME." for form in (*forms, "FILE.py")) if forms else ""
    raise ValueError(f"unknown {part} backbone {name!r}{nearest(name, known)}{others}")


def public_name(name: str) -> str:
    """The name as a store keeps it, the same on every machine."""
    scheme, _, rest = name.partition(":")
    if scheme == "hf":
        return f"hf:{Path(rest).name}" if Path(rest).is_absolute() else name
    return Path(name).name if ".py:" in name else name


def locate_backbone(part: str, name: str, weights_dir: Path | None, allow_untrained: bool) -> Located:
    """Find any backbone; a stranger's width is 0 where only the built encoder tells it.

    Raises UsageError for what is not there or not a backbone, AffuseError where weights cannot be had.
    """
    if name in BACKBONES:
        return locate(name, weights_dir, allow_untrained)
    scheme, _, rest = name.partition(":")
    if scheme == "timm":
        return _of_timm(name, rest, allow_untrained)
    folder = weights_folder(weights_dir)
    if scheme == "hf":
        return _of_transformers(part, name, rest, folder, allow_untrained)
    return _of_file(part, name, folder) if split(name)[0] else _of_package(part, name)


def _of_timm(name: str, model: str, allow_untrained: bool) -> Located:
    try:
        import timm
    except ImportError:
        raise UsageError(f"Backbone {name!r} needs timm, which is not installed: pip install timm.") from None
    from affuse.extract.strangers import timm_network

    if ":" not in model and not timm.is_model(model):
        near = nearest(model, timm.list_models()).partition(" Known:")[0]  # of a thousand
        raise UsageError(f"timm {timm.__version__} has no model {model!r}{near}")
    try:
        network, trained = timm_network(model, True), True
    except Exception as error:  # of whatever library fetches the weights
        if not allow_untrained:
            raise AffuseError(_not_to_be_had(name, said(error))) from None
        network, trained = timm_network(model, False), False
    published = network.pretrained_cfg
    source = f"timm {timm.__version__}, {published.get('hf_hub_id') or model}" if trained else f"seed:{SEED}"
    entry = BackboneSource(name, "visual", 0, published.get("license") or UNSTATED)
    return Located(name, None, source, _state_sha256(network), trained, entry)


def _not_to_be_had(name: str, reason: str) -> str:
    return (
        f"Weights of backbone {name!r} cannot be had: {reason}. Choices: go online once, after which they are kept; "
        "name a folder or a backbone that is here; or, for faces and sound, use --allow-untrained: seeded weights, and "
        "all that is made with them is marked untrained."
    )


def _state_sha256(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _of_transformers(part: str, name: str, model: str, folder: Path, allow_untrained: bool) -> Located:
    path = next((p for p in (Path(model), folder / model) if p.is_dir()), None)
    source = f"file:{path.name}/" if path else ""
    if path is None:
        model, _, revision = model.partition("@")
        try:
            path = snapshot(model, revision or None, [*DESCRIBING, SAFE])
            if not any(path.glob(SAFE)):
                path = snapshot(model, revision or None, [*DESCRIBING, PICKLED])
        except (UnreachableError, OSError) as error:
            raise AffuseError(_not_to_be_had(name, f"there is no such folder, and {said(error)}")) from None
        source = f"hub:{model}@{path.name}"
    if not (path / "config.json").is_file():
        raise UsageError(f"The folder {path} of backbone {name!r} has no config.json: it is no transformers model.")
    weights = [*path.glob(SAFE)] or [*path.glob(PICKLED)]
    if not weights and not allow_untrained:
        raise AffuseError(_not_to_be_had(public_name(name), f"{path} has no {SAFE} or {PICKLED}"))
    files = sorted({file.name for pattern in DESCRIBING for file in path.glob(pattern)} | {w.name for w in weights})
    entry = BackboneSource(public_name(name), part, 0, UNSTATED)
    return Located(
        entry.name, path, source if weights else f"seed:{SEED}", sha256_of_files(path, files), bool(weights), entry
    )


def _of_file(part: str, name: str, folder: Path) -> Located:
    named, member = split(name)
    path = next((p for p in (named, folder / named.name) if p.is_file()), None)
    if path is None:
        raise UsageError(f"The file {named} of backbone {name!r} is neither there nor in {folder}: check its path.")
    content = path.read_bytes()
    module = run_file("backbone", path, content)
    if not hasattr(module, member):
        own = [key for key, value in inspect.getmembers(module, inspect.isclass) if hasattr(value, "encode")]
        raise UsageError(f"{path} has no {member!r}{nearest(member, own)}")
    sha256 = hashlib.sha256(content).hexdigest()
    return _described(part, public_name(name), path, f"file:{path.name}", sha256, getattr(module, member))


def _of_package(part: str, name: str) -> Located:
    if name not in installed():
        raise UsageError(f"No installed package offers the backbone {name!r}{nearest(name, installed())}")
    entry = installed()[name]
    try:
        stranger = entry.load()
        path = Path(inspect.getfile(stranger if inspect.isclass(stranger) else type(stranger)))
    except Exception as error:
        raise UsageError(f"Backbone {name!r} ({entry.value}) cannot be imported: {said(error)}.") from None
    source = f"package:{entry.dist.name} {entry.dist.version}"
    return _described(part, name, path, source, sha256_of(path), stranger)


def _described(part: str, name: str, path: Path, source: str, sha256: str, stranger) -> Located:
    if not hasattr(stranger, "encode"):
        raise UsageError(lacking(name, path, "encode"))
    width = getattr(stranger, "width", None)
    known = width if isinstance(width, int) else 0  # else it is of what is loaded
    entry = BackboneSource(name, part, known, str(getattr(stranger, "licence", UNSTATED)))
    return Located(name, path, source, sha256, True, entry, stranger)


def lacking(name: str, path: Path, what: str) -> str:
    return (
        f"Backbone {name!r} in {path} has no `{what}`. A backbone has load(device, dtype), `width`, a whole number, "
        "and encode; one of pictures also `size`, the side of its crops in pixels."
    )
