"""Speech: Whisper's words with their times, and a gate so that it invents none on silence.

Whisper takes the spectrum of all it is given at once. So that memory does not grow with a video's length, long sound
is given to it in pieces, cut where it is quiet: one after the other as openai-whisper's own `transcribe` does it, or
in windows of at most 30 s, many at once, of one video or of several, that know nothing of each other but the video's
one language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

import numba
import numpy as np
import torch
import whisper
from whisper.audio import log_mel_spectrogram, pad_or_trim
from whisper.decoding import DecodingOptions, DecodingResult, decode, detect_language
from whisper.model import ModelDimensions, Whisper
from whisper.timing import add_word_timestamps
from whisper.tokenizer import get_tokenizer

from affuse.errors import AffuseError
from affuse.extract.lanes import Gathered
from affuse.extract.sound import SAMPLE_RATE, Sound
from affuse.extract.transcripts import Word
from affuse.extract.weights.checkpoints import fill, load_whisper
from affuse.extract.weights.locate import Located

BLOCK = 480  # samples: 30 ms, over which loudness is taken
AT_ONCE = 1000 * BLOCK  # samples whose loudness is taken at once
PIECE = 300  # s of sound that Whisper is given at once, one piece after the other: its spectrum takes 0.7 MB a second
PIECE_CUT = 60  # s at a piece's end, in which it is cut
WINDOW = 30  # s that Whisper hears at once
WINDOW_CUT = 10  # s at a window's end, in which it is cut, where many windows are decoded at once
BATCH = {"cpu": 4, "cuda": 16}  # windows
LISTENED = 5  # windows at most in which the language is looked for
FRAMES = 100  # spectrum frames per second
SHORTEST = 1600  # samples in which a word can be
HUSH = 16  # blocks, half a second, quietest together where sound is cut; a stop in a word is one to three
SILENCE = -50.0  # dB below full scale: nothing quieter is handed to Whisper
NO_SPEECH = 0.6  # Whisper's own threshold on its no-speech probability
UNSURE = -1.0  # Whisper's own threshold on the mean log probability
REPETITIVE = 2.4  # Whisper's own threshold on the compression ratio
FALLBACK = (0.2, 0.4, 0.6, 0.8, 1.0)  # Whisper's own temperatures
TOKENS = (24, 40)  # at most decoded of a sound, and more of each of its seconds; English has up to eight a second
SLACK = 0.3  # s by which a word's times may be off
PAUSE = 2.0  # s of silence around a segment that Whisper may have invented


class Window(NamedTuple):
    """mel (mels, 3000), log-mel spectrum; frames, how many of it are sound; the language spoken; encoded (1500, width),
    what the encoder makes of it, where that is known."""

    mel: torch.Tensor
    frames: int
    language: str | None = None
    encoded: torch.Tensor | None = None


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


def windows_of(samples: Sound) -> list[slice]:
    """The windows of at most 30 s, cut where it is quiet, in which there is something to hear."""
    spans = pieces(samples, WINDOW, WINDOW_CUT)
    return [slice(*span) for span in spans if span[1] - span[0] >= SHORTEST and sounding(samples[slice(*span)])]


def listened_to(count: int) -> list[int]:
    """Which of so many windows the language is looked for in: LISTENED at most, spread evenly."""
    return np.linspace(0, count - 1, min(count, LISTENED)).round().astype(int).tolist()


def likeliest(heard: Sequence[dict[str, float]]) -> str:
    """The language whose mean probability over windows is highest."""
    return max(heard[0], key=lambda language: sum(each[language] for each in heard))


def pieces(samples: Sound, longest: int, cut_within: int) -> Iterator[tuple[int, int]]:
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


def babbles(result: DecodingResult) -> bool:
    """Whether Whisper repeats itself over what it says is no speech, "beep beep beep" over a tone."""
    return result.no_speech_prob > NO_SPEECH and result.compression_ratio > REPETITIVE


def babble_unheard(decode: Callable[..., DecodingResult]) -> Callable[..., DecodingResult]:
    """`decode`, whose babble is passed over as silence is: each further temperature would take as long to babble on."""

    def decoded(mel: torch.Tensor, options: DecodingOptions) -> DecodingResult:
        result = decode(mel, options)
        return replace(result, avg_logprob=-np.inf) if babbles(result) else result

    return decoded


def _begin_numba() -> None:
    """Whisper aligns words with numba. Its first use begins its threads, and sets torch's number of them in the thread
    that it is in: here it is put back, which nobody would do for a lane with its first word times."""
    threads = torch.get_num_threads()
    numba.set_num_threads(1)
    torch.set_num_threads(threads)


class Transcriber:
    """openai-whisper (Radford et al. 2022), with word times from its cross-attention.

    In float32, whatever the precision of the store: with its encoder in bfloat16, words move and are misheard.
    `fallback`: the temperatures at which what was heard badly is heard again, each as long as the first time.
    """

    fallback: tuple[float, ...] = FALLBACK

    def __init__(self, located: Located, language: str | None, device: torch.device):
        _begin_numba()
        dims, state = load_whisper(located.path, located.name)
        try:
            model = Whisper(ModelDimensions(**dims))
        except (TypeError, RuntimeError) as error:
            raise AffuseError(f"{located.path} is not a checkpoint of openai-whisper: {error}.") from None
        fill(model, state, located)
        self.model = model.eval().requires_grad_(False).to(device)
        self.model.encoder = EncodedOnce(self.model.encoder)
        self.model.decode = babble_unheard(self.model.decode)
        if heads := whisper._ALIGNMENT_HEADS.get(located.name.removeprefix("whisper-")):
            self.model.set_alignment_heads(heads)
        self.language = language if self.model.is_multilingual else "en"
        self.device = device
        self._turn = Lock()  # decoding hangs hooks into the network: one sound at a time

    @torch.inference_mode()
    def __call__(self, samples: Sound, go_on: Callable[[], None] = lambda: None) -> list[Word]:
        """Sound (samples,) at 16 kHz → words in order; none where there is no speech. Before each part of it
        `go_on` may raise."""
        windows = [] if self.language else windows_of(samples)
        language = self._listen(samples, windows)[0] if windows else self.language
        words = []
        for begin, end in pieces(samples, PIECE, PIECE_CUT):
            go_on()
            piece = samples[begin:end]
            if sounding(piece):
                words += spoken_words(self.transcribe(piece, language)["segments"], piece, begin / SAMPLE_RATE)
        return words

    def _listen(self, samples: Sound, windows: list[slice]) -> tuple[str, dict[int, torch.Tensor]]:
        """The language spoken most probably, by the mean over some windows, and what these are encoded, by number."""
        chosen = listened_to(len(windows))
        with self._turn:
            encoded = self._encoded([self._window(samples[windows[i]]) for i in chosen])
            heard = detect_language(self.model, encoded)[1]
        return likeliest(heard), dict(zip(chosen, encoded, strict=True))

    def _window(self, samples: np.ndarray, *known) -> Window:
        mel = log_mel_spectrogram(pad_or_trim(samples), self.model.dims.n_mels)
        return Window(mel, round(len(samples) / SAMPLE_RATE * FRAMES), *known)

    def _encoded(self, windows: Sequence[Window]) -> torch.Tensor:
        """(windows, 1500, width); what is known already is not computed again."""
        new = [window.mel for window in windows if window.encoded is None]
        made = iter(self.model.encoder.encoder(torch.stack(new).to(self.device)) if new else ())
        return torch.stack([next(made) if window.encoded is None else window.encoded for window in windows])

    def transcribe(self, piece: np.ndarray, language: str | None) -> dict:
        """openai-whisper's own result for one piece; its times count from the piece's start."""
        first, each = TOKENS
        longest = min(first + round(each * len(piece) / SAMPLE_RATE), self.model.dims.n_text_ctx // 2)
        with self._turn, torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the fallback temperatures sample
            return whisper.transcribe(
                self.model,
                piece,
                language=language,
                temperature=(0.0, *self.fallback),
                word_timestamps=True,
                sample_len=longest,
                fp16=False,
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


class ChunkedTranscriber(Transcriber):
    """openai-whisper's decoder and word times, over windows."""

    def __init__(self, located: Located, language: str | None, device: torch.device, together: bool = False):
        super().__init__(located, language, device)
        self.batch = BATCH[device.type]
        self.hear = Gathered(self.decode, self.batch) if together else self.decode

    @torch.inference_mode()
    def __call__(self, samples: Sound, go_on: Callable[[], None] = lambda: None) -> list[Word]:
        """Sound (samples,) at 16 kHz → words in order; none where there is no speech. Before each part of it
        `go_on` may raise."""
        spans, words = windows_of(samples), []
        language, encoded = self._listen(samples, spans) if spans and not self.language else (self.language, {})
        for first in range(0, len(spans), self.batch):
            go_on()
            batch = range(first, min(first + self.batch, len(spans)))
            windows = [self._window(samples[spans[i]], language, encoded.get(i)) for i in batch]
            for i, segment in zip(batch, self.hear(windows), strict=True):
                words += spoken_words([segment], samples[spans[i]], spans[i].start / SAMPLE_RATE)
        return words

    @torch.inference_mode()
    def decode(self, windows: Sequence[Window]) -> list[dict]:
        """A segment per window, as openai-whisper's `transcribe` makes them, with its words; times in seconds from
        the window's start."""
        with self._turn:
            encoded, segments = self._encoded(windows), {}
            for language in dict.fromkeys(window.language for window in windows):
                which = [i for i, window in enumerate(windows) if window.language == language]
                for i, result in zip(which, self._decoded(encoded[which], 0.0, language), strict=True):
                    mel = windows[i].mel.to(self.device)
                    segments[i] = self._segment(self._settled(result, encoded[i]), mel, windows[i].frames)
        return [segments[i] for i in range(len(windows))]

    def _settled(self, result: DecodingResult, features: torch.Tensor) -> DecodingResult:
        """The result, or where it failed that of the first temperature that does better: of this window alone, so
        that it does not depend on the others."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for temperature in self.fallback:
                if not _failed(result):
                    break
                result = self._decoded(features[None], temperature, result.language)[0]
        return result

    def _decoded(self, encoded: torch.Tensor, temperature: float, language: str | None) -> list[DecodingResult]:
        options = DecodingOptions(language=language, temperature=temperature, fp16=False)
        return decode(self.model, encoded, options)

    def _segment(self, result, mel: torch.Tensor, frames: int) -> dict:
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
            tokenizer=get_tokenizer(model.is_multilingual, num_languages=model.num_languages, language=result.language),
            mel=mel,
            num_frames=frames,
            last_speech_timestamp=0.0,
        )
        return segment


def _failed(result) -> bool:
    """Whether Whisper's own rule has another temperature tried."""
    poor = result.compression_ratio > REPETITIVE or result.avg_logprob < UNSURE
    return poor and not babbles(result) and not (result.no_speech_prob > NO_SPEECH and result.avg_logprob < UNSURE)
