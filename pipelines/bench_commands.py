"""affuse bench: how fast, beside what, on which machine."""

from __future__ import annotations

import json

import click

from features.console import CONFIG, FILE, FOLDER, JSON, SET, WEIGHTS, say


@click.group()
def bench() -> None:
    """Measure on this machine; results go to a file of their own."""


@bench.command("extract")
@click.option("--video-dir", type=FOLDER, required=True, help="Folder of videos to measure with.")
@click.option("--profile", default="offline", show_default=True, help="Backbones: paper, or offline.")
@click.option("--allow-untrained", is_flag=True, help="Seed a missing visual or audio backbone.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of both.  [default: the cores]")
@click.option(
    "--repeats", type=click.IntRange(1), default=3, show_default=True, help="Medians of so many turns."
)
@click.option("--out", type=FILE, help="Also write the facts there, as JSON.")
@WEIGHTS
@JSON
@CONFIG
@SET
def bench_extract(video_dir, profile, allow_untrained, threads, repeats, out, weights_dir, as_json, config,
                  assignments) -> None:  # fmt: skip
    """Extraction, stage by stage and end to end, beside the straightforward composition of the same packages."""
    from dask.system import CPU_COUNT

    from pipelines import bench_extract as measurement
    from pipelines.extraction import extract_settings

    facts = measurement.bench_extract(
        video_dir, extract_settings(profile, config, assignments), weights_dir, allow_untrained,
        threads or CPU_COUNT, repeats, say,
    )  # fmt: skip
    text = json.dumps(facts, indent=2)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
    click.echo(text if as_json else measurement.describe_bench(facts))
