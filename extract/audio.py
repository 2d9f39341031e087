"""Sound: an embedding per video frame, from the 0.96 s of sound anchored at the frame: VGGish's, or another network's.

The log-mel patch is VGGish's own (Hershey et al. 2017): 25 ms windows every 10 ms, 64 mel bands from 125 to
7500 Hz, log(mel + 0.01). Embeddings are VGGish's 128 outputs, without PCA and quantisation.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torchvggish import mel_features
from torchvggish import vggish_params as vggish
from torchvggish.torchvggish import VGG, make_layers

from affuse.extract.gpu import captured, upload
from affuse.extract.lanes import Gathered
from affuse.extract.sound import SAMPLE_RATE, Sound
from affuse.extract.weights.checkpoints import load_transformer, load_weights
from affuse.extract.weights.locate import SEED, Located
from affuse.extract.winograd import Winograd, pays

CPU = torch.device("cpu")
PATCH = 15_600  # samples: 95 hops of 160, and one window of 400
WINDOW, HOP, FFT = 400, 160, 512  # samples
EDGE = SAMPLE_RATE  # samples by which the signal's ends are repeated
ANCHORS = {"start": 0.0, "centre": -0.48, "end": -0.96}  # s from a frame's time to its patch's start
BATCH = {"cpu": 64, "cuda": 512}  # patches that share a pass over the linear layers' 67 million weights
PORTION = {"cpu": 64, "cuda": 128}  # patches that a thread brings; on a GPU several threads' fill a batch
PART = {"cpu": 8, "cuda": 512}  # patches convolved at once; on CPU what stays in the cache of a core
PIECE = 20.0  # s of sound that another network is given at once, so that memory does not grow with its length
MARGIN = 2.0  # s of sound heard before and after a piece
SHORTEST = 1600  # samples that another network is given at least


@cache
def mel_bands(device: torch.device) -> Tensor:
    """Weights (257, 64) of the spectrum's bins in the mel bands."""
    weights = mel_features.spectrogram_to_mel_matrix(
        num_mel_bins=vggish.NUM_MEL_BINS,
        num_spectrogram_bins=FFT // 2 + 1,
        audio_sample_rate=SAMPLE_RATE,
        lower_edge_hertz=vggish.MEL_MIN_HZ,
        upper_edge_hertz=vggish.MEL_MAX_HZ,
    )
    return torch.from_numpy(weights).to(device)


def log_mel(patches: Tensor) -> Tensor:
    """Sound (n, 15600) at 16 kHz → log-mel patches (n, 96, 64) float32, as torchvggish computes them, in float64."""
    hann = torch.hann_window(WINDOW, dtype=torch.float64, device=patches.device)
    spectrum = torch.fft.rfft(patches.double().unfold(1, WINDOW, HOP) * hann, FFT).abs()
    return (spectrum @ mel_bands(patches.device) + vggish.LOG_OFFSET).log().float()


def cut_patches(samples: Sound, time: np.ndarray, anchor: str, device: torch.device = CPU) -> Tensor:
    """The sound of each frame: (n, 15600). Both ends are continued by 1 s of their last value, then by silence."""
    last = len(samples) - 1
    start = np.round((time + ANCHORS[anchor]) * SAMPLE_RATE).astype(np.int64)
    first, end = (int(place.clip(0, last)) for place in (start.min(), start.max() + PATCH - 1))
    heard = upload(torch.from_numpy(samples[first : end + 1]), device)
    place = upload(torch.from_numpy(start), device)[:, None] + torch.arange(PATCH, device=device)
    silent = (place < -EDGE) | (place > last + EDGE)
    return heard[place.clamp(0, last) - first].masked_fill(silent, 0)


