"""A rehearsal: two seconds of video, made on the spot, all the way of a profile into a store and back.

What a machine says it has may still not work: a driver too old, a codec left out, weights of another network. Each
stage here is the extraction's own. Nothing is downloaded: without its weights, faces and sound are embedded by seeded
networks, and words are left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
from dask.system import CPU_COUNT
from PIL import Image

from affuse.errors import AffuseError, first_line
from affuse.extract.extraction import extract_settings
from affuse.extract.extractor import Extractor
from affuse.extract.networks import build
from affuse.extract.profiles import PROFILES
from affuse.extract.sound import read_audio
from affuse.extract.videos import Job
from affuse.extract.weights.locate import SEED, Located, MissingError, locate
from affuse.extract.weights.table import backbone
from affuse.features.parts import Status
from affuse.features.record import VideoFeatures
from affuse.features.store import FeatureStore

STAGES = ("clip", "load", "decode", "faces", "visual", "audio", "speech", "text", "store")
MADE_BY = {"decode": "visual", "faces": "visual", "visual": "visual", "audio": "audio", "text": "text"}  # of a record
SECONDS, FPS, SIZE, RATE = 2.0, 10, 192, 16_000  # of the clip; pixels to a side; Hz
WORDS = "WEBVTT\n\n00:00.200 --> 00:01.800\nhow does it feel today\n"


@dataclass
class Stage:
    """state: "ok"; "seeded", without trained weights; "skipped" or "failed", and why; seconds that it took."""

    state: str = "skipped"
    seconds: float = 0.0
    why: str = "what comes before it failed"


@dataclass
class Rehearsal:
    """One profile's way; `stages` by the names of STAGES."""

    profile: str
    weights_dir: Path | None
    device: torch.device
    stages: dict[str, Stage] = field(default_factory=lambda: {name: Stage() for name in STAGES})

    def run(self) -> dict[str, Stage]:
        located = self.locate()
        with TemporaryDirectory(prefix="affuse-", ignore_cleanup_errors=True) as folder:
            clip, words, store = Path(folder, "clip.mp4"), Path(folder, "clip.vtt"), Path(folder, "store")
            with self.timed("clip"):
                words.write_text(WORDS, encoding="utf-8")
                self.stages["clip"].why = write_clip(clip)
            if self.stages["clip"].state == "ok":
                self.extract(Job("clip", "clip", clip, transcript=words), located, store)
                self.listen(clip, located)
        return self.stages

    def locate(self) -> dict[str, Located]:
        """{part: weights}; without its weights a part is seeded or not there, and its stage says why."""
        located = {}
        for part, name in PROFILES[self.profile].items():
            try:
                located[part] = locate(name, self.weights_dir, download=False)
            except AffuseError as error:
                lacking = isinstance(error, MissingError)
                self.stages[part].why = f"the weights of {name} are missing" if lacking else str(error)
                if part in ("visual", "audio"):
                    located[part] = Located(name, None, f"seed:{SEED}", "", False, backbone(name))
        return located

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """The stage that is done here, and fails here with whatever is raised: a doctor names what is wrong."""
        stage, begin = self.stages[name], time.perf_counter()
        stage.state, stage.why = "ok", ""
        try:
            yield
        except Exception as error:
            stage.state, stage.why = "failed", str(error) if isinstance(error, AffuseError) else _told(error)
        stage.seconds = time.perf_counter() - begin

    def extract(self, job: Job, located: dict[str, Located], folder: Path) -> None:
        """Pictures, sound and given words into the store; the words that are heard are not those of the clip."""
        modalities = [part for part in ("visual", "audio", "text") if part in located]
        settings = extract_settings(self.profile, given_transcripts=True, modalities=modalities)
        extractor = Extractor(settings, located, self.device, CPU_COUNT)
        with self.timed("load"):
            extractor.load()
        if self.stages["load"].state == "failed":
            return
        records: list[VideoFeatures] = []
        with self.timed("decode"):
            records += extractor(job)
        if records:
            self.account(records[0], located)
            with self.timed("store"):
                store = FeatureStore(folder, create=True)
                store.replace(job.id, records, extractor.provenance)
                if problems := store.verify().problems:
                    raise AffuseError(f"What was written was read otherwise: {problems[0].reason}.")

    def account(self, video: VideoFeatures, located: dict[str, Located]) -> None:
        """How the stages of the extraction went, of the record's statuses and times."""
        spent = video.seconds or {}
        for name, part in MADE_BY.items():
            stage, made = self.stages[name], getattr(video, part)
            stage.seconds = sum(spent.get(own, 0.0) for own in (("detect", "crop") if name == "faces" else (name,)))
            if part not in located:
                continue
            if made.status == Status.OK:
                trained = name in ("decode", "faces") or located[part].trained
                stage.state, stage.why = "ok" if trained else "seeded", "" if trained else stage.why
            elif made.status == Status.NO_FACE:
                stage.state, stage.why = ("skipped", made.reason) if name == "visual" else ("ok", "")
            else:
                stage.state, stage.why = "failed", made.reason

    def listen(self, clip: Path, located: dict[str, Located]) -> None:
        """Whisper is loaded, and hears the tone, in which there are no words."""
        if "speech" in located:
            with self.timed("speech"):
                settings = extract_settings(self.profile)
                transcriber = build("speech", located["speech"], settings, self.device, torch.float32)
                transcriber(read_audio(clip, []))


