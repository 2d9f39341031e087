"""What a store holds and what is wrong with it, as text for people."""

from __future__ import annotations

from features.console import shown
from features.record import MODALITIES, Status, failure_of
from features.repair import Quarantined
from features.store import Verification

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
