"""Fetch a file over http(s) so that it is either whole and verified under its name, or not there at all.

The bytes go to a `.partial` file beside the target, are hashed on the way, flushed to disk and only then renamed:
a cut connection, a wrong hash or a kill leaves nothing that looks done.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from features.errors import AffuseError

CHUNK = 1 << 20  # bytes read at a time
STALE = 3600.0  # seconds without a write after which a partial file is certainly an abandoned one


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
def publish(target: Path) -> Iterator[Path]:
    """Give a fresh path beside `target`; on a clean exit it is flushed and renamed to `target`, else removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink()
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def fetch(address: str, target: Path, pin: str = "", timeout: float = 20.0) -> str:
    """Download `address` to `target` and return its sha256. `timeout`, in seconds, is for each wait on the network.

    Raises UnreachableError where the address gives no whole file, AffuseError where its hash is not the pinned one;
    in both cases `target` is untouched.
    """
    request = urllib.request.Request(address, headers={"User-Agent": "affuse"})  # noqa: S310
    try:
        with publish(target) as partial:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 (the table's addresses)
                found = _copy(answer, partial, target.name)
            if not matches(found, pin):
                raise AffuseError(
                    f"{address} gave a file whose sha256 is {found}, but {pin} is pinned. It was not kept. "
                    "Something between here and the publisher changed it, or the publisher did; try again later."
                )
    except urllib.error.HTTPError as error:
        raise UnreachableError(f"{address} answered {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise UnreachableError(f"{address} cannot be reached ({reason})") from None
    except OSError as error:
        raise AffuseError(
            f"{target} cannot be written: {error.strerror}. Free some space or choose another "
            "folder with XDG_CACHE_HOME."
        ) from None
    return found


def _copy(answer: http.client.HTTPResponse, partial: Path, label: str) -> str:
    """Write the answer's body to `partial`; returns its sha256."""
    size = int(answer.headers.get("Content-Length") or 0)
    digest, received = hashlib.sha256(), 0
    quiet = not sys.stderr.isatty()
    with (
        partial.open("wb") as file,
        tqdm(desc=label, total=size or None, unit="B", unit_scale=True, disable=quiet, leave=False) as bar,
    ):
        while piece := answer.read(CHUNK):
            file.write(piece)
            digest.update(piece)
            received += len(piece)
            bar.update(len(piece))
    if received < size:
        raise ConnectionError(f"the connection ended after {received} of {size} bytes")
    return digest.hexdigest()
