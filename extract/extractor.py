"""One video in, its records out, one or one per person: all backbones, loaded once and kept.

    path ─ probe ─┬─ sound ─┬─ words ─ word embeddings
                  │         └─ patches ─ sound embeddings
                  └─ frames ─ boxes ─ tracks ─ crops ─ face embeddings ─ people

One thread decodes; the lanes compute, words beside faces beside sound. Frames are decoded twice, once small for the
boxes and once for the crops: what is kept in memory in between is a box per frame, whatever the video's length.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from threading import BoundedSemaphore, Event

import numpy as np
import torch

from affuse.errors import AffuseError, counted
from affuse.extract.deadline import OverdueError, within
from affuse.extract.lanes import Lanes
from affuse.extract.media import Media, UndecodableError, probe
from affuse.extract.networks import VIDEOS, Networks, decided, make_provenance
from affuse.extract.people import Layer, Track
from affuse.extract.settings import ExtractSettings
from affuse.extract.sight import Sight
from affuse.extract.sound import SAMPLE_RATE, Sound, read_audio
from affuse.extract.transcripts import read_transcript
from affuse.extract.videos import Job
from affuse.extract.weights.locate import Located
from affuse.features.parts import AudioFeatures, Status, TextFeatures, VisualFeatures
from affuse.features.record import Provenance, Source, VideoFeatures, person_id

NOT_ASKED = "not among the modalities asked for"
SOUND_RATE = 25.0  # sound embeddings per second where there are no frames
CUT_SHORT = 1.0  # s that a file may end before its header says
SHORT = 10.0  # s; shorter videos may take as long as one of this length
TIME_LIMIT = 60.0  # times its length that a video may take


class Extractor:
    """Turns videos into records.

    threads: lanes of a video. time_limit: how many times its length a video may take. at_once: how many threads may
    call at a time, with `load` called before; on CPU one, so that what a video becomes depends on no other. halted:
    once set, calls under way end by CancelledError before they read on.
    """

    def __init__(
        self,
        settings: ExtractSettings,
        located: dict[str, Located],
        device: torch.device,
        threads: int = 1,
        time_limit: float = TIME_LIMIT,
    ):
        self.settings = settings = decided(settings, device)
        self.time_limit = time_limit
        self.at_once = min(VIDEOS[device.type], threads)
        self.threads = threads // self.at_once
        self.turns = BoundedSemaphore(self.at_once)
        self.halted = Event()
        self.networks = Networks(settings, located, device, self.at_once > 1)
        self.provenance = make_provenance(settings, located)

    def load(self) -> None:
        """See `Networks.load`."""
        self.networks.load()

    def __call__(self, job: Job) -> list[VideoFeatures]:
        """Extract one video. Raises AffuseError only where what the user gave beside the video is unreadable, or a file
        shrinks meanwhile; a video that cannot be decoded, or not in time, is a record that says so."""
        job, source = replace(job), None  # with the state that its files have now
        try:
            source, media = within(self.time_limit * SHORT, lambda: (job.source(), probe(job.path)))
            with Lanes(self.threads, self.halted, self.networks.device) as lanes:
                video = VideoExtraction(job, source, media, self.settings, self.networks, self.provenance, lanes)
                records = within(self.time_limit * max(SHORT, media.duration), video.records)
        except (UndecodableError, OverdueError) as error:
            source, why = source or Source(job.name, job.size, "", job.mtime_ns), str(error)
            if isinstance(error, OverdueError):
                why = f"{job.path.name} was given up after {error.seconds:.0f} s; a larger --time-limit gives it more."
            records = [VideoFeatures.undecodable(job.record, source, why, self.provenance)]
        if replace(job).size < job.size:  # one that has grown is made anew by the next run
            raise AffuseError(f"{job.path} shrank while it was read. Extract again when it is finished.")
        return records


@dataclass
class VideoExtraction:
    """One video on its way from the file to its records; the methods stand in the order of that way.

    What is noted as it is read: `muffled`, what was damaged of the sound; `heard`, seconds of it.
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

    def __post_init__(self):
        self.sight = Sight(self.job, self.settings, self.networks, self.provenance.width("visual"), self.lanes)

    def records(self) -> list[VideoFeatures]:
        samples = self.listen()
        words = self.lanes.aside(self.text, samples)
        time, tracks = self.sight.look() if self.media.has_video else (np.zeros(0), [])
        clock, batches = self.hear(samples, time)
        people, audio, text = self.visual(time, tracks), self.audio(clock, batches), words.result()
        if note := self._cut_short(time):
            audio, *people = (
                replace(part, reason=f"{part.reason}; {note}".lstrip("; ")) if len(part.time) else part
                for part in (audio, *people)
            )
        return [
            VideoFeatures(
                id=person_id(self.job.id, number) if self.job.everyone else self.job.id,
                source=self.source,
                fps=self.media.fps,
                duration=max(self.media.duration, self.heard),
                frames=len(time),
                visual=visual,
                audio=audio,
                text=text,
                seconds={name: round(spent, 4) for name, spent in self.lanes.seconds.items()},
                people=len(people),
            )
            for number, visual in enumerate(people, start=1)
        ]

    def listen(self) -> Sound | np.ndarray:
        """The sound (samples,), where any is wanted."""
        if not self.media.has_audio or not {"audio", "speech"} & set(self.settings.parts):
            return np.zeros(0, np.float32)
        with self.lanes.timed("decode"):
            samples = read_audio(self.job.path, self.muffled)
        self.heard = len(samples) / SAMPLE_RATE
        return samples

    def text(self, samples: Sound | np.ndarray) -> TextFeatures:
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
                words = self.networks.transcriber(samples, self.lanes.go_on)
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

    def hear(self, samples: Sound | np.ndarray, time: np.ndarray) -> tuple[np.ndarray, list[Future]]:
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

    def visual(self, time: np.ndarray, tracks: list[Track]) -> list[VisualFeatures]:
        """Of each person who is followed; of nobody where there is none."""
        width, frames, damage = self.provenance.width("visual"), len(time), self.sight.damage
        if not self.media.has_video:
            return [VisualFeatures.absent(width, Status.NO_VIDEO, "the file has no pictures")]
        if not frames:
            reason = f"no frame could be decoded ({'; '.join(damage[:3]) or 'the stream is empty'})"
            return [VisualFeatures.absent(width, Status.UNDECODABLE, reason)]
        if "visual" not in self.settings.modalities:
            return [_seen(Layer(frames, width), time, Status.SKIPPED, NOT_ASKED)]
        if people := self.sight.people(time, tracks):
            return [_seen(person, time, Status.OK, _noted(damage)) for person in people]
        crops = self.job.crops
        lack = f"no readable crop in {crops.name}" if crops else f"no face found in {counted(frames, 'frame')}"
        return [_seen(self.sight.layer(frames), time, Status.NO_FACE, lack)]

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


def _seen(layer: Layer, time: np.ndarray, status: Status, reason: str) -> VisualFeatures:
    """The faces of a layer as they are kept."""
    views = dict(layer.rows)
    embedding, valid = views.pop("centre"), layer.embedded
    return VisualFeatures(embedding, time, valid, layer.box, layer.confidence * valid, status, reason, views)


def _noted(damage: list[str]) -> str:
    return f"passed over {counted(len(damage), 'damaged part')} (first: {damage[0]})" if damage else ""