class SoundEncoder:
    """VGGish over anchored patches. together: several threads call, and fill batches of one shape together."""

    def __init__(
        self,
        located: Located,
        anchor: str,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        together: bool = False,
    ):
        torch.manual_seed(SEED)  # decides the weights of an untrained network, and nothing else
        network = VGG(make_layers(), False)
        if located.trained:
            load_weights(network, located)
        network = network.eval().requires_grad_(False).to(device, dtype, memory_format=torch.channels_last)
        network.features = nn.Sequential(*(Winograd(layer) if pays(layer) else layer for layer in network.features))
        self.network, self.anchor, self.device, self.dtype = network, anchor, device, dtype
        self.batch, self.portion = BATCH[device.type], PORTION[device.type]
        self.gathered = Gathered(self._fill, self.batch) if together else None
        batch = torch.zeros(self.batch, 1, 96, 64, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        self.compute = captured(self._compute, batch) if together else self._compute

    @torch.inference_mode()
    def __call__(self, samples: Sound, time: np.ndarray) -> np.ndarray:
        """Sound (samples,) and frame times (T,) within it → embeddings (T, 128) float16, in one batch, or as the
        patches of other threads leave room."""
        patches = log_mel(cut_patches(samples, time, self.anchor, self.device))
        return np.stack(self.gathered(patches)) if self.gathered else self._embed(patches)

    @torch.inference_mode()
    def _fill(self, rows: list[Tensor]) -> np.ndarray:
        """Embeddings of these log-mel patches, computed in a full batch."""
        batch = torch.stack(rows)
        empty = batch.new_zeros(self.batch - len(rows), *batch.shape[1:])
        return self._embed(torch.cat([batch, empty]))[: len(rows)]

    def _embed(self, log_mels: Tensor) -> np.ndarray:
        patches = log_mels[:, None].to(self.dtype, memory_format=torch.channels_last)
        return self.compute(patches).float().cpu().numpy().astype(np.float16)

    def _compute(self, patches: Tensor) -> Tensor:
        maps = torch.cat([self.network.features(part) for part in patches.split(PART[self.device.type])])
        return self.network.embeddings(maps.permute(0, 2, 3, 1).flatten(1))


class FramedSound:
    """A sound network of transformers with frames of its own rate (wav2vec2, HuBERT, WavLM): a row is the mean of the
    last hidden states of those frames whose middle lies in the 0.96 s that VGGish would hear for it.

    Where the sound ends sooner, of what there is, and at least of the nearest frame. Long sound is encoded in pieces.
    """

    portion = 1024  # frames

    def __init__(self, located: Located, anchor: str, device: torch.device, dtype: torch.dtype):
        from transformers import AutoFeatureExtractor

        network, _ = load_transformer(located, "sound encoder")
        self.network = network.eval().requires_grad_(False).to(device, dtype)
        self.scaled = AutoFeatureExtractor.from_pretrained(located.path, local_files_only=True)
        self.anchor, self.device, self.dtype = ANCHORS[anchor], device, dtype
        self.width = self(np.zeros(SAMPLE_RATE, np.float32), np.zeros(1)).shape[1]

    @torch.inference_mode()
    def __call__(self, samples: Sound, time: np.ndarray) -> np.ndarray:
        """Sound (samples,) and rising frame times (T,) → embeddings (T, width) float16."""
        begin, rows = time + self.anchor, []
        while len(begin):
            count = int(np.searchsorted(begin, begin[0] + PIECE))
            rows.append(self._piece(samples, begin[:count]))
            begin = begin[count:]
        return np.concatenate(rows).astype(np.float16)

    def _piece(self, samples: Sound, begin: np.ndarray) -> np.ndarray:
        length = PATCH / SAMPLE_RATE
        first = max(0, round((begin[0] - MARGIN) * SAMPLE_RATE))
        heard = samples[first : max(first, round((begin[-1] + length + MARGIN) * SAMPLE_RATE))]
        given = self.scaled(
            np.pad(heard, (0, max(0, SHORTEST - len(heard)))), sampling_rate=SAMPLE_RATE, return_tensors="pt"
        )
        given = {n: v.to(self.device, self.dtype if v.is_floating_point() else None) for n, v in given.items()}
        frames = self.network(**given).last_hidden_state[0].float().cpu().numpy()  # (F, width)
        seconds = max(SHORTEST, len(heard)) / SAMPLE_RATE
        middle = first / SAMPLE_RATE + (np.arange(len(frames)) + 0.5) * seconds / len(frames)
        last = np.searchsorted(middle, (first + len(heard)) / SAMPLE_RATE).clip(1)
        low = np.searchsorted(middle, begin).clip(0, last - 1)
        high = np.searchsorted(middle, begin + length).clip(low + 1, last)
        total = np.concatenate([np.zeros((1, frames.shape[1])), np.cumsum(frames, axis=0, dtype=np.float64)])
        return (total[high] - total[low]) / (high - low)[:, None]
