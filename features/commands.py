"""`affuse features …`: options, help, and what a store holds as text for people. Every command is one call into the
package."""

from __future__ import annotations

import json
import sys

import click
from affuse.features.record import MODALITIES, Status, failure_of
from affuse.features.repair import Quarantined
from affuse.features.store import Verification

from affuse.console import FOLDER, JSON, show_progress, shown

NAMED = 8  # videos with the same reason that are named


def account(info: dict) -> dict:
    """`FeatureStore.info()` with what is missing: "missing" {modality: {status: {"count", "reasons": {reason: [ids]}}}}
    of the videos without its features, and "failed" {id: reason} of those of which nothing could be decoded."""
    missing: dict[str, dict] = {m: {} for m in MODALITIES}
    failed = {}
    for video_id, video in info["videos"].items():
        parts = {m: (video[m]["status"], video[m]["reason"]) for m in MODALITIES}
        for modality, (status, reason) in parts.items():
            if status != Status.OK:
                group = missing[modality].setdefault(status, {"count": 0, "reasons": {}})
                group["count"] += 1
                group["reasons"].setdefault(reason, []).append(video_id)
        if why := failure_of(parts.values()):
            failed[video_id] = why
    return {**info, "missing": missing, "failed": failed}


def describe(facts: dict) -> str:
    """`account` as lines: backbones, a line a video with its statuses, then what is missing, failed or damaged."""
    lines = [f"Settings {facts['settings_hash'][:12]}."]
    for part, b in facts["backbones"].items():
        trained = f"sha256 {b['sha256'][:12]}" if b["trained"] else "UNTRAINED, seeded"
        lines.append(f"  {part:<7} {b['name']}, {b['width']} wide, {shown(b['source'])}, {trained}")
    if views := dict.fromkeys(
        view for video in facts["videos"].values() for view in video["visual"]["views"]
    ):
        lines.append(f"  views   of each face: centre, {', '.join(map(shown, views))}")
    lines.append(f"{len(facts['videos'])} videos.")
    for video_id, video in facts["videos"].items():
        statuses = "  ".join(f"{m} {video[m]['status']} ({video[m]['rows']})" for m in MODALITIES)
        lines.append(f"  {shown(video_id)}: {video['frames']} frames, {video['duration']:.1f} s: {statuses}")
        noted = [m for m in MODALITIES if video[m]["status"] == Status.OK and video[m]["reason"]]
        lines += [f"    {m}: {shown(video[m]['reason'])}" for m in noted]
    for modality, groups in facts["missing"].items():
        if groups:
            lines.append(f"Without {modality} features: {sum(g['count'] for g in groups.values())} videos.")
        for status, group in groups.items():
            lines.append(f"  {status} {group['count']}")
            lines += [f"    {shown(reason)}: {_names(ids)}" for reason, ids in group["reasons"].items()]
    lines += [f"Failed: {shown(video_id)}: {shown(why)}" for video_id, why in facts["failed"].items()]
    lines += [f"Damaged: {_problem(problem)}" for problem in facts["damaged"]]
    if facts["damaged"]:
        lines.append("affuse features repair sets aside what is damaged; affuse extract makes it anew.")
    return "\n".join(lines)


def describe_verification(verification: Verification) -> str:
    """One line for every damaged place, and a count."""
    problems = verification.problems
    lines = [_problem(vars(problem)) for problem in problems]
    summary = (
        "all whole" if not problems else f"{len(problems)} damaged; affuse features repair sets them aside"
    )
    return "\n".join([*lines, f"{verification.checked} videos checked: {summary}."])


def describe_repair(moved: list[Quarantined]) -> str:
    """What was wrong with every shard set aside and where it is now, and a count."""
    if not moved:
        return "All whole: nothing to repair."
    lines = []
    for shard in moved:
        lines += [_problem(vars(problem)) for problem in shard.problems]
        lines.append(f"  moved to {shown(shard.path)}")
    return "\n".join([*lines, f"{len(moved)} set aside. Run affuse extract again: it remakes their videos."])


