"""The page's server: on this machine only, behind an address that nobody can guess.

It listens on 127.0.0.1. A request is answered only if it was sent to this very address and begins with the token that
is made anew for every watch: no other page in the browser knows it, and one that has its own name point here (DNS
rebinding) is refused for the name it was asked by.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from string import Template

from affuse.errors import UsageError
from affuse.pipelines.report.page import part as part_of_report

HOST = "127.0.0.1"
TRACE = 30.0  # s of values that a page gets that is opened late
WAITING = 256  # events that wait for a page that is slow; it then misses the oldest
BEAT = 10.0  # s after which a page is told that all is well, and we see whether it is still there


class Events:
    """What pages are told of, the last TRACE seconds of values kept for those that come late."""

    def __init__(self, facts: dict):
        self.changed = threading.Condition()
        self.facts, self.closed, self.pages = facts, False, 0
        self.recent: deque[tuple[int, bytes]] = deque(maxlen=WAITING)
        self.values: deque[tuple[float, bytes]] = deque()
        self.latest: dict[str, bytes] = {}
        self.number = 0

    def tell(self, kind: str, facts: dict | list) -> None:
        """Tell all pages of a value, of a picture, of words, or of the state."""
        event = _event(kind, facts)
        with self.changed:
            self.number += 1
            self.recent.append((self.number, event))
            if kind == "value":
                self.values.append((facts["time"], event))
                while self.values[0][0] < facts["time"] - TRACE:
                    self.values.popleft()
            else:
                self.latest[kind] = event
            self.changed.notify_all()

    def close(self) -> None:
        """There is no more; pages are told so."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def follow(self) -> Iterator[bytes]:
        """Everything from now on, after what a page needs to begin with."""
        with self.changed:
            known, self.pages = self.number, self.pages + 1
            begin = [_event("facts", self.facts), *(event for _, event in self.values), *self.latest.values()]
        try:
            yield b"".join(begin)
            while True:
                with self.changed:
                    self.changed.wait_for(lambda known=known: self.number > known or self.closed, BEAT)
                    new = [event for number, event in self.recent if number > known]
                    known, closed = self.number, self.closed
                yield b"".join(new) or b": still here\n\n"
                if closed:
                    yield _event("end", {})
                    return
        finally:
            with self.changed:
                self.pages -= 1
                self.changed.notify_all()


def _event(kind: str, facts: dict | list) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(facts, allow_nan=False)}\n\n".encode()


class Server:
    """A page and its events at `address`, as a context. Raises UsageError where the port is taken; port 0 is any."""

    def __init__(self, events: Events, port: int = 0):
        self.events, token = events, secrets.token_urlsafe(24)

        class Answer(_Answer):
            pass

        try:
            self.http = ThreadingHTTPServer((HOST, port), Answer)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"The page cannot be served on port {port}: {reason}. Give another --port.") from None
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        Answer.events, Answer.token = events, token
        Answer.hosts = {f"{HOST}:{self.port}", f"localhost:{self.port}"}
        self.address = f"http://{HOST}:{self.port}/{token}/"

    def __enter__(self) -> Server:
        threading.Thread(target=self.http.serve_forever, name="server", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.events.close()
        with self.events.changed:  # pages that listen hear the last of it
            self.events.changed.wait_for(lambda: not self.events.pages, 2.0)
        self.http.shutdown()
        self.http.server_close()


class _Answer(BaseHTTPRequestHandler):
    """One request: the page, its events, or a refusal."""

    events: Events
    token: str
    hosts: set[str]
    timeout = 30  # s that a page may take to take something

    def do_GET(self) -> None:
        if self.headers.get("Host") not in self.hosts:
            return self.send_error(HTTPStatus.FORBIDDEN)
        _, token, *rest = [*self.path.split("/"), ""]
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return self.send_error(HTTPStatus.FORBIDDEN)
        if rest[:-1] == [""]:
            return self._page()
        if rest[:-1] == ["events"]:
            return self._events()
        return self.send_error(HTTPStatus.NOT_FOUND)

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        page = Template(_part("watch.html")).substitute(
            nonce=nonce, style=part_of_report("page.css") + _part("watch.css"), script=_part("watch.js")
        )
        allowed = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
        allowed += f"; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
        self._begin("text/html; charset=utf-8", {"Content-Security-Policy": allowed})
        self.wfile.write(page.encode())

    def _events(self) -> None:
        self._begin("text/event-stream")
        for data in self.events.follow():
            try:
                self.wfile.write(data)
            except OSError:  # the page was closed
                return

    def _begin(self, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        own = {"Content-Type": kind, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        own |= {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}
        for name, value in (own | (more or {})).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_) -> None:
        """Requests are nobody's business."""


def _part(name: str) -> str:
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")
