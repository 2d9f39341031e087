"""affuse bench: how fast, beside what, on which machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click

from affuse.console import CONFIG, DEVICE, FILE, FOLDER, JSON, SET, WEIGHTS, Group, answer, say, together
from affuse.errors import UsageError
from affuse.extract.profiles import profile_option

UNTRAINED = click.option("--allow-untrained", is_flag=True, help="Seed a missing visual or audio backbone.")
THREADS = click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: the cores]")
OUT = click.option("--out", type=FILE, help="Also write the facts there, as JSON.")
measuring_options = together(profile_option("offline"), UNTRAINED, THREADS, OUT, WEIGHTS, JSON, CONFIG, SET)


@click.group(cls=Group)
def bench() -> None:
    """Measure on this machine.

    \b
    affuse bench extract --video-dir videos --out speed.json
    affuse bench memory --hours 1 --allow-untrained
    """


@bench.command()
@click.option("--video-dir", type=FOLDER, required=True, help="Folder of videos to measure with.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Medians of so many turns.")
@DEVICE
@measuring_options
def extract(**options) -> None:
    """Extraction, stage by stage and end to end.

    Beside it stands the straightforward composition of the packages.

    \b
    affuse bench extract --video-dir videos --out speed.json
    affuse bench extract --video-dir videos --profile paper --repeats 5 --threads 2
    """
    from affuse.pipelines.bench.extract import bench_extract, describe_bench

    _measure(bench_extract, describe_bench, announce=say, **options)


@bench.command()
@click.option("--hours", default=2.0, show_default=True, help="Length of the video that is made.")
@click.option("--fps", type=click.IntRange(1), default=10, show_default=True, help="Its frames per second.")
@measuring_options
def memory(**options) -> None:
    """Peak memory of extracting a long synthetic video.

    It is measured of a short one too, so as to say what of it comes from the length.

    \b
    affuse bench memory --hours 1 --allow-untrained
    """
    from affuse.pipelines.bench.memory import describe_memory, measure_memory

    _measure(measure_memory, describe_memory, **options)


def _measure(measure: Callable[..., dict], describe: Callable[[dict], str], *, profile, config, assignments,
             threads, out: Path | None, as_json: bool, **options) -> None:  # fmt: skip
    """Find out before hours of measuring whether the facts can be written; then measure, and tell."""
    from dask.system import CPU_COUNT

    from affuse.extract.extraction import extract_settings

    if out:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.open("a").close()
        except OSError as error:
            raise UsageError(f"--out {out} cannot be written: {error.strerror or error}.") from None
    settings = extract_settings(profile, config, assignments)
    facts = measure(settings=settings, threads=threads or CPU_COUNT, **options)
    answer(facts, as_json, describe(facts))
    if out:
        out.write_text(json.dumps(facts, indent=2) + "\n")