def _names(ids: list[str]) -> str:
    return ", ".join(map(shown, ids[:NAMED])) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")


def _problem(problem: dict) -> str:
    where = f"{problem['video']}: " if problem["video"] else ""
    dataset = f"{problem['dataset']} " if problem["dataset"] else ""
    return shown(f"{where}{dataset}in {problem['file']}: {problem['reason']}")


@click.group()
def features() -> None:
    """Look at a feature store, check it and repair it."""


@features.command()
@click.argument("store", type=FOLDER)
@JSON
def info(store, as_json) -> None:
    """What a store holds, and what is missing and why. Exit 1 where something is damaged."""
    from affuse.features.commands import account, describe
    from affuse.features.store import FeatureStore

    facts = account(FeatureStore(store).info())
    if as_json:
        text = json.dumps(facts, indent=2, ensure_ascii=False)
        click.echo(text.encode("utf-8", "backslashreplace"))  # a lone surrogate as JSON escapes it
    else:
        click.echo(describe(facts))
    sys.exit(bool(facts["damaged"]))


@features.command()
@click.argument("store", type=FOLDER)
@JSON
def verify(store, as_json) -> None:
    """Read every byte of a store and compare it with its digests. Exit 1 where something is damaged."""
    from dataclasses import asdict

    from affuse.features.commands import describe_verification
    from affuse.features.store import FeatureStore

    verification = FeatureStore(store).verify()
    if as_json:
        click.echo(json.dumps(asdict(verification), indent=2))
    else:
        click.echo(describe_verification(verification))
    sys.exit(bool(verification.problems))


@features.command()
@click.argument("store", type=FOLDER)
@JSON
def repair(store, as_json) -> None:
    """Move what is damaged or misnamed to STORE/quarantine; the next extract makes those videos anew."""
    from dataclasses import asdict

    from affuse.features.commands import describe_repair
    from affuse.features.repair import quarantine
    from affuse.features.store import FeatureStore

    moved = quarantine(FeatureStore(store))
    facts = {"quarantined": [asdict(shard) for shard in moved]}
    click.echo(json.dumps(facts, indent=2) if as_json else describe_repair(moved))


@features.command("import")
@click.argument("store", type=FOLDER)
@click.option("--from", "source", type=FOLDER, required=True, help="Folder of folders visual, audio, text.")
@click.option("--folder", "folders", multiple=True, metavar="MODALITY=NAME", help="A folder of another name.")
@click.option(
    "--rate", "rates", multiple=True, metavar="[MODALITY=]RATE", help="Rows per second without a time."
)
@click.option("--time-column", default="time", show_default=True, help="The column of seconds.")
@click.option(
    "--ignore", multiple=True, metavar="COLUMN", help="A column that is no feature; may be repeated."
)
@JSON
def import_(store, source, folders, rates, time_column, ignore, as_json) -> None:
    """Features computed elsewhere into a store: <modality>/<video>.npy, .npz or .csv; NaN marks missing rows."""
    from affuse.features.importing import describe, import_features, parse_layout

    layout = parse_layout(folders, rates, time_column, ignore)
    result = import_features(source, store, layout, show_progress)
    click.echo(json.dumps(result, indent=2) if as_json else describe(result))
    sys.exit(bool(result["failed"]))


@features.command("export")
@click.argument("store", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder to fill; it must be empty or new.")
@click.option("--format", "kind", default="npz", show_default=True, help="npz, parquet, or abaw3.")
@JSON
def export(store, out, kind, as_json) -> None:
    """Features for other programs: a file per video and modality, or the folders of the ABAW3 and RJCMA code. Of faces
    with several views, the centre."""
    from affuse.features.exporting import export_features
    from affuse.features.store import FeatureStore

    result = export_features(FeatureStore(store), out, kind, show_progress)
    click.echo(
        json.dumps(result, indent=2)
        if as_json
        else f"{result['videos']} videos, {result['files']} files: {out}"
    )
