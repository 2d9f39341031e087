"""The lanes that features are made in: faces, sound and words, each a thread with a bound on what waits for it.

When a lane cannot keep up, what is newest is taken and the rest is dropped, and counted; none waits for another.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from affuse.extract.audio import ANCHORS, MARGIN, PATCH
from affuse.extract.crops import crop, resize
from affuse.extract.gpu import upload
from affuse.extract.media import LONGEST, Picture
from affuse.extract.networks import Networks
from affuse.extract.sound import SAMPLE_RATE
from affuse.extract.speech import pieces, sounding
from affuse.extract.transcripts import Word
from affuse.pipelines.watch.follow import Follower
from affuse.pipelines.watch.memory import Face, Memory, Said
from affuse.pipelines.watch.sound import RecentSound

WAITING = 4  # pictures that may wait for the lane of faces
AT_ONCE = 16  # moments whose sound is embedded at once, at most
STRETCH = 0.25  # s of moments whose sound is embedded at once: each pass reads 270 MB of weights
KINDNESS = {"sound": 5, "words": 10}  # niceness of lanes that are not to hold faces back
PASS = 3.0  # s of new sound from which on Whisper hears again
HEARD, CUT_WITHIN = 8, 4  # s of sound that it hears at most before what is old is settled, and where that is cut
BEHIND = 25.0  # s of sound that wait for Whisper, of which more are passed over
SLOWEST = 5.0  # frames per second that a window is taken to have at least, where it is the pictures' own


def begin(name: str) -> None:
    """To be called by a lane's thread first: it computes with one kernel thread, and on Linux gives way to faces."""
    torch.set_num_threads(1)
    if sys.platform == "linux" and name in KINDNESS:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), KINDNESS[name])


class Faces:
    """Pictures to faces. seen, dropped: how many pictures were given, and how many of these were never looked at.

    show is called with every picture that was looked at, its face, and its width and height.
    """

    def __init__(self, networks: Networks | None, memory: Memory, show: Callable[[Picture, Face], None]):
        self.memory, self.show = memory, show
        self.networks = networks if networks and "visual" in memory.modalities else None
        self.follower = Follower(networks.detector) if self.networks else None
        self.waiting: deque[tuple[Picture, float]] = deque()
        self.there = threading.Condition()
        self.seen = self.dropped = 0
        self.ended = False

    def give(self, picture: Picture, taken: float) -> None:
        """A new picture, taken at a second of time.monotonic; the oldest that waits gives way to it."""
        with self.there:
            self.seen += 1
            if len(self.waiting) == WAITING:
                self.waiting.popleft()
                self.dropped += 1
            self.waiting.append((picture, taken))
            self.there.notify_all()

    def finish(self) -> None:
        with self.there:
            self.ended = True
            self.there.notify_all()

    def work(self, stopped: threading.Event) -> None:
        begin("faces")
        while True:
            with self.there:
                self.there.wait_for(lambda: self.waiting or self.ended or stopped.is_set())
                if stopped.is_set() or not self.waiting:
                    break
                picture, taken = self.waiting.popleft()
            face = self.look(picture, taken)
            self.memory.saw(face)
            self.show(picture, face)
        self.memory.finish()

    @torch.inference_mode()
    def look(self, picture: Picture, taken: float) -> Face:
        """The face in a picture, embedded as extraction does it."""
        if not self.networks:
            return Face(picture.time, taken)
        detection, encoder = self.networks.settings.detection, self.networks.face_encoder
        small = picture.pixels(detection.short_side)
        box, confidence = self.follower(small, picture.time)
        if box is None:
            return Face(picture.time, taken)
        box = (box * np.tile(np.divide(picture.size, small.shape[1::-1]), 2)).astype(np.float32)
        square = upload(crop(picture.pixels(), box, detection.margin), encoder.device)
        (embedding,) = encoder(resize(square, encoder.size)[None])
        return Face(picture.time, taken, embedding, box, confidence)


