"""Speech: Whisper's words with their times, and a gate so that it invents none on silence.

Whisper takes the spectrum of all it is given at once. So that memory does not grow with a video's length, long sound
is given to it in pieces, cut where it is quiet.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock

import numpy as np
import torch

from extract.checkpoints import fill, load_whisper
from extract.media import SAMPLE_RATE
from extract.transcripts import Word
from extract.weights import Located
from features.errors import AffuseError

BLOCK = 480  # samples: 30 ms, over which loudness is taken
AT_ONCE = 1000 * BLOCK  # samples whose loudness is taken at once
PIECE = 600  # s of sound that Whisper is given at once
CUT_WITHIN = 60  # s at a piece's end, in which it is cut
HUSH = 16  # blocks, half a second, quietest together where it is cut; a stop in a word is one to three
SILENCE = -50.0  # dB below full scale: nothing quieter is handed to Whisper
NO_SPEECH = 0.6  # Whisper's own threshold on its no-speech probability
UNSURE = -1.0  # Whisper's own threshold on the mean log probability
REPETITIVE = 2.4  # Whisper's own threshold on the compression ratio
SLACK = 0.3  # s by which a word's times may be off
PAUSE = 2.0  # s of silence around a segment that Whisper may have invented


def loudness(samples: np.ndarray) -> np.ndarray:
    """Level of each 30 ms block in dB relative to full scale: (n,)."""
    power = [_power(samples[i : i + AT_ONCE]) for i in range(0, len(samples), AT_ONCE)]
    return 10 * np.log10(np.concatenate([np.zeros(0), *power]) + 1e-12)


def _power(samples: np.ndarray) -> np.ndarray:
    blocks = np.pad(samples, (0, -len(samples) % BLOCK)).reshape(-1, BLOCK)
    return np.square(blocks, dtype=np.float64).mean(axis=1)


def sounding(samples: np.ndarray) -> bool:
    """Whether anything in them is louder than SILENCE."""
    return bool(len(samples)) and loudness(samples).max() >= SILENCE


def pieces(samples: np.ndarray, longest: int, cut_within: int) -> Iterator[tuple[int, int]]:
    """First sample and end of consecutive pieces of at most `longest` seconds, together the whole; one where it is no
    longer. Each but the last ends in the middle of the quietest half second of its last `cut_within` seconds."""
    begin = 0
    while len(samples) - begin > longest * SAMPLE_RATE:
        first = begin + (longest - cut_within) * SAMPLE_RATE
        power = 10 ** (loudness(samples[first : begin + longest * SAMPLE_RATE]) / 10)
        quietest = int(np.convolve(power, np.ones(HUSH), "valid").argmin())
        end = first + (quietest + HUSH // 2) * BLOCK
        yield begin, end
        begin = end
    yield begin, len(samples)


class EncodedOnce(torch.nn.Module):
    """Whisper's encoder, which decoding and word times both ask for the same window one after the other."""

    def __init__(self, encoder: torch.nn.Module):
        super().__init__()
        self.encoder, self.window, self.encoded = encoder, None, None

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        if self.window is None or not torch.equal(window, self.window):
            self.remember(window, self.encoder(window))
        return self.encoded

    def remember(self, window: torch.Tensor, encoded: torch.Tensor) -> None:
        self.window, self.encoded = window, encoded


class Transcriber:
    """openai-whisper (Radford et al. 2022), with word times from its cross-attention; in float16 if `half`."""

    def __init__(self, located: Located, language: str | None, device: torch.device, half: bool = False):
        from whisper.model import ModelDimensions, Whisper

        dims, state = load_whisper(located.path, located.name)
        try:
            self.model = Whisper(ModelDimensions(**dims))
        except (TypeError, RuntimeError) as error:
            raise AffuseError(f"{located.path} is not a checkpoint of openai-whisper: {error}.") from None
        fill(self.model, state, located)
        self.model = self.model.eval().requires_grad_(False).to(device)
        self.model.encoder = EncodedOnce(self.model.encoder)
        heads = ALIGNMENT_HEADS.get(located.name)
        if heads:
            self.model.set_alignment_heads(heads)
        self.language = "en" if located.name.endswith(".en") else language
        self.device, self.half = device, half
        self._turn = Lock()  # decoding hangs hooks into the network: one sound at a time

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> list[Word]:
        """Sound (samples,) at 16 kHz → words in order; none where there is no speech.

        The language, where it is not set, is that of the first piece that is not silent.
        """
        words, language = [], self.language
        for begin, end in pieces(samples, PIECE, CUT_WITHIN):
            piece = samples[begin:end]
            if sounding(piece):
                result = self.transcribe(piece, language)
                language = result["language"]
                words += spoken_words(result["segments"], piece, begin / SAMPLE_RATE)
        return words

    def transcribe(self, piece: np.ndarray, language: str | None) -> dict:
        """openai-whisper's own result for one piece; its times count from the piece's start."""
        import whisper

        with self._turn, torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the fallback temperatures sample
            return whisper.transcribe(
                self.model,
                piece,
                language=language,
                word_timestamps=True,
                fp16=self.half,
                hallucination_silence_threshold=PAUSE,
            )


def spoken_words(segments: list[dict], samples: np.ndarray, offset: float) -> list[Word]:
    """The words of openai-whisper's segments of these samples that it has not invented, `offset` seconds later."""
    return [
        Word(text, offset + float(w["start"]), offset + float(w["end"]), float(w["probability"]))
        for segment in segments
        if _spoken(segment)
        for w in segment["words"]
        if (text := w["word"].strip()) and _audible(samples, w["start"], w["end"])
    ]


def _spoken(segment: dict) -> bool:
    invented = segment["no_speech_prob"] > NO_SPEECH and segment["avg_logprob"] < UNSURE / 2
    return not invented and segment["avg_logprob"] > UNSURE and segment["compression_ratio"] < REPETITIVE


def _audible(samples: np.ndarray, start: float, end: float) -> bool:
    return sounding(samples[max(0, int((start - SLACK) * SAMPLE_RATE)) : int((end + SLACK) * SAMPLE_RATE)])


def _alignment_heads() -> dict[str, bytes]:
    from whisper import _ALIGNMENT_HEADS

    return {f"whisper-{name}": heads for name, heads in _ALIGNMENT_HEADS.items()}


ALIGNMENT_HEADS = _alignment_heads()
