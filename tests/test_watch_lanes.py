"""Watching: sound embedded in stretches, words heard until they are settled."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from affuse.extract.sound import SAMPLE_RATE
from affuse.extract.transcripts import Word
from affuse.pipelines.watch import lanes
from affuse.pipelines.watch.lanes import BEHIND, Hearing, Words
from affuse.pipelines.watch.memory import Face, Memory
from affuse.pipelines.watch.sound import RecentSound
from media import block


class Sums:
    """An encoder of sound that gives each moment the sum of its 0.96 s."""

    def __call__(self, samples: np.ndarray, time: np.ndarray) -> np.ndarray:
        first = np.round(time * SAMPLE_RATE).astype(int)
        return np.array([[samples[i : i + 15_600].sum()] for i in first], np.float16)


def hearing() -> tuple[Hearing, Memory, RecentSound]:
    """The lane of sound, where pictures of 3 s were looked at and nothing was heard yet."""
    memory = Memory(("audio",), {"visual": 0, "audio": 1, "text": 0}, 10.0, 8, {"audio": 2.0})
    sound, settings = RecentSound(), SimpleNamespace(audio_anchor="start")
    for i in range(30):
        memory.saw(Face(i / 10, 0.0))
    return Hearing(SimpleNamespace(sound_encoder=Sums(), settings=settings), memory, sound), memory, sound


def test_sound_is_embedded_in_stretches_while_it_goes_on():
    lane, _, sound = hearing()
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
    lane, memory, sound = hearing()
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