class Hearing:
    """Sound at the times of the pictures, embedded as soon as all of it is there that belongs to them.

    passed: how many times were passed over because the lane was behind.
    """

    def __init__(self, networks: Networks, memory: Memory, sound: RecentSound):
        self.encoder, self.memory, self.sound = networks.sound_encoder, memory, sound
        self.anchor = ANCHORS[networks.settings.audio_anchor]
        self.reach = self.anchor + PATCH / SAMPLE_RATE  # s from a picture to the end of its sound
        self.last, self.passed = -math.inf, 0

    def work(self, stopped: threading.Event) -> None:
        begin("sound")
        while not stopped.is_set():
            with self.sound.changed:
                times, ended = self.ready(), self.sound.ended
                if not len(times) and not ended:
                    self.sound.changed.wait(1.0)
                    continue
            if len(times):
                self.embed(times)
            elif self.memory.finished:
                break
            else:
                stopped.wait(0.02)  # the last pictures are still looked at
        self.memory.hush("audio")

    def ready(self) -> np.ndarray:
        """Times (n,) whose sound is embedded now: a stretch of them, or what is left at the end."""
        heard, ended = self.sound.heard, self.sound.ended
        times = self.times(heard if ended else heard - self.reach, heard)
        return times if ended or (len(times) and heard - self.reach - times[0] >= STRETCH) else times[:0]

    def times(self, until: float, heard: float) -> np.ndarray:
        """Those of pictures (n,) whose sound is not embedded yet and is there up to a second."""
        with self.memory.changed:
            return np.array([f.time for f in self.memory.faces if self.last < f.time <= until and f.time < heard])

    def embed(self, times: np.ndarray) -> None:
        self.last = times[-1]
        chosen = times[np.unique(np.linspace(0, len(times) - 1, min(len(times), AT_ONCE)).round().astype(int))]
        self.passed += len(times) - len(chosen)
        begun, samples = self.sound.since(chosen[0] + self.anchor - MARGIN)
        self.memory.heard(chosen, self.encoder(samples, chosen - begun), times[-1])


class Words:
    """Words of the last seconds, heard again and again until they are settled, and then kept for good.

    settled: words that are not heard again, those of the whole source where `kept`, else of the last `remembered`
    seconds, the window's and some more; now: those that may still change. passed: seconds of sound passed over.
    """

    def __init__(
        self, networks: Networks, memory: Memory, sound: RecentSound, kept: bool, tell: Callable[[list], None]
    ):
        self.transcriber, self.encoder = networks.transcriber, networks.word_encoder
        self.transcriber.fallback = ()  # each would take as long as the first, and there is more sound in 2 s
        self.memory, self.sound, self.kept, self.tell = memory, sound, kept, tell
        self.settled: list[Word] = []
        self.now: list[Word] = []
        self.begun, self.passed = 0.0, 0.0  # s: from where on is heard, and what was passed over
        self.remembered = memory.frames / (memory.fps or SLOWEST) + BEHIND

    def work(self, stopped: threading.Event) -> None:
        begin("words")
        done = 0.0
        while not stopped.is_set():
            with self.sound.changed:
                heard, ended = self.sound.heard, self.sound.ended
                if heard - done < PASS and not ended:
                    self.sound.changed.wait(1.0)
                    continue
            if heard == done:
                break
            self.hear(heard)
            done = heard
        self.memory.hush("text")

    def hear(self, heard: float) -> None:
        """What is said up to a second, as far as it is not settled."""
        if heard - self.begun > BEHIND:
            self.passed += heard - HEARD - self.begun
            self.settled, self.now, self.begun = self.settled + self.now, [], heard - HEARD
        begun, samples = self.sound.since(self.begun)
        found = self.transcriber(samples) if sounding(samples) else []
        self.now = [Word(w.text, begun + w.start, begun + w.end, w.confidence) for w in found]
        *old, _ = pieces(samples, HEARD, CUT_WITHIN)
        if old:
            self.begun = begun + old[-1][1] / SAMPLE_RATE
            self.settled += [word for word in self.now if word.start < self.begun]
            self.now = [word for word in self.now if word.start >= self.begun]
        recent = [w for w in [*self.settled, *self.now] if w.end > heard - self.remembered]
        if not self.kept:
            self.settled = [w for w in self.settled if w.end > heard - self.remembered]
        self.memory.understood(Said(recent, self.encoder(recent)) if recent else Said())
        self.tell(recent)

    def all(self) -> Said:
        """All words of a record, each embedded in its whole sentence."""
        words = [word for word in [*self.settled, *self.now] if word.start <= LONGEST]
        return Said(words, self.encoder(words)) if words else Said()
