"""affuse bench: how fast, beside what, on which machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click

from affuse.console import CONFIG, DEVICE, FILE, FOLDER, JSON, WEIGHTS, Group, answer, say, together
from affuse.errors import UsageError
from affuse.extract.profiles import EXTRACT_SET, profile_option

UNTRAINED = click.option("--allow-untrained", is_flag=True, help="Seed a missing visual or audio backbone.")
THREADS = click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: the cores]")
REPEATS = click.option(
    "--repeats", type=click.IntRange(1), default=3, show_default=True, help="Medians of so many turns."
)
OUT = click.option("--out", type=FILE, help="Also write the facts there, as JSON.")
measuring_options = together(profile_option("paper"), UNTRAINED, THREADS, OUT, WEIGHTS, JSON, CONFIG, EXTRACT_SET)


@click.group(cls=Group)
def bench() -> None:
    """Measure on this machine.

    \b
    affuse bench extract --video-dir videos --out speed.json
    affuse bench memory --hours 1 --profile offline --allow-untrained
    """


@bench.command()
@click.option("--video-dir", type=FOLDER, required=True, help="Folder of videos to measure with.")
@REPEATS
@DEVICE
@measuring_options
def extract(**options) -> None:
    """Extraction, stage by stage and end to end.

    Beside it stands the straightforward composition of the packages.

    \b
    affuse bench extract --video-dir videos --out speed.json
    affuse bench extract --video-dir videos --profile offline --allow-untrained --repeats 5 --threads 2
    """
    from affuse.pipelines.bench.extract import bench_extract, describe_bench

    _measure_extraction(bench_extract, describe_bench, announce=say, **options)


@bench.command()
@click.option("--hours", default=2.0, show_default=True, help="Length of the video that is made.")
@click.option("--fps", type=click.IntRange(1), default=10, show_default=True, help="Its frames per second.")
@measuring_options
def memory(**options) -> None:
    """Peak memory of extracting a long synthetic video.

    It is measured of a short one too, so as to say what of it comes from the length.

    \b
    affuse bench memory --hours 1 --profile offline --allow-untrained
    """
    from affuse.pipelines.bench.memory import describe_memory, measure_memory

    _measure_extraction(measure_memory, describe_memory, **options)


@bench.command()
@click.option("--widths", default="512,128,768", show_default=True, help="Of the visual, audio and text features.")
@click.option("--window", type=click.IntRange(2), default=300, show_default=True, help="Frames of a window.")
@click.option("--batch", type=click.IntRange(1), default=12, show_default=True, help="Windows of a step.")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Steps of a turn.")
@REPEATS
@DEVICE
@THREADS
@OUT
@JSON
def fuse(widths: str, **options) -> None:
    """Steps of training RJCMA beside the modules of its release.

    \b
    affuse bench fuse --out fuse.json
    """
    from affuse.pipelines.bench.fuse import bench_fuse, describe_fuse

    given = widths.split(",")
    if len(given) != 3 or not all(width.isdecimal() and int(width) for width in given):
        raise UsageError(f"--widths {widths} is not three whole numbers, for example 512,128,768.")
    named = dict(zip(("visual", "audio", "text"), map(int, given), strict=True))
    _measure(bench_fuse, describe_fuse, widths=named, announce=say, **options)


def _measure_extraction(measure, describe, *, profile, config, assignments, **options) -> None:
    from affuse.extract.extraction import extract_settings

    _measure(measure, describe, settings=extract_settings(profile, config, assignments), **options)


def _measure(measure: Callable[..., dict], describe: Callable[[dict], str], *, threads, out: Path | None,
             as_json: bool, **options) -> None:  # fmt: skip
    """Find out before hours of measuring whether the facts can be written; then measure, and tell."""
    from dask.system import CPU_COUNT

    if out:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.open("a").close()
        except OSError as error:
            raise UsageError(f"--out {out} cannot be written: {error.strerror or error}.") from None
    facts = measure(threads=threads or CPU_COUNT, **options)
    answer(facts, as_json, describe(facts))
    if out:
        out.write_text(json.dumps(facts, indent=2) + "\n")
