"""Watching: rows as they come, laid on the run's clock, against what the run predicts of the record they make."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from affuse.extract.transcripts import Word
from affuse.features import FeatureStore, VideoFeatures
from affuse.fuse import train
from affuse.fuse.training.loading import load_run, together
from affuse.pipelines.watch.memory import EARLY, Face, Memory, Said, Window
from affuse.pipelines.watch.reading import Delays, Reader, frames_of
from affuse.pipelines.watch.watch import WAITS, described
from tiny import FPS, WIDTHS, make_data, make_video, provenance, small

MODALITIES = ("visual", "audio", "text")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, undrawn):
    """Runs by what they are for: on the videos' own rate, on pictures as they come, on half the rate, of two seeds."""
    place = tmp_path_factory.mktemp("values")
    store, labels = make_data(place, train=3, validation=1)

    def run(name: str, **changes):
        train(store, labels, place / name, small(epochs=2, **changes))
        return load_run(place / name)

    made = {
        "equal": run("equal"),
        "own": run("own", fps="own"),
        "half": run("half", fps=12.5, window=16, hop=8),
    }
    return made | {"seeds": together([made["equal"], run("second", seed=1)])}


def words_of(video: VideoFeatures) -> list[Word]:
    said = video.text
    return [Word(str(w), float(a), float(b)) for w, a, b in zip(said.word, said.start, said.end, strict=True)]


def fed(memory: Memory, video: VideoFeatures, which: list[int]):
    """Row by row of these, as they come: the number of the last row, and the moment that the clock has come to."""
    words, reached = words_of(video), -1
    for row in which:
        time = video.visual.time[row]
        heard = [i for i in range(reached + 1, row + 1) if i in which]
        memory.heard(video.audio.time[heard], video.audio.embedding[heard], time)
        known = [i for i, word in enumerate(words) if word.start <= time]
        memory.understood(Said([words[i] for i in known], video.text.embedding[known]))
        embedding = video.visual.embedding[row] if video.visual.valid[row] else None
        memory.saw(Face(time, 100 + time, embedding))
        reached = row
        yield row, memory.moment()


def cut(video: VideoFeatures, which: list[int], row: int) -> VideoFeatures:
    """The record of these rows up to one, with the words that have begun."""
    rows = [i for i in which if i <= row]
    said = video.text.start <= video.visual.time[row]
    visual = {n: getattr(video.visual, n)[rows] for n in ("embedding", "time", "valid", "box", "confidence")}
    audio = {n: getattr(video.audio, n)[rows] for n in ("embedding", "time")}
    text = {n: getattr(video.text, n)[said] for n in ("embedding", "start", "end", "word", "confidence")}
    parts = {"visual": visual, "audio": audio, "text": text}
    return dataclasses.replace(
        video,
        frames=len(rows),
        **{m: dataclasses.replace(getattr(video, m), **own) for m, own in parts.items()},
    )


@pytest.mark.parametrize("kind", ["equal", "own", "half", "seeds"])
@pytest.mark.parametrize("dropped", [(), range(30, 34)])
def test_a_value_is_the_last_one_predicted_of_a_record_that_ends_there(runs, kind, dropped, tmp_path):
    run, (video, _) = runs[kind], make_video("clip", 90, 7)
    which = [i for i in range(90) if i not in dropped]
    memory = Memory(MODALITIES, WIDTHS, run.fps, frames_of(run), WAITS)
    reader, compared, last = Reader(run, memory, lambda value: None), 0, -1
    for row, moment in fed(memory, video, which):
        new, last = moment > last, moment
        if not new or (window := memory.window(moment)) is None:
            continue
        value = reader.value(window, clock=lambda time=video.visual.time[row]: 100.25 + time)
        if row not in (0, 1, 2, 6, 31, 38, 40, 60, 88):
            continue
        if run.fps and abs(value.time - video.visual.time[row]) > 1e-6:
            continue  # a moment of the slow clock that begins before this picture is not the record's last yet
        store = FeatureStore(tmp_path / str(row), create=True)
        store.write(cut(video, which, row), provenance())
        said = run.predict(store, device="cpu", stream=True)["clip"]
        assert list(value.values.values()) == pytest.approx(said.values[-1], abs=1e-5)
        if kind != "half":  # else a moment has what its neighbours have, a frame of the record only its own
            assert {SEEN[m]: bool(there[-1]) for m, there in said.present.items()} == value.present
        if said.deviation is not None:
            assert list(value.deviation.values()) == pytest.approx(said.deviation[-1], abs=1e-5)
        assert value.time == pytest.approx(video.visual.time[row])
        assert value.delay == pytest.approx(0.25)
        compared += 1
    assert compared >= 4
    assert (value.deviation is not None) == (kind == "seeds")


