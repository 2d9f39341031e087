"""The demo's data set: synthetic talking heads of known valence and arousal, for they were made from them.

The generative model. F and S are smooth random functions of time; w = (w_v, w_a) is the place, on the plane
of valence and arousal, of the words being spoken. They are independent and spread over [-1, 1]:

    valence(t) = clip(A F(t) + B w_v(t))       A = OWN_SHARE, B = TEXT_SHARE
    arousal(t) = clip(A S(t) + B w_a(t))

    face    expression(t) = F(t) + noise       mouth corners and brows
                                               nuisance: lip opening, head motion, light, noise, looks
    voice   effort(t)     = S(t) + noise       loudness throughout; pitch and rate from sentence to sentence
                                               nuisance: the speaker's voice, the sounds of the words, the room
    words   adjectives and nouns of place w    nuisance: filler words, what the transcriber mishears

So the face knows a part of valence, the voice a part of arousal, the words a part of both, and nobody all of
either. (The lips open with the loudness, which lets a little arousal through to the face.) It is a test of
the machinery, not a model of emotion.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtr

from affuse.errors import UsageError
from affuse.files import make_folder, write_text
from affuse.pipelines.demo.encode import encode
from affuse.pipelines.demo.face import Look, Motion, render
from affuse.pipelines.demo.voice import Synthesiser, Voice, synthesiser
from affuse.pipelines.demo.words import write_sentence

FORMAT = 1  # raised when the same parameters would make other videos
OWN_SHARE = 0.65  # A: of the face in valence, of the voice in arousal
TEXT_SHARE = 0.6  # B: of the words in either
NOISE = 0.2  # standard deviation of what a modality shows beside its signal
TEMPO = 0.8  # s, standard deviation of the Gaussian that smooths F and S
TRANSITION = 0.25  # s, the same for w across sentences
GRID = 100  # steps per second at which signals are made
PAUSE = (0.15, 0.35)  # s between sentences, least and most
AHEAD = 1.5  # s of effort that decide a sentence's pitch and rate
LOUDNESS, RATE, PITCH, RANGE = (8.0, 28.0, 26.0, 30.0)  # dB, words per minute, and espeak's units, per unit of effort
ROOM = 10 ** (-66 / 20)  # root mean square of the room's noise, full scale 1

# Voices that Whisper understands, in the speakers' order.
VARIANTS = ("m1", "f2", "m3", "f5", "m7", "f3", "m2", "m8", "m4", "Alex", "m5", "m6")
VOICES = tuple(Voice(f"en-us+{variant}") for variant in VARIANTS)
README = """Synthetic talking heads with known valence and arousal, made by affuse's demo.

The face is a warped photograph of the astronaut Eileen Collins (NASA, public domain; scikit-image's
`astronaut`), the voices are espeak-ng's. Nobody said or felt any of this: random signals were drawn, and
face, voice, words and labels made from them. How: the head of pipelines/demo/data.py.

