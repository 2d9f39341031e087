"""Speech: Whisper's words with their times, and a gate so that it invents none on silence."""

from __future__ import annotations

import numpy as np
import torch

from extract.media import SAMPLE_RATE
from extract.transcripts import Word
from extract.weights import Located, load_whisper
from features.errors import AffuseError

BLOCK = 480  # samples: 30 ms, over which loudness is taken
SILENCE = -50.0  # dB below full scale: nothing quieter is handed to Whisper
NO_SPEECH = 0.6  # Whisper's own threshold on its no-speech probability
UNSURE = -1.0  # Whisper's own threshold on the mean log probability
REPETITIVE = 2.4  # Whisper's own threshold on the compression ratio
SLACK = 0.3  # s by which a word's times may be off
PAUSE = 2.0  # s of silence around a segment that Whisper may have invented


def loudness(samples: np.ndarray) -> np.ndarray:
    """Level of each 30 ms block in dB relative to full scale: (n,)."""
    blocks = np.pad(samples, (0, -len(samples) % BLOCK)).reshape(-1, BLOCK)
    return 10 * np.log10(np.square(blocks, dtype=np.float64).mean(axis=1) + 1e-12)


class EncodedOnce(torch.nn.Module):
    """Whisper's encoder, which decoding and word times both ask for the same window one after the other."""

    def __init__(self, encoder: torch.nn.Module):
        super().__init__()
        self.encoder, self.window, self.encoded = encoder, None, None

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        if self.window is None or not torch.equal(window, self.window):
            self.window, self.encoded = window, self.encoder(window)
        return self.encoded


class Transcriber:
    """openai-whisper (Radford et al. 2022), with word times from its cross-attention."""

    def __init__(self, located: Located, language: str | None, device: torch.device):
        from whisper.model import ModelDimensions, Whisper

        dims, state = load_whisper(located.path, located.name)
        try:
            self.model = Whisper(ModelDimensions(**dims))
            self.model.load_state_dict(state)
        except (TypeError, RuntimeError) as error:
            raise AffuseError(f"{located.path} is not a checkpoint of openai-whisper: {error}.") from None
        self.model = self.model.eval().requires_grad_(False).to(device)
        self.model.encoder = EncodedOnce(self.model.encoder)
        heads = ALIGNMENT_HEADS.get(located.name)
        if heads:
            self.model.set_alignment_heads(heads)
        self.language = "en" if located.name.endswith(".en") else language
        self.half = device.type == "cuda"

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray) -> list[Word]:
        """Sound (samples,) at 16 kHz → words in order; none where there is no speech."""
        import whisper

        if not len(samples) or loudness(samples).max() < SILENCE:
            return []
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the fallback temperatures sample
            result = whisper.transcribe(
                self.model,
                samples,
                language=self.language,
                word_timestamps=True,
                fp16=self.half,
                hallucination_silence_threshold=PAUSE,
            )
        return [
            Word(text, float(w["start"]), float(w["end"]), float(w["probability"]))
            for segment in result["segments"]
            if _spoken(segment)
            for w in segment["words"]
            if (text := w["word"].strip()) and _audible(samples, w["start"], w["end"])
        ]


def _spoken(segment: dict) -> bool:
    invented = segment["no_speech_prob"] > NO_SPEECH and segment["avg_logprob"] < UNSURE / 2
    return not invented and segment["avg_logprob"] > UNSURE and segment["compression_ratio"] < REPETITIVE


def _audible(samples: np.ndarray, start: float, end: float) -> bool:
    span = samples[max(0, int((start - SLACK) * SAMPLE_RATE)) : int((end + SLACK) * SAMPLE_RATE)]
    return bool(len(span)) and loudness(span).max() >= SILENCE


def _alignment_heads() -> dict[str, bytes]:
    from whisper import _ALIGNMENT_HEADS

    return {f"whisper-{name}": heads for name, heads in _ALIGNMENT_HEADS.items()}


ALIGNMENT_HEADS = _alignment_heads()
