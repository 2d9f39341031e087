"""Watching: a source, the lanes that make features of it, a run that reads them, a page that shows what it says.

    source ─┬─ pictures ─ faces ──┐
            └─ sound ─┬─ patches ─┼─ memory ─ values ─ page, table
                      └─ words ───┘

Every arrow has a bound; what does not fit is dropped, the oldest first, and counted.
"""

from __future__ import annotations

import base64
import io
import logging
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from affuse.console import Announce
from affuse.errors import AffuseError, UsageError, counted
from affuse.extract.heap import save_memory
from affuse.extract.media import Picture
from affuse.extract.networks import Networks
from affuse.extract.videos import AnyPath
from affuse.features.parts import MODALITIES
from affuse.fuse.scoring.predict import SEEN_AS
from affuse.pipelines.prediction import Run, load_run
from affuse.pipelines.watch.fitting import prepare
from affuse.pipelines.watch.keeping import check_store, keep, name_of, table
from affuse.pipelines.watch.lanes import Faces, Hearing, Words
from affuse.pipelines.watch.memory import Face, Memory, Said
from affuse.pipelines.watch.reading import Reader, Value, frames_of
from affuse.pipelines.watch.server import Events, Server
from affuse.pipelines.watch.sound import RecentSound
from affuse.pipelines.watch.source import Camera, Player, Stream, find_source

log = logging.getLogger("affuse")

WAITS = {"audio": 2.0, "text": 0.0}  # s that a value waits at most for what belongs to its picture
PICTURES = 0.1  # s from one picture on the page to the next, at least
SIDE = 360  # pixels of a picture on the page, the shorter side
STATE = 1.0  # s from one count on the page to the next
TURN = 0.2  # s after which a thread that waits for another sees whether all is to end
PATIENCE = 10.0  # s in which a lane finishes what it has begun


class Watch:
    """One source watched with one run. `values` are told of to all in `listeners`.

    waits {"audio", "text"}: seconds that a value waits at most for its sound and words. kept: whether all rows are kept
    for a record.
    """

    def __init__(
        self,
        run: Run,
        networks: Networks,
        found: Camera | Stream,
        waits: Mapping[str, float] = WAITS,
        kept: bool = False,
    ):
        widths = {m: run.provenance.width(m) for m in MODALITIES}
        self.run, self.networks, self.found = run, networks, found
        self.memory = Memory(networks.settings.modalities, widths, run.fps, frames_of(run), waits, kept)
        self.stopped, self.failure = threading.Event(), None
        self.sound = RecentSound()
        self.events = Events(self._facts())
        self.listeners: list[Callable[[Value], None]] = [self._show_value]
        self.faces = Faces(networks, self.memory, self._show_picture)
        self.source = Player(found, self.faces.give, self.sound, self.stopped, self._start)
        self.reader = Reader(run, self.memory, lambda value: [told(value) for told in self.listeners])
        self.hearing = self.words = None
        self._shown = 0.0
        if "audio" in self.memory.modalities:
            self.hearing = Hearing(networks, self.memory, self.sound)
        if "text" in self.memory.modalities:
            self.words = Words(networks, self.memory, self.sound, kept, self._show_words)

    def go(self) -> None:
        """Watch until the source ends, or `stopped` is set. Raises AffuseError where the source cannot be opened, and
        whatever a lane fails with."""
        lanes: list[threading.Thread] = []
        try:
            playing = self._start(self.source.play)
            while not (self.source.ready.wait(TURN) or self.stopped.is_set()):
                pass
            if not self.stopped.is_set() and not self.source.hears and {"audio", "text"} & {*self.memory.modalities}:
                log.warning("%s has no sound: its pictures alone are watched", self.found.name)
                for modality in ("audio", "text"):
                    self.memory.hush(modality)
            ears = [lane.work for lane in (self.hearing, self.words) if lane and self.source.hears]
            lanes += [self._start(work, self.stopped) for work in (self.faces.work, self.reader.work, *ears)]
            self._start(self._count)
            self._wait(playing)
            self.faces.finish()
            self.sound.finish()
            for thread in lanes:
                self._wait(thread)
        finally:
            self.stop()
            for thread in lanes:
                thread.join(PATIENCE)
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """End it, from whatever thread."""
        self.stopped.set()
        for there in (self.faces.there, self.memory.changed, self.sound.changed):
            with there:
                there.notify_all()

    def _start(self, work: Callable, *given) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*given)
            except Exception as error:
                self.failure = self.failure or error
                self.stop()

        thread = threading.Thread(target=guarded, daemon=True)  # a source that says nothing must not be waited for
        thread.start()
        return thread

    def _wait(self, thread: threading.Thread) -> None:
        while thread.is_alive() and not self.stopped.is_set():
            thread.join(TURN)

    # ---- what is shown

    def _facts(self) -> dict:
        names = {m: SEEN_AS[m] for m in self.memory.modalities}
        return {
            "source": self.found.name,
            "run": self.run.path.name,
            "targets": list(self.run.model.targets),
            "lanes": list(names.values()),
            "untrained": self.run.provenance.untrained,
        }

    def _show_value(self, value: Value) -> None:
        facts = {"time": round(value.time, 4), "values": value.values, "deviation": value.deviation}
        taken = time.time() - (time.monotonic() - value.taken)  # by the clock that the page has too
        self.events.tell("value", facts | {"present": value.present, "valid": value.valid, "taken": taken})

    def _show_picture(self, picture: Picture, face: Face) -> None:
        now = time.monotonic()
        if not self.events.pages or now - self._shown < PICTURES:
            return
        self._shown = now
        pixels = np.ascontiguousarray(picture.pixels(SIDE))
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=70)
        box = None if face.embedding is None else (face.box / np.tile(picture.size, 2)).tolist()
        self.events.tell("picture", {"jpeg": base64.b64encode(file.getvalue()).decode(), "box": box})

    def _show_words(self, words: list) -> None:
        self.events.tell("words", [[word.text, round(word.start, 2), round(word.end, 2)] for word in words])

    def _count(self) -> None:
        while not self.stopped.wait(STATE):
            self.events.tell("state", self.summary())

    def summary(self) -> dict:
        """frames: pictures of the source, dropped: those that were not looked at, shown: values; seen: the shares of
        these with face, sound, words, of what the run takes; delay: seconds from a picture to its value, "median" and
        "p95"; and by what other bounds something was left out."""
        delays, shown = self.reader.delays, self.reader.shown
        return {
            "frames": self.faces.seen,
            "dropped": self.faces.dropped,
            "shown": shown,
            "seen": {name: round(count / shown, 4) if shown else None for name, count in self.reader.seen.items()},
            "delay": {"median": delays.quantile(0.5), "p95": delays.quantile(0.95)},
            "sound_passed": self.hearing.passed if self.hearing else 0,
            "words_passed": round(self.words.passed, 1) if self.words else 0.0,
        }


