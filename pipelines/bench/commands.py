"""affuse bench: how fast, beside what, on which machine."""

from __future__ import annotations

import json
from pathlib import Path

import click

from affuse.console import CONFIG, FILE, FOLDER, JSON, SET, WEIGHTS, answer, say, together
from affuse.errors import UsageError

PROFILE = click.option("--profile", default="offline", show_default=True, help="Backbones: paper, or offline.")
UNTRAINED = click.option("--allow-untrained", is_flag=True, help="Seed a missing visual or audio backbone.")
THREADS = click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: the cores]")
OUT = click.option("--out", type=FILE, help="Also write the facts there, as JSON.")
measuring_options = together(PROFILE, UNTRAINED, THREADS, OUT, WEIGHTS, JSON, CONFIG, SET)


@click.group()
def bench() -> None:
    """Measure on this machine; results go to a file of their own."""


@bench.command("extract")
@click.option("--video-dir", type=FOLDER, required=True, help="Folder of videos to measure with.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Medians of so many turns.")
@measuring_options
def bench_extract(video_dir, profile, allow_untrained, threads, repeats, out, weights_dir, as_json, config,
                  assignments) -> None:  # fmt: skip
    """Extraction on CPU, stage by stage and end to end, beside the straightforward composition of the packages."""
    from dask.system import CPU_COUNT

    from affuse.extract.extraction import extract_settings
    from affuse.pipelines.bench.extract import bench_extract as measure
    from affuse.pipelines.bench.extract import describe_bench

    _make_room(out)
    facts = measure(
        video_dir, extract_settings(profile, config, assignments), weights_dir, allow_untrained,
        threads or CPU_COUNT, repeats, say,
    )  # fmt: skip
    _tell(facts, describe_bench(facts), out, as_json)


@bench.command("memory")
@click.option("--hours", default=2.0, show_default=True, help="Length of the video that is made.")
@click.option("--fps", type=click.IntRange(1), default=10, show_default=True, help="Its frames per second.")
@measuring_options
def bench_memory(hours, fps, profile, allow_untrained, threads, out, weights_dir, as_json, config,
                 assignments) -> None:  # fmt: skip
    """Peak memory of extracting a long synthetic video, and what of it comes from its length."""
    from dask.system import CPU_COUNT

    from affuse.extract.extraction import extract_settings
    from affuse.pipelines.bench.memory import describe_memory, measure_memory

    _make_room(out)
    facts = measure_memory(
        extract_settings(profile, config, assignments), weights_dir, allow_untrained,
        hours=hours, fps=fps, threads=threads or CPU_COUNT,
    )  # fmt: skip
    _tell(facts, describe_memory(facts), out, as_json)


def _make_room(out: Path | None) -> None:
    """Find out before hours of measuring whether the facts can be written."""
    if out is None:
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.open("a").close()
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror or error}.") from None


def _tell(facts: dict, text: str, out: Path | None, as_json: bool) -> None:
    answer(facts, as_json, text)
    if out:
        out.write_text(json.dumps(facts, indent=2) + "\n")
