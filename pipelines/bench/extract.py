"""How fast extraction is, beside the straightforward composition of the same packages and weights, in the same run.

Every measurement is a fresh process. Times are taken once the networks are loaded, to the end of the last video; a GPU
has extracted the first video by then, since kernels are loaded at their first use.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from affuse.config import merge, resolve
from affuse.console import Announce
from affuse.errors import AffuseError, UsageError, counted
from affuse.extract.media import UndecodableError, probe
from affuse.extract.networks import extraction_device, locate_backbones
from affuse.extract.run import Recipe, here
from affuse.extract.settings import ExtractSettings
from affuse.extract.videos import Job, find_jobs
from affuse.extract.weights.doctor import environment
from affuse.extract.weights.table import BACKBONES
from affuse.features.parts import MODALITIES
from affuse.features.store import FeatureStore
from affuse.files import file_name
from affuse.fuse.reports.tables import markdown
from affuse.pipelines.bench.machine import capacity, gpu_peak, peak
from affuse.pipelines.bench.straightforward import Straightforward

EVERYWHERE = {"detection": {"short_side": 8192, "min_face": 0.0, "every": 1}}  # as the straightforward detection
GIB = 2**30
FREE = ("short_side", "min_face", "every", "margin")  # of detection, what both sides can do alike
STAGES = ("decode", "detect", "crop", "visual", "audio", "speech", "text")
HALF = 2.0**-10  # relative rounding of float16, twice over
Work = Callable[[list[Job]], Iterator[dict[str, float]]]  # extracts videos, and gives of each its seconds by stage


def load_straightforward(recipe: Recipe, folder: Path) -> Work:
    """Extracts videos the plain way, in this process; arrays go to `folder`/<video>.npz."""
    torch.set_num_threads(recipe.threads)
    located = locate_backbones(recipe.settings, recipe.weights_dir, recipe.allow_untrained)
    device = extraction_device(recipe.device)
    plain = Straightforward(located, recipe.settings.detection.margin, device, recipe.settings.precision)

    def extract(jobs: list[Job]) -> Iterator[dict[str, float]]:
        for job in jobs:
            arrays, seconds = plain(job.path)
            np.savez(folder / f"{file_name(job.id)}.npz", **arrays)
            yield seconds

    return extract


def load_affuse(recipe: Recipe, folder: Path) -> Work:
    """Extracts videos into a store at `folder`, in this process, as many at once as the device is for."""
    extractor, store = recipe.extractor(), FeatureStore(folder, create=True)
    extractor.load()
    engine = here(extractor, store)

    def extract(jobs: list[Job]) -> Iterator[dict[str, float]]:
        for receipt in engine(jobs):
            if receipt.failure is not None:
                raise AffuseError(receipt.failure)
            yield receipt.seconds

    return extract


def measure(load: Callable[[Recipe, Path], Work], video_dir: Path, recipe: Recipe, folder: Path) -> dict:
    """What extracting every video takes, in this process, with what `load` gives."""
    begin = time.perf_counter()
    extract, jobs = load(recipe, folder), find_jobs(video_dir)
    if recipe.device != "cpu":
        list(extract(jobs[:1]))
    loaded = time.perf_counter()
    stages: Counter[str] = Counter()
    for seconds in extract(jobs):
        stages.update(seconds)
    now = time.perf_counter()
    peaks = {"peak_gib": peak(), "gpu_peak_gib": gpu_peak(recipe.device)}
    held = {name: held / GIB for name, held in peaks.items() if held is not None}
    return {"seconds": now - loaded, "with_loading": now - begin, "stages": dict(stages), **held}


def bench_extract(
    video_dir: Path,
    settings: ExtractSettings,
    weights_dir: Path | None,
    allow_untrained: bool,
    threads: int,
    repeats: int = 3,
    device: str = "auto",
    announce: Announce = lambda text: None,
) -> dict:
    """Measure, `repeats` times in turn: the straightforward composition, affuse as `settings` say, and affuse looking
    for faces in every full frame as the first does.

    All on one device and in one precision: float32, unless `settings` name another. Raises UsageError for a device that
    is absent, settings that the straightforward composition does not follow, and videos without pictures or sound.
    """
    device = str(extraction_device(device))
    if settings.precision == "auto":
        settings = settings.model_copy(update={"precision": "float32"})
    _refuse_what_the_peer_does_not_do(settings)
    for job in find_jobs(video_dir):
        _refuse_what_cannot_be_compared(job)
    full = resolve(ExtractSettings, merge(settings.model_dump(mode="json"), EVERYWHERE))
    weights = weights_dir.resolve() if weights_dir else None
    sides = {"straightforward": (load_straightforward, settings), "affuse": (load_affuse, settings),
             "affuse, every full frame": (load_affuse, full)}  # fmt: skip
    runs: dict[str, list[dict]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory(prefix="affuse-bench-") as private:
        folders = {}
        for turn in range(repeats):
            for name, (load, chosen) in sides.items():
                recipe = Recipe(chosen, weights, allow_untrained, device, threads)
                folders[name] = Path(tempfile.mkdtemp(dir=private))
                runs[name].append(_afresh(measure, load, video_dir, recipe, folders[name]))
                announce(f"{name}, {turn + 1} of {repeats}: {runs[name][-1]['seconds']:.1f} s")
        able = _afresh(capacity, recipe)
        jobs = find_jobs(video_dir)
        plain = [dict(np.load(folders["straightforward"] / f"{file_name(job.id)}.npz")) for job in jobs]
        agreement = {
            name: agree(plain, [FeatureStore(folders[name])[job.id] for job in jobs])
            for name in sides
            if name != "straightforward"
        }
    return {
        "machine": environment(),
        "device": device,
        "threads": threads,
        "repeats": repeats,
        "videos": len(plain),
        "frames": sum(len(one["valid"]) for one in plain),
        "settings": settings.model_dump(mode="json"),
        "operations": able,
        "sides": _conclude(runs, agreement, able),
    }


def _afresh(function: Callable[..., dict], *given) -> dict:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *given).result()


def _refuse_what_the_peer_does_not_do(settings: ExtractSettings) -> None:
    modalities = ("visual", "audio") if settings.modalities == ("visual", "audio") else MODALITIES
    as_usual = ExtractSettings(backbones=settings.backbones, precision=settings.precision, modalities=modalities)
    detection = {key: getattr(settings.detection, key) for key in FREE}
    comparable = as_usual.model_copy(update={"detection": as_usual.detection.model_copy(update=detection)})
    differing = [key for key, value in settings if value != getattr(comparable, key)]
    if differing:
        raise UsageError(
            f"The benchmark compares what both sides extract in one way: leave {', '.join(differing)} as usual. "
            f"Backbones and precision may be chosen, detection's {', '.join(FREE)}, and modalities=[visual,audio]."
        )
    for part, name in settings.backbones:
        if name not in BACKBONES and not (part == "text" and name.startswith("hf:")):
            raise UsageError(
                f"The straightforward composition has no {part} backbone {name!r}: choose one of affuse's own (affuse "
                "doctor lists them), or of transformers for text."
            )


def _refuse_what_cannot_be_compared(job: Job) -> None:
    try:
        media = probe(job.path)
    except UndecodableError as error:
        raise UsageError(f"The benchmark compares what can be decoded: {error}") from None
    if not (media.has_video and media.has_audio):
        raise UsageError(f"The benchmark compares faces and sound, and {job.path} lacks pictures or sound.")


def agree(plain: list[dict], ours: list) -> dict:
    """How the same videos' features agree.

    visual: median, 5th percentile of the cosine over frames with a face in both, how many frames, and the part of
    them that is equal within float16 rounding; audio, text: the part of all values that is. 1 where nothing is there to
    differ. Words and text only where they were extracted.
    """
    pairs = []
    for one, other in zip(plain, ours, strict=True):
        both = one["valid"] & other.visual.valid
        pairs.append((one["visual"][both], other.visual.embedding[both].astype(float)))
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    frames = sum(len(one["valid"]) for one in plain)
    detected = {"straightforward": sum(int(one["valid"].sum()) for one in plain),
                "affuse": sum(int(other.visual.valid.sum()) for other in ours)}  # fmt: skip
    made = {
        "visual": {
            "frames": frames,
            "detected": detected,
            "in_both": len(cosine),
            "median_cosine": float(np.median(cosine)) if len(cosine) else 1.0,
            "cosine_5th_percentile": float(np.percentile(cosine, 5)) if len(cosine) else 1.0,
            "frames_equal": float(_close(a, b).all(axis=1).mean()) if len(cosine) else 1.0,
        },
        "audio_equal": _part_close([(one["audio"], o.audio.embedding) for one, o in zip(plain, ours, strict=True)]),
    }
    if not all("words" in one for one in plain):
        return made
    same_words = [list(one["words"]) == list(other.text.word) for one, other in zip(plain, ours, strict=True)]
    same = zip(plain, ours, same_words, strict=True)
    texts = [(one["text"], other.text.embedding) for one, other, equal in same if equal]
    return made | {"words_equal": all(same_words), "text_equal": _part_close(texts)}


def _close(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equal within float16 rounding: of the value, or of the size of the row's values where it is smaller."""
    typical = np.abs(a).mean(axis=1, keepdims=True)
    return np.abs(a - b) <= 2 * HALF * np.maximum(np.abs(a), typical)


