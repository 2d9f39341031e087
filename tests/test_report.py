"""`affuse report`: the facts that a page has, what it does with hostile names, and what a browser makes of it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner

import affuse
import tiny
from affuse import fuse
from affuse.commands import main
from affuse.features import FeatureStore, Status
from affuse.features.record import VideoFeatures
from affuse.files import file_name, name_of_file
from affuse.fuse.scoring.predict import Prediction, Predictions
from affuse.pipelines.report.collect import collect
from affuse.pipelines.report.series import boxes, gaps, thin
from affuse.pipelines.report.sources import read_source
from media import talking_head

FPS, FRAMES = 10, 40
FACELESS = slice(10, 20)  # frames: from 1 to 2 s
WORDS = [(0.5, 0.9, "yes"), (1.2, 1.6, "<i>no</i>"), (2.0, 2.5, "Straße")]
TALK = "set/talk"
HOSTILE = "x</script><script>document.title='broken'<!--&amp;"
TIME = np.arange(FRAMES) / FPS
VALENCE, AROUSAL = 0.8 * np.sin(TIME), 0.5 * np.cos(TIME)


def record(name: str, faceless: slice = FACELESS) -> VideoFeatures:
    """A video of 4 s with the words above, and in some frames no face."""
    made, _ = tiny.make_video(name, FRAMES, 0)
    there = np.ones(FRAMES, bool)
    there[faceless] = False
    box = np.tile(np.float32([40, 20, 120, 110]), (FRAMES, 1))
    box[~there] = np.nan
    start, end, word = zip(*WORDS, strict=True)
    return dataclasses.replace(
        made,
        fps=float(FPS),
        duration=FRAMES / FPS,
        visual=dataclasses.replace(
            made.visual,
            embedding=made.visual.embedding * there[:, None],
            time=TIME,
            valid=there,
            box=box,
            confidence=there.astype(np.float32),
        ),
        audio=dataclasses.replace(made.audio, time=TIME),
        text=dataclasses.replace(
            made.text,
            embedding=made.text.embedding[: len(WORDS)],
            start=np.array(start),
            end=np.array(end),
            word=np.array(word),
            confidence=np.ones(len(WORDS), np.float32),
        ),
    )


def prediction(name: str, scale: float = 1.0, faceless: slice = FACELESS) -> Prediction:
    there = np.ones(FRAMES, bool)
    there[faceless] = False
    present = {"visual": there, "audio": np.ones(FRAMES, bool)}
    return Prediction(name, TIME, ("valence", "arousal"), scale * np.stack([VALENCE, AROUSAL], 1), present)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """A folder with predictions/ of two videos, the store they came from below it, videos/ and labels/."""
    folder = tmp_path_factory.mktemp("scene")
    predictions = folder / "predictions"
    store = FeatureStore(predictions / "features" / "0123456789ab", create=True)
    for name, scale, faceless in ((TALK, 1.0, FACELESS), (HOSTILE, 0.5, slice(0))):
        store.write(record(name, faceless), tiny.provenance())
        prediction(name, scale, faceless).save(predictions, figures=False)
        talking_head(folder / "videos" / f"{name}.mp4", seconds=FRAMES / FPS, fps=FPS)
        truth = np.stack([VALENCE, AROUSAL], 1)
        tiny.write_labels(folder / "labels" / "validation" / f"{name}.txt", truth)
    broken = VideoFeatures.undecodable("gone", record("gone").source, "no <video> in it", tiny.provenance())
    store.write(broken, tiny.provenance())
    return folder


def facts_in(page: Path) -> dict:
    """What the page says, as its script reads it."""
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', text, re.DOTALL)
    assert not {*"<>&"} & {*data}
    return json.loads(data)


# ---- numbers


def test_gaps_last_until_the_next_frame_and_the_last_one_until_the_end():
    assert gaps(np.array([0.0, 1, 2, 3]), np.array([True, False, False, True]), 4.0) == [[1.0, 3.0]]
    assert gaps(np.array([0.0, 1, 2]), np.array([False, True, False]), 2.5) == [[0.0, 1.0], [2.0, 2.5]]
    assert gaps(np.zeros(0), np.zeros(0, bool), 0.0) == []


def test_a_thinned_curve_keeps_its_ends_and_peaks():
    values = np.zeros((100_000, 2))
    values[12_345, 0], values[54_321, 1], values[77_777, 1] = 1.0, -1.0, np.nan
    kept = thin(values)
    assert len(kept) <= 4002
    assert {0, 12_345, 54_321, 99_999} <= {*kept.tolist()}
    assert np.array_equal(thin(values[:50]), np.arange(50))


def test_boxes_are_few_but_say_when_a_face_goes():
    time_, valid = np.arange(100) / 25, np.ones(100, bool)
    valid[50:60] = False
    rows = boxes(time_, valid, np.tile(np.float32([1, 2, 3, 4]), (100, 1)))
    assert len(rows) < 30
    assert [1.96, 1, 2, 3, 4] in rows
    assert [2.0] in rows
    assert [2.4, 1, 2, 3, 4] in rows


@pytest.mark.parametrize("name", ["a/b", 'x"<>|?*', "50%2F", "ü:\\"])
def test_an_id_is_known_from_its_file_name(name):
    assert name_of_file(file_name(name)) == name


# ---- facts


def test_predictions_bring_their_own_store(scene):
    facts = collect(read_source(scene / "predictions"), scene / "labels")
    assert (facts.kind, facts.targets) == ("predictions", ["valence", "arousal"])
    assert facts.failed == {"gone": "no <video> in it"}
    talk = next(clip for clip in facts.clips if clip.id == TALK)
    assert talk.gaps["face"] == [[1.0, 2.0]]
    assert talk.gaps["sound"] == []
    assert talk.gaps["words"][0] == [0.0, 0.6]  # no frame lies in the word before
    assert talk.words == [list(word) for word in WORDS]
    assert talk.summary["valence mean"] == pytest.approx(VALENCE.mean(), abs=1e-3)
    assert talk.summary["arousal spread"] == pytest.approx(AROUSAL.std(), abs=1e-3)
    assert talk.summary["face seen"] == pytest.approx(0.75)
    assert talk.summary["valence CCC"] == pytest.approx(1.0, abs=1e-3)
    assert talk.curves["valence truth"] == pytest.approx(talk.curves["valence"], abs=2e-3)
    assert {*facts.scores} >= {"ccc", "interval", "per_video"}


def test_predictions_alone_have_gaps_but_no_words(scene, tmp_path):
    prediction("alone").save(tmp_path, figures=False)
    (clip,) = collect(read_source(tmp_path)).clips
    assert clip.gaps == {"face": [[1.0, 2.0]], "sound": []}
    assert (clip.words, clip.boxes, clip.pairs) == ([], [], {})


def test_labels_with_a_clock_of_their_own_are_scored_on_it(trained, tmp_path):
    run, store, labels = trained
    for path in labels.rglob("*.txt"):
        values = np.loadtxt(path, delimiter=",", skiprows=1)[::5]
        rows = [f"{0.2 * i:.1f},{v},{a}" for i, (v, a) in enumerate(values)]
        to = (tmp_path / path.relative_to(labels)).with_suffix(".csv")
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text("\n".join(["time,valence,arousal", *rows]) + "\n")
    found = collect(read_source(run, store.path), tmp_path)
    assert {own["frames"] for own in found.scores["per_video"].values()} <= {*range(15, 21)}
    assert len(found.clips[0].curves["valence truth"]) == len(found.clips[0].curves["valence"])


def test_a_deviation_becomes_a_band(tmp_path):
    made = dataclasses.replace(prediction("sure"), deviation=np.full((FRAMES, 2), 0.1))
    made.save(tmp_path, figures=False)
    (clip,) = collect(read_source(tmp_path)).clips
    width = np.subtract(clip.curves["valence high"], clip.curves["valence low"])
    assert width == pytest.approx(2 * 0.1645, abs=2e-3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, undrawn) -> tuple[Path, FeatureStore, Path]:
    folder = tmp_path_factory.mktemp("run")
    store, labels = tiny.make_data(folder, 3, 2)
    fuse.train(store, labels, folder / "run", tiny.small(epochs=2))
    return folder / "run", store, labels


def test_a_run_has_its_scores_and_learning_curves(trained):
    run, store, labels = trained
    alone = collect(read_source(run))
    assert alone.kind == "run"
    assert alone.scores == {"ccc": fuse.load_run(run).best["ccc"]}
    assert alone.histories["0"]["epoch"] == [1, 2]
    assert ["model", "rjcma, visual, audio, text"] in alone.about
    judged = collect(read_source(run, store.path), labels)
    told = fuse.evaluate(run, store, labels, permutations=0)
    for score in ("ccc", "pearson", "rmse"):
        assert judged.scores[score] == pytest.approx(told[score], abs=1e-4)  # the CSVs have six digits
    assert judged.clips[0].words


def test_a_run_of_several_seeds_has_a_curve_of_each(tmp_path, undrawn):
    store, labels = tiny.make_data(tmp_path, 2, 1)
    run = tmp_path / "run"
    fuse.train_seeds(store, labels, run, [0, 1], tiny.small(epochs=1))
    facts = collect(read_source(run), labels)
    assert [*facts.histories] == ["0", "1"]
    assert "valence low" in facts.clips[0].curves
    (run / "ensemble.json").unlink()
    with pytest.raises(affuse.AffuseError, match="not finished"):
        read_source(run)


def test_a_store_has_coverage_and_failures(scene):
    store = next((scene / "predictions" / "features").iterdir())
    facts = collect(read_source(store))
    assert facts.kind == "store"
    assert {clip.id for clip in facts.clips} == {TALK, HOSTILE}
    assert facts.failed == {"gone": "no <video> in it"}
    assert facts.clips[0].summary["words"] == len(WORDS)
    assert facts.clips[0].curves == {"time": []}
    assert ["audio", "audio-net, 6 wide"] in facts.about


def test_reasons_and_damage_are_told(tmp_path):
    store = FeatureStore(tmp_path / "store", create=True)
    silent, _ = tiny.make_video("silent", 30, 1, without=("text",))
    for video in (silent, record("other")):
        store.write(video, tiny.provenance())
    other = store.shard("other")
    other.write_bytes(other.read_bytes()[:-100])
    facts = collect(read_source(store.path))
    assert [clip.reasons for clip in facts.clips] == [{"words": "nobody speaks"}]
    assert silent.text.status == Status.NO_SPEECH
    assert [*facts.failed] == ["other"]
    assert "damaged" in facts.failed["other"] or "shorter" in facts.failed["other"]


# ---- the page


def test_names_and_words_are_data_and_never_tags(scene, tmp_path):
    page = affuse.report(scene / "predictions", tmp_path / "report.html")
    assert [clip["id"] for clip in facts_in(page)["clips"]].count(HOSTILE) == 1
    text = page.read_text(encoding="utf-8")
    for written in (HOSTILE, "<i>no</i>", "no <video> in it"):
        assert written not in text


def test_media_are_linked_embedded_or_left_out(scene, tmp_path):
    page = tmp_path / "deep" / "report.html"

    def held(media: str) -> dict:
        made = affuse.report(scene / "predictions", page, video_dir=scene / "videos", media=media)
        return facts_in(made)["media"]

    for video, media in held("link").items():
        assert (page.parent / unquote(media["link"])).samefile(scene / "videos" / f"{video}.mp4")
        assert not {*"<>#?&'\""} & {*media["link"]}
    assert {media["type"] for media in held("embed").values()} == {"video/mp4"}
    assert page.read_text(encoding="utf-8").count('<script type="text/plain" id="media-') == 2
    assert held("none") == {}


def test_videos_too_large_for_a_page_are_refused(scene, tmp_path, monkeypatch):
    monkeypatch.setattr("affuse.pipelines.report.media.MOST", 1000)
    with pytest.raises(affuse.UsageError, match=r"the 2 videos have .* Link them instead"):
        affuse.report(scene / "predictions", tmp_path / "a.html", video_dir=scene / "videos", media="embed")


def test_the_people_of_a_file_share_it(tmp_path):
    for number in (1, 2):
        prediction(f"pair#{number}").save(tmp_path / "predictions", figures=False)
    talking_head(tmp_path / "videos" / "pair.mp4")
    options = {"video_dir": tmp_path / "videos", "media": "embed"}
    page = affuse.report(tmp_path / "predictions", tmp_path / "report.html", **options)
    assert {video: media["embedded"] for video, media in facts_in(page)["media"].items()} == {
        "pair#1": 0,
        "pair#2": 0,
    }


def test_the_command_writes_the_same_page(scene, tmp_path):
    arguments = [
        "report",
        scene / "predictions",
        "--out",
        tmp_path / "a.html",
        "--labels",
        scene / "labels",
        "--json",
    ]
    done = CliRunner().invoke(main, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    affuse.report(scene / "predictions", tmp_path / "b.html", labels=scene / "labels")
    assert json.loads(done.stdout)["page"] == str(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nowhere", {}, "is not a folder"),
        ("videos", {}, "no folder of predictions, no run and no feature store"),
        ("predictions", {"features": "others"}, r"the store .*others has none of the 2 videos"),
        ("predictions", {"features": "videos"}, "no features in it"),
        ("predictions", {"labels": "elsewhere"}, r"--labels: the folder .* has none of the 2 videos"),
        ("predictions", {"labels": "nowhere"}, "does not exist"),
        ("predictions", {"video_dir": "nowhere"}, "is not a folder of videos"),
        ("predictions", {"video_dir": "strange"}, r"--video-dir: the folder .* has none of the 2 videos"),
        ("predictions", {"media": "inline"}, "expected link, embed or none"),
        ("others", {"features": "others"}, "is a feature store itself"),
        (5, {}, "Expected a folder of predictions"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(scene, tmp_path, source, options, message):
    store = FeatureStore(tmp_path / "others", create=True)
    store.write(record("stranger"), tiny.provenance())
    tiny.write_labels(tmp_path / "elsewhere" / "validation" / "stranger.txt", np.zeros((3, 2)))
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "stranger.mp4").touch()

    def place(name):
        return next((p for p in (tmp_path / name, scene / name) if p.exists()), tmp_path / name)

    options = {key: value if key == "media" else place(value) for key, value in options.items()}
    with pytest.raises(affuse.UsageError, match=message):
        affuse.report(place(source) if isinstance(source, str) else source, tmp_path / "page.html", **options)
    assert not (tmp_path / "page.html").exists()


def test_features_of_another_video_of_the_same_name_are_refused(tmp_path):
    prediction("clip").save(tmp_path / "predictions", figures=False)
    store = FeatureStore(tmp_path / "store", create=True)
    store.write(tiny.make_video("clip", 50, 0)[0], tiny.provenance())
    with pytest.raises(affuse.AffuseError, match="is not the one that was predicted: it has 50 frames"):
        affuse.report(tmp_path / "predictions", tmp_path / "page.html", features=store.path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,valence,face,valid\n0,x,1,1\n", "no number"),
        ("time,valence,face,valid\n1,0,1,1\n0,0,1,1\n", "not as predictions are"),
        ("time,valence,face,valid\n", "not as predictions are"),
        ("time,valid\n0,1\n", "not as predictions are"),
    ],
)
def test_damaged_predictions_are_named(tmp_path, text, message):
    (tmp_path / "clip.csv").write_text(text)
    with pytest.raises(affuse.AffuseError, match=rf"clip\.csv .*{message}"):
        read_source(tmp_path)


def test_another_table_beside_predictions_is_left_out(tmp_path, caplog):
    prediction("clip").save(tmp_path, figures=False)
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert [*read_source(tmp_path).predictions] == ["clip"]
    assert "notes.csv is no table of predictions" in caplog.text


def test_the_summary_beside_predictions_tells_what_failed(tmp_path, caplog):
    silent = "nothing to work on"
    made = Predictions({"clip": prediction("clip")}, {"NA": silent, "gone": "no video"})
    made.save(tmp_path, figures=False)
    facts = collect(read_source(tmp_path))
    assert ([clip.id for clip in facts.clips], facts.failed) == (["clip"], {"NA": silent, "gone": "no video"})
    prediction("gone").save(tmp_path, figures=False)  # a later attempt
    assert collect(read_source(tmp_path)).failed == {"NA": silent}
    assert "summary" not in caplog.text


def test_rows_of_several_frames_are_told_from_damage(tmp_path):
    prediction("clip").save(tmp_path, figures=False, every=1)
    with pytest.raises(affuse.UsageError, match=r"clip\.csv has a row for several frames.* without --every"):
        read_source(tmp_path)


def test_predictions_that_all_failed_are_a_page_too(scene, tmp_path):
    Predictions({}, {"gone": "no <video>"}).save(tmp_path)
    given = {"labels": scene / "labels", "features": scene / "predictions" / "features" / "0123456789ab"}
    facts = facts_in(affuse.report(tmp_path, tmp_path / "page.html", **given))
    assert (facts["clips"], facts["failed"]) == ([], {"gone": "no <video>"})


# ---- in a browser


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

    def __init__(self, browser, page: Path, width: int = 1280, scheme: str = "light"):
        self.browser = browser
        self.command(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        browser.get(page.as_uri())
        self.until("return document.querySelectorAll('#curves .trace').length > 0")

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
    assert looking("return document.querySelectorAll('#scatter .trace').length") == 4
    number = r"−?[01]\.\d\d"
    assert re.fullmatch(rf"{number}\d \[{number}, {number}\]", looking.text("#scores-table tbody td"))
    assert len(looking("return [...document.querySelectorAll('#ranking li')]")) == 2
    looking = Looking(browser, affuse.report(store.path, tmp_path / "store.html"))
    looking.until("return document.querySelectorAll('#coverage-plots .barlayer .trace').length > 0")
