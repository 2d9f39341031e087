"""How fast a fusion model trains: RJCMA's steps over cached features, beside the release's modules in eager torch.

All sides take their steps in turn in this process, over the same drawn features: windows gathered from float16, through
the network and back, to the optimiser's step.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from affuse.console import Announce
from affuse.device import Precision, pick_device, pick_precision
from affuse.extract.weights.doctor import environment
from affuse.fuse.data.corpus import Corpus, Embeddings
from affuse.fuse.data.windows import Batch, Normalisation, Windows
from affuse.fuse.models.model import build_model
from affuse.fuse.reports.tables import markdown
from affuse.fuse.training.losses import LOSSES
from affuse.pipelines.bench.eager import EagerRJCMA, ccc_loss
from affuse.pipelines.bench.machine import SIDE, matrix_rate, peak, settle

HOP = 200  # frames from window to window
RATE, DECAY = 1e-4, 1e-3  # of the optimisers
TARGETS = ["valence", "arousal"]
WARM = 2  # steps before any is timed: kernels are chosen at the first
GIB = 2**30
Step = Callable[[Batch], Tensor]


def drawn_corpus(widths: dict[str, int], frames: int, device: torch.device) -> Corpus:
    """A video of drawn features and ratings, present and annotated in every frame."""
    rng = np.random.default_rng(0)
    there = torch.ones(frames, dtype=torch.bool, device=device)
    index = torch.arange(1, frames + 1, dtype=torch.int32, device=device)
    rows = {m: rng.standard_normal((frames + 1, d), np.float32) for m, d in widths.items()}
    features = {m: Embeddings(torch.from_numpy(drawn).half().to(device), index) for m, drawn in rows.items()}
    truth = torch.from_numpy(rng.uniform(-1, 1, (frames, len(TARGETS))).astype(np.float32))
    return Corpus(
        ["drawn"],
        TARGETS,
        np.array([0, frames]),
        np.arange(frames) / 25,
        features,
        dict.fromkeys(widths, there),
        truth.to(device),
        there,
    )


def eager_side(widths: dict[str, int], window: int, device: torch.device) -> Step:
    """A step as the release takes it: no masks, float32, Adam tensor by tensor, the loss asked for at every step."""
    model = EagerRJCMA(widths, window).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), RATE, weight_decay=DECAY)

    def step(batch: Batch) -> Tensor:
        loss = ccc_loss(model(batch.inputs), batch.truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()
        return loss

    return step


def own_side(widths: dict[str, int], window: int, device: torch.device, precision: Precision, **settings) -> Step:
    """A step as `affuse fuse train` takes it; settings of the model."""
    model = build_model("rjcma", widths, window=window, **settings).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), RATE, weight_decay=DECAY, fused=True)

    def step(batch: Batch) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            prediction = model(batch.inputs, mask=batch.mask)
        loss = LOSSES["ccc"](prediction, batch.truth, batch.counted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss

    return step


def bench_fuse(
    widths: dict[str, int],
    window: int,
    batch: int,
    steps: int,
    repeats: int,
    threads: int,
    device: str = "auto",
    announce: Announce = lambda text: None,
) -> dict:
    """Measure, `repeats` times in turn, `steps` steps of each side: the release's modules in float32, affuse in float32
    and affuse in bfloat16, which `auto` names where it is the machine's. Raises UsageError for a device that is absent.
    """
    torch.set_num_threads(threads)
    place = pick_device(device)
    auto = pick_precision("auto", place)
    torch.manual_seed(0)
    makers = {
        "eager": partial(eager_side, widths, window, place),
        "float32": partial(own_side, widths, window, place, "float32"),
        "bfloat16": partial(own_side, widths, window, place, "bfloat16"),
    }
    corpus = drawn_corpus(widths, window + (batch * 4 - 1) * HOP, place)
    windows = Windows(corpus, window, HOP, Normalisation.fit(corpus))
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False, allow_tf32=False):
        sides = {name: make() for name, make in makers.items()}
        times: dict[str, list[float]] = {name: [] for name in sides}
        rates: dict[Precision, list[float]] = {"float32": [], "bfloat16": []}
        operations = {name: _operations(step, next(windows.ordered(batch))) for name, step in sides.items()}
        for turn in range(repeats):
            for name, step in sides.items():
                times[name].append(_seconds(step, windows, batch, steps, place))
                announce(f"{name}, {turn + 1} of {repeats}: {times[name][-1]:.3f} s a step")
            for name, found in rates.items():
                found.append(matrix_rate(place, name))
    medians, rate = ({name: statistics.median(found) for name, found in each.items()} for each in (times, rates))
    return {
        "machine": environment(),
        "device": str(place),
        "threads": threads,
        "repeats": repeats,
        "steps": steps,
        "shape": {"widths": widths, "window": window, "batch": batch},
        "auto": auto,
        "operations": {"matrix_side": SIDE[place.type], "matrix_rate": rate},
        "sides": {
            name: {
                "operations": operations[name],
                "seconds_per_step": medians[name],
                "all": taken,
                "ratio": statistics.median(a / b for a, b in zip(times["eager"], taken, strict=True)),
                "matrix_share": operations[name] / medians[name] / rate.get(name, rate["float32"]),
            }
            for name, taken in times.items()
        },
        **({} if (held := peak()) is None else {"peak_gib": held / GIB}),
    }


def _operations(step: Step, batch: Batch) -> int:
    """Of one step, in its convolutions and products: a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        step(batch)
    return counter.get_total_flops()


def _seconds(step: Step, windows: Windows, batch: int, steps: int, device: torch.device) -> float:
    """Of one step, the mean over so many, with the gathering of its windows."""
    batches = _endless(windows, batch)
    for _ in range(WARM):
        step(next(batches))
    settle(device)
    begin = time.perf_counter()
    for _ in range(steps):
        step(next(batches))
    settle(device)
    return (time.perf_counter() - begin) / steps


def _endless(windows: Windows, batch: int) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from windows.shuffled(batch, epoch)
        epoch += 1


def describe_fuse(facts: dict) -> str:
    """The measurement as a Markdown table."""
    there, able, shape = facts["machine"], facts["operations"], facts["shape"]
    rates = ", ".join(f"{rate / 1e12:.2f} TFLOP/s in {name}" for name, rate in able["matrix_rate"].items())
    widths = "/".join(map(str, shape["widths"].values()))
    rows = [
        [
            "the release's modules" if name == "eager" else f"affuse, {name}" + " (auto)" * (name == facts["auto"]),
            f"{side['seconds_per_step']:.3f}",
            f"{side['ratio']:.2f}",
            f"{side['operations'] / 1e9:.0f}",
            f"{side['matrix_share']:.0%}",
        ]
        for name, side in facts["sides"].items()
    ]
    return "\n".join(
        [
            f"{there['cpu']}, {there['cores']} cores, {there['memory']}, GPU {there['gpu']}; Python "
            f"{there['python'].split()[0]}, torch {there['torch']}; on {facts['device']}, {facts['threads']} threads, "
            f"{facts['steps']} steps, medians of {facts['repeats']}.",
            f"RJCMA, {shape['batch']} × {shape['window']} frames, {widths} wide; "
            f"matrices of side {able['matrix_side']} are multiplied at {rates}.",
            "",
            markdown(["side", "s a step", "times as fast", "GFLOP a step", "share of the matrix rate"], rows),
        ]
    )
