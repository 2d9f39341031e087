"""Fetch a file over http(s) so that it is either whole and verified under its name, or not there at all.

The bytes go to a `.partial` file beside the target, are hashed on the way, flushed to disk and only then
renamed: a cut connection, a wrong hash or a kill leaves nothing that looks done.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import secrets
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from affuse.errors import AffuseError

CHUNK = 1 << 20  # bytes read at a time
TIMEOUT = 20.0  # seconds, of each wait on the network
STALE = 86400.0  # seconds after which a partial file is certainly an abandoned one

_NETWORK = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


class UnreachableError(AffuseError):
    """The address gave no file: no network, no such host, refused, not found, or cut in the middle."""


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def matches(found: str, pin: str) -> bool:
    """True where a sha256 satisfies its pin: a whole digest, the beginning of one, or "" (no pin)."""
    return found.startswith(pin)


@contextlib.contextmanager
def publish(target: Path, folder: bool = False) -> Iterator[Path]:
    """Give an empty file (or folder) beside `target`; on a clean exit it takes `target`'s name, else it is
    removed.

    Raises AffuseError where the folder around it cannot be written.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(6)}.partial")
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        partial.mkdir() if folder else partial.touch()
    try:
        yield partial
        with _writing(target):
            for file in partial.iterdir() if folder else (partial,):
                with file.open("rb+") as handle:
                    os.fsync(handle.fileno())
            if folder and target.exists():  # a damaged earlier one
                shutil.rmtree(target)
            os.replace(partial, target)
    finally:
        _remove(partial)


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AffuseError(
            f"{target} cannot be written: {error.strerror or error}. Free some space, or choose another "
            "cache folder with XDG_CACHE_HOME."
        ) from None


def _sweep(target: Path) -> None:
    """Remove what a kill left behind long ago."""
    for left in target.parent.glob(f".{target.name}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def fetch(address: str, target: Path, pin: str = "", timeout: float = TIMEOUT) -> str:
    """Download `address` to `target` and return its sha256.

    Raises UnreachableError where the address gives no whole file, AffuseError where its hash is not the
    pinned one; in both cases `target` is untouched.
    """
    request = urllib.request.Request(address, headers={"User-Agent": "affuse"})  # noqa: S310
    with publish(target) as partial:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 (the table's addresses)
                found = _copy(answer, partial, target.name)
        except urllib.error.HTTPError as error:
            raise UnreachableError(f"{address} answered {error.code} {error.reason}") from None
        except _NETWORK as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise UnreachableError(f"{address} cannot be reached ({reason})") from None
        if not matches(found, pin):
            raise AffuseError(
                f"{address} gave a file for {target.name} whose sha256 is {found}, but {pin} is pinned. "
                "It was not kept: something between here and the publisher changed it, or the publisher did. "
                "Try again later, or bring the file with --weights-dir."
            )
    return found


def _copy(answer: http.client.HTTPResponse, partial: Path, label: str) -> str:
    """Write the answer's body to `partial`; returns its sha256. Raises ConnectionError where it ends
    early.
    """
    size = int(answer.headers.get("Content-Length") or 0)
    digest, received = hashlib.sha256(), 0
    quiet = not sys.stderr.isatty()
    with tqdm(desc=label, total=size or None, unit="B", unit_scale=True, disable=quiet, leave=False) as bar:
        while piece := answer.read(CHUNK):
            with _writing(partial), partial.open("ab") as file:
                file.write(piece)
            digest.update(piece)
            received += len(piece)
            bar.update(len(piece))
    if received < size:
        raise ConnectionError(f"the connection ended after {received} of {size} bytes")
    return digest.hexdigest()
