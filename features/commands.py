"""`affuse features …`: options and help, each command one call into the package, and below them its facts as text."""

from __future__ import annotations

import sys
from dataclasses import asdict
from itertools import islice

import click

from affuse.console import FOLDER, JSON, Group, answer, one_of, show_progress, shown, warn
from affuse.errors import counted, listed
from affuse.features import columns
from affuse.features.parts import MODALITIES, Status
from affuse.features.record import failure_of

LISTED = 1000  # videos that `info` has a line for


@click.group(cls=Group)
def features() -> None:
    """Look at a feature store, check it and repair it.

    \b
    affuse features info store
    affuse features verify store
    """


@features.command()
@click.argument("store", type=FOLDER)
@JSON
def info(store, as_json) -> None:
    """What a store holds, and what is missing and why.

    Exit 1 where something is damaged.

    \b
    affuse features info store
    affuse features info store --json
    """
    from affuse.features.facts import no_search_for_cycles
    from affuse.features.store import FeatureStore

    with no_search_for_cycles():
        facts = account(FeatureStore(store).info())
        answer(facts, as_json, describe(facts))
    sys.exit(bool(facts["damaged"]))


@features.command()
@click.argument("store", type=FOLDER)
@click.option("--sample", default="100%", show_default=True, metavar="PERCENT", help="Read a share of the videos.")
@click.option("--seed", default=0, show_default=True, help="Which ones a share has.")
@click.option("--reindex", is_flag=True, help="Make the store's index anew first.")
@JSON
def verify(store, sample, seed, reindex, as_json) -> None:
    """Read every byte of a store and compare it with its digests.

    On all cores. Exit 1 where something is damaged.

    \b
    affuse features verify store
    affuse features verify store --sample 1%
    """
    from dask.system import CPU_COUNT

    from affuse.features.store import FeatureStore
    from affuse.features.verification import share_of

    opened = FeatureStore(store)
    if reindex:
        opened.reindex()
    facts = asdict(opened.verify(share_of(sample), seed, CPU_COUNT, show_progress))
    answer(facts, as_json, describe_verification(facts, seed))
    sys.exit(bool(facts["problems"]))


@features.command()
@click.argument("store", type=FOLDER)
@JSON
def repair(store, as_json) -> None:
    """Set aside what is damaged or misnamed.

    It is moved to STORE/quarantine; the next extract makes those videos anew.

    \b
    affuse features repair store
    """
    from affuse.features.repair import quarantine
    from affuse.features.store import FeatureStore

    moved = quarantine(FeatureStore(store))
    facts = {"quarantined": [asdict(shard) for shard in moved]}
    answer(facts, as_json, describe_repair(facts))


@features.command(goes_on=True)
@click.argument("store", type=FOLDER)
@JSON
def pack(store, as_json) -> None:
    """Put the files of a store into few large ones.

    Packs of 256 MiB or 1,000 records at most, in STORE/packs. All commands read them as they read files.

    \b
    affuse features pack store
    """
    from affuse.features.packing import pack as pack_store
    from affuse.features.store import FeatureStore

    result = pack_store(FeatureStore(store), progress=show_progress)
    facts = {**result, "problems": [asdict(problem) for problem in result["problems"]]}
    packs = counted(len(facts["packs"]), "pack")
    answer(facts, as_json, _with_problems(f"{counted(facts['records'], 'video')} in {packs}", facts))
    sys.exit(bool(facts["problems"]))


@features.command(goes_on=True)
@click.argument("store", type=FOLDER)
@JSON
def unpack(store, as_json) -> None:
    """Give every record in a pack a file of its own again.

    \b
    affuse features unpack store
    """
    from affuse.features.packing import unpack as unpack_store
    from affuse.features.store import FeatureStore

    result = unpack_store(FeatureStore(store), progress=show_progress)
    facts = {**result, "problems": [asdict(problem) for problem in result["problems"]]}
    answer(facts, as_json, _with_problems(f"{counted(facts['records'], 'video')} unpacked", facts))
    sys.exit(bool(facts["problems"]))


