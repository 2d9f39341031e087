"""The demo's voices: sentences spoken by espeak-ng, whose pitch, rate and loudness are set from outside.

espeak-ng is the shared library that the package espeakng_loader carries, called through ctypes
(speak_lib.h of espeak-ng 1.52): samples come back through a callback, no sound card is touched.
"""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affuse.errors import AffuseError

SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples to the callback, espeak_Synth returns when done
DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: report missing data, do not end the process
RATE, PITCH, RANGE = 1, 3, 4  # espeak_PARAMETER; words per minute, 0–100, 0–100
POSITION_CHARACTER = 1
UTF8 = 1  # espeakCHARS_UTF8
QUIET = 0.02  # part of the peak under which a sentence's ends are cut as silence
LONGEST_PATH = 140  # characters; espeak-ng cuts the path of its data off at 160
LEVEL = 0.06  # root mean square to which every sentence is brought

Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """A voice: espeak-ng's name and variant, its usual rate (words per minute) and pitch (0–100)."""

    name: str
    rate: int = 160
    pitch: int = 45


class Synthesiser:
    """espeak-ng as one speaker's mouth: made by `synthesiser()`, anew for every video."""

    def __init__(self, library: ctypes.CDLL, data: Path, folder: tempfile.TemporaryDirectory):
        self.library, self._folder = library, folder  # the folder goes when this object goes
        self.sample_rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(data).encode(), DONT_EXIT)
        if self.sample_rate <= 0:
            raise AffuseError(
                f"espeak-ng could not read its voices in {data}. Reinstall them: "
                "pip install --force-reinstall espeakng-loader"
            )
        self._blocks: list[np.ndarray] = []
        self._callback = Callback(self._collect)  # kept: the library holds only a pointer to it
        library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples, count: int, _events) -> int:
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, sentence: str, voice: Voice, rate: float, pitch: float, pitch_range: float) -> np.ndarray:
        """A sentence as float32 samples at `sample_rate`, silence cut off its ends, its RMS at LEVEL.

        Raises AffuseError where espeak-ng does not know the voice or yields no sound.
        """
        if self.library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise AffuseError(f"espeak-ng has no voice {voice.name!r}. Reinstall it: pip install espeakng-loader")
        for parameter, value in ((RATE, rate), (PITCH, pitch), (RANGE, pitch_range)):
            self.library.espeak_SetParameter(parameter, round(value), 0)
        self.library.espeak_ng_SetRandSeed(1)  # breath and flutter draw from it
        self._blocks.clear()
        text = sentence.encode() + b"\0"
        self.library.espeak_Synth(text, len(text), 0, POSITION_CHARACTER, 0, UTF8, None, None)
        self.library.espeak_Synchronize()
        samples = np.concatenate([np.zeros(0, np.int16), *self._blocks]).astype(np.float32) / 32768
        if not samples.any():
            raise AffuseError(f"espeak-ng made no sound of {sentence!r} with voice {voice.name!r}.")
        heard = np.flatnonzero(np.abs(samples) > QUIET * np.abs(samples).max())
        samples = samples[heard[0] : heard[-1] + 1]
        return samples * (LEVEL / np.sqrt(np.square(samples).mean()))


def synthesiser() -> Synthesiser:
    """A fresh espeak-ng. Raises AffuseError where the extra `demo` is not installed, or is damaged.

    The library carries its state from sentence to sentence (breath, flutter, the phase of the voice), and
    espeak_Terminate does not clear it. Loading a copy of the file makes an instance that starts anew, so that
    a video sounds the same whatever was spoken before it.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise AffuseError(
            "The demo's voices need espeakng_loader, which is not installed: pip install 'affuse[demo]'"
        ) from None
    try:
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        library = ctypes.CDLL(shutil.copy(espeakng_loader.get_library_path(), folder.name))
        data = Path(espeakng_loader.get_data_path())
        if len(str(data)) > LONGEST_PATH:
            short = Path(folder.name) / "data"
            short.symlink_to(data)
            data = short
        return Synthesiser(library, data, folder)
    except (OSError, RuntimeError) as error:
        raise AffuseError(
            f"espeak-ng cannot be loaded: {error}. Reinstall it: pip install --force-reinstall espeakng-loader"
        ) from None
