"""One video in, one record out: all backbones, loaded once and kept.

    path ─ probe ─┬─ sound ─┬─ words ─ word embeddings
                  │         └─ patches ─ sound embeddings
                  └─ frames ─ boxes ─ person ─ crops ─ face embeddings

One thread decodes; the lanes compute, words beside faces beside sound. Frames are decoded twice, once small for the
boxes and once for the crops: what is kept in memory in between is a box per frame, whatever the video's length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import BoundedSemaphore, Event

import numpy as np
import torch

from affuse.extract.faces import Face, Person, cut_squares, find_person, read_crop, resize, upload
from affuse.extract.lanes import Lanes
from affuse.extract.media import SAMPLE_RATE, Frames, Media, UndecodableError, probe, read_audio, read_frames
from affuse.extract.networks import VIDEOS, Networks, make_provenance
from affuse.extract.settings import ExtractSettings
from affuse.extract.transcripts import read_transcript
from affuse.extract.videos import Job
from affuse.extract.visual import cut_view, sides, stored_views
from affuse.extract.weights.locate import Located
from affuse.features.parts import AudioFeatures, Status, TextFeatures, VisualFeatures
from affuse.features.record import Provenance, Source, VideoFeatures

DETECTION_CHUNK = 33  # scaled frames looked through at once; one more than a multiple of usual steps
CROP_CHUNK = 8  # full frames held at once
CLOCK_CHUNK, CLOCK_SIDE = (256, 8)  # frames at once, and pixels of their short side, where only times are wanted
NOT_ASKED = "not among the modalities asked for"
SOUND_RATE = 25.0  # sound embeddings per second where there are no frames
CUT_SHORT = 1.0  # s that a file may end before its header says


class Extractor:
    """Turns videos into records.

    threads: lanes of a video. at_once: how many threads may call at a time, with `load` called before; on CPU one, so
    that what a video becomes depends on no other. halted: once set, calls under way end by CancelledError before they
    read on.
    """

    def __init__(self, settings: ExtractSettings, located: dict[str, Located], device: torch.device, threads: int = 1):
        self.settings = settings
        self.at_once = min(VIDEOS[device.type], threads)
        self.threads = threads // self.at_once
        self.turns = BoundedSemaphore(self.at_once)
        self.halted = Event()
        self.networks = Networks(settings, located, device, self.at_once > 1)
        self.provenance = make_provenance(settings, located)

    def load(self) -> None:
        """See `Networks.load`."""
        self.networks.load()

    def __call__(self, job: Job) -> VideoFeatures:
        """Extract one video. Raises AffuseError only where what the user gave beside the video is unreadable;
        a video that cannot be decoded is a record that says so."""
        source = job.source()
        try:
            media = probe(job.path)
        except UndecodableError as error:
            return VideoFeatures.undecodable(job.id, source, str(error), self.provenance)
        with Lanes(self.threads, self.halted) as lanes:
            return VideoExtraction(job, source, media, self.settings, self.networks, self.provenance, lanes).record()


@dataclass
class VideoExtraction:
    """One video on its way from the file to the record; the methods stand in the order of that way.

    What is noted as it is read: `blurred` and `muffled`, what was damaged of pictures and of sound; `heard`, seconds
    of sound.
    """

    job: Job
    source: Source
    media: Media
    settings: ExtractSettings
    networks: Networks
    provenance: Provenance
    lanes: Lanes
    heard: float = 0.0
    muffled: list[str] = field(default_factory=list)
    blurred: list[str] = field(default_factory=list)

    def record(self) -> VideoFeatures:
        samples = self.listen()
        words = self.lanes.submit(self.text, samples)
        person = self.look()
        clock, batches = self.hear(samples, person.time)
        del samples  # from here on the lanes alone hold it, until the last of them is done with it
        visual, audio, text = self.visual(person), self.audio(clock, batches), words.result()
        if note := self._cut_short(visual.time):
            visual, audio = (
                replace(part, reason=f"{part.reason}; {note}".lstrip("; ")) if len(part.time) else part
                for part in (visual, audio)
            )
        return VideoFeatures(
            id=self.job.id,
            source=self.source,
            fps=self.media.fps,
            duration=max(self.media.duration, self.heard),
            frames=len(visual.time),
            visual=visual,
            audio=audio,
            text=text,
            seconds={name: round(spent, 4) for name, spent in self.lanes.seconds.items()},
        )

    def listen(self) -> np.ndarray:
        """The sound (samples,), where any is wanted."""
        if not self.media.has_audio or not {"audio", "speech"} & set(self.settings.parts):
            return np.zeros(0, np.float32)
        with self.lanes.timed("decode"):
            samples = read_audio(self.job.path, self.muffled)
        self.heard = len(samples) / SAMPLE_RATE
        return samples

    def text(self, samples: np.ndarray) -> TextFeatures:
        """Words, of the transcript given or of the sound, and their embeddings."""
        width = self.provenance.width("text")
        if "text" not in self.settings.modalities:
            return TextFeatures.absent(width, Status.SKIPPED, NOT_ASKED)
        if self.settings.transcripts == "given":
            if self.job.transcript is None:
                return TextFeatures.absent(width, Status.SKIPPED, "no transcript was given for this video")
            words = read_transcript(self.job.transcript)
        elif not len(samples):
            return TextFeatures.absent(width, *self._why_silent())
        else:
            with self.lanes.timed("speech"):
                words = self.networks.transcriber(samples)
        if not words:
            return TextFeatures.absent(width, Status.NO_SPEECH, "no speech was recognised")
        with self.lanes.timed("text"):
            embedding = self.networks.word_encoder(words)
        return TextFeatures(
            embedding=embedding,
            start=np.array([w.start for w in words]),
            end=np.array([w.end for w in words]),
            word=np.array([w.text for w in words]),
            confidence=np.array([w.confidence for w in words], np.float32),
        )

    def look(self) -> Person:
        """The person followed; with given crops, seen wherever there is one; without pictures, no frame."""
        if not self.media.has_video:
            return Person.unseen(np.zeros(0))
        wanted = "visual" in self.settings.modalities
        if wanted and not self.job.crops:
            detector, detection = self.networks.detector, self.settings.detection
            frames = self._decoded(DETECTION_CHUNK, detection.short_side)
            return find_person(self.lanes.ordered("detect", detector.watch, frames), detection.face)
        frames = self._decoded(CLOCK_CHUNK, CLOCK_SIDE)
        person = Person.unseen(np.concatenate([np.zeros(0), *(chunk.time for chunk in frames)]))
        if wanted:
            person.confidence[:] = [self.job.crop(i).is_file() for i in range(len(person.time))]
        return person

    def hear(self, samples: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, list[Future]]:
        """The sound's times, and its embeddings, begun: those of the frames, where there are any and sound lasts."""
        if "audio" not in self.settings.modalities:
            return np.zeros(0), []
        clock = time[time < self.heard] if len(time) else np.arange(0, self.heard, 1 / SOUND_RATE)
        encoder = self.networks.sound_encoder

        def encode(times: np.ndarray) -> np.ndarray:
            with self.lanes.timed("audio"):
                return encoder(samples, times)

        starts = range(0, len(clock), encoder.portion)
        return clock, [self.lanes.submit(encode, clock[i : i + encoder.portion]) for i in starts]

    def visual(self, person: Person) -> VisualFeatures:
        width, frames = self.provenance.width("visual"), len(person.time)
        if not self.media.has_video:
            return VisualFeatures.absent(width, Status.NO_VIDEO, "the file has no pictures")
        if not frames:
            reason = f"no frame could be decoded ({'; '.join(self.blurred[:3]) or 'the stream is empty'})"
            return VisualFeatures.absent(width, Status.UNDECODABLE, reason)
        embedding, valid = np.zeros((frames, width), np.float16), np.zeros(frames, bool)
        features = VisualFeatures(embedding, person.time, valid, person.box, person.confidence)
        if "visual" not in self.settings.modalities:
            return replace(features, status=Status.SKIPPED, reason=NOT_ASKED)
        views = {name: np.zeros_like(embedding) for name in stored_views(self.settings.views)}
        rows = {"centre": embedding, **views}
        portions = _portions(self.lanes.reading("crop", self.squares(person)), self.networks.face_encoder.portion)
        for index, made in self.lanes.ordered("visual", self.embed, portions):
            for name, embedded in made.items():
                rows[name][index] = embedded
            valid[index] = True
        if not self.job.crops and not valid[person.seen].all():
            why = "changed while it was read. Extract again when it is finished."
            raise UndecodableError(f"{self.job.path} {why}")
        features = replace(features, confidence=person.confidence * valid, views=views)
        if valid.any():
            return replace(features, reason=_noted(self.blurred))
        crops = self.job.crops
        lack = f"no readable crop in {crops.name}" if crops else f"no face found in {frames} frames"
        return replace(features, status=Status.NO_FACE, reason=lack)

    def squares(self, person: Person) -> Iterator[Face]:
        """The faces of the person; a given crop that cannot be read counts as no face."""
        if self.job.crops:
            given = ((index, read_crop(self.job.crop(index), self.blurred)) for index in person.seen)
            return ((index, picture) for index, picture in given if picture is not None)
        frames = read_frames(self.job.path, chunk=CROP_CHUNK, wanted=person.confidence > 0)
        return cut_squares(frames, person, self.settings.detection.margin)

    def embed(self, portion: list[Face]) -> tuple[list[int], dict[str, np.ndarray]]:
        """Frame indices, and {view: embeddings (n, D) float16} of their faces."""
        encoder, chosen = self.networks.face_encoder, self.settings.views
        given = [upload(square, encoder.device) for _, square in portion]
        wanted = sides(chosen, encoder)
        squares = {side: torch.stack([resize(face, side) for face in given]) for side in wanted}
        made = {"centre": encoder(squares[encoder.size])}
        made |= {view: encoder(cut_view(view, squares, encoder)) for view in stored_views(chosen)}
        return [index for index, _ in portion], made

    def audio(self, clock: np.ndarray, batches: list[Future]) -> AudioFeatures:
        width = self.provenance.width("audio")
        if "audio" not in self.settings.modalities:
            return AudioFeatures.absent(width, Status.SKIPPED, NOT_ASKED)
        if not self.heard:
            return AudioFeatures.absent(width, *self._why_silent())
        if not len(clock):
            return AudioFeatures.absent(width, Status.TOO_SHORT, "the sound ends before the first frame")
        embedding = np.concatenate([batch.result() for batch in batches])
        return AudioFeatures(embedding, clock, Status.OK, _noted(self.muffled))

    def _decoded(self, chunk: int, short_side: int) -> Iterator[Frames]:
        """All frames, scaled down; what is damaged of them is noted."""
        frames = read_frames(self.job.path, chunk=chunk, short_side=short_side, damage=self.blurred)
        return self.lanes.reading("decode", frames)

    def _why_silent(self) -> tuple[Status, str]:
        if not self.media.has_audio:
            return Status.NO_AUDIO, "the file has no sound"
        if self.muffled:
            return Status.UNDECODABLE, f"the sound could not be decoded ({self.muffled[0]})"
        return Status.TOO_SHORT, "the sound stream is empty"

    def _cut_short(self, time: np.ndarray) -> str:
        """What to say of a file that ends before its header says, as a half-copied one does."""
        whole = self.heard or not self.media.has_audio  # sound that was not decoded may well last to the end
        end = max([self.heard, *time[-1:]])
        if not whole or self.media.duration - end < CUT_SHORT:
            return ""
        return f"the file ends at {end:.1f} s of the {self.media.duration:.1f} s that its header says"


def _noted(damage: list[str]) -> str:
    return f"{len(damage)} damaged parts were passed over (first: {damage[0]})" if damage else ""


def _portions(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while portion := list(islice(items, size)):
        yield portion
