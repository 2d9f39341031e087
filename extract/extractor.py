"""One video in, one record out: all backbones, loaded once and kept.

    path ─ probe ─┬─ frames ─ boxes ─ track ─ crops ─ face embeddings
                  └─ sound ─┬─ patches ─ sound embeddings
                            └─ words ─ word embeddings

This thread decodes; the lanes compute, words beside faces beside sound. Frames are decoded twice, once small for the
boxes and once for the crops: what is kept in memory in between is a box per frame, whatever the video's length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from threading import BoundedSemaphore, Event

import numpy as np
import torch
from affuse.extract.faces import FaceDetector, crop, follow, link, read_crop, resize, upload
from affuse.extract.lanes import Lanes
from affuse.extract.media import SAMPLE_RATE, Media, UndecodableError, probe, read_audio, read_frames
from affuse.extract.networks import VIDEOS, Networks, make_provenance
from affuse.extract.settings import ExtractSettings
from affuse.extract.transcripts import read_transcript
from affuse.extract.videos import Job
from affuse.extract.visual import FaceEncoder, cut_view, sides, stored_views
from affuse.extract.weights.locate import Located
from affuse.features.record import AudioFeatures, Source, Status, TextFeatures, VideoFeatures, VisualFeatures


def no_visual(width: int, status: Status, reason: str) -> VisualFeatures:
    rows = (np.zeros((0, width), np.float16), np.zeros(0), np.zeros(0, bool))
    return VisualFeatures(*rows, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), status, reason)


def no_audio(widths: dict[str, int], status: Status, reason: str) -> AudioFeatures:
    return AudioFeatures(np.zeros((0, widths.get("audio", 0)), np.float16), np.zeros(0), status, reason)


def no_text(width: int, status: Status, reason: str) -> TextFeatures:
    rows = (np.zeros((0, width), np.float16), np.zeros(0), np.zeros(0), np.zeros(0, str))
    return TextFeatures(*rows, np.zeros(0, np.float32), status, reason)


def undecodable(video_id: str, source: Source, reason: str, widths: dict[str, int]) -> VideoFeatures:
    """The record of a video of which nothing can be decoded."""
    status = Status.UNDECODABLE
    return VideoFeatures(
        id=video_id,
        source=source,
        fps=0.0,
        duration=0.0,
        frames=0,
        visual=no_visual(widths.get("visual", 0), status, reason),
        audio=no_audio(widths, status, reason),
        text=no_text(widths.get("text", 0), status, reason),
    )


DETECTION_CHUNK = 33  # scaled frames looked through at once; one more than a multiple of usual steps
CROP_CHUNK = 8  # full frames held at once


def frame_clock(job: Job, lanes: Lanes, damage: list[str]) -> np.ndarray:
    """Times (T,) of the frames, in seconds; they are decoded at the smallest size."""
    chunks = read_frames(job.path, chunk=256, short_side=8, damage=damage)
    return np.concatenate([np.zeros(0), *(c.time for c in lanes.reading("decode", chunks))])


def find_person(
    job: Job, detector: FaceDetector, lanes: Lanes, damage: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time (T,), box (T, 4) in pixels of each frame, and confidence (T,) of the person followed.

    Where the frame size changes midway, faces are linked in pixels of the first scaled frame, and each box is
    scaled to its own frame.
    """
    settings = detector.settings
    times, sizes, scaled = [np.zeros(0)], [np.zeros((0, 2))], []

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        found = read_frames(job.path, chunk=DETECTION_CHUNK, short_side=settings.short_side, damage=damage)
        for chunk in lanes.reading("decode", found):
            times.append(chunk.time)
            sizes.append(chunk.size)
            scaled.append(np.array(chunk.pixels.shape[2:0:-1], float))
            yield chunk.pixels, chunk.time

    detected = []
    for i, faces in enumerate(lanes.ordered("detect", lambda chunk: detector(*chunk), chunks())):
        detected += [face.scaled(scaled[0] / scaled[i]) for face in faces]
    time, first = np.concatenate(times), scaled[0] if scaled else np.ones(2)
    box, confidence = follow(link(detected, time), len(time), first[0], settings.face)
    return time, box * np.tile(np.concatenate(sizes) / first, 2).astype(np.float32), confidence


