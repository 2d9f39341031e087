"""What a store holds and what is wrong with it, as text for people."""

from __future__ import annotations

from features.record import MODALITIES
from features.store import Verification


def describe(info: dict) -> str:
    """`FeatureStore.info()` as lines: backbones, views, then a line a video with its statuses, reasons where not ok."""
    lines = [f"Settings {info['settings_hash'][:12]}."]
    for part, b in info["backbones"].items():
        trained = f"sha256 {b['sha256'][:12]}" if b["trained"] else "UNTRAINED, seeded"
        lines.append(f"  {part:<7} {b['name']}, {b['width']} wide, {b['source']}, {trained}")
    if views := dict.fromkeys(view for video in info["videos"].values() for view in video["visual"]["views"]):
        lines.append(f"  views   of each face: centre, {', '.join(views)}")
    lines.append(f"{len(info['videos'])} videos.")
    for video_id, video in info["videos"].items():
        statuses = "  ".join(f"{m} {video[m]['status']} ({video[m]['rows']})" for m in MODALITIES)
        lines.append(f"  {video_id}: {video['frames']} frames, {video['duration']:.1f} s: {statuses}")
        lines += [f"    {m}: {video[m]['reason']}" for m in MODALITIES if video[m]["reason"]]
    lines += [f"Damaged: {_problem(problem)}" for problem in info["damaged"]]
    return "\n".join(lines)


def describe_verification(verification: Verification) -> str:
    """One line for every damaged place, and a count."""
    problems = verification.problems
    lines = [_problem(vars(problem)) for problem in problems]
    summary = (
        "all whole" if not problems else f"{len(problems)} damaged; extract again to remake what is damaged"
    )
    return "\n".join([*lines, f"{verification.checked} videos checked: {summary}."])


def _problem(problem: dict) -> str:
    where = f"{problem['video']}: " if problem["video"] else ""
    dataset = f"{problem['dataset']} " if problem["dataset"] else ""
    return f"{where}{dataset}in {problem['file']}: {problem['reason']}"
