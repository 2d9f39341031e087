"""`affuse report`: what a browser makes of its page."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

import affuse
import tiny
from affuse.features import FeatureStore
from pages import HOSTILE, TALK, make_scene, prediction, record, train_run


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, undrawn) -> tuple[Path, FeatureStore, Path]:
    return train_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window; what it logs and asks for is kept."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not (program and driver):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--mute-audio"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


class Looking:
    """A page in the browser, as somebody looks at it."""

    def __init__(
        self, browser, page: Path, width: int = 1280, scheme: str = "light", drawn: str = "#curves .trace"
    ):
        self.browser = browser
        self.command(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        browser.get(page.as_uri())
        self.until(f"return document.querySelectorAll('{drawn}').length > 0")

    def command(self, name: str, **options) -> None:
        self.browser.execute_cdp_cmd(name, options)

    def __call__(self, script: str, *arguments):
        return self.browser.execute_script(script, *arguments)

    def until(self, script: str) -> None:
        ends = time.monotonic() + 20
        while not self(script):
            assert time.monotonic() < ends, script
            time.sleep(0.05)

    def text(self, where: str) -> str:
        return self("return document.querySelector(arguments[0])?.textContent ?? null", where)

    def click(self, where: str, index: int = 0) -> None:
        self.browser.find_elements("css selector", where)[index].click()

    @property
    def lit(self) -> str | None:
        return self.text("#words [aria-current]")

    @property
    def cursor(self) -> float:
        return self("return document.querySelector('#cursor').getBoundingClientRect().left")

    def colour(self, name: str) -> str:
        return self("return getComputedStyle(document.body)[arguments[0]]", name)


@pytest.fixture(scope="module")
def page(scene) -> Path:
    return affuse.report(
        scene / "predictions", scene / "report.html", labels=scene / "labels", video_dir=scene / "videos"
    )


@pytest.fixture
def looking(browser, page) -> Looking:
    for log in ("browser", "performance"):
        browser.get_log(log)
    found = Looking(browser, page)
    found(
        "const box = document.querySelector('#choice');"
        "box.value = facts.clips.findIndex((clip) => clip.id === arguments[0]);"
        "box.dispatchEvent(new Event('change'))",
        TALK,
    )
    found.until("return document.querySelector('video').readyState >= 2")
    return found


def test_a_word_seeks_and_lights_up(looking):
    looking.click("#words button", 2)
    assert looking.lit == "Straße"
    assert looking("return document.querySelector('video').currentTime") == pytest.approx(2.0, abs=0.01)
    before = looking.cursor
    looking.click("#words button", 1)
    assert looking.lit == "<i>no</i>"
    assert looking.cursor < before


def test_the_slider_moves_cursor_word_and_face(looking):
    def to(seconds: float) -> None:
        looking("const s = document.querySelector('#slider'); s.value = arguments[0];"
                "s.dispatchEvent(new Event('input'))", seconds)  # fmt: skip

    places = []
    for seconds, word, face in ((0.7, "yes", True), (1.5, "<i>no</i>", False), (3.5, None, True)):
        to(seconds)
        assert looking.lit == word
        assert looking("return !document.querySelector('#face').hidden") is face
        assert ("face" in looking.text("#readings > div:last-child dd")) is not face
        places.append(looking.cursor)
    steps = np.diff(places)
    assert steps[1] / steps[0] == pytest.approx(2.0 / 0.8, rel=0.02)


def test_a_click_on_the_curves_seeks(looking):
    action_chains = pytest.importorskip("selenium.webdriver").ActionChains
    frame = looking.browser.find_element("css selector", "#curves-frame")
    width = looking("return document.querySelector('#curves-frame').clientWidth - LEFT - RIGHT")
    action_chains(looking.browser).move_to_element_with_offset(frame, 0, 0).click().perform()
    middle = looking("return LEFT + (document.querySelector('#curves-frame').clientWidth / 2 - LEFT)")
    left = looking("return LEFT")
    assert looking("return state.t") == pytest.approx(4 * (middle - left) / width, abs=0.02)


def test_playing_moves_the_moment(looking):
    looking.click("#play")
    looking.until("return document.querySelector('video').currentTime > 0.6")
    looking.until("return document.querySelector('#words [aria-current]')?.textContent === 'yes'")
    assert looking.text("#play") == "Pause"
    looking.click("#play")
    looking.until("return document.querySelector('#play').textContent === 'Play'")


def test_the_keyboard_reaches_words_and_moments(looking):
    press = (
        "document.querySelector(arguments[0])"
        ".dispatchEvent(new KeyboardEvent('keydown', {key: arguments[1], bubbles: true}))"
    )
    looking("document.querySelector('#words button').focus()")
    looking(press, "#words button", "ArrowRight")
    assert looking("return document.activeElement.textContent") == "<i>no</i>"
    assert looking("return document.querySelectorAll('#words [tabindex=\"0\"]').length") == 1
    looking(press, "#slider", "ArrowRight")
    assert looking.text("#moment").startswith("00:01.0")
    assert "seconds: valence" in looking(
        "return document.querySelector('#slider').getAttribute('aria-valuetext')"
    )


def test_a_band_stands_where_the_face_is_missing(looking):
    spans = looking(
        "const gd = document.querySelector('#curves'), trace = gd.data.find((t) => t.name === 'no face');"
        "return [trace.x.slice(0, 2), document.querySelector('#curves').layout.xaxis.range]"
    )
    assert spans == [[1, 2], [0, 4]]
    assert looking("return document.querySelectorAll('#curves .scatterlayer .js-line').length") >= 5


def test_the_table_sorts_and_opens(looking):
    def names() -> list[str]:
        return looking(
            "return [...document.querySelectorAll('#table tbody button')].map((b) => b.textContent)"
        )

    spread = "return [...document.querySelectorAll('#table th')].findIndex((h) => h.textContent === 'valence spread')"
    column = looking(spread)
    looking.click("#table th button", column)
    assert names() == [TALK, HOSTILE]
    looking.click("#table th button", column)
    assert names() == [HOSTILE, TALK]
    heads = looking(
        "return [...document.querySelectorAll('#table th')].map((h) => h.getAttribute('aria-sort'))"
    )
    assert heads[column] == "ascending"
    looking.click("#table tbody button", 0)
    assert looking("return state.clip.id") == HOSTILE
    looking.until("return document.querySelector('video').readyState >= 2")


def test_the_head_says_what_is_there_and_what_values_mean(looking):
    assert looking.text("#made").startswith("Predictions: 2 videos, 1 failed (see the end). ")
    assert "arousal runs from calm (−1) to excited (1): how somebody looks" in looking.text("#meaning")
    assert looking("return [-0.004, 0, 0.004, -0.2, null].map((v) => signed(v))") == [
        "0.00", "0.00", "0.00", "−0.20", "–",
    ]  # fmt: skip


def test_nothing_is_asked_of_a_network_and_nothing_goes_wrong(looking, browser):
    looking.click("#table tbody button", 0)
    looking.until("return document.querySelector('video').readyState >= 2")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
    assert browser.title == "affuse: predictions"


def test_a_phone_scrolls_in_one_direction_only(browser, page):
    for before in (390, 1280):  # opened so narrow, and made so
        looking = Looking(browser, page, width=before)
        looking.command(
            "Emulation.setDeviceMetricsOverride", width=390, height=900, deviceScaleFactor=1, mobile=False
        )
        looking.until("return document.querySelector('#curves .main-svg').clientWidth <= 390")
        assert looking("return document.documentElement.scrollWidth") <= 390


def test_the_dark_has_colours_of_its_own(browser, page):
    stroke = "return getComputedStyle(document.querySelector('#curves .js-line')).stroke"
    found = []
    for scheme in ("light", "dark"):
        looking = Looking(browser, page, scheme=scheme)
        found.append((looking.colour("backgroundColor"), looking.colour("color"), looking(stroke)))
    assert all(light != dark for light, dark in zip(*found, strict=True))


@pytest.mark.parametrize("media", ["embed", "none"])
def test_without_files_beside_it_the_page_works_all_the_same(browser, scene, tmp_path, media):
    made = affuse.report(
        scene / "predictions", tmp_path / "page.html", video_dir=scene / "videos", media=media
    )
    looking = Looking(browser, made)
    if media == "embed":
        looking.until("return document.querySelector('video').readyState >= 2")
    looking.click("#play")
    looking.until("return state.t > 0.3")
    assert looking("return document.querySelector('#stage').hidden") is (media == "none")


def test_a_video_that_is_gone_is_said(browser, scene, tmp_path):
    shutil.copytree(scene / "videos", tmp_path / "videos")
    made = affuse.report(scene / "predictions", tmp_path / "page.html", video_dir=tmp_path / "videos")
    shutil.rmtree(tmp_path / "videos")
    looking = Looking(browser, made)
    looking.until("return document.querySelector('#stage').hidden")
    assert "cannot play" in looking.text("#notes")


def test_runs_and_stores_open(browser, trained, scene, tmp_path):
    run, store, labels = trained
    made = affuse.report(run, tmp_path / "run.html", features=store.path, labels=labels)
    looking = Looking(browser, made)
    looking.until("return document.querySelectorAll('#histories .trace').length === 4")
    beside = "return [...document.querySelectorAll('#histories > div')].every((plot) => "
    looking.until(beside + "Math.abs(plot.querySelector('.main-svg').clientWidth - plot.clientWidth) < 2)")
    assert looking("return document.querySelectorAll('#scatter .trace').length") == 4
    number = r"−?[01]\.\d\d"
    assert re.fullmatch(rf"{number}\d \[{number}, {number}\]", looking.text("#scores-table tbody td"))
    assert len(looking("return [...document.querySelectorAll('#ranking li')]")) == 2
    looking = Looking(browser, affuse.report(store.path, tmp_path / "store.html"))
    looking.until("return document.querySelectorAll('#coverage-plots .barlayer .trace').length > 0")


def test_untrained_networks_are_told_first(browser, page, tmp_path):
    assert Looking(browser, page)("return document.querySelector('#untrained').hidden")
    store = FeatureStore(tmp_path / "store", create=True)
    store.write(record("clip"), tiny.provenance(trained=False))
    prediction("clip").save(tmp_path, figures=False)
    seeded = affuse.report(tmp_path, tmp_path / "page.html", features=store.path)
    assert Looking(browser, seeded).text("#untrained").startswith("Untrained backbones: audio (audio-net), ")


@pytest.mark.parametrize(("seconds", "most"), [((4.0, 4.01), 2), ((1.0, 20.0), 1), ((3.0,) * 40, 40)])
def test_videos_are_counted_in_whole_numbers(browser, tmp_path, seconds, most):
    store = FeatureStore(tmp_path / "store", create=True)
    for number, length in enumerate(seconds):
        store.write(dataclasses.replace(record(f"v{number:02d}"), duration=length), tiny.provenance())
    looking = Looking(browser, affuse.report(store.path, tmp_path / "store.html"))
    looking.until(
        "return document.querySelectorAll('#coverage-plots [data-name=durations] .ytick').length > 0"
    )
    plot = "document.querySelector('#coverage-plots [data-name=durations]')"
    ticks = looking(f"return [...{plot}.querySelectorAll('.ytick text')].map((tick) => tick.textContent)")
    assert all(re.fullmatch(r"\d+", tick) for tick in ticks), ticks
    assert len({*ticks}) == len(ticks) >= 2
    assert looking(f"return Math.max(...{plot}.data[0].y)") == most
    assert looking(f"return {plot}.data[0].y.reduce((a, b) => a + b)") == len(seconds)