def embed_faces(
    job: Job, encoder: FaceEncoder, chosen: tuple[str, ...], margin: float, seen: np.ndarray, box: np.ndarray,
    lanes: Lanes, damage: list[str],
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:  # fmt: skip
    """Portions of (frame indices, {view: embeddings (n, D) float16}) of the frames in `seen`, those with a face.

    `chosen` are the views wanted; a given crop that cannot be read counts as no face.
    """
    wanted, others = sides(chosen, encoder), stored_views(chosen)

    def encode(portion: list[tuple[int, torch.Tensor]]) -> tuple[list[int], dict[str, np.ndarray]]:
        given = [upload(square, encoder.device) for _, square in portion]
        squares = {side: torch.stack([resize(square, side) for square in given]) for side in wanted}
        made = {"centre": encoder(squares[encoder.size])}
        made |= {view: encoder(cut_view(view, squares, encoder)) for view in others}
        return [index for index, _ in portion], made

    squares = _given_squares(job, seen, damage) if job.crops else _cut_squares(job, seen, box, margin)
    return lanes.ordered("visual", encode, _portions(lanes.reading("crop", squares), encoder.portion))


def _given_squares(job: Job, seen: np.ndarray, damage: list[str]) -> Iterator[tuple[int, torch.Tensor]]:
    for index in seen:
        picture = read_crop(job.crop(index), damage)
        if picture is not None:
            yield index, picture


def _cut_squares(
    job: Job, seen: np.ndarray, box: np.ndarray, margin: float
) -> Iterator[tuple[int, torch.Tensor]]:
    left = iter(seen)
    for chunk in read_frames(job.path, chunk=CROP_CHUNK, wanted=np.isin(np.arange(len(box)), seen)):
        for pixels in chunk.pixels:
            index = next(left)
            yield index, crop(pixels, box[index], margin)
    if next(left, None) is not None:
        raise UndecodableError(f"{job.path} changed while it was read. Extract again when it is finished.")


def _portions(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while portion := list(islice(items, size)):
        yield portion


NOT_ASKED = "not among the modalities asked for"
SOUND_RATE = 25.0  # sound embeddings per second where there are no frames
CUT_SHORT = 1.0  # s that a file may end before its header says


class Extractor:
    """Turns videos into records.

    threads: lanes of a video. at_once: how many threads may call at a time, with `load` called before; on CPU one, so
    that what a video becomes depends on no other. halted: once set, calls under way end by CancelledError before they
    read on.
    """

    def __init__(
        self, settings: ExtractSettings, located: dict[str, Located], device: torch.device, threads: int = 1
    ):
        self.settings, self.located = settings, located
        self.at_once = min(VIDEOS[device.type], threads)
        self.threads = threads // self.at_once
        self.turns = BoundedSemaphore(self.at_once)
        self.halted = Event()
        self.networks = Networks(settings, located, device, self.at_once > 1)
        self.provenance = make_provenance(settings, located)

    def load(self) -> None:
        """Build the networks now, so that weights that do not fit stop a run before its first video.

        Raises AffuseError naming the file.
        """
        self.networks.load()

    def __call__(self, job: Job) -> VideoFeatures:
        """Extract one video. Raises AffuseError only where what the user gave beside the video is unreadable;
        a video that cannot be decoded is a record that says so."""
        source = Source(job.name, job.size, job.digest(), job.mtime_ns)
        try:
            media = probe(job.path)
        except UndecodableError as error:
            return undecodable(job.id, source, str(error), self._widths)
        with Lanes(self.threads, self.halted) as lanes:
            samples, damage = self._samples(job, media, lanes)
            sound = len(samples) / SAMPLE_RATE
            words = lanes.submit(self._text, job, media, samples, damage, lanes)
            blurred: list[str] = []
            time, box, confidence = self._look(job, media, lanes, blurred)
            heard = self._hear(samples, time, lanes)
            del samples  # from here on the lanes alone hold it, until the last of them is done with it
            visual = self._visual(job, media, time, box, confidence, lanes, blurred)
            audio = self._audio(media, sound, damage, *heard)
            text = words.result()
        if note := _cut_short(media, visual.time, sound):
            visual, audio = (
                replace(part, reason=f"{part.reason}; {note}".lstrip("; ")) if len(part.time) else part
                for part in (visual, audio)
            )
        duration = max(media.duration, sound)
        return VideoFeatures(
            id=job.id,
            source=source,
            fps=media.fps,
            duration=duration,
            frames=len(visual.time),
            visual=visual,
            audio=audio,
            text=text,
            seconds={name: round(spent, 4) for name, spent in lanes.seconds.items()},
        )

    @property
    def _widths(self) -> dict[str, int]:
        return {part: found.entry.width for part, found in self.located.items()}

    def _samples(self, job: Job, media: Media, lanes: Lanes) -> tuple[np.ndarray, list[str]]:
        """Sound (samples,), and what of it is damaged."""
        damage: list[str] = []
        wanted = {"audio", "speech"} & set(self.settings.parts)
        if not media.has_audio or not wanted:
            return np.zeros(0, np.float32), damage
        with lanes.timed("decode"):
            return read_audio(job.path, damage), damage

    def _look(self, job: Job, media: Media, lanes: Lanes, damage: list[str]):
        """Time (T,), box (T, 4) and confidence (T,) of the person followed."""
        wanted = "visual" in self.settings.modalities
        if media.has_video and wanted and not job.crops:
            return find_person(job, self.networks.detector, lanes, damage)
        time = frame_clock(job, lanes, damage) if media.has_video else np.zeros(0)
        confidence = np.zeros(len(time), np.float32)
        if wanted and job.crops:
            confidence[[i for i in range(len(time)) if job.crop(i).is_file()]] = 1
        return time, np.full((len(time), 4), np.nan, np.float32), confidence

    def _hear(self, samples: np.ndarray, time: np.ndarray, lanes: Lanes) -> tuple[np.ndarray, list[Future]]:
        """The sound's times, and its embeddings, begun: those of the frames, where there are any and sound lasts."""
        if "audio" not in self.settings.modalities:
            return np.zeros(0), []
        end = len(samples) / SAMPLE_RATE
        clock = time[time < end] if len(time) else np.arange(0, end, 1 / SOUND_RATE)
        size = self.networks.sound_encoder.portion

        def encode(times: np.ndarray) -> np.ndarray:
            with lanes.timed("audio"):
                return self.networks.sound_encoder(samples, times)

        return clock, [lanes.submit(encode, clock[i : i + size]) for i in range(0, len(clock), size)]

    def _visual(
        self, job: Job, media: Media, time: np.ndarray, box: np.ndarray, confidence: np.ndarray, lanes: Lanes,
        damage: list[str],
    ) -> VisualFeatures:  # fmt: skip
        width = self._widths.get("visual", 0)
        if not media.has_video:
            return no_visual(width, Status.NO_VIDEO, "the file has no pictures")
        if not len(time):
            reason = f"no frame could be decoded ({'; '.join(damage[:3]) or 'the stream is empty'})"
            return no_visual(width, Status.UNDECODABLE, reason)
        embedding, valid = np.zeros((len(time), width), np.float16), np.zeros(len(time), bool)
        if "visual" not in self.settings.modalities:
            return VisualFeatures(embedding, time, valid, box, confidence, Status.SKIPPED, NOT_ASKED)
        views = {name: np.zeros_like(embedding) for name in stored_views(self.settings.views)}
        rows = {"centre": embedding, **views}
        margin, seen = self.settings.detection.margin, np.flatnonzero(confidence)
        for index, made in embed_faces(
            job, self.networks.face_encoder, self.settings.views, margin, seen, box, lanes, damage
        ):
            for name, embedded in made.items():
                rows[name][index] = embedded
            valid[index] = True
        if valid.any():
            return VisualFeatures(
                embedding, time, valid, box, confidence * valid, Status.OK, _noted(damage), views
            )
        lack = (
            f"no readable crop in {job.crops.name}" if job.crops else f"no face found in {len(time)} frames"
        )
        return VisualFeatures(embedding, time, valid, box, confidence * 0, Status.NO_FACE, lack, views)

    def _audio(
        self, media: Media, sound: float, damage: list[str], time: np.ndarray, embedded: list[Future]
    ) -> AudioFeatures:
        if "audio" not in self.settings.modalities:
            return no_audio(self._widths, Status.SKIPPED, NOT_ASKED)
        if not sound:
            return no_audio(self._widths, *_why_silent(media, damage))
        if not len(time):
            return no_audio(self._widths, Status.TOO_SHORT, "the sound ends before the first frame")
        embedding = np.concatenate([batch.result() for batch in embedded])
        return AudioFeatures(embedding, time, Status.OK, _noted(damage))

    def _text(
        self, job: Job, media: Media, samples: np.ndarray, damage: list[str], lanes: Lanes
    ) -> TextFeatures:
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
            with lanes.timed("speech"):
                words = self.networks.transcriber(samples)
        if not words:
            return no_text(width, Status.NO_SPEECH, "no speech was recognised")
        with lanes.timed("text"):
            embedding = self.networks.word_encoder(words)
        return TextFeatures(
            embedding=embedding,
            start=np.array([w.start for w in words]),
            end=np.array([w.end for w in words]),
            word=np.array([w.text for w in words]),
            confidence=np.array([w.confidence for w in words], np.float32),
        )


def _noted(damage: list[str]) -> str:
    return f"{len(damage)} damaged parts were passed over (first: {damage[0]})" if damage else ""


def _cut_short(media: Media, time: np.ndarray, sound: float) -> str:
    """What to say of a file that ends before its header says, as a half-copied one does; `sound` in seconds."""
    whole = sound or not media.has_audio  # sound that was not decoded may well last to the end
    end = max([sound, *time[-1:]])
    if not whole or media.duration - end < CUT_SHORT:
        return ""
    return f"the file ends at {end:.1f} s of the {media.duration:.1f} s that its header says"


def _why_silent(media: Media, damage: list[str]) -> tuple[Status, str]:
    if not media.has_audio:
        return Status.NO_AUDIO, "the file has no sound"
    if damage:
        return Status.UNDECODABLE, f"the sound could not be decoded ({damage[0]})"
    return Status.TOO_SHORT, "the sound stream is empty"
