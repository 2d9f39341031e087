"""Any frozen encoder by its name: one of our table, or a stranger's, from a library, a folder or a file of the user's.

resnet50-ferplus …    of the table, see `affuse doctor`
timm:NAME             pictures: a network of timm with its published weights
hf:MODEL[@REVISION]   pictures, sound or words: a transformers model, a hub id or a folder
FILE.py:NAME          a class in the user's own file, see `affuse.extract.strangers`
NAME                  an entry point of the group `affuse.backbones` in an installed package
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from affuse.config import nearest
from affuse.errors import AffuseError, UsageError
from affuse.extract.strangers import GROUP, of_file, of_package
from affuse.extract.visual import timm_network
from affuse.extract.weights.download import UnreachableError, snapshot
from affuse.extract.weights.locate import SEED, Located, locate, sha256_of_files, weights_folder
from affuse.extract.weights.table import BACKBONES, UNSTATED, BackboneSource
from affuse.plugins import installed, said

DESCRIBING = ("*.json", "*.txt", "*.model")  # files of a transformers folder that are not weights
SAFE, PICKLED = "*.safetensors", "pytorch_model*.bin"
FORMS = {"visual": ("timm", "hf"), "audio": ("hf",), "speech": (), "text": ("hf",)}  # libraries, by part


def whole_name(part: str, name: str) -> str:
    """The name with its path absolute, as other processes need it. Raises ValueError where no backbone can have it."""
    known = [entry.name for entry in BACKBONES.values() if entry.part == part]
    forms = FORMS[part]
    if name in known or (forms and name in installed(GROUP)):
        return name
    scheme, _, rest = name.partition(":")
    if rest and scheme in forms:
        path = Path(rest).expanduser()
        return f"hf:{path.resolve()}" if scheme == "hf" and path.is_dir() else name
    file, _, member = name.rpartition(":")
    if forms and member and file.endswith(".py"):
        path = Path(file).expanduser()
        return f"{path.resolve()}:{member}" if path.is_file() else name
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
    return of_file(part, name, folder) if ".py:" in name else of_package(part, name)


def _of_timm(name: str, model: str, allow_untrained: bool) -> Located:
    try:
        import timm
    except ImportError:
        raise UsageError(f"Backbone {name!r} needs timm, which is not installed: pip install 'affuse[timm]'.") from None
    if ":" not in model and not timm.is_model(model):
        near = nearest(model, timm.list_models()).partition(" Known:")[0]  # of a thousand
        raise UsageError(f"timm {timm.__version__} has no model {model!r}{near}")
    try:
        network, trained = timm_network(model, True), True
    except Exception as error:  # of whatever library fetches the weights
        if not allow_untrained:
            raise _not_to_be_had(name, said(error)) from None
        network, trained = timm_network(model, False), False
    published = network.pretrained_cfg
    source = f"timm {timm.__version__}, {published.get('hf_hub_id') or model}" if trained else f"seed:{SEED}"
    entry = BackboneSource(name, "visual", 0, published.get("license") or UNSTATED)
    return Located(name, None, source, _state_sha256(network), trained, entry)


def _state_sha256(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _of_transformers(part: str, name: str, model: str, folder: Path, allow_untrained: bool) -> Located:
    path = next((p for p in (Path(model), folder / model) if p.is_dir()), None)
    if path:
        source = f"file:{path.name}/"
    else:
        model, _, revision = model.partition("@")
        try:
            path = snapshot(model, revision or None, [*DESCRIBING, SAFE])
            if not any(path.glob(SAFE)):
                path = snapshot(model, revision or None, [*DESCRIBING, PICKLED])
        except (UnreachableError, OSError) as error:
            raise _not_to_be_had(name, f"there is no such folder, and {said(error)}") from None
        source = f"hub:{model}@{path.name}"
    if not (path / "config.json").is_file():
        raise UsageError(f"The folder {path} of backbone {name!r} has no config.json: it is no transformers model.")
    name, weights = public_name(name), [*path.glob(SAFE)] or [*path.glob(PICKLED)]
    if not weights:
        if not allow_untrained:
            raise _not_to_be_had(name, f"{path} has no {SAFE} or {PICKLED}")
        source = f"seed:{SEED}"
    files = sorted({file.name for pattern in DESCRIBING for file in path.glob(pattern)} | {w.name for w in weights})
    entry = BackboneSource(name, part, 0, UNSTATED)
    return Located(name, path, source, sha256_of_files(path, files), bool(weights), entry)


def _not_to_be_had(name: str, reason: str) -> AffuseError:
    return AffuseError(
        f"Weights of backbone {name!r} cannot be had: {reason}. Choices: go online once, after which they are kept; "
        "name a folder or a backbone that is here; or, for faces and sound, use --allow-untrained: seeded weights, and "
        "all that is made with them is marked untrained."
    )