videos/<id>.mp4               {count} videos of about {seconds:g} s at {fps:g} frames per second
labels/train/<id>.txt         valence,arousal per frame; {train} of {speakers} speakers
labels/validation/<id>.txt    the others
words/<id>.txt                the sentences spoken, one per line
parameters.json               what the set was made with; `affuse demo` makes it anew when that changes
"""


@dataclass(frozen=True)
class Parameters:
    """All that decides what the data set is. seconds: of speech per video, at least; size: width, height."""

    speakers: int = 12
    clips: int = 1
    seconds: float = 25.0
    fps: int = 8
    size: tuple[int, int] = (320, 240)
    seed: int = 0
    format: int = FORMAT

    def ids(self) -> list[str]:
        return [video_id(s, c) for s in range(self.speakers) for c in range(self.clips)]

    @property
    def train_speakers(self) -> int:
        return self.speakers - max(1, round(self.speakers / 3))


@dataclass(frozen=True)
class DemoData:
    """Where the set lies, and which videos train and which validate: no speaker does both."""

    root: Path
    train: tuple[str, ...]
    validation: tuple[str, ...]

    @property
    def videos(self) -> Path:
        return self.root / "videos"

    @property
    def labels(self) -> Path:
        """Holds train/ and validation/."""
        return self.root / "labels"

    def words(self, video: str) -> str:
        """The words spoken in a video."""
        return (self.root / "words" / f"{video}.txt").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Speech:
    """What is said: samples (n,) float32; sentences, their start and end (s), their place (valence, arousal)."""

    samples: np.ndarray
    sentences: list[str]
    start: np.ndarray
    end: np.ndarray
    place: np.ndarray


def video_id(speaker: int, clip: int) -> str:
    return f"speaker{speaker + 1:02d}-{clip + 1:02d}"


def make_dataset(out: Path, *, done: Callable[[str], None] = lambda video: None, **parameters: Any) -> DemoData:
    """Make the data set in `out`, or what is missing of it; `done` is called with each video's id.

    parameters: those of `Parameters`; the same ones give the same files. Raises UsageError where `out` holds something
    else, AffuseError where scikit-image or espeakng_loader is missing or a file cannot be written.
    """
    wanted = Parameters(**parameters)
    if wanted.speakers < 2 or wanted.clips < 1 or wanted.seconds <= 0 or wanted.fps < 1:
        raise UsageError("The demo's data needs at least 2 speakers, 1 clip, 1 frame per second, and some seconds.")
    _prepare(out, wanted)
    for speaker in range(wanted.speakers):
        split = "train" if speaker < wanted.train_speakers else "validation"
        for clip in range(wanted.clips):
            if not (out / "videos" / f"{video_id(speaker, clip)}.mp4").exists():
                _make_video(out, split, speaker, clip, wanted)
            done(video_id(speaker, clip))
    ids, first = wanted.ids(), wanted.train_speakers * wanted.clips
    return DemoData(out, tuple(ids[:first]), tuple(ids[first:]))


def _prepare(out: Path, wanted: Parameters) -> None:
    """Folders and parameters. A set made with other parameters is removed, anything else is left alone."""
    note = out / "parameters.json"
    if note.exists():
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
        except ValueError:
            raise UsageError(f"{note} is damaged. Remove the folder {out} and run again.") from None
        if found != json.loads(json.dumps(asdict(wanted))):
            for folder in ("videos", "labels", "words"):
                shutil.rmtree(out / folder, ignore_errors=True)
            note.unlink()
    elif out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no demo data. Choose an empty folder for the demo.")
    for folder in ("videos", "labels/train", "labels/validation", "words"):
        make_folder(out / folder)
    readme = README.format(**asdict(wanted), count=len(wanted.ids()), train=wanted.train_speakers)
    write_text(out / "README.txt", readme)
    write_text(note, json.dumps(asdict(wanted), indent=1) + "\n")


def _make_video(out: Path, split: str, speaker: int, clip: int, wanted: Parameters) -> None:
    """One video with its labels and words; the video is put in place last, so it stands for all three."""
    generator = np.random.default_rng([wanted.seed, speaker, clip])
    name, engine = video_id(speaker, clip), synthesiser()
    steps = round((wanted.seconds + 10) * GRID)  # the last sentence may end some seconds past `seconds`
    face, voice = smooth(generator, steps), smooth(generator, steps)
    effort = voice + NOISE * wander(generator, steps, 0.4)
    speech = _speak(engine, VOICES[speaker % len(VOICES)], effort, wanted.seconds, generator)

    frames = int(np.ceil(len(speech.samples) / engine.sample_rate * wanted.fps))
    at = np.minimum(np.round(np.arange(frames) / wanted.fps * GRID).astype(int), steps - 1)
    labels = "".join(f"{v:.4f},{a:.4f}\n" for v, a in truth(face, voice, said(speech, steps))[:, at].T)
    write_text(out / "labels" / split / f"{name}.txt", "valence,arousal\n" + labels)
    write_text(out / "words" / f"{name}.txt", "\n".join(speech.sentences) + "\n")

    expression = face + NOISE * wander(generator, steps, 0.4)
    loud = _loudness(speech.samples, engine.sample_rate, steps)
    motion = Motion(
        expression=expression[at],
        opening=(loud[at] / 0.12).clip(0, 1),
        shift_x=2.0 * wander(generator, steps, 0.7)[at],
        shift_y=1.5 * wander(generator, steps, 0.7)[at],
        roll=0.02 * wander(generator, steps, 0.9)[at],
        brightness=1 + 0.02 * wander(generator, steps, 0.9)[at],
    )
    pictures = render(look(wanted.seed, speaker), motion, wanted.size, generator)
    samples = np.zeros(round(frames / wanted.fps * engine.sample_rate), np.float32)
    samples[: len(speech.samples)] = speech.samples[: len(samples)]
    encode(out / "videos" / f"{name}.mp4", [(pictures, samples)], wanted.size, wanted.fps, engine.sample_rate)


def look(seed: int, speaker: int) -> Look:
    """A speaker's look; every other one is mirrored."""
    generator = np.random.default_rng([seed, speaker, 1 << 20])
    light, background = generator.uniform(0.92, 1.08), generator.uniform(0.7, 1.1, 3)
    return Look(
        mirrored=speaker % 2 == 1,
        scale=generator.uniform(1.12, 1.3),
        tint=tuple(light * generator.uniform(0.95, 1.05, 3)),
        background=tuple(background),
    )