# ---- the command


def watch_source(
    runs: AnyPath | list[AnyPath],
    source: str | None = None,
    *,
    weights_dir: AnyPath | None = None,
    device: str = "auto",
    assignments: list[str] | tuple[str, ...] = (),
    save: AnyPath | None = None,
    out: Path | None = None,
    waits: Mapping[str, float] = WAITS,
    port: int = 0,
    browse: bool = False,
    announce: Announce = lambda text: None,
) -> dict[str, Any]:
    """Watch a source with a run until it ends, or until Ctrl-C, and give `Watch.summary` with "saved", the id of the
    record, or None.

    Raises UsageError and AffuseError for what cannot be watched, read or written.
    """
    for modality, wait in waits.items():
        if not 0 <= wait < float("inf"):
            raise UsageError(f"--wait-{SEEN_AS[modality]} {wait:g} is no length of time. Give seconds, for example 1.")
    found, run = find_source(source), load_run(runs)
    networks, provenance = prepare(run, list(assignments), weights_dir, device)
    name = name_of(found)
    store = check_store(save, name, provenance) if save else None
    save_memory()
    torch.set_num_threads(1)
    watch = Watch(run.on(device), networks, found, waits, kept=save is not None)
    with ExitStack() as stack:
        watch.listeners.append(stack.enter_context(table(out, run, watch.memory.modalities)))
        server = stack.enter_context(Server(watch.events, port))
        announce(f"Watching {found.name} at {server.address} (Ctrl-C ends it)")
        networks.load()
        if browse:
            webbrowser.open(server.address)
        try:
            watch.go()
        except KeyboardInterrupt:
            watch.stop()
    result = watch.summary() | {"saved": None}
    if store is not None and watch.memory.faces:
        said = watch.words.all() if watch.words else Said()
        missed = f"{watch.faces.dropped} of {watch.faces.seen} pictures were not looked at"
        keep(watch.memory, found, said, missed, store, name, provenance)
        result["saved"] = name
    if not result["frames"]:
        raise AffuseError(f"{found.name} gave no picture: {'; '.join(watch.source.damage) or 'it is empty'}.")
    return result


def described(result: dict) -> str:
    """The summary in a line."""
    delay = result["delay"]
    late = "" if delay["median"] is None else f"; delay {delay['median']:.2f} s, of 95 % at most {delay['p95']:.2f} s"
    saved = f"; kept as {result['saved']!r}" if result["saved"] else ""
    frames, values = counted(result["frames"], "frame"), counted(result["shown"], "value")
    seen = ", ".join(f"{name} {100 * share:.0f} %" for name, share in result["seen"].items() if share is not None)
    there = f", of these with {seen}" if seen else ""
    return f"{frames}, {result['dropped']} of them dropped; {values} shown{there}{late}{saved}."
