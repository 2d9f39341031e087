"""The same features as an unbatched computation straight from the packages, on real talking-head clips.

One frame, one face, one patch, one sentence at a time; Whisper and BERT with real weights.
"""

import warnings
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import whisper
from facenet_pytorch import MTCNN
from torchvggish import vggish_input
from torchvggish.torchvggish import VGG, make_layers
from torchvision.transforms.functional import resize
from transformers import AutoModel, AutoTokenizer

from affuse.extract.extractor import Extractor
from affuse.extract.networks import locate_backbones
from affuse.extract.profiles import PROFILES
from affuse.extract.settings import ExtractSettings
from affuse.extract.videos import Job
from affuse.extract.visual import build
from affuse.extract.weights.locate import locate
from affuse.features.record import VideoFeatures

pytestmark = pytest.mark.weights
HALF = 2**-10  # relative rounding of float16
CLIPS = ("talking-2.mp4", "two-faces-12fps.mp4")


@pytest.fixture(scope="module", params=CLIPS)
def pair(request) -> tuple[Path, VideoFeatures]:
    folder = Path(__file__).resolve().parents[2] / "shared" / "clips"
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder}")
    settings = ExtractSettings(backbones=PROFILES["offline"], detection={"every": 1})
    extractor = Extractor(settings, locate_backbones(settings, None, True), torch.device("cpu"))
    path = folder / request.param
    return path, extractor(Job(path.stem, path.name, path))[0]


def pictures(path: Path) -> list[tuple[float, av.VideoFrame]]:
    with av.open(str(path)) as container:
        return [(frame.time, frame) for frame in container.decode(video=0)]


def sound(path: Path) -> np.ndarray:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=16_000)
    with av.open(str(path)) as container:
        blocks = [o.to_ndarray()[0] for frame in container.decode(audio=0) for o in resampler.resample(frame)]
    return np.concatenate([*blocks, *(o.to_ndarray()[0] for o in resampler.resample(None))])


@torch.inference_mode()
def test_faces(pair):
    path, video = pair
    network = build(locate("resnet50-imagenet-caffe", allow_untrained=True)).eval()
    frames = pictures(path)
    np.testing.assert_allclose(video.visual.time, [time for time, _ in frames], atol=1e-9)
    mean = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    same = 0
    checked = range(0, len(frames), 8)
    for index in checked:
        frame = frames[index][1]
        scale = min(1, 360 / min(frame.width, frame.height))
        size = round(frame.width * scale), round(frame.height * scale)
        small = frame.to_image(width=size[0], height=size[1], interpolation="AREA")
        detector = MTCNN(keep_all=True, min_face_size=max(20, round(0.1 * min(size))))
        boxes, _ = detector.detect(small)
        full = min(frame.width, frame.height) / min(size)
        left, top, right, bottom = boxes[0].astype(float) * full  # the largest face
        np.testing.assert_allclose(video.visual.box[index], [left, top, right, bottom], atol=0.05)
        side = round(max(right - left, bottom - top) * 1.3)
        x, y = round((left + right - side) / 2), round((top + bottom - side) / 2)
        picture = np.pad(frame.to_ndarray(format="rgb24"), ((side, side), (side, side), (0, 0)), mode="edge")
        face = torch.from_numpy(picture[y + side : y + 2 * side, x + side : x + 2 * side].copy()).permute(
            2, 0, 1
        )
        pixels = resize(face.float(), [224, 224], antialias=True).flip(0) - mean
        expected = network(pixels[None])[0].numpy()
        difference = np.abs(video.visual.embedding[index] - expected) / (
            np.abs(expected) + np.abs(expected).mean()
        )
        same += difference.max() < 4 * HALF
    # A box that falls on a half may round to the neighbouring pixel.
    assert same >= len(checked) - 1


@torch.inference_mode()
def test_sound(pair):
    path, video = pair
    torch.manual_seed(0)
    network = VGG(make_layers(), False).eval()
    samples = np.pad(np.pad(sound(path), (0, 16_000), mode="edge"), (0, 16_000))
    for index in range(0, len(video.audio.time), 16):
        start = round(video.audio.time[index] * 16_000)
        patch = vggish_input.waveform_to_examples(samples[start : start + 15_600], 16_000)[:1]
        expected = network(patch)[0].numpy()
        np.testing.assert_allclose(video.audio.embedding[index], expected, rtol=2 * HALF, atol=1e-5)


@torch.inference_mode()
def test_words(pair, tmp_path):
    path, video = pair
    checkpoint = torch.load(locate("whisper-tiny.en").path, weights_only=True)
    model = whisper.model.Whisper(whisper.model.ModelDimensions(**checkpoint["dims"]))
    model.load_state_dict(checkpoint["model_state_dict"])
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS["tiny.en"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = whisper.transcribe(
            model.eval(), sound(path), word_timestamps=True, fp16=False, language="en"
        )
    words = [w for segment in result["segments"] for w in segment["words"]]
    assert list(video.text.word) == [w["word"].strip() for w in words]
    np.testing.assert_allclose(video.text.start, [w["start"] for w in words], atol=0.021)

    folder = str(locate("minilm-l6").path)
    tokenizer, bert = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    row = 0
    for sentence in split(list(video.text.word)):
        tokens = tokenizer(" ".join(sentence), return_tensors="pt")
        hidden = bert(**tokens, output_hidden_states=True).hidden_states[-4:]
        pieces = torch.stack(hidden).sum(0)[0, 1:-1]
        for word in sentence:
            count = len(tokenizer.tokenize(word))
            expected = pieces[:count].mean(0).numpy()
            np.testing.assert_allclose(video.text.embedding[row], expected, rtol=4 * HALF, atol=4e-3)
            pieces, row = pieces[count:], row + 1
    assert row == len(video.text.word) > 10


def split(words: list[str]) -> list[list[str]]:
    sentences, sentence = [], []
    for word in words:
        sentence.append(word)
        if word[-1] in ".?!":
            sentences.append(sentence)
            sentence = []
    return [*sentences, sentence] if sentence else sentences


def test_what_is_said(pair):
    path, video = pair
    said = {"talking-2.mp4": "my own dreams", "two-faces-12fps.mp4": "two years of negotiations"}
    assert said[path.name] in video.transcript.lower()
