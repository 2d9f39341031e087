"""Chunked transcription: Whisper over windows of at most 30 s, many at once, of one video or of several.

openai-whisper's own `transcribe` takes one file and begins each window where the words of the one before end. Here
windows are cut beforehand, where it is quiet, and know nothing of each other: faster where many fit on a device, a
little worse where a sentence crosses a cut. Fallback temperatures are tried only for the windows that fail.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from extract.gather import Gathered
from extract.media import SAMPLE_RATE
from extract.speech import NO_SPEECH, REPETITIVE, UNSURE, Transcriber, pieces, sounding, spoken_words
from extract.transcripts import Word
from extract.weights import Located

WINDOW = 30  # s that Whisper hears at once
CUT_WITHIN = 10  # s at a window's end, in which it is cut
BATCH = {"cpu": 4, "cuda": 16}  # windows
FALLBACK = (0.2, 0.4, 0.6, 0.8, 1.0)  # Whisper's own temperatures
SHORTEST = 1600  # samples in which a word can be
FRAMES = 100  # spectrum frames per second

Window = tuple[torch.Tensor, int]  # log-mel spectrum (mels, 3000), and how many of its frames are sound


class ChunkedTranscriber(Transcriber):
    """openai-whisper's decoder and word times, over windows. The language, where not set, is each window's own."""

    def __init__(
        self,
        located: Located,
        language: str | None,
        device: torch.device,
        half: bool = False,
        together: bool = False,
    ):
        super().__init__(located, language, device, half)
        self.batch = BATCH[device.type]
        self.hear = Gathered(self.decode, self.batch) if together else self.decode

    def __call__(self, samples: np.ndarray) -> list[Word]:
        """Sound (samples,) at 16 kHz → words in order; none where there is no speech."""
        spans = [
            (begin, end)
            for begin, end in pieces(samples, WINDOW, CUT_WITHIN)
            if end - begin >= SHORTEST and sounding(samples[begin:end])
        ]
        words = []
        for first in range(0, len(spans), self.batch):
            batch = spans[first : first + self.batch]
            windows = [self._window(samples[slice(*span)]) for span in batch]
            for (begin, end), segment in zip(batch, self.hear(windows), strict=True):
                words += spoken_words([segment], samples[begin:end], begin / SAMPLE_RATE)
        return words

    def _window(self, samples: np.ndarray) -> Window:
        from whisper.audio import log_mel_spectrogram, pad_or_trim

        mel = log_mel_spectrogram(pad_or_trim(samples), self.model.dims.n_mels)
        return mel, round(len(samples) / SAMPLE_RATE * FRAMES)

    @torch.inference_mode()
    def decode(self, windows: Sequence[Window]) -> list[dict]:
        """A segment per window, as openai-whisper's `transcribe` makes them, with its words; times in seconds from
        the window's start."""
        mels = torch.stack([mel for mel, _ in windows]).to(
            self.device, torch.float16 if self.half else torch.float32
        )
        encoded = self.model.encoder.encoder(mels)
        return [
            self._segment(self._settled(result, features), mel, frames)
            for result, features, mel, (_, frames) in zip(
                self._decoded(encoded, 0.0), encoded, mels, windows, strict=True
            )
        ]

    def _settled(self, result, features: torch.Tensor):
        """The result, or where it failed that of the first temperature that does better: of this window alone, so
        that it does not depend on the others."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for temperature in FALLBACK:
                if not _failed(result):
                    break
                result = self._decoded(features[None], temperature)[0]
        return result

    def _decoded(self, encoded: torch.Tensor, temperature: float) -> list:
        from whisper.decoding import DecodingOptions, decode

        options = DecodingOptions(language=self.language, temperature=temperature, fp16=self.half)
        return decode(self.model, encoded, options)

    def _segment(self, result, mel: torch.Tensor, frames: int) -> dict:
        from whisper.timing import add_word_timestamps
        from whisper.tokenizer import get_tokenizer

        model = self.model
        model.encoder.remember(mel[None], result.audio_features[None])
        segment = {
            "seek": 0,
            "start": 0.0,
            "end": frames / FRAMES,
            "tokens": result.tokens,
            "words": [],
            "no_speech_prob": result.no_speech_prob,
            "avg_logprob": result.avg_logprob,
            "compression_ratio": result.compression_ratio,
        }
        add_word_timestamps(
            segments=[segment],
            model=model,
            tokenizer=get_tokenizer(
                model.is_multilingual, num_languages=model.num_languages, language=result.language
            ),
            mel=mel,
            num_frames=frames,
            last_speech_timestamp=0.0,
        )
        return segment


def _failed(result) -> bool:
    """Whether Whisper's own rule has another temperature tried."""
    poor = result.compression_ratio > REPETITIVE or result.avg_logprob < UNSURE
    return poor and not (result.no_speech_prob > NO_SPEECH and result.avg_logprob < UNSURE)
