"""Where tests of weights get them: a server that misbehaves, a cache folder of their own, a table to be changed."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from affuse.extract.weights import table as sources

BODY = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(BODY).hexdigest()
FILES = tuple((name, DIGEST) for name in ("config.json", "model.safetensors", "vocab.txt"))


class Handler(http.server.BaseHTTPRequestHandler):
    """/whole and all below /hub give the body, /cut half of it, /held half of it for ever; the rest is not found. Below
    /hub/api it answers as a hub does of what a model's folder has: FILES."""

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.send_header("ETag", f'"{DIGEST}"')
        self.send_header("X-Repo-Commit", self.path.split("/resolve/")[-1].split("/")[0])
        self.end_headers()

    def do_GET(self):
        path = self.path.strip("/")
        if path == "hub" or path.startswith("hub/api/"):
            files = [{"type": "file", "path": name, "size": len(BODY), "oid": DIGEST} for name, _ in FILES]
            listing = {
                "id": "x",
                "sha": path.split("/")[-1],
                "siblings": [{"rfilename": f["path"]} for f in files],
            }
            self.answer(json.dumps(files if "/tree/" in path else listing).encode())
            return
        self.server.asked.append(path)
        if path not in ("whole", "cut", "held") and not path.startswith("hub/"):
            self.send_error(404, "Not Found")
            return
        if path not in ("cut", "held"):
            self.answer(BODY)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[: len(BODY) // 2])
        if path == "held":
            self.server.over.wait()

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[http.server.ThreadingHTTPServer]:
    """The server at `address`, which keeps the paths that it was `asked` for."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked, running.address = [], f"http://127.0.0.1:{running.server_port}"
        running.daemon_threads, running.over = True, threading.Event()
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.over.set()
        running.shutdown()


def settle(folder: Path, monkeypatch) -> Path:
    """An empty cache folder below `folder`, and nothing in the environment that names another."""
    for name in ("AFFUSE_WEIGHTS", "HF_ENDPOINT", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return folder


def changing(monkeypatch) -> Callable:
    """Changes an entry of the table for one test."""

    def change(name, **changes):
        monkeypatch.setitem(sources.BACKBONES, name, replace(sources.BACKBONES[name], **changes))

    return change
