"""affuse report: a page to look at."""

from __future__ import annotations

import click

from affuse.console import FILE, FOLDER, JSON, Command, answer, one_of


@click.command(cls=Command)
@click.argument("source", type=FOLDER)
@click.option("--out", type=FILE, default="report.html", show_default=True, help="The page, an HTML file.")
@click.option("--features", "features", type=FOLDER, help="Feature store, for words, face boxes, gaps, attention.")
@click.option("--labels", type=FOLDER, help="Folder of labels, for the truth beside predictions, and scores.")
@click.option("--video-dir", type=FOLDER, help="Folder of the videos, searched at every depth.")
@click.option(
    "--media", default="link", show_default=True, shell_complete=one_of("link", "embed", "none"),
    help="Videos: link, embed (in the page), or none.",
)  # fmt: skip
@JSON
def report(source, out, features, labels, video_dir, media, as_json) -> None:
    """One page on predictions, a run, a comparison or a store.

    SOURCE is a folder that `affuse predict` or `affuse fuse compare` wrote, a run, a store, or what `affuse demo` left.
    The page needs no network, and opens from the disk in any browser.

    \b
    affuse report demo
    affuse report predictions --out report.html --video-dir videos
    affuse report run --out report.html --features store --labels labels
    affuse report comparison --out comparison.html
    """
    from affuse.pipelines.report.page import report as write_page

    path = write_page(source, out, features=features, labels=labels, video_dir=video_dir, media=media)
    size = path.stat().st_size
    answer({"page": str(path), "bytes": size}, as_json, f"{path}: {size / 2**20:.1f} MiB. Open it in a browser.")