def rehearse(profile: str, weights_dir: Path | None, device: torch.device) -> dict:
    """{"profile", "device", "stages": {name: {"state", "seconds", "why"}}} of a clip's way through a profile.

    Raises UsageError for a folder that is not there; all else that goes wrong is a stage's."""
    stages = Rehearsal(profile, weights_dir, device).run()
    return {"profile": profile, "device": str(device), "stages": {name: vars(stage) for name, stage in stages.items()}}


def describe_rehearsal(facts: dict) -> list[str]:
    """A line a stage."""
    lines = [f"a clip of {SECONDS:g} s through profile {facts['profile']}, on {facts['device']}"]
    for name, stage in facts["stages"].items():
        took = f"{stage['seconds']:.2f} s" if stage["seconds"] else "–"
        lines.append(f"    {name:<8}{stage['state']:<9}{took:>8}  {stage['why']}".rstrip())
    return lines


def write_clip(path: Path) -> str:
    """A picture that drifts, and a tone, off and on: through a steady one Whisper hallucinates for minutes. Gives what
    the picture lacks."""
    portrait, what = _portrait()
    at = np.arange(SECONDS * RATE) / RATE
    beeps = (0.3 * np.sin(2 * np.pi * 220 * at) * (at % 0.5 < 0.25)).astype(np.float32)
    with av.open(str(path), "w") as container:
        pictures, sound = container.add_stream("mpeg4", rate=FPS), container.add_stream("aac", rate=RATE, layout="mono")
        pictures.width, pictures.height, pictures.pix_fmt, pictures.bit_rate = SIZE + SIZE // 3, SIZE, "yuv420p", 10**6
        for i in range(round(SECONDS * FPS)):
            canvas = np.full((SIZE, SIZE + SIZE // 3, 3), 90, np.uint8)
            canvas[:, i : i + SIZE] = portrait
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(canvas, "rgb24")))
        container.mux(pictures.encode())
        for first in range(0, len(beeps), 1024):
            frame = av.AudioFrame.from_ndarray(beeps[None, first : first + 1024], "fltp", "mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), first
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return what


def _portrait() -> tuple[np.ndarray, str]:
    """A face (SIZE, SIZE, 3) uint8 that matplotlib brings; a ramp where it is left out."""
    from matplotlib.cbook import get_sample_data

    try:
        with get_sample_data("grace_hopper.jpg") as file:
            photograph = Image.open(file).convert("RGB").crop((56, 0, 456, 400)).resize((SIZE, SIZE))
    except OSError:
        ramp = np.linspace(0, 255, SIZE).astype(np.uint8)
        return np.broadcast_to(ramp[None, :, None], (SIZE, SIZE, 3)), "without a face: matplotlib's sample is not here"
    return np.asarray(photograph), ""


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error, 'no reason given')}"
