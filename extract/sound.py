"""The sound of a file as 16 kHz mono, on the pictures' clock.

It is kept in a temporary file and read where it is needed, so that memory does not grow with its length: two hours are
460 MB.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from threading import Lock
from typing import BinaryIO

import av
import numpy as np

from affuse.errors import AffuseError
from affuse.extract.media import SLACK, read_sound, reason

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
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, span: slice) -> np.ndarray:
        begin, end, _ = span.indices(len(self))
        samples = np.empty(max(0, end - begin), np.float32)
        with self._turn:
            self._file.seek(begin * SIZE)
            self._file.readinto(samples)
        return samples

    def put(self, place: int, samples: np.ndarray) -> None:
        """Let these (n,) begin at a sample: what was skipped before it is silence, what is there already stays. Raises
        AffuseError where there is no room for them."""
        new = samples[max(0, self._length - place) :]
        if not len(new):
            return
        end = place + len(samples)
        try:
            with self._turn:
                self._file.seek((end - len(new)) * SIZE)
                self._file.write(new.tobytes())
                self._file.flush()
        except OSError as error:
            raise _no_room(error) from None
        self._length = end


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # where there was no room for what it still holds
        file.close()


def _no_room(error: OSError) -> AffuseError:
    return AffuseError(
        f"The sound of a video, 230 MB an hour, cannot be kept in {gettempdir()}: {error.strerror or error}. Make room "
        "there, or name another folder by the environment variable TMPDIR."
    )


class Blocks:
    """Blocks of sound at their times, made 16 kHz mono: each begins where the one before it ended, or at its own time
    where that is more than SLACK away.

    put is given a sample's number and the samples (n,) from there on; damage collects why a block could not be
    resampled, which is then silence. due: the second at which the next block is awaited, None before the first; broken:
    how many samples were no numbers, or beyond LOUDEST, and are silent.
    """

    def __init__(self, put: Callable[[int, np.ndarray], None], damage: list[str] | None = None):
        self.put, self.damage = put, damage
        self.due: float | None = None
        self.broken = self._place = 0
        self._resampler, self._kind = None, None

    def __call__(self, time: float, frame: av.AudioFrame) -> None:
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        apart = self.due is None or abs(time - self.due) > SLACK
        self.due = time if apart else self.due
        if apart or kind != self._kind:
            self._resample(None)
            self._resampler, self._kind = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE), kind
        if apart:
            self._place = round(time * SAMPLE_RATE)
        if self._resample(frame):
            self.due += frame.samples / frame.sample_rate

    def finish(self) -> None:
        """There are no more."""
        self._resample(None)

    def _resample(self, frame: av.AudioFrame | None) -> bool:
        """Whether a block could be resampled, or, of None, what was left of those before."""
        try:
            pieces = [piece.to_ndarray()[0] for piece in (self._resampler.resample(frame) if self._resampler else [])]
        except (av.error.FFmpegError, ValueError) as error:
            self._resampler = self._kind = None
            if self.damage is not None:
                self.damage.append(reason(error))
            return False
        for samples in pieces:
            good = np.abs(samples) <= LOUDEST
            self.broken += np.count_nonzero(~good)
            self.put(self._place, np.where(good, samples, np.float32(0)))
            self._place += len(samples)
        return True


def read_audio(path: Path, damage: list[str] | None = None) -> Sound:
    """The first sound stream in [-1, 1]; sample 0 is time 0.

    Sound that starts late is preceded by silence, and so is what follows a gap; sound that starts early is cut, and so
    is what overlaps. damage: collects a reason for every packet that could not be decoded, and how many samples were
    none.
    """
    damage = damage if damage is not None else []
    sound = Sound()
    blocks = Blocks(sound.put, damage)
    for time, frame in read_sound(path, damage):
        blocks(time, frame)
    blocks.finish()
    if blocks.broken:
        damage.append(f"{blocks.broken} samples of sound are no numbers, or beyond {LOUDEST:g} times full scale")
    return sound