@features.command("import", goes_on=True)
@click.argument("store", type=FOLDER)
@click.option("--from", "source", type=FOLDER, required=True, help="Folder of folders visual, audio, text.")
@click.option("--folder", "folders", multiple=True, metavar="MODALITY=NAME", help="A folder of another name.")
@click.option("--rate", "rates", multiple=True, metavar="[MODALITY=]RATE", help="Rows per second without a time.")
@click.option(
    "--time-column", "clocks", multiple=True, default=columns.Columns().time, show_default=True, metavar="COLUMN",
    help="The column of seconds; more than one where files differ.",
)  # fmt: skip
@click.option("--ignore", multiple=True, metavar="COLUMN", help="A column that is no feature; may be repeated.")
@click.option("--feature", multiple=True, metavar="COLUMN", help="One that is, whatever its name; may be repeated.")
@click.option("--resample", type=float, metavar="FPS", help="Bring videos to this frame rate.  [default: their own]")
@JSON
def import_(store, source, folders, rates, clocks, ignore, feature, resample, as_json) -> None:
    """Features computed elsewhere into a store.

    They are <modality>/<video>.npy, .npz or .csv; NaN marks missing rows.

    \b
    affuse features import store --from features
    affuse features import store --from features --folder visual=openface --rate audio=25
    """
    from affuse.features.importing import import_features, parse_layout

    layout = parse_layout(folders, rates, columns.Columns(clocks, ignore, feature), resample)
    result = import_features(source, store, layout, show_progress)
    answer(result, as_json, describe_import(result))
    for why, ids in result["causes"].items():
        warn(f"failed: {_names(ids)}: {shown(why)}")
    sys.exit(bool(result["failed"]))


@features.command(goes_on=True)
@click.argument("store", type=FOLDER)
@click.option("--fps", type=float, required=True, help="Frames per second of the new store.")
@click.option("--out", type=FOLDER, required=True, help="The new store; what it has and is unchanged is kept.")
@JSON
def resample(store, fps, out, as_json) -> None:
    """A store of the same features at another frame rate.

    Pictures and sound are the mean of the rows around each of its moments, or the nearest one where rows are sparser;
    words stay as they are.

    \b
    affuse features resample store --fps 5 --out slower
    """
    from affuse.features.resampling import resample_store
    from affuse.features.store import FeatureStore

    result = resample_store(FeatureStore(store), out, fps, show_progress)
    counts = ", ".join(f"{len(result[key])} {key}" for key in ("written", "kept", "failed"))
    answer(result, as_json, f"{counts}: {out}, {fps:g} frames a second.")
    sys.exit(bool(result["failed"]))


