"""Fetch a file over http(s) or a folder from the hub: whole and verified under its name, or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from affuse.console import progress_bar, watched
from affuse.errors import AffuseError, first_line
from affuse.files import Sink, publish, sha256_of, sweep

log = logging.getLogger("affuse")

CHUNK = 1 << 20  # bytes read at a time
TIMEOUT = 20.0  # seconds, of each wait on the network

_NETWORK = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)


class UnreachableError(AffuseError):
    """The address gave no file: no network, no such host, refused, not found, or cut in the middle; `why`, without the
    address."""

    def __init__(self, why: str, address: str = ""):
        super().__init__(f"{address} {why}".strip())
        self.why = why


def matches(found: str, pin: str) -> bool:
    """True where a sha256 satisfies its pin: a whole digest, the beginning of one, or "" (no pin)."""
    return found.startswith(pin)


def keep(target: Path, fill: Callable[[Sink | Path], object], folder: bool = False) -> None:
    """Publish `target` in the cache folder. Raises AffuseError where it cannot be written there."""
    advice = "The cache folder is another with XDG_CACHE_HOME."
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AffuseError(f"{target.parent} cannot be made: {error.strerror}. {advice}") from None
    sweep(target.parent)
    publish(target, fill, folder=folder, advice=advice)


def fetch(address: str, target: Path, pin: str = "", timeout: float = TIMEOUT) -> None:
    """Download `address` to `target`.

    Raises UnreachableError where the address gives no whole file, AffuseError where its sha256 is not the pinned one;
    in both cases `target` is untouched.
    """
    log.debug("fetching %s to %s", address, target)
    request = urllib.request.Request(address, headers={"User-Agent": "affuse"})  # noqa: S310

    def fill(sink: Sink) -> None:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 (the table's addresses)
                found = _copy(answer, sink, target.name)
        except urllib.error.HTTPError as error:
            raise UnreachableError(f"answered {error.code} {error.reason}", address) from None
        except _NETWORK as error:
            raise UnreachableError(f"cannot be reached ({_reason(error)})", address) from None
        _verify(address, target.name, found, pin)

    keep(target, fill)


def _copy(answer: http.client.HTTPResponse, sink: Sink, label: str) -> str:
    """Write the answer's body; returns its sha256. Raises ConnectionError where it ends early."""
    size = int(answer.headers.get("Content-Length") or 0)
    digest, received = hashlib.sha256(), 0
    with progress_bar(desc=label, total=size or None, unit="B", unit_scale=True, leave=False) as bar:
        while sink.failure is None and (piece := answer.read(CHUNK)):
            sink.write(piece)
            digest.update(piece)
            received += len(piece)
            bar.update(len(piece))
    if received < size:
        raise ConnectionError(f"the connection ended after {received} of {size} bytes")
    return digest.hexdigest()


def _verify(address: str, name: str, found: str, pin: str) -> None:
    if not matches(found, pin):
        raise AffuseError(
            f"{address} gave a file for {name} whose sha256 is {found}, but {pin} is pinned. It was not kept: "
            "something between here and the publisher changed it, or the publisher did. Try again later, or bring the "
            "file with --weights-dir."
        )


def fetch_folder(model: str, revision: str, files: tuple[tuple[str, str], ...], target: Path) -> None:
    """Download these files, (name, sha256), of a model on the hub to the folder `target`. Raises as `fetch` does."""

    def fill(folder: Path) -> None:
        snapshot(model, revision, [name for name, _ in files], local_dir=folder)
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's own notes
        for name, pin in files:
            found = sha256_of(folder / name) if (folder / name).is_file() else "none: it is missing"
            _verify(f"The hub's {model}", name, found, pin)

    keep(target, fill, folder=True)


def snapshot(model: str, revision: str | None, files: list[str], **where) -> Path:
    """The folder of a model on the hub, with those of its files that fit the patterns `files`, in the hub's own cache
    or `where`. HF_ENDPOINT in the environment names another hub. Raises UnreachableError where it cannot be had."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()
    if not watched():
        disable_progress_bars()
    hub = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    log.debug("fetching %s of %s at %s", ", ".join(files), model, hub)
    lost = _why_unreachable(hub)  # asked first: the hub's library would try for half a minute
    try:
        folder = snapshot_download(
            model, revision=revision, allow_patterns=files, endpoint=hub, max_workers=1,
            local_files_only=bool(lost), **where,
        )  # fmt: skip
    except Exception as error:  # of whichever http library the hub's uses
        if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
            raise  # of this machine's disk
        raise UnreachableError(f"cannot be reached ({lost or first_line(error)})", f"{hub}/{model}") from None
    return Path(folder)


def _why_unreachable(address: str) -> str:
    try:
        urllib.request.urlopen(address, timeout=TIMEOUT).close()  # noqa: S310 (the hub's address)
    except urllib.error.HTTPError:
        pass  # it answers
    except (*_NETWORK, ValueError) as error:  # ValueError: no address at all
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or str(error) or type(error).__name__)