def test_what_was_before_the_window_is_not_forgotten_where_all_of_it_has_changed(runs, tmp_path):
    """As where words come late: a window of which every frame is another one goes on from what was before it."""
    run, (video, _) = runs["equal"], make_video("clip", 90, 7)
    memory = Memory(MODALITIES, WIDTHS, run.fps, frames_of(run), WAITS)
    reader = Reader(run, memory, lambda value: None)
    for row, _ in fed(memory, video, list(range(90))):
        window = memory.window(row)
        if window is None:
            continue
        if row == 60:  # other words in all of its frames, which are then as they were
            words, there = window.rows["text"]
            other = words + 1, np.ones_like(there)
            reader.value(dataclasses.replace(window, rows=window.rows | {"text": other}))
        value = reader.value(window)
    store = FeatureStore(tmp_path / "store", create=True)
    store.write(video, provenance())
    said = run.predict(store, device="cpu", stream=True)["clip"].values[-1]
    assert list(value.values.values()) == pytest.approx(said, abs=1e-5)


def test_before_anything_is_seen_there_is_no_value_and_later_the_last_one_stays(runs):
    rng, shown = np.random.default_rng(0), []
    rows = {m: rng.normal(size=(4, width)).astype(np.float16) for m, width in WIDTHS.items()}
    reader = Reader(runs["equal"], Memory(MODALITIES, WIDTHS, FPS, 32, WAITS), shown.append)
    for end, seen in ((1, []), (2, [1]), (3, [1]), (4, [1, 3])):
        there = np.isin(np.arange(end), seen)
        window = Window(
            np.arange(end) / FPS, {m: (x[:end] * there[:, None], there) for m, x in rows.items()}, 0.0
        )
        shown.append(reader.value(window))
    assert shown[0] is None
    assert [value.valid for value in shown[1:]] == [True, False, True]
    assert shown[2].values == shown[1].values != shown[3].values


SEEN = {"visual": "face", "audio": "sound", "text": "words"}


def test_sound_is_waited_for_but_not_for_ever():
    memory = Memory(("visual", "audio"), WIDTHS, FPS, 8, {"audio": 1.0})
    for i in range(20):
        memory.saw(Face(i / FPS, 0.0))
    assert memory.moment() == 19 - 25  # a second before the last picture: before the first one
    memory.heard(np.array([0.4]), np.zeros((1, WIDTHS["audio"]), np.float16), 0.4)
    assert memory.moment() == 10
    for i in range(20, 60):
        memory.saw(Face(i / FPS, 0.0))
    assert memory.moment() == 59 - 25
    memory.hush("audio")
    assert memory.moment() == 59


def test_words_are_waited_for_where_it_is_asked():
    memory = Memory(("visual", "text"), WIDTHS, FPS, 8, {"audio": 9.0, "text": 2.0})
    for i in range(100):
        memory.saw(Face(i / FPS, 0.0))
    assert memory.moment() == 99 - 50
    memory.understood(Said())  # some more of them may come
    assert memory.moment() == 99 - 50
    memory.finish()
    assert not memory.complete
    memory.hush("text")
    assert memory.complete
    assert memory.moment() == 99


def test_moments_wait_that_have_a_picture_of_their_own():
    memory = Memory(("visual", "audio"), WIDTHS, FPS, 8, {"audio": 1.0})
    assert memory.waiting(-1) == []
    for i in (0, 1, 4, 5, 9, 30, 34):
        memory.saw(Face(i / FPS, 0.0))
    assert memory.waiting(-1) == [0, 1, 4, 5, 9]  # of the rest sound may come for a second
    assert memory.waiting(4) == [5, 9]
    memory.hush("audio")
    assert memory.waiting(9) == [30, 34]
    own = Memory(("visual", "audio"), WIDTHS, None, 8, {"audio": 1.0})
    for i in (0, 1, 4, 5, 9, 30, 34):
        own.saw(Face(i / FPS, 0.0))
    assert own.waiting(1) == [2, 3, 4]  # by the pictures themselves


