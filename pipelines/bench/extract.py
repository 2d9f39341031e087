"""How fast extraction is, beside the straightforward composition of the same packages and weights, in the same run.

Every measurement is a fresh process. Times are taken once the networks are loaded, to the end of the last video.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from affuse.config import merge, resolve
from affuse.console import Announce
from affuse.errors import AffuseError, UsageError
from affuse.extract.media import UndecodableError, probe
from affuse.extract.networks import locate_backbones
from affuse.extract.run import Recipe, process
from affuse.extract.settings import ExtractSettings
from affuse.extract.videos import Job, find_jobs
from affuse.extract.weights.doctor import environment
from affuse.extract.weights.table import BACKBONES
from affuse.features.store import FeatureStore
from affuse.files import file_name
from affuse.fuse.reports.tables import markdown
from affuse.pipelines.bench.straightforward import Straightforward

EVERYWHERE = {"detection": {"short_side": 8192, "min_face": 0.0, "every": 1}}  # as the straightforward detection
FREE = ("short_side", "min_face", "every", "margin")  # of detection, what both sides can do alike
STAGES = ("decode", "detect", "crop", "visual", "audio", "speech", "text")
HALF = 2.0**-10  # relative rounding of float16, twice over


def load_straightforward(recipe: Recipe, folder: Path) -> Callable[[Job], dict[str, float]]:
    """Extracts a video the plain way, in this process; arrays go to `folder`/<video>.npz. Gives seconds by stage."""
    torch.set_num_threads(recipe.threads)
    located = locate_backbones(recipe.settings, recipe.weights_dir, recipe.allow_untrained)
    plain = Straightforward(located, recipe.settings.detection.margin)

    def extract(job: Job) -> dict[str, float]:
        arrays, seconds = plain(job.path)
        np.savez(folder / f"{file_name(job.id)}.npz", **arrays)
        return seconds

    return extract


def load_affuse(recipe: Recipe, folder: Path) -> Callable[[Job], dict[str, float]]:
    """Extracts a video into a store at `folder`, in this process. Gives seconds by stage."""
    extractor, store = recipe.extractor(), FeatureStore(folder, create=True)
    extractor.load()

    def extract(job: Job) -> dict[str, float]:
        receipt = process(job, extractor, store)
        if receipt.failure is not None:
            raise AffuseError(receipt.failure)
        return receipt.seconds

    return extract


def measure(load: Callable, video_dir: Path, recipe: Recipe, folder: Path) -> dict:
    """What extracting every video takes, in this process, with what `load` gives."""
    begin = time.perf_counter()
    extract = load(recipe, folder)
    loaded = time.perf_counter()
    stages: Counter[str] = Counter()
    for job in find_jobs(video_dir):
        stages.update(extract(job))
    now = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB; Linux counts KiB
    return {"seconds": now - loaded, "with_loading": now - begin, "stages": dict(stages), "peak_gib": peak}


def bench_extract(
    video_dir: Path,
    settings: ExtractSettings,
    weights_dir: Path | None,
    allow_untrained: bool,
    threads: int,
    repeats: int = 3,
    announce: Announce = lambda text: None,
) -> dict:
    """Measure, `repeats` times in turn: the straightforward composition, affuse as `settings` say, and affuse looking
    for faces in every full frame as the first does.

    All on the CPU, in float32. Raises UsageError for settings that the straightforward composition does not follow,
    and videos without pictures or sound.
    """
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
                recipe = Recipe(chosen, weights, allow_untrained, "cpu", threads)
                folders[name] = Path(tempfile.mkdtemp(dir=private))
                with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                    runs[name].append(fresh.submit(measure, load, video_dir, recipe, folders[name]).result())
                announce(f"{name}, {turn + 1} of {repeats}: {runs[name][-1]['seconds']:.1f} s")
        jobs = find_jobs(video_dir)
        plain = [dict(np.load(folders["straightforward"] / f"{file_name(job.id)}.npz")) for job in jobs]
        agreement = {
            name: agree(plain, [FeatureStore(folders[name])[job.id] for job in jobs])
            for name in sides
            if name != "straightforward"
        }
    return _conclude(runs, agreement, plain, threads, settings)


def _refuse_what_the_peer_does_not_do(settings: ExtractSettings) -> None:
    as_usual = ExtractSettings(backbones=settings.backbones, precision="float32")
    detection = {key: getattr(settings.detection, key) for key in FREE}
    comparable = as_usual.model_copy(update={"detection": as_usual.detection.model_copy(update=detection)})
    differing = [key for key, value in settings if value != getattr(comparable, key)]
    if differing:
        raise UsageError(
            "The benchmark compares all modalities in float32, extracted in the one way that both sides have: leave "
            f"{', '.join(differing)} as usual. Backbones may be chosen, and detection's {', '.join(FREE)}."
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
        raise UsageError(f"The benchmark compares all modalities, and {job.path} lacks pictures or sound.")


def agree(plain: list[dict], ours: list) -> dict:
    """How the same videos' features agree.

    visual: median, 5th percentile of the cosine over frames with a face in both, how many frames, and the part of
    them that is equal within float16 rounding; audio, text: the part of all values that is. 1 where nothing is there to
    differ.
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
    same_words = [list(one["words"]) == list(other.text.word) for one, other in zip(plain, ours, strict=True)]
    return {
        "visual": {
            "frames": frames,
            "detected": detected,
            "in_both": len(cosine),
            "median_cosine": float(np.median(cosine)) if len(cosine) else 1.0,
            "cosine_5th_percentile": float(np.percentile(cosine, 5)) if len(cosine) else 1.0,
            "frames_equal": float(_close(a, b).all(axis=1).mean()) if len(cosine) else 1.0,
        },
        "audio_equal": _part_close([(one["audio"], o.audio.embedding) for one, o in zip(plain, ours, strict=True)]),
        "words_equal": all(same_words),
        "text_equal": _part_close(
            [(one["text"], o.text.embedding) for one, o, same in zip(plain, ours, same_words, strict=True) if same]
        ),
    }


