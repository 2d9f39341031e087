"""The same features as one would write them from the packages' own READMEs: the peer extraction is measured against.

One video after another, all its frames in memory; one frame, one face, one patch of sound, one sentence at a time.
"""

from __future__ import annotations

import time
from pathlib import Path

import av
import numpy as np
import torch
import whisper
from facenet_pytorch import MTCNN
from torchvggish import vggish_input
from torchvggish.torchvggish import VGG, make_layers
from torchvision.transforms.functional import resize
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from affuse.device import Precision
from affuse.extract.crops import square
from affuse.extract.faces import NOBODY, Detected, patch
from affuse.extract.people import Layer, link, stacked
from affuse.extract.text import SENTENCE_END
from affuse.extract.visual import build
from affuse.extract.weights.checkpoints import load_weights, load_whisper
from affuse.extract.weights.locate import Located
from affuse.pipelines.bench.machine import settle

SAMPLE_RATE, PATCH = 16_000, 15_600


class Straightforward:
    """The packages' networks with the weights given, put together plainly, on one device. Where the precision is
    bfloat16, it is so for the networks that affuse gives it to: not for the detector, nor for Whisper.

    Words are left out where `located` has no weights for them.
    """

    def __init__(self, located: dict[str, Located], margin: float, device: torch.device, precision: Precision):
        self.device, self.place = device, {"device": device, "dtype": getattr(torch, precision)}
        self.margin, self.face = margin, located["visual"].entry.face
        self.mtcnn = MTCNN(keep_all=True, device=device).eval()
        self.resnet = build(located["visual"]).eval().to(**self.place)
        torch.manual_seed(0)
        self.vggish = VGG(make_layers(), False).eval()
        if located["audio"].trained:
            load_weights(self.vggish, located["audio"])
        self.vggish.to(**self.place)
        self.words = "speech" in located
        if self.words:
            self._load_words(located)

    def _load_words(self, located: dict[str, Located]) -> None:
        dims, state = load_whisper(located["speech"].path, located["speech"].name)
        self.whisper = whisper.model.Whisper(whisper.model.ModelDimensions(**dims)).eval()
        self.whisper.load_state_dict(state)
        name = located["speech"].name.removeprefix("whisper-")
        self.whisper.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
        self.whisper.to(self.device)
        logging.disable_progress_bar()
        folder = str(located["text"].path)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.bert = AutoModel.from_pretrained(folder).eval().to(**self.place)

    @torch.inference_mode()
    def __call__(self, path: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """One video: visual (T, D), valid (T,), audio (n, 128), words (W,), text (W, D); and seconds by stage."""
        seconds = {}
        begin = time.perf_counter()

        def lap(stage: str) -> None:
            nonlocal begin
            settle(self.device)
            now = time.perf_counter()
            seconds[stage], begin = now - begin, now

        with av.open(str(path)) as container:
            decoded = [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            blocks = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
            samples = np.concatenate([out.to_ndarray()[0] for out in [*blocks, *resampler.resample(None)]])
        clock, frames = np.array([t for t, _ in decoded]), [pixels for _, pixels in decoded]
        lap("decode")
        detected = [self._detect(pixels) for pixels in frames]
        patches = [patch(pixels, faces.boxes) for pixels, faces in zip(frames, detected, strict=True)]
        person = Layer(len(frames), 0)
        for tracks in stacked(link(detected, clock, patches), most=1):
            person.hang(*tracks)
        box, confidence = person.box, person.confidence
        lap("detect")
        black = torch.zeros(1, 3, self.face.size, self.face.size, **self.place)
        visual = np.zeros((len(frames), self.resnet(black).shape[1]))
        for i in np.flatnonzero(confidence):
            visual[i] = numbers(self.resnet(self._face(frames[i], box[i])[None])[0])
        lap("visual")
        audio = self._sound(samples, clock[clock < len(samples) / SAMPLE_RATE])
        lap("audio")
        made = {"visual": visual, "valid": confidence > 0, "audio": audio}
        if not self.words:
            return made, seconds
        result = whisper.transcribe(self.whisper, samples, language="en", word_timestamps=True, fp16=False)
        words = [word["word"].strip() for segment in result["segments"] for word in segment["words"]]
        lap("speech")
        text = self._text(words)
        lap("text")
        return made | {"words": np.array(words, str), "text": text}, seconds

    def _detect(self, pixels: np.ndarray) -> Detected:
        boxes, confidence = self.mtcnn.detect(pixels)
        return NOBODY if boxes is None else Detected(boxes.astype(float), confidence.astype(float))

    def _face(self, pixels: np.ndarray, box: np.ndarray) -> torch.Tensor:
        left, top, side = square(box, self.margin)
        room = np.pad(pixels, ((side, side), (side, side), (0, 0)), mode="edge")
        face = torch.from_numpy(room[top + side : top + 2 * side, left + side : left + 2 * side].copy())
        picture = resize(face.to(self.device).permute(2, 0, 1).float(), [self.face.face] * 2, antialias=True)
        edge = (self.face.face - self.face.size) // 2
        picture = picture[:, edge : edge + self.face.size, edge : edge + self.face.size]
        if self.face.channels == "BGR":
            picture = picture.flip(0)
        mean, std = torch.tensor([self.face.mean, self.face.std], device=self.device).view(2, 3, 1, 1)
        return ((picture - mean) / std).to(self.place["dtype"])

    def _sound(self, samples: np.ndarray, clock: np.ndarray) -> np.ndarray:
        padded = np.pad(np.pad(samples, (0, SAMPLE_RATE), mode="edge"), (0, SAMPLE_RATE))
        starts = np.round(clock * SAMPLE_RATE).astype(int)
        patches = (padded[start : start + PATCH] for start in starts)
        inputs = (vggish_input.waveform_to_examples(p, SAMPLE_RATE)[:1].to(**self.place) for p in patches)
        return np.stack([numbers(self.vggish(spectrogram)[0]) for spectrogram in inputs])

    def _text(self, words: list[str]) -> np.ndarray:
        rows, sentence = [], []
        for i, word in enumerate(words):
            sentence.append(word)
            if word.endswith(SENTENCE_END) or i == len(words) - 1:
                tokens = self.tokenizer(sentence, is_split_into_words=True, return_tensors="pt").to(self.device)
                pieces = torch.stack(self.bert(**tokens, output_hidden_states=True).hidden_states[-4:]).sum(0)[0]
                owner = np.array([-1 if number is None else number for number in tokens.word_ids()])
                rows += [numbers(pieces[owner == number].mean(0)) for number in range(len(sentence))]
                sentence = []
        return np.stack(rows) if rows else np.zeros((0, self.bert.config.hidden_size))


def numbers(tensor: torch.Tensor) -> np.ndarray:
    """As float32, on the CPU."""
    return tensor.float().cpu().numpy()
