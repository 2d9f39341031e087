"""One video in, one record out: all backbones, loaded once and kept.

    path ─ probe ─┬─ frames ─ boxes ─ track ─ crops ─ face embeddings
                  └─ sound ─┬─ patches ─ sound embeddings
                            └─ words ─ word embeddings

Frames are decoded twice, once small for the boxes and once for the crops of the person followed: what is kept
in memory in between is a box per frame, whatever the video's length.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version

import numpy as np
import torch

from extract.absent import no_audio, no_text, no_visual, undecodable
from extract.faces import FaceDetector, crop, follow, link, read_crop, resize
from extract.inputs import Job
from extract.media import SAMPLE_RATE, Media, UndecodableError, probe, read_audio, read_frames
from extract.settings import ExtractSettings
from extract.sources import LIBRARIES
from extract.transcripts import read_transcript
from extract.views import cut_view, sides, stored_views
from extract.weights import Located, locate
from features.record import (
    AudioFeatures,
    Backbone,
    Provenance,
    Source,
    Status,
    TextFeatures,
    VideoFeatures,
    VisualFeatures,
    settings_hash,
)
from features.version import VERSION

NOT_ASKED = "not among the modalities asked for"
SOUND_RATE = 25.0  # sound embeddings per second where there are no frames
END = object()
DETECTION_CHUNK = 32  # scaled frames per call of the detector
CROP_CHUNK = 8  # full frames held at once
CUT_SHORT = 1.0  # s that a file may end before its header says


@dataclass
class Stages:
    """Seconds spent per stage of one video."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def timed(self, name: str, items: Iterator) -> Iterator:
        """Pass `items` on, counting the time taken to make each."""
        while True:
            with self(name):
                item = next(items, END)
            if item is END:
                return
            yield item


def locate_backbones(settings: ExtractSettings, weights_dir, allow_untrained: bool) -> dict[str, Located]:
    """Find the weights of every part. Only faces and sound may be untrained: words cannot be invented."""
    names = settings.backbones.model_dump()
    return {
        part: locate(
            names[part], weights_dir, allow_untrained=allow_untrained and part in ("visual", "audio")
        )
        for part in settings.parts
    }


def make_provenance(settings: ExtractSettings, located: dict[str, Located]) -> Provenance:
    """Settings and backbones as the store keeps them; known before any network is built."""
    backbones = {
        part: Backbone(
            name=found.name,
            source=found.source,
            sha256=found.sha256,
            trained=found.trained,
            width=found.entry.width,
            precision=settings.precision if part != "speech" else "float32",
            licence=found.entry.licence,
        )
        for part, found in located.items()
    }
    resolved = settings.model_dump(mode="json")
    versions = {"affuse": VERSION, **{name: version(name) for name in LIBRARIES}}
    return Provenance(resolved, settings_hash(resolved, backbones), backbones, versions)


