"""Watching: what is opened for a source, sound as it is heard, one face followed, words until they are settled."""

from __future__ import annotations

import math
import os
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from affuse.errors import UsageError
from affuse.extract.faces import Detected, Detection
from affuse.extract.media import read_sound
from affuse.extract.sound import SAMPLE_RATE, Blocks, read_audio
from affuse.extract.transcripts import Word
from affuse.pipelines.watch import lanes, source
from affuse.pipelines.watch.follow import Follower
from affuse.pipelines.watch.lanes import BEHIND, Hearing, Words
from affuse.pipelines.watch.memory import Face, Memory
from affuse.pipelines.watch.sound import RecentSound
from affuse.pipelines.watch.source import Camera, Player, Stream, find_source
from media import face_frames, tone, write_media

# ---- sources


def test_a_camera_is_what_the_system_calls_it(tmp_path, monkeypatch):
    for name in ("video2", "video0", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr(source.av, "formats_available", {"alsa", "v4l2"})
    first = find_source(None, "linux", tmp_path)
    assert (first.kind, first.address, first.hears) == ("v4l2", str(tmp_path / "video0"), False)
    assert first.microphone == "default"
    assert find_source("2", "linux", tmp_path).address == str(tmp_path / "video2")
    monkeypatch.setattr(source.av, "formats_available", {"v4l2"})
    assert find_source(None, "linux", tmp_path).microphone == ""
    assert find_source(None, "darwin") == Camera("avfoundation", "default:default", True)
    assert find_source("1", "darwin") == Camera("avfoundation", "1:default", True)
    assert "framerate" in find_source("1", "darwin").options


def test_windows_calls_cameras_by_name(monkeypatch):
    there = [
        SimpleNamespace(name="Cam A", media_types=["video"]),
        SimpleNamespace(name="Mic", media_types=["audio"]),
        SimpleNamespace(name="Cam B", media_types=["video"]),
    ]
    monkeypatch.setattr(source.av, "enumerate_input_devices", lambda kind: there, raising=False)
    assert find_source(None, "win32") == Camera("dshow", "video=Cam A:audio=Mic", True)
    assert find_source("1", "win32").address == "video=Cam B:audio=Mic"
    assert find_source("Another", "win32").address == "video=Another:audio=Mic"
    monkeypatch.setattr(source.av, "enumerate_input_devices", lambda kind: there[::2])
    assert find_source(None, "win32") == Camera("dshow", "video=Cam A", False)
    monkeypatch.delattr(source.av, "enumerate_input_devices")
    with pytest.raises(UsageError, match="Name it as Windows does"):
        find_source(None, "win32")


def test_files_pipes_and_nothing_are_told_apart(tmp_path):
    file, pipe = tmp_path / "a.mkv", tmp_path / "pipe"
    file.touch()
    os.mkfifo(pipe)
    assert find_source(str(file)) == Stream(file)
    assert find_source(str(pipe)) == Stream(pipe)
    assert find_source("-").protocol == "pipe"
    assert find_source("-").name == "standard input"
    for wrong in (str(tmp_path / "b.mkv"), str(tmp_path), "camera"):
        with pytest.raises(UsageError, match="no file, no pipe and no camera"):
            find_source(wrong, "linux")
    with pytest.raises(UsageError, match="There is no camera here"):
        find_source(None, "linux", tmp_path)
    with pytest.raises(UsageError, match="not on sunos"):
        find_source(None, "sunos")


# ---- sound


@pytest.mark.parametrize("changes", [{}, {"audio_start": 0.35}, {"rate": 44_100, "channels": 2}])
def test_sound_is_heard_as_extraction_reads_it(tmp_path, changes):
    rate = changes.get("rate", SAMPLE_RATE)
    path = write_media(tmp_path / "a.mkv", face_frames(6), samples=tone(2.0, rate=rate), **changes)
    sound = RecentSound()
    for time, frame in read_sound(path):
        sound.hear(time, frame)
    sound.finish()
    begun, samples = sound.since(0.0)
    assert begun == 0.0
    whole = read_audio(path)[:]
    assert len(samples) == len(whole)
    np.testing.assert_array_equal(samples, whole)
    assert sound.heard == len(whole) / SAMPLE_RATE


def block(samples: np.ndarray) -> source.av.AudioFrame:
    frame = source.av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="flt", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    return frame


def heard(kept: float, *blocks: tuple[float, float, float]) -> RecentSound:
    """Blocks of sound: when each begins, its seconds, and its level."""
    sound = RecentSound(kept)
    for begin, seconds, level in blocks:
        sound.hear(begin, block(np.full(round(seconds * SAMPLE_RATE), level)))
    sound.finish()
    return sound


def test_what_is_left_out_is_silence_and_what_overlaps_is_heard_once():
    sound = heard(60, (-0.5, 1, 0.1), (0.5, 0.5, 0.2), (1.5, 0.5, 0.3), (1.5, 1.0, 0.4), (2.5, 0.5, 0.5))
    _, samples = sound.since(0)
    levels = samples.reshape(-1, SAMPLE_RATE // 2)
    assert levels.std(axis=1).max() < 1e-6
    assert levels.mean(axis=1) == pytest.approx([0.1, 0.2, 0.0, 0.3, 0.4, 0.5], abs=1e-6)


def test_only_the_last_seconds_of_sound_are_kept():
    sound = heard(2, *((float(i), 1.0, i / 100) for i in range(50)))
    assert sound.samples.nbytes == 4 * 4 * SAMPLE_RATE
    begun, samples = sound.since(0.0)
    assert begun + len(samples) / SAMPLE_RATE == sound.heard == 50
    assert begun <= 48
    assert samples[-SAMPLE_RATE] == pytest.approx(0.49)
    begun, samples = sound.since(49.5)
    assert (begun, len(samples)) == (49.5, SAMPLE_RATE // 2)
    begun, samples = heard(2, (0, 1, 0.1), (3000, 1, 0.2)).since(0.0)
    assert begun + len(samples) / SAMPLE_RATE == 3001
    assert samples[-1] == pytest.approx(0.2)
    assert not samples[:-SAMPLE_RATE].any()


def test_sound_that_cannot_be_kept_is_an_error_and_that_cannot_be_resampled_is_silence():
    def full(place, samples):
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        Blocks(full)(0.0, block(np.ones(SAMPLE_RATE)))
    said, heard = [], []
    blocks = Blocks(lambda place, samples: heard.append((place, len(samples))), said)
    for time, samples in ((0.0, SAMPLE_RATE), (1.0, 0), (1.0, SAMPLE_RATE)):
        blocks(time, block(np.ones(samples)) if samples else source.av.AudioFrame())
    assert [place for place, _ in heard] == [0, SAMPLE_RATE]
    assert len(said) == 1


def test_a_microphone_that_fails_ends_the_watch(monkeypatch):
    """It is read beside the camera, by a thread that whoever watches has begun."""
    begun = []
    camera, microphone = Camera("v4l2", "/dev/video0", False, "default"), SimpleNamespace()
    player = Player(
        camera, lambda *_: None, RecentSound(), threading.Event(), lambda *given: begun.append(given)
    )
    monkeypatch.setattr(player, "_microphone", lambda: microphone)
    monkeypatch.setattr(
        player, "_camera", lambda: nullcontext(SimpleNamespace(streams=SimpleNamespace(audio=())))
    )
    monkeypatch.setattr(
        source, "picture_stream", lambda container: SimpleNamespace(codec_context=SimpleNamespace())
    )
    monkeypatch.setattr(player, "_play", lambda container: None)
    player.play()
    assert begun == [(player._listen, microphone)]


class Sums:
    """An encoder of sound that gives each moment the sum of its 0.96 s."""

    def __call__(self, samples: np.ndarray, time: np.ndarray) -> np.ndarray:
        first = np.round(time * SAMPLE_RATE).astype(int)
        return np.array([[samples[i : i + 15_600].sum()] for i in first], np.float16)


def hearing(sound: RecentSound, memory: Memory) -> Hearing:
    settings = SimpleNamespace(audio_anchor="start")
    return Hearing(SimpleNamespace(sound_encoder=Sums(), settings=settings), memory, sound)


def test_sound_is_embedded_in_stretches_while_it_goes_on():
    memory, sound = (
        Memory(("audio",), {"visual": 0, "audio": 1, "text": 0}, 10.0, 8, {"audio": 2.0}),
        RecentSound(),
    )
    lane = hearing(sound, memory)
    for i in range(30):
        memory.saw(Face(i / 10, 0.0))
    sound.hear(0.0, block(np.full(round((lane.reach + 0.22) * SAMPLE_RATE), 0.01)))
    assert len(lane.times(0.22, sound.heard)) == 3
    assert not len(lane.ready())
    sound.hear(sound.heard, block(np.full(round(0.05 * SAMPLE_RATE), 0.01)))
    assert lane.ready().tolist() == [0.0, 0.1, 0.2]
    lane.embed(lane.ready())
    sound.finish()
    assert lane.ready().tolist() == [i / 10 for i in range(3, 13)]


def test_sound_is_embedded_once_all_of_it_is_there(monkeypatch):
    monkeypatch.setattr(lanes, "AT_ONCE", 8)
    memory, sound = (
        Memory(("audio",), {"visual": 0, "audio": 1, "text": 0}, 10.0, 8, {"audio": 2.0}),
        RecentSound(),
    )
    lane = hearing(sound, memory)
    for i in range(30):
        memory.saw(Face(i / 10, 0.0))
    sound.hear(0.0, block(np.full(2 * SAMPLE_RATE, 0.01)))
    assert lane.times(sound.heard - lane.reach, sound.heard).tolist() == [i / 10 for i in range(11)]
    lane.embed(lane.times(sound.heard - lane.reach, sound.heard))
    assert lane.passed == 3  # of 11 moments at once, 8 are embedded
    assert [time for time, _ in memory.sound][-1] == memory.reached["audio"] == 1.0
    assert not len(lane.times(sound.heard - lane.reach, sound.heard))
    sound.finish()
    memory.finish()
    lane.work(threading.Event())
    assert [time for time, _ in memory.sound][-1] == 1.9  # with what there is of it, as at the end of a file
    assert memory.reached["audio"] == math.inf


# ---- one face


class Looks:
    """A detector that finds what it is told, by the number of the look."""

    def __init__(self, *found: list, **settings):
        self.settings, self.found, self.near = Detection(**settings), list(found), []

    def look_near(self, pixels: np.ndarray, box: np.ndarray) -> Detected:
        self.near.append(box.tolist())
        return self.look(pixels)[0]

    def look(self, pixels: np.ndarray) -> list[Detected]:
        boxes = self.found.pop(0)
        return [Detected(np.array(boxes, float).reshape(-1, 4), np.full(len(boxes), 0.9))]


RANDOM = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
OTHER = np.random.default_rng(1).integers(0, 60, (90, 160, 3), np.uint8)
SMALL_FACE, LARGE_FACE, MOVED = [10, 10, 30, 30], [100, 20, 150, 70], [14, 10, 34, 30]


def follow(follower: Follower, *pictures: np.ndarray) -> list:
    return [None if (box := follower(p, i / 10)[0]) is None else box.tolist() for i, p in enumerate(pictures)]


def test_a_box_stays_until_the_next_look():
    follower = Follower(Looks([LARGE_FACE, SMALL_FACE], [], [SMALL_FACE], every=3))
    assert follow(follower, *[RANDOM] * 4) == [LARGE_FACE] * 3 + [None]
    assert follower.looks == 2


def test_the_face_that_was_followed_is_followed_on():
    follower = Follower(Looks([SMALL_FACE], [LARGE_FACE, MOVED], every=2))
    assert follow(follower, *[RANDOM] * 3) == [SMALL_FACE, SMALL_FACE, MOVED]
    assert (follower.detector.near, follower.looks) == ([SMALL_FACE], 2)


def test_where_the_face_is_not_about_where_it_was_the_whole_picture_is_looked_at():
    looks = Looks([SMALL_FACE], [], [MOVED], [LARGE_FACE], [LARGE_FACE], every=1)
    assert follow(Follower(looks), *[RANDOM] * 3) == [SMALL_FACE, MOVED, None]
    assert looks.near == [SMALL_FACE, MOVED]
    assert looks.found == []


def test_of_the_largest_face_nothing_is_known_from_a_part_of_the_picture():
    looks = Looks([SMALL_FACE], [SMALL_FACE, LARGE_FACE], every=1, face="largest")
    assert follow(Follower(looks), *[RANDOM] * 2) == [SMALL_FACE, LARGE_FACE]
    assert looks.near == []


def test_after_a_second_without_it_another_face_is_taken():
    follower = Follower(Looks([SMALL_FACE], [], *[[LARGE_FACE]] * 12, every=1))
    boxes = follow(follower, *[RANDOM] * 13)
    assert boxes[:2] == [SMALL_FACE, None]
    assert boxes[-1] == LARGE_FACE


def test_a_cut_or_another_picture_in_the_box_is_looked_at_at_once():
    follower = Follower(Looks([SMALL_FACE], [LARGE_FACE], every=32))
    assert follow(follower, RANDOM, OTHER) == [SMALL_FACE, LARGE_FACE]
    changed = RANDOM.copy()
    changed[5:35, 5:35] = OTHER[5:35, 5:35]
    follower = Follower(Looks([SMALL_FACE], [MOVED], every=32))
    assert follow(follower, RANDOM, changed) == [SMALL_FACE, MOVED]


@pytest.mark.parametrize(("face", "box"), [("main", LARGE_FACE), ("left", SMALL_FACE), ("right", LARGE_FACE)])
def test_the_setting_says_whom_to_follow(face, box):
    assert follow(Follower(Looks([SMALL_FACE, LARGE_FACE], face=face)), RANDOM) == [box]


# ---- words


class Listener:
    """A transcriber to whom every stretch of sound between silences is a word, called by how loud it is."""

    def __call__(self, samples: np.ndarray) -> list[Word]:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], samples > 0, [0]]).astype(int))).reshape(-1, 2)
        return [Word(f"{samples[a:b].max():.2f}", a / SAMPLE_RATE, b / SAMPLE_RATE) for a, b in edges]


