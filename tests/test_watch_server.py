"""Watching: who is answered by the page's server, and what it says."""

from __future__ import annotations

import http.client
import json
import time

import pytest

from affuse.errors import UsageError
from affuse.pipelines.watch.server import TRACE, WAITING, Events, Server

FACTS = {
    "source": "</script><b>clip",
    "run": "run",
    "targets": ["valence"],
    "lanes": ["face"],
    "untrained": [],
}
NAMES = ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]


def value(time: float) -> dict:
    values = {"valence": 0.25, "arousal": -0.5}
    return {
        "time": time,
        "values": values,
        "deviation": None,
        "present": {"face": True},
        "valid": True,
        "taken": 1.0,
    }


@pytest.fixture
def server():
    with Server(Events(FACTS)) as running:
        yield running


def asked(server: Server, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path, headers=headers)
    return connection.getresponse()


def path_of(server: Server) -> str:
    return server.address.removeprefix(f"http://127.0.0.1:{server.port}")


def events(answer: http.client.HTTPResponse, count: int) -> list[tuple[str, object]]:
    """The next events that are said, (kind, facts)."""
    found = []
    while len(found) < count:
        kind = answer.readline().decode().rstrip("\n")
        if kind.startswith(":"):  # a beat
            answer.readline()
            continue
        data, _ = (answer.readline().decode().rstrip("\n") for _ in range(2))
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_it_listens_on_this_machine_only(server):
    assert server.http.server_address[0] == "127.0.0.1"


def test_nothing_is_said_without_the_token(server):
    path = path_of(server)
    assert len(path.strip("/")) >= 32
    for wrong in ("/", "/events", "/wrong/", "/wrong/events", path[:-2] + "/", path.upper(), "/%00/"):
        assert asked(server, wrong).status == 403, wrong
    for unknown in (path + "page", path + "events/", path + "../watch.py", path + "?a=b"):
        assert asked(server, unknown).status == 404, unknown
    assert asked(server, path, "POST").status == 501
    assert asked(server, path).status == 200


def test_two_servers_have_two_tokens(server):
    with Server(Events(FACTS)) as other:
        assert path_of(other) != path_of(server)
        assert asked(other, path_of(server)).status == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]
)
def test_a_name_that_was_made_to_point_here_is_refused(server, host):
    for path in (path_of(server), path_of(server) + "events"):
        assert asked(server, path, Host=host.format(port=server.port)).status == 403


def test_the_page_is_whole_and_lets_nothing_else_in(server):
    answer = asked(server, path_of(server), Host=f"localhost:{server.port}")
    page, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert f'<script nonce="{nonce}">' in page
    assert "http://" not in page
    assert "https://" not in page
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    again = asked(server, path_of(server)).headers["Content-Security-Policy"]
    assert again != policy


def test_a_page_that_comes_late_begins_with_the_last_values(server):
    told = server.events
    for second in range(100):
        told.tell("value", value(float(second)))
        told.tell("words", [[f"word{second}", 0.0, 0.1]])
    answer = asked(server, path_of(server) + "events")
    (kind, facts), *values, (last, words) = events(answer, 1 + round(TRACE) + 1 + 1)
    assert (kind, facts) == ("facts", FACTS)
    assert [found["time"] for _, found in values] == [100.0 - TRACE - 1 + i for i in range(round(TRACE) + 1)]
    assert (last, words) == ("words", [["word99", 0.0, 0.1]])
    told.tell("value", value(100.0))
    assert events(answer, 1) == [("value", value(100.0))]
    told.close()
    assert events(answer, 1) == [("end", {})]
    assert answer.read() == b""


def test_events_do_not_pile_up():
    told = Events(FACTS)
    for number in range(10 * WAITING):
        told.tell("value", value(number / 100))
        told.tell("picture", {"jpeg": "", "box": None})
    assert len(told.recent) == WAITING
    assert len(told.values) == min(10 * WAITING, round(TRACE * 100) + 1)
    assert list(told.latest) == ["picture"]


def test_a_page_that_is_closed_is_forgotten_and_the_others_go_on(server):
    closed, open_ = (asked(server, path_of(server) + "events") for _ in range(2))
    for answer in (closed, open_):
        events(answer, 1)
    assert server.events.pages == 2
    closed.close()
    for number in range(1000):  # what is written to a page that is not there fails at the second time
        server.events.tell("state", {"number": number})
        assert events(open_, 1) == [("state", {"number": number})]
        if server.events.pages == 1:
            break
        time.sleep(0.01)
    assert server.events.pages == 1


def test_a_port_that_is_taken_is_said(server):
    with pytest.raises(UsageError, match=f"port {server.port}"):
        Server(Events(FACTS), server.port)
    with pytest.raises(UsageError, match="port 70000"):
        Server(Events(FACTS), 70000)