class Extractor:
    """Turns videos into records. Networks are built at their first use and kept."""

    def __init__(self, settings: ExtractSettings, located: dict[str, Located], device: torch.device):
        self.settings, self.located, self.device = settings, located, device
        self.dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
        self.provenance = make_provenance(settings, located)

    @cached_property
    def detector(self) -> FaceDetector:
        return FaceDetector(self.settings.detection, self.device)

    @cached_property
    def face_encoder(self):
        from extract.visual import FaceEncoder

        return FaceEncoder(self.located["visual"], self.device, self.dtype)

    @cached_property
    def sound_encoder(self):
        from extract.audio import SoundEncoder

        return SoundEncoder(self.located["audio"], self.settings.audio_anchor, self.device, self.dtype)

    @cached_property
    def transcriber(self):
        from extract.speech import Transcriber

        return Transcriber(self.located["speech"], self.settings.language, self.device)

    @cached_property
    def word_encoder(self):
        from extract.text import WordEncoder

        return WordEncoder(self.located["text"], self.device, self.dtype)

    def load(self) -> None:
        """Build the networks of every part now, so that weights that do not fit stop a run before its first video.

        Raises AffuseError naming the file.
        """
        networks = {
            "visual": "face_encoder",
            "audio": "sound_encoder",
            "speech": "transcriber",
            "text": "word_encoder",
        }
        for part in self.settings.parts:
            getattr(self, networks[part])

    def __call__(self, job: Job) -> VideoFeatures:
        """Extract one video. Raises AffuseError only where what the user gave beside the video is unreadable;
        a video that cannot be decoded is a record that says so."""
        source = Source(job.name, job.size, job.digest(), job.mtime_ns)
        stages = Stages()
        try:
            media = probe(job.path)
        except UndecodableError as error:
            return undecodable(job.id, source, str(error), self._widths)
        visual = self._visual(job, media, stages)
        samples, damage = self._samples(job, media, stages)
        audio = self._audio(media, samples, damage, visual, stages)
        text = self._text(job, media, samples, damage, stages)
        if note := _cut_short(media, visual.time, samples):
            visual, audio = (
                replace(part, reason=f"{part.reason}; {note}".lstrip("; ")) if len(part.time) else part
                for part in (visual, audio)
            )
        duration = max(media.duration, len(samples) / SAMPLE_RATE)
        return VideoFeatures(
            id=job.id,
            source=source,
            fps=media.fps,
            duration=duration,
            frames=len(visual.time),
            visual=visual,
            audio=audio,
            text=text,
            seconds={name: round(spent, 4) for name, spent in stages.seconds.items()},
        )

    @property
    def _widths(self) -> dict[str, int]:
        return {part: found.entry.width for part, found in self.located.items()}

    def _visual(self, job: Job, media: Media, stages: Stages) -> VisualFeatures:
        width = self._widths.get("visual", 0)
        if not media.has_video:
            return no_visual(width, Status.NO_VIDEO, "the file has no pictures")
        damage: list[str] = []
        time, box, confidence = self._boxes(job, stages, damage)
        if not len(time):
            reason = f"no frame could be decoded ({'; '.join(damage[:3]) or 'the stream is empty'})"
            return no_visual(width, Status.UNDECODABLE, reason)
        embedding, valid = np.zeros((len(time), width), np.float16), np.zeros(len(time), bool)
        if "visual" not in self.settings.modalities:
            return VisualFeatures(embedding, time, valid, box, confidence, Status.SKIPPED, NOT_ASKED)
        views = {name: np.zeros_like(embedding) for name in stored_views(self.settings.views)}
        for index, squares in self._crops(job, np.flatnonzero(confidence), box, stages, damage):
            with stages("visual"):
                embedding[index] = self.face_encoder(squares[self.face_encoder.size])
                for name, rows in views.items():
                    rows[index] = self.face_encoder(cut_view(name, squares, self.face_encoder))
                valid[index] = True
        if valid.any():
            status, reason = Status.OK, _noted(damage)
        else:
            where = (
                f"no readable crop in {job.crops.name}"
                if job.crops
                else f"no face found in {len(time)} frames"
            )
            status, reason = Status.NO_FACE, where
        return VisualFeatures(embedding, time, valid, box, confidence * valid, status, reason, views)

    def _boxes(self, job: Job, stages: Stages, damage: list[str]):
        """Time (T,), box (T, 4) and confidence (T,) of the person followed.

        Where the frame size changes midway, faces are linked in pixels of the first scaled frame, and each box is
        scaled to its own frame.
        """
        wanted = "visual" in self.settings.modalities
        if not wanted or job.crops:
            # Only the clock is needed: frames are decoded at the smallest size.
            chunks = read_frames(job.path, chunk=256, short_side=8, damage=damage)
            time = np.concatenate([np.zeros(0), *(c.time for c in stages.timed("decode", chunks))])
            confidence = np.zeros(len(time), np.float32)
            if wanted:
                confidence[[i for i in range(len(time)) if job.crop(i).is_file()]] = 1
            return time, np.full((len(time), 4), np.nan, np.float32), confidence
        side = self.settings.detection.short_side
        chunks = read_frames(job.path, chunk=DETECTION_CHUNK, short_side=side, damage=damage)
        times, sizes, detected, first = [np.zeros(0)], [np.zeros((0, 2))], [], np.ones(2)
        for chunk in stages.timed("decode", chunks):
            small = np.array(chunk.pixels.shape[2:0:-1], float)
            first = first if detected else small
            times.append(chunk.time)
            sizes.append(chunk.size)
            with stages("detect"):
                detected += [faces.scaled(first / small) for faces in self.detector(chunk.pixels)]
        time = np.concatenate(times)
        tracks = link(detected, time)
        box, confidence = follow(tracks, len(time), first[0], self.settings.detection.face)
        return time, box * np.tile(np.concatenate(sizes) / first, 2).astype(np.float32), confidence

    def _crops(self, job: Job, seen: np.ndarray, box: np.ndarray, stages: Stages, damage: list[str]):
        """Batches of (frame indices, {side S: crops (n, 3, S, S)}) of the frames in `seen`, those with a face."""
        from extract.visual import BATCH

        wanted, margin = sides(self.settings.views, self.face_encoder), self.settings.detection.margin

        def pictures() -> Iterator[torch.Tensor | None]:
            if job.crops:
                yield from (read_crop(job.crop(i), damage) for i in seen)
                return
            boxes = iter(box[seen])
            for chunk in read_frames(job.path, chunk=CROP_CHUNK, wanted=np.isin(np.arange(len(box)), seen)):
                yield from (crop(pixels, next(boxes), margin) for pixels in chunk.pixels)
            if next(boxes, None) is not None:
                raise UndecodableError(
                    f"{job.path} changed while it was read. Extract again when it is finished."
                )

        def resized() -> Iterator[dict[int, torch.Tensor] | None]:
            for picture in pictures():
                yield None if picture is None else {side: resize(picture, side) for side in wanted}

        def stacked() -> tuple[list[int], dict[int, torch.Tensor]]:
            return [i for i, _ in batch], {side: torch.stack([p[side] for _, p in batch]) for side in wanted}

        batch: list[tuple[int, dict[int, torch.Tensor]]] = []
        for i, squares in zip(seen, stages.timed("crop", resized()), strict=True):
            if squares is not None:  # an unreadable given crop counts as no face
                batch.append((i, squares))
            if len(batch) == BATCH:
                yield stacked()
                batch = []
        if batch:
            yield stacked()

    def _samples(self, job: Job, media: Media, stages: Stages) -> tuple[np.ndarray, list[str]]:
        damage: list[str] = []
        wanted = {"audio", "speech"} & set(self.settings.parts)
        if not media.has_audio or not wanted:
            return np.zeros(0, np.float32), damage
        with stages("decode"):
            return read_audio(job.path, damage), damage

    def _audio(self, media, samples, damage, visual: VisualFeatures, stages: Stages) -> AudioFeatures:
        if "audio" not in self.settings.modalities:
            return no_audio(self._widths, Status.SKIPPED, NOT_ASKED)
        if not len(samples):
            return no_audio(self._widths, *_why_silent(media, damage))
        if visual.status in (Status.NO_VIDEO, Status.UNDECODABLE):
            time = np.arange(0, len(samples) / SAMPLE_RATE, 1 / SOUND_RATE)
        else:
            time = visual.time[visual.time < len(samples) / SAMPLE_RATE]
        if not len(time):
            return no_audio(self._widths, Status.TOO_SHORT, "the sound ends before the first frame")
        with stages("audio"):
            return AudioFeatures(self.sound_encoder(samples, time), time, Status.OK, _noted(damage))

    def _text(self, job: Job, media: Media, samples, damage, stages: Stages) -> TextFeatures:
        width = self._widths.get("text", 0)
        if "text" not in self.settings.modalities:
            return no_text(width, Status.SKIPPED, NOT_ASKED)
        if self.settings.transcripts == "given":
            if job.transcript is None:
                return no_text(width, Status.SKIPPED, "no transcript was given for this video")
            words = read_transcript(job.transcript)
        elif not len(samples):
            return no_text(width, *_why_silent(media, damage))
        else:
            with stages("speech"):
                words = self.transcriber(samples)
        if not words:
            return no_text(width, Status.NO_SPEECH, "no speech was recognised")
        with stages("text"):
            embedding = self.word_encoder(words)
        return TextFeatures(
            embedding=embedding,
            start=np.array([w.start for w in words]),
            end=np.array([w.end for w in words]),
            word=np.array([w.text for w in words]),
            confidence=np.array([w.confidence for w in words], np.float32),
        )


def _noted(damage: list[str]) -> str:
    return f"{len(damage)} damaged parts were passed over (first: {damage[0]})" if damage else ""


def _cut_short(media: Media, time: np.ndarray, samples: np.ndarray) -> str:
    """What to say of a file that ends before its header says, as a half-copied one does."""
    whole = len(samples) or not media.has_audio  # sound that was not decoded may well last to the end
    end = max([len(samples) / SAMPLE_RATE, *time[-1:]])
    if not whole or media.duration - end < CUT_SHORT:
        return ""
    return f"the file ends at {end:.1f} s of the {media.duration:.1f} s that its header says"


def _why_silent(media: Media, damage: list[str]) -> tuple[Status, str]:
    if not media.has_audio:
        return Status.NO_AUDIO, "the file has no sound"
    if damage:
        return Status.UNDECODABLE, f"the sound could not be decoded ({damage[0]})"
    return Status.TOO_SHORT, "the sound stream is empty"