def words(kept: bool = False) -> tuple[Words, RecentSound, list]:
    memory, sound, told = (
        Memory(("text",), {"visual": 0, "audio": 0, "text": 1}, 10.0, 8, {"text": 2.0}),
        RecentSound(),
        [],
    )
    networks = SimpleNamespace(
        transcriber=Listener(),
        word_encoder=lambda found: np.array([[float(w.text)] for w in found], np.float16),
    )
    return Words(networks, memory, sound, kept, told.append), sound, told


def talk(sound: RecentSound, seconds: range) -> None:
    for i in seconds:
        spoken = np.full(SAMPLE_RATE, (i + 1) / 100)
        spoken[SAMPLE_RATE * 2 // 5 :] = 0
        sound.hear(float(i), block(spoken))


@pytest.mark.parametrize("kept", [False, True])
def test_words_are_told_as_they_are_known_and_settle_once(kept):
    lane, sound, told = words(kept)
    for i in range(0, 60, 2):
        talk(sound, range(i, i + 2))
        lane.hear(sound.heard)
    assert [word.text for word in told[0]] == ["0.01", "0.02"]
    everything = [f"{(i + 1) / 100:.2f}" for i in range(60)]
    known = [*lane.settled, *lane.now]
    assert [word.text for word in known] == everything[-len(known) :]
    assert [word.start for word in known] == pytest.approx(list(range(60 - len(known), 60)), abs=1e-3)
    assert len(known) == 60 if kept else BEHIND < len(known) < 40
    assert len(lane.now) <= 8
    assert lane.memory.said.embedding.shape == (len(lane.memory.said.words), 1)
    assert lane.passed == 0
    assert lane.transcriber.fallback == ()


def test_what_whisper_is_too_slow_for_is_passed_over():
    lane, sound, told = words()
    talk(sound, range(40))
    lane.hear(sound.heard)
    assert lane.passed == 32 > 40 - BEHIND
    assert len(told[-1]) == 8


def test_the_lane_of_words_ends_with_the_sound():
    lane, sound, told = words()
    talk(sound, range(3))
    sound.finish()
    lane.work(threading.Event())
    assert len(told) == 1
    assert [word.text for word in told[0]] == ["0.01", "0.02", "0.03"]
