"""The sound of a file as 16 kHz mono, on the pictures' clock.

It is kept in a temporary file and read where it is needed, so that memory does not grow with its length: two hours are
460 MB.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from threading import Lock
from typing import BinaryIO

import av
import numpy as np

from affuse.errors import AffuseError
from affuse.extract.media import BEYOND, LONGEST, SLACK, Clock, decoded, opened, reason

SAMPLE_RATE = 16_000  # Hz; what VGGish and Whisper both expect
SIZE = np.dtype(np.float32).itemsize  # bytes of a sample
LOUDEST = 100.0  # times full scale; samples beyond are not sound


class Sound:
    """Mono float32 sound at 16 kHz. Slices of it are read as those of an array (samples,) are, by several threads."""

    def __init__(self):
        try:
            self._file = TemporaryFile(prefix="affuse-")  # noqa: SIM115, closed with the last that reads it
        except OSError as error:
            raise _no_room(error) from None
        weakref.finalize(self, _close, self._file)
        self._turn = Lock()
        self._length = self._place = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, span: slice) -> np.ndarray:
        begin, end, _ = span.indices(len(self))
        samples = np.empty(max(0, end - begin), np.float32)
        with self._turn:
            self._file.seek(begin * SIZE)
            self._file.readinto(samples)
        return samples

    def go_to(self, place: int) -> None:
        """What is written next begins at that sample: before it is silence, and what would overlap is left out."""
        self._place = place

    def write(self, samples: np.ndarray) -> None:
        """Append (n,) samples. Raises AffuseError where there is no room for them."""
        new = samples[max(0, self._length - self._place) :]
        self._place += len(samples)
        if not len(new):
            return
        try:
            with self._turn:
                self._file.seek((self._place - len(new)) * SIZE)
                self._file.write(new.tobytes())
                self._file.flush()
        except OSError as error:
            raise _no_room(error) from None
        self._length = self._place


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # where there was no room for what it still holds
        file.close()


def _no_room(error: OSError) -> AffuseError:
    return AffuseError(
        f"The sound of a video, 230 MB an hour, cannot be kept in {gettempdir()}: {error.strerror or error}. Make room "
        "there, or name another folder by the environment variable TMPDIR."
    )


def read_audio(path: Path, damage: list[str] | None = None) -> Sound:
    """The first sound stream in [-1, 1]; sample 0 is time 0.

    Sound that starts late is preceded by silence, and so is what follows a gap; sound that starts early is cut, and so
    is what overlaps. Its clock is followed wherever the two are more than SLACK apart. damage: collects a reason for
    every packet that could not be decoded, and how many samples were none.
    """
    damage = damage if damage is not None else []
    sound, resampler, kind, due, broken = Sound(), None, None, None, 0

    def resample(frame: av.AudioFrame | None) -> None:
        nonlocal broken
        for piece in resampler.resample(frame) if resampler else []:
            samples = piece.to_ndarray()[0]
            good = np.abs(samples) <= LOUDEST
            broken += np.count_nonzero(~good)
            sound.write(np.where(good, samples, np.float32(0)))

    with opened(path) as container:
        clock = Clock(container)
        for frame in decoded(container, container.streams.audio[0], damage):
            time = clock.time(frame, due or 0.0)
            apart = due is None or abs(time - due) > SLACK
            due = time if apart else due
            if due > LONGEST:
                damage.append(BEYOND)
                break
            try:
                given = frame.format.name, frame.layout.name, frame.sample_rate
                if apart or given != kind:
                    resample(None)
                    resampler, kind = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE), given
                if apart:
                    sound.go_to(round(time * SAMPLE_RATE))
                resample(frame)
                due += frame.samples / frame.sample_rate
            except (av.error.FFmpegError, ValueError) as error:
                damage.append(reason(error))
                resampler = kind = None
        resample(None)
    if broken:
        damage.append(f"{broken} samples of sound are no numbers, or beyond {LOUDEST:g} times full scale")
    return sound