def _close(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equal within float16 rounding: of the value, or of the size of the row's values where it is smaller."""
    typical = np.abs(a).mean(axis=1, keepdims=True)
    return np.abs(a - b) <= 2 * HALF * np.maximum(np.abs(a), typical)


def _part_close(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """1 where there are no values to differ."""
    values = [_close(a, b.astype(float)).ravel() for a, b in pairs]
    return float(np.concatenate(values).mean()) if any(map(len, values)) else 1.0


def _conclude(runs: dict, agreement: dict, plain: list[dict], threads: int, settings: ExtractSettings) -> dict:
    sides = {}
    for name, repeats in runs.items():
        sides[name] = {
            key: statistics.median(run[key] for run in repeats) for key in ("seconds", "with_loading", "peak_gib")
        }
        sides[name]["all_seconds"] = [run["seconds"] for run in repeats]
        sides[name]["stages"] = {
            stage: statistics.median(run["stages"].get(stage, 0.0) for run in repeats) for stage in STAGES
        }
    peer = runs["straightforward"]
    for name in agreement:
        for key, ratio in (("seconds", "ratio"), ("with_loading", "ratio_with_loading")):
            turns = [one[key] / other[key] for one, other in zip(peer, runs[name], strict=True)]
            sides[name][ratio] = statistics.median(turns)
        sides[name]["agreement"] = agreement[name]
    return {
        "machine": environment(),
        "threads": threads,
        "repeats": len(peer),
        "videos": len(plain),
        "frames": sum(len(one["valid"]) for one in plain),
        "settings": settings.model_dump(mode="json"),
        "sides": sides,
    }


def describe_bench(facts: dict) -> str:
    """The measurement as a Markdown table: seconds per stage, end to end, ratio, agreement."""
    sides, here = facts["sides"], facts["machine"]
    lines = [
        f"{here['cpu']}, {here['cores']} cores, {here['memory']}, GPU {here['gpu']}; Python "
        f"{here['python'].split()[0]}, torch {here['torch']}; {facts['threads']} threads, {facts['videos']} videos, "
        f"{facts['frames']} frames, medians of {facts['repeats']}.",
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
    ):
        rows.append([name, *(f"{side[key]:.{digits}f}" if key in side else "1" for side in sides.values())])
    lines += [markdown(["seconds", *sides], rows), ""]
    for name, side in sides.items():
        if "agreement" in side:
            same = side["agreement"]
            visual, words = same["visual"], "the same" if same["words_equal"] else "different"
            lines.append(
                f"{name}: cosine of face embeddings with the straightforward ones: median {visual['median_cosine']:.4f}"
                f", 5th percentile {visual['cosine_5th_percentile']:.4f}, over {visual['in_both']} frames detected by "
                f"both; equal within float16 rounding are {visual['frames_equal']:.1%} of these frames, "
                f"{same['audio_equal']:.2%} of sound values and {same['text_equal']:.2%} of text values; words {words}."
            )
    return "\n".join(lines)