def _part_close(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """1 where there are no values to differ."""
    values = [_close(a, b.astype(float)).ravel() for a, b in pairs]
    return float(np.concatenate(values).mean()) if any(map(len, values)) else 1.0


def _conclude(runs: dict, agreement: dict, able: dict) -> dict:
    """The sides of the comparison by name: medians, seconds by stage, how many times as fast, the same features or not.

    matrix_share: what the visual network's operations are of those that the matrix units do from begin to end.
    """
    sides = {}
    detected = next(iter(agreement.values()))["visual"]["detected"]["straightforward"]
    for name, repeats in runs.items():
        side = {
            key: statistics.median(run[key] for run in repeats)
            for key in ("seconds", "with_loading", "peak_gib", "gpu_peak_gib")
            if key in repeats[0]
        }
        side["all_seconds"] = [run["seconds"] for run in repeats]
        side["stages"] = {
            stage: statistics.median(run["stages"].get(stage, 0.0) for run in repeats) for stage in STAGES
        }
        faces = agreement[name]["visual"]["detected"]["affuse"] if name in agreement else detected
        side["matrix_share"] = faces * able["face"] / side["seconds"] / able["matrix_rate"]
        sides[name] = side
    for name in agreement:
        for key, ratio in (("seconds", "ratio"), ("with_loading", "ratio_with_loading")):
            turns = [one[key] / other[key] for one, other in zip(runs["straightforward"], runs[name], strict=True)]
            sides[name][ratio] = statistics.median(turns)
        sides[name]["agreement"] = agreement[name]
    return sides


def describe_bench(facts: dict) -> str:
    """The measurement as a Markdown table: seconds per stage, end to end, ratio, agreement."""
    sides, there, able = facts["sides"], facts["machine"], facts["operations"]
    lines = [
        f"{there['cpu']}, {there['cores']} cores, {there['memory']}, GPU {there['gpu']}; Python "
        f"{there['python'].split()[0]}, torch {there['torch']}; {facts['threads']} threads, "
        f"{counted(facts['videos'], 'video')}, {counted(facts['frames'], 'frame')}, medians of {facts['repeats']}.",
        f"On {facts['device']} in {facts['settings']['precision']}: a face takes {able['face'] / 1e9:.1f} GFLOP, and "
        f"matrices of side {able['matrix_side']} are multiplied at {able['matrix_rate'] / 1e12:.2f} TFLOP/s.",
        "",
    ]
    stages = {f"{stage}, work on all threads": [side["stages"][stage] for side in sides.values()] for stage in STAGES}
    rows = [[name, *(f"{seconds:.1f}" for seconds in row)] for name, row in stages.items()]
    for name, key, digits in (
        ("**end to end**", "seconds", 1),
        ("with loading", "with_loading", 1),
        ("**times as fast**", "ratio", 2),
        ("times as fast with loading", "ratio_with_loading", 2),
        ("peak memory, GiB", "peak_gib", 2),
        ("peak GPU memory, GiB", "gpu_peak_gib", 2),
        ("faces' share of the matrix rate", "matrix_share", 3),
    ):
        if any(key in side for side in sides.values()):
            rows.append([name, *(f"{side[key]:.{digits}f}" if key in side else "1" for side in sides.values())])
    lines += [markdown(["seconds", *sides], rows), ""]
    for name, side in sides.items():
        if "agreement" in side:
            same = side["agreement"]
            visual = same["visual"]
            line = (
                f"{name}: cosine of face embeddings with the straightforward ones: median {visual['median_cosine']:.4f}"
                f", 5th percentile {visual['cosine_5th_percentile']:.4f}, over {visual['in_both']} frames detected by "
                f"both; equal within float16 rounding are {visual['frames_equal']:.1%} of these frames, "
                f"{same['audio_equal']:.2%} of sound values"
            )
            if "text_equal" in same:
                words = "the same" if same["words_equal"] else "different"
                line += f", {same['text_equal']:.2%} of text values; words {words}"
            lines.append(line + ".")
    return "\n".join(lines)
