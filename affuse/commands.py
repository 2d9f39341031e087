"""The command line: options and help only. Every command is one call into a package, which it imports when it runs.

Results go to stdout, messages to stderr. Exit status: 0 done, 1 the work failed for some input, 2 wrong usage.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from affuse.console import (
    CONFIG,
    DEVICE,
    FILE,
    FOLDER,
    JSON,
    VIEWS,
    WEIGHTS,
    Commands,
    answer,
    completing,
    compute_options,
    one_of,
    say,
    show_progress,
    tell_failures,
    verbose,
)
from affuse.extract.profiles import EXTRACT_SET, profile_option
from affuse.features.commands import features
from affuse.fuse.commands import finish_prediction, fuse
from affuse.fuse.options import EVERY, PRESET, RUNS, SEEDS, SMOOTH, STREAM
from affuse.pipelines.bench.commands import bench
from affuse.pipelines.recipes.commands import recipe
from affuse.pipelines.report.commands import report
from affuse.pipelines.watch.commands import watch
from affuse.version import VERSION

BACKBONES = completing(lambda: import_module("affuse.extract.weights.table").BACKBONES)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="affuse")
def main() -> None:
    """Continuous valence and arousal from video.

    extract keeps frozen features of videos in a store; fuse trains temporal convolutions and recursive joint
    cross-attention over them; predict does both for new videos.

    \b
    affuse demo
    affuse doctor
    affuse extract --video-dir videos --out store
    affuse predict --run run clip.mp4 --out predictions

    Exit status: 0 done, 1 the work failed for some input, 2 wrong usage, 130 stopped.
    """


main.add_command(features)
main.add_command(fuse)
main.add_command(bench)
main.add_command(recipe)
main.add_command(report)
main.add_command(watch)


@main.command(goes_on=True)
@click.option("--video-dir", type=FOLDER, help="Folder of videos, searched at every depth.")
@click.option("--video-list", type=FILE, help="Paths, one a line; or CSV, Parquet: path, id, faces, transcript.")
@click.option("--part", metavar="K/N", help="Only the K-th of N parts of the videos, for a job of an array.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N of those still to extract.")
@click.option("--out", type=FOLDER, required=True, help="Feature store; made, or gone on with.")
@profile_option("paper")
@WEIGHTS
@click.option("--allow-untrained", is_flag=True, help="Seed a missing visual or audio backbone.")
@click.option("--faces-dir", type=FOLDER, help="Given face crops, <video>/<frame:05d>.jpg from 00001.")
@click.option("--transcripts", type=FOLDER, help="Given transcripts, <video>.json, .vtt or .srt.")
@VIEWS
@click.option("--detect-every", type=int, help="Look for faces in every n-th frame.  [default: 4]")
@click.option(
    "--face", shell_complete=one_of("main", "left", "right", "largest", "all"),
    help="Whom to follow: main, left, right, largest, or all, each a record.  [default: main]",
)  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Try videos again that could not be decoded.")
@click.option("--verify", is_flag=True, help="Read what is there from end to end; what is damaged is made anew.")
@compute_options
@JSON
@CONFIG
@EXTRACT_SET
def extract(video_dir, video_list, part, limit, out, profile, weights_dir, allow_untrained, faces_dir, transcripts,
            views, detect_every, face, retry_failed, verify, as_json, config, assignments, **compute):  # fmt: skip
    """Extract the features of a folder of videos into a store.

    What is there already is not made again.

    \b
    affuse extract --video-dir videos --out store
    affuse extract --video-dir videos --out store --profile offline --allow-untrained
    """
    from affuse.extract.extraction import Compute, extract_jobs, extract_settings
    from affuse.extract.lists import given_in
    from affuse.extract.summary import describe
    from affuse.extract.videos import chosen, find_jobs, named_videos

    faces, words = given_in(video_list)
    settings = extract_settings(
        profile, config, assignments, bool(faces or faces_dir), bool(words or transcripts), views, detect_every, face
    )
    jobs = find_jobs(
        named_videos(video_dir, video_list), faces_dir, transcripts,
        on_found=lambda found: show_progress(f"looking for videos: {found} so far", None, False),
    )  # fmt: skip
    summary, _ = extract_jobs(
        chosen(jobs, part), out, settings, weights_dir=weights_dir, allow_untrained=allow_untrained,
        compute=Compute.of(**compute), retry_failed=retry_failed, verify=verify, limit=limit, announce=say,
        progress=show_progress,
    )  # fmt: skip
    answer(summary.as_dict(), as_json, describe(summary))
    tell_failures(summary.failed)
    sys.exit(bool(summary.failed))


@main.command()
@click.argument("which", required=False, type=click.Choice(["extract", "fuse"]), metavar="[extract|fuse]")
@profile_option(None)
@PRESET
@JSON
def settings(which, profile, preset, as_json) -> None:
    """List every setting that --set takes.

    Of extract, of fuse, or of both: value, choices or bounds, and meaning. Values are the defaults, or those of a
    profile or preset.

    \b
    affuse settings extract
    affuse settings fuse --preset rcma
    """
    from affuse.pipelines.settings import listed, table

    found = listed(which, profile, preset)
    answer(found, as_json, table(found))


@main.command(goes_on=True)
@RUNS
@click.option("--out", type=FOLDER, required=True, help="Folder for features, and a CSV and a figure per video.")
@SMOOTH
@EVERY
@STREAM
@click.option("--vtt", is_flag=True, help="Also a WebVTT track of the words, with the values of each cue.")
@click.option("--video", is_flag=True, help="Also an annotated MP4: box, circumplex, words and traces, with the sound.")
@WEIGHTS
@compute_options
@JSON
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
def predict(runs, out, smooth, every, stream, vtt, video, weights_dir, as_json, videos, **compute) -> None:
    """Valence and arousal of new VIDEOS, end to end.

    They are files, folders, and lists (.txt, a path a line; .csv, .parquet with the columns path and id).

    \b
    affuse predict --run run clip.mp4 --out predictions
    affuse predict --run fold0 --run fold1 videos --smooth 1 --video --out predictions
    """
    from affuse.extract.extraction import Compute
    from affuse.pipelines.prediction import predict_videos

    result = predict_videos(
        runs,
        list(videos),
        out,
        Compute.of(**compute),
        smooth,
        every,
        vtt,
        video,
        stream,
        weights_dir=weights_dir,
        announce=say,
        progress=show_progress,
    )
    finish_prediction(result, as_json)


@main.command(goes_on=True)
@click.option("--out", type=FOLDER, default="demo", show_default=True, help="Folder for videos, features and runs.")
@SEEDS
@click.option("--data-seed", default=0, show_default=True, help="Seed of the data set.")
@WEIGHTS
@DEVICE
@JSON
def demo(out, seeds, data_seed, weights_dir, device, as_json) -> None:
    """Make videos, run the whole pipeline on them, print a table.

    Their valence and arousal are known, since they are made of them.

    \b
    affuse demo
    affuse demo --out demo --seeds 0,1,2
    """
    from affuse.pipelines.demo.recipe import run_demo

    facts, text = run_demo(out, seeds, data_seed, device, weights_dir=weights_dir, announce=say, progress=show_progress)
    answer(facts, as_json, text)


@main.command(goes_on=True)
@profile_option(None)
@WEIGHTS
@JSON
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=BACKBONES)
def download(profile, weights_dir, as_json, names) -> None:
    """Fetch weights that are missing.

    Those of a profile (paper, where nothing is named), or of backbones by name. They go into the weights folder where
    one is named, else into the cache folder. Exit 1 where not all could be had.

    \b
    affuse download --profile paper
    affuse download vggish whisper-small.en --weights-dir weights
    """
    from affuse.extract.weights.supply import describe_supply, supply, wanted

    result = supply(wanted(profile, names), weights_dir, say)
    answer(result, as_json, describe_supply(result))
    sys.exit(bool(result["failed"] or result["by_hand"]))


@main.command()
@profile_option(None)
@WEIGHTS
@DEVICE
@click.option("--quick", is_flag=True, help="Without the clip, which takes about ten seconds.")
@JSON
def doctor(profile, weights_dir, device, quick, as_json) -> None:
    """What this machine is ready for, and what it has.

    Libraries, devices, backbones and their licences; -v says where each backbone lies, or is had from. A clip of two
    seconds goes through the profile, or the one that lacks least, with the time of each stage: in seconds of work, on
    all threads together. Nothing is downloaded. Exit 1 where a profile is named that is not ready, or a stage fails.

    \b
    affuse doctor
    affuse doctor --profile offline --weights-dir weights
    affuse doctor --quick -v
    """
    from affuse.extract.networks import extraction_device
    from affuse.extract.rehearsal import describe_rehearsal, rehearse
    from affuse.extract.weights.doctor import readiest, report, surroundings, table, verdicts

    where = extraction_device(device)
    around, backbones = surroundings(weights_dir), report(weights_dir)
    profiles = verdicts(backbones, profile)
    facts: dict[str, Any] = {"profiles": profiles, "environment": around, "backbones": backbones}
    tried, failed = [], False
    if not quick:
        say("A clip of two seconds is on its way; --quick leaves it out.")
        facts["clip"] = clip = rehearse(profile or readiest(profiles), weights_dir, where)
        tried, failed = describe_rehearsal(clip), any(s["state"] == "failed" for s in clip["stages"].values())
    answer(facts, as_json, table(profiles, around, backbones, verbose(), tried))
    sys.exit(failed or (profile is not None and not profiles[profile]["ready"]))