def wander(generator: np.random.Generator, steps: int, sigma: float) -> np.ndarray:
    """Gaussian noise smoothed over `sigma` seconds, standard deviation 1: (steps,)."""
    width = sigma * GRID
    noise = gaussian_filter1d(generator.standard_normal(steps + round(8 * width)), width)
    margin = round(4 * width)
    return noise[margin : margin + steps] * np.sqrt(2 * np.sqrt(np.pi) * width)


def smooth(generator: np.random.Generator, steps: int) -> np.ndarray:
    """A smooth random function spread evenly over [-1, 1]: (steps,)."""
    return 2 * ndtr(wander(generator, steps, TEMPO)) - 1


def said(speech: Speech, steps: int) -> np.ndarray:
    """w(t), the sentences' places over time: (2, steps). A sentence lasts to the middle of the next pause."""
    ends = np.append((speech.end[:-1] + speech.start[1:]) / 2, np.inf)
    index = np.searchsorted(ends, np.arange(steps) / GRID)
    return gaussian_filter1d(speech.place[index].T, TRANSITION * GRID, axis=1)


def truth(face: np.ndarray, voice: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Valence and arousal (2, steps) from F, S (steps,) and w (2, steps)."""
    return np.clip(OWN_SHARE * np.stack([face, voice]) + TEXT_SHARE * words, -1, 1)


def _speak(
    engine: Synthesiser, voice: Voice, effort: np.ndarray, seconds: float, generator: np.random.Generator
) -> Speech:
    """Sentences one after the other until `seconds` have passed; the last one is spoken to its end."""
    rate = engine.sample_rate
    spoken, blocks, used = [], [], 0
    while used / rate < seconds:
        pause = np.zeros(round(generator.uniform(*PAUSE) * rate), np.float32)
        used += len(pause)
        step = round(used / rate * GRID)
        push = float(effort[step : step + round(AHEAD * GRID)].mean())
        sentence, place = write_sentence(generator.uniform(-1, 1, 2), generator)
        sound = engine.speak(sentence, voice, voice.rate + RATE * push, voice.pitch + PITCH * push, 50 + RANGE * push)
        spoken.append((sentence, used / rate, (used + len(sound)) / rate, place))
        used += len(sound)
        blocks += [pause, sound]
    blocks.append(np.zeros(round(PAUSE[1] * rate), np.float32))
    samples = np.concatenate(blocks)
    gain = np.interp(np.arange(len(samples)) / rate, np.arange(len(effort)) / GRID, LOUDNESS * effort)
    samples = samples * 10 ** (gain / 20) + ROOM * generator.standard_normal(len(samples))
    sentences, *times_and_places = zip(*spoken, strict=True)
    return Speech(np.clip(samples, -1, 1).astype(np.float32), list(sentences), *map(np.array, times_and_places))


def _loudness(samples: np.ndarray, rate: int, steps: int) -> np.ndarray:
    """Root mean square over about 0.1 s, at every step of the grid: (steps,)."""
    step = np.arange(len(samples)) * GRID // rate
    power = np.bincount(step, np.square(samples, dtype=np.float64), steps) / (rate / GRID)
    return np.sqrt(gaussian_filter1d(power[:steps], 0.05 * GRID))