@pytest.mark.parametrize("fps", [FPS, None, 5.0])
def test_memory_does_not_grow(fps):
    memory = Memory(("visual", "audio"), WIDTHS, fps, 32, {"audio": 1.0})
    sizes = []
    for i in range(3000):
        memory.saw(Face(i / FPS, 0.0, np.zeros(WIDTHS["visual"], np.float16)))
        memory.heard([i / FPS], np.zeros((1, WIDTHS["audio"]), np.float16), i / FPS)
        sizes.append((len(memory.faces), len(memory.sound)))
    assert max(sizes[1500:]) == max(sizes[500:1500])
    assert max(max(sizes)) < 32 * FPS / (fps or FPS) + 6 * FPS
    assert memory.all_sound == []
    window = memory.window(memory.moment())
    assert len(window.time) == 32
    assert window.time[-1] == pytest.approx(2999 / FPS, abs=EARLY / (fps or FPS))


def test_where_nothing_is_known_there_is_no_value():
    memory = Memory(("visual",), WIDTHS, FPS, 8, {"audio": 1.0, "text": 1.0})
    assert memory.moment() is None
    memory.saw(Face(0.0, 0.0))
    assert memory.moment() == 0
    assert memory.window(0) is None
    memory.saw(Face(0.04, 0.0, np.ones(WIDTHS["visual"], np.float16)))
    assert memory.window(1).rows["visual"][1].tolist() == [False, True]


def test_the_reader_tells_of_each_moment_once_and_ends_with_the_source(runs):
    (video, _), told = make_video("clip", 40, 3), []
    run = runs["equal"]
    memory = Memory(MODALITIES, WIDTHS, run.fps, frames_of(run), WAITS)
    reader = Reader(run, memory, told.append)
    for _ in fed(memory, video, list(range(40))):
        pass
    memory.hush("audio")
    memory.hush("text")
    memory.finish()
    reader.work(threading.Event())
    assert [value.time for value in told] == [pytest.approx(39 / FPS)]
    assert (reader.shown, reader.seen) == (
        1,
        {"face": 1, "sound": 1, "words": 0},
    )  # the last word ends before it


def test_the_reader_makes_a_value_of_each_moment_that_waits(runs):
    (video, _), told = make_video("clip", 12, 3), []
    run = runs["equal"]
    memory = Memory(MODALITIES, WIDTHS, run.fps, frames_of(run), WAITS)
    for _ in fed(memory, video, list(range(12))):
        pass
    memory.hush("audio")
    memory.hush("text")
    memory.finish()
    Reader(run, memory, told.append).work(threading.Event())
    seen = [round(value.time * FPS) for value in told]
    assert seen == list(range(seen[0], 12))
    assert len(seen) >= 8


def test_the_summary_counts_in_words():
    delay = {"median": 6.8, "p95": 7.1}
    one = {
        "frames": 1,
        "dropped": 0,
        "shown": 1,
        "seen": {"face": 1.0, "words": 0.0},
        "delay": delay,
        "saved": None,
    }
    said = described(one)
    assert said == "1 frame, 0 of them dropped; 1 value shown, of these with face 100 %, words 0 %; delay 6.80 s, of " \
        "95 % at most 7.10 s."  # fmt: skip
    none = {**one, "shown": 0, "seen": {"face": None}, "delay": dict.fromkeys(delay), "saved": "clip"}
    assert described(none) == "1 frame, 0 of them dropped; 0 values shown; kept as 'clip'."


def test_delays_are_counted_not_kept():
    delays = Delays()
    assert delays.quantile(0.5) is None
    for milliseconds in (10, 20, 30, 40, 100_000):
        delays.add(milliseconds / 1000)
    assert delays.quantile(0.5) == pytest.approx(0.030)
    assert delays.quantile(0.95) == pytest.approx(60.0)