@features.command("export")
@click.argument("store", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder to fill; it must be empty or new.")
@click.option(
    "--format", "kind", default="npz", show_default=True, shell_complete=one_of("npz", "parquet", "abaw3"),
    help="npz, parquet (needs affuse[parquet]), or abaw3.",
)  # fmt: skip
@JSON
def export(store, out, kind, as_json) -> None:
    """Features for other programs.

    A file per video and modality, or the folders of the ABAW3 and RJCMA code. Of faces with several views, the centre.

    \b
    affuse features export store --out exported
    affuse features export store --out exported --format abaw3
    """
    from affuse.features.exporting import export_features
    from affuse.features.store import FeatureStore

    result = export_features(FeatureStore(store), out, kind, show_progress)
    answer(result, as_json, f"{counted(result['videos'], 'video')}, {counted(result['files'], 'file')}: {out}")


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
    """`account` as lines: backbones, a line a video with what it has, then what is missing, failed or damaged."""
    lines = [f"Settings {facts['settings_hash'][:12]}."]
    for part, b in facts["backbones"].items():
        weights = f"sha256 {b['sha256'][:12]}" if b["sha256"] else "weights not known"
        trained = weights if b["trained"] else "UNTRAINED, seeded"
        lines.append(f"  {part:<7} {b['name']}, {b['width']} wide, {shown(b['source'])}, {trained}")
    if views := dict.fromkeys(view for video in facts["videos"].values() for view in video["visual"]["views"]):
        lines.append(f"  views   of each face: centre, {', '.join(map(shown, views))}")
    lines.append(f"{counted(len(facts['videos']), 'video')}.")
    for video_id, video in islice(facts["videos"].items(), LISTED):
        parts = ", ".join(_part(video, m) for m in MODALITIES)
        lines.append(f"  {shown(video_id)}: {counted(video['frames'], 'frame')}, {video['duration']:.1f} s: {parts}")
        noted = [m for m in MODALITIES if video[m]["status"] == Status.OK and video[m]["reason"]]
        lines += [f"    {m}: {shown(video[m]['reason'])}" for m in noted]
    if (more := len(facts["videos"]) - LISTED) > 0:
        lines.append(f"  … and {more} more, which --json lists.")
    for modality, groups in facts["missing"].items():
        partly = {status: _without(group["reasons"], facts["failed"]) for status, group in groups.items()}
        many = {status: sum(map(len, reasons.values())) for status, reasons in partly.items() if reasons}
        if many:
            lines.append(f"Without {modality} features: {counted(sum(many.values()), 'video')}.")
        for status, number in many.items():
            lines.append(f"  {status} {number}")
            lines += [f"    {shown(reason)}: {_names(ids)}" for reason, ids in partly[status].items()]
    lines += [f"Failed: {shown(video_id)}: {shown(why)}" for video_id, why in facts["failed"].items()]
    lines += [f"Damaged: {_problem(problem)}" for problem in facts["damaged"]]
    if facts["damaged"]:
        lines.append("affuse features repair sets aside what is damaged; affuse extract makes it anew.")
    return "\n".join(lines)


def describe_verification(facts: dict, seed: int = 0) -> str:
    """One line for every damaged place, and a count; of a share of the store also of how many, and its seed."""
    lines = [_problem(problem) for problem in facts["problems"]]
    summary = f"{len(lines)} damaged; affuse features repair sets them aside" if lines else "all whole"
    checked, of = facts["checked"], facts["of"]
    share = f" of {of} ({checked / of:.2%}, drawn by seed {seed})" if checked < of else ""
    return "\n".join([*lines, f"{counted(checked, 'video')}{share} checked: {summary}."])


def describe_repair(facts: dict) -> str:
    """What was wrong with every shard set aside and where it is now, and a count."""
    moved, lines = facts["quarantined"], []
    if not moved:
        return "All whole: nothing to repair."
    for shard in moved:
        lines += [_problem(problem) for problem in shard["problems"]]
        lines.append(f"  moved to {shown(shard['path'])}")
    return "\n".join([*lines, f"{len(moved)} set aside. Run affuse extract again: it remakes their videos."])


def describe_import(result: dict) -> str:
    """What came into the store, and of which columns."""
    counts = ", ".join(f"{len(result[key])} {key}" for key in ("written", "kept", "failed"))
    lines = [f"{counts}."]
    for m, width in result["widths"].items():
        names = f", {shown(columns.listed(result['columns'][m]))}" if m in result["columns"] else ""
        lines.append(f"  {m}: {counted(width, 'column')}{names}")
    return "\n".join(lines)


def _with_problems(done: str, facts: dict) -> str:
    """What was done, and one line for every damaged place that was left as it is."""
    lines = [_problem(problem) for problem in facts["problems"]]
    left = f"; {len(lines)} damaged and left; affuse features repair sets them aside" if lines else ""
    return "\n".join([*lines, f"{done}{left}."])


def _part(video: dict, modality: str) -> str:
    """What a video has of a modality, or the status that says why it has nothing."""
    rows = video[modality]["rows"]
    has = {
        "visual": f"face in {video['faces']} of {counted(rows, 'frame')}",
        "audio": f"sound in {counted(rows, 'row')}",
        "text": counted(rows, "word"),
    }
    status = video[modality]["status"]
    return has[modality] if status == Status.OK else f"{modality} {status}"


def _without(reasons: dict[str, list[str]], failed: dict[str, str]) -> dict[str, list[str]]:
    """The videos of each reason that did not fail as a whole, which are told of once."""
    left = {reason: [video_id for video_id in ids if video_id not in failed] for reason, ids in reasons.items()}
    return {reason: ids for reason, ids in left.items() if ids}


def _names(ids: list[str]) -> str:
    return listed([*map(shown, ids)])


def _problem(problem: dict) -> str:
    where = f"{problem['video']}: " if problem["video"] else ""
    dataset = f"{problem['dataset']} " if problem["dataset"] else ""
    return shown(f"{where}{dataset}in {problem['file']}: {problem['reason']}")
