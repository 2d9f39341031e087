"""`affuse watch`: what a browser makes of its page."""

from __future__ import annotations

import base64
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from affuse.pipelines.watch.server import Events, Server
from test_report_browser import browser  # noqa: F401 - a fixture

HOSTILE = "<b>clip</b>.mkv"
FACTS = {
    "source": HOSTILE,
    "run": "run",
    "targets": ["valence", "arousal"],
    "lanes": ["face", "sound", "words"],
    "untrained": ["audio (vggish)"],
}


def value(moment: float, valence: float = 0.25, face: bool = True) -> dict:
    return {
        "time": moment,
        "values": {"valence": valence, "arousal": -0.5},
        "deviation": None,
        "present": {"face": face, "sound": True, "words": False},
        "valid": True,
        "taken": time.time() - 0.2,
    }


def picture() -> dict:
    file = io.BytesIO()
    Image.fromarray(np.full((90, 160, 3), (200, 30, 30), np.uint8)).save(file, "JPEG")
    return {"jpeg": base64.b64encode(file.getvalue()).decode(), "box": [0.25, 0.25, 0.75, 0.75]}


class Page:
    """The page of a watch in the browser, as somebody looks at it."""

    def __init__(self, browser, server: Server, width: int = 1280, scheme: str = "light"):  # noqa: F811
        self.browser = browser
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(server.address)
        self.until("return document.querySelector('#status').textContent === 'live' && state.facts !== null")

    def __call__(self, script: str, *arguments):
        return self.browser.execute_script(script, *arguments)

    def until(self, script: str) -> None:
        ends = time.monotonic() + 60
        while not self(script):
            assert time.monotonic() < ends, script
            time.sleep(0.05)

    def text(self, where: str) -> str:
        return self("return document.querySelector(arguments[0]).textContent", where)

    def tones(self, canvas: str) -> set[tuple[int, ...]]:
        """The colours on a canvas."""
        pixels = self(
            "const c = document.querySelector(arguments[0]);"
            "return [...new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)]"
            ".filter((tone, i, all) => i % 7 === 0 && tone !== all[i - 1])",
            canvas,
        )
        return {tuple(int(p).to_bytes(4, "little")) for p in pixels}


@pytest.fixture
def server():
    with Server(Events(FACTS)) as running:
        yield running


def test_values_words_picture_and_counts_are_shown_as_they_come(browser, server):  # noqa: F811
    page, tell = Page(browser, server), server.events.tell
    assert page.text("#name") == HOSTILE
    assert "vggish" in page.text("#untrained")
    tell("words", [["Straße", 0.0, 0.4], ["<i>no</i>", 0.5, 0.9]])
    tell("picture", picture())
    for i in range(20):
        tell("value", value(i / 10, face=i < 10))
    tell("state", {"frames": 1234, "dropped": 56, "shown": 20})
    page.until("return document.querySelector('#readings').textContent.includes('+0.25')")
    assert "−0.50" in page.text("#readings")
    assert "face, words" in page.text("#readings")
    assert page.text("#words") == "Straße <i>no</i>"
    page.until("return document.querySelector('#counts').textContent.includes('1,234')")
    assert "56" in page.text("#counts")
    assert "valence +0.25" in page("return document.querySelector('#circumplex').getAttribute('aria-label')")
    page.until("return state.picture !== null && !state.dirty")
    assert any(red > 150 > 60 > green for red, green, _, _ in page.tones("#picture"))
    assert any(red > 230 and green > 200 for red, green, _, _ in page.tones("#picture"))  # the box
    for tone in ("valence", "arousal", "missing"):
        colour = page("return tone(arguments[0])", tone)
        assert tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) in {
            c[:3] for c in page.tones("#traces")
        }, tone


def test_the_delay_is_from_the_picture_to_the_page(browser, server):  # noqa: F811
    server.events.tell("value", value(0.0) | {"taken": time.time() - 500})  # of before the page was opened
    page = Page(browser, server)
    for i in range(5):
        server.events.tell("value", value(1 + i / 10) | {"taken": time.time()})
    page.until("return state.delays.length === 5")
    server.events.tell("state", {"frames": 1, "dropped": 0, "shown": 6})
    page.until("return document.querySelector('#counts').textContent.includes('of 95 % at most')")
    assert page("return Math.max(...state.delays.map((delay) => delay[1]))") < 400


def test_only_the_last_seconds_are_kept(browser, server):  # noqa: F811
    page = Page(browser, server)
    for second in range(200):
        server.events.tell("value", value(float(second)))
    page.until("return state.values.at(-1)?.time === 199")
    assert page("return state.values.length") == 31


def test_it_can_be_paused_and_says_when_it_has_ended(browser, server):  # noqa: F811
    page = Page(browser, server)
    server.events.tell("value", value(0.0, 0.1))
    page.until("return document.querySelector('#readings').textContent.includes('+0.10')")
    page.browser.find_element("css selector", "#pause").send_keys(" ")  # by the keyboard
    assert page("return document.querySelector('#pause').getAttribute('aria-pressed')") == "true"
    server.events.tell("value", value(0.1, 0.2))
    page.until("return state.values.length === 2")
    assert "+0.10" in page.text("#readings")
    page.browser.find_element("css selector", "#pause").click()
    page.until("return document.querySelector('#readings').textContent.includes('+0.20')")
    server.events.close()
    page.until("return document.querySelector('#status').textContent === 'ended'")


def test_nothing_else_is_asked_for_and_nothing_goes_wrong(browser, server):  # noqa: F811
    for log in ("browser", "performance"):
        browser.get_log(log)
    page = Page(browser, server)
    server.events.tell("picture", picture())
    page.until("return state.picture !== null")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith("data:")} == {
        server.address,
        server.address + "events",
    }
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_only(browser, server, scheme):  # noqa: F811
    page = Page(browser, server, width=390, scheme=scheme)
    server.events.tell("picture", picture())
    server.events.tell("words", [["word" * 30, 0.0, 1.0]])
    server.events.tell("value", value(0.0))
    page.until("return state.picture !== null && !state.dirty")
    assert page("return document.documentElement.scrollWidth") <= 390
    ground = page("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
