"""A page to look at, in one file: the facts as data, the plots' library, style and script inside it.

What users name (videos, words, reasons) is in the page as JSON only, in which no `<` is left, and the script puts it
there as text; so nothing of it is ever read as HTML.
"""

from __future__ import annotations

import html
import json
import logging
from dataclasses import replace
from importlib import resources
from pathlib import Path
from string import Template

from affuse.errors import UsageError
from affuse.files import as_path, make_folder, write_bytes
from affuse.pipelines.report.collect import Facts, collect
from affuse.pipelines.report.comparison import collect_comparison, is_comparison
from affuse.pipelines.report.media import check_way, embedded, find_media, link
from affuse.pipelines.report.sources import parts_of_demo, read_source

log = logging.getLogger("affuse")

SCRIPTS = (  # one after the other, as one
    *("base.js", "plots.js", "moment.js", "table.js", "runs.js", "attention.js", "compared.js", "whole.js"),
)
HARMLESS = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}  # in JSON, so that no tag or comment begins


def report(
    source: Path | str,
    out: Path | str = "report.html",
    *,
    features: Path | str | None = None,
    labels: Path | str | None = None,
    video_dir: Path | str | None = None,
    media: str = "link",
) -> Path:
    """Write one page on a folder of predictions, a run, a feature store or a comparison of models to the file `out`;
    gives its path. Of a demo it is its predictions with all that stands beside them.

    features: a store, for words, face boxes and gaps where the source has none of its own, and for what a run's
    attention did. labels: a folder of labels, for the truth beside predictions, and scores. video_dir: where the videos
    lie; they are linked, relative to the page, or with media "embed" held in it, or with "none" left out. Raises
    UsageError for a source that is none of these, and for features, labels or videos that are others', or given with a
    comparison; AffuseError for what cannot be read or does not fit.
    """
    out = as_path("a file for the page", out)
    check_way(media)
    beside = None
    if demo := parts_of_demo(source):
        beside = Path(source, "comparison")
        source, features = demo["predictions"], features or demo["store"]
        labels, video_dir = labels or demo["labels"], video_dir or demo["videos"]
    if is_comparison(source):
        check_alone(source, {"--features": features, "--labels": labels, "--video-dir": video_dir})
        facts = collect_comparison(Path(source))
    else:
        facts = collect(read_source(source, features), labels)
    if beside and is_comparison(beside):
        facts = replace(facts, comparison=collect_comparison(beside).comparison)
    if facts.untrained:
        log.warning("the features come from untrained backbones: %s", ", ".join(facts.untrained))
    found = {} if media == "none" else find_media(video_dir, {clip.id: clip.file for clip in facts.clips})
    make_folder(out.parent)
    write_bytes(out, page(facts, *held(found, out, media)))
    return out


def check_alone(source: Path | str, options: dict[str, Path | str | None]) -> None:
    """Raise UsageError where anything is given beside a comparison."""
    if given := [option for option, value in options.items() if value is not None]:
        raise UsageError(
            f"{source} is a comparison of models, whose page is made of its own numbers. Leave out "
            f"{' and '.join(given)}; a run in its folder runs/ has a page that takes them."
        )


def held(found: dict[str, Path], out: Path, media: str) -> tuple[dict[str, dict], list[str]]:
    """{video: {"name", and "link", or "embedded": which, "type"}} and the embedded files in base64, each once."""
    if media != "embed":
        return {video: {"name": path.name, "link": link(path, out)} for video, path in found.items()}, []
    files = [*dict.fromkeys(found.values())]
    parts = embedded(files)
    where = {path: {"name": path.name, "embedded": i, "type": parts[i][0]} for i, path in enumerate(files)}
    return {video: where[path] for video, path in found.items()}, [text for _, text in parts]


def page(facts: Facts, media: dict[str, dict], data: list[str]) -> bytes:
    """The page of these facts."""
    from plotly.offline import get_plotlyjs  # slow to import

    text = Template(part("page.html")).substitute(
        title=html.escape(f"affuse: {facts.name}"),
        style=part("page.css"),
        script="\n".join(map(part, SCRIPTS)),
        library=get_plotlyjs(),
        facts=as_json({**facts.as_dict(), "media": media}),
        embedded="\n".join(f'<script type="text/plain" id="media-{i}">{text}</script>' for i, text in enumerate(data)),
    )
    return text.encode("utf-8", "xmlcharrefreplace")


def part(name: str) -> str:
    """A file of the folder page/."""
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def as_json(facts: dict) -> str:
    """JSON that may stand in a script element: ASCII, without a `<`, `>` or `&`."""
    return json.dumps(facts, allow_nan=False, separators=(",", ":")).translate(HARMLESS)
