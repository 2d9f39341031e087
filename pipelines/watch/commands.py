"""affuse watch: options and help."""

from __future__ import annotations

import click

from affuse.console import DEVICE, FILE, FOLDER, JSON, WEIGHTS, Command, answer, say
from affuse.extract.profiles import EXTRACT_SET
from affuse.fuse.commands import RUNS


@click.command(cls=Command)
@RUNS
@click.option("--source", metavar="CAMERA|FILE|PIPE", help="A number, a path, or -.  [default: the first camera]")
@WEIGHTS
@DEVICE
@EXTRACT_SET
@click.option("--save", type=FOLDER, metavar="STORE", help="Keep what is seen as a record of this feature store.")
@click.option("--out", type=FILE, help="Also write the values to this CSV, as they are made.")
@click.option("--wait-sound", default=2.0, show_default=True, metavar="SECONDS", help="At most, for a value's sound.")
@click.option("--wait-words", default=6.0, show_default=True, metavar="SECONDS", help="For a value's words, always.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page.  [default: any that is free]")
@click.option("--no-browser", is_flag=True, help="Do not open the page; its address is said.")
@JSON
def watch(runs, source, weights_dir, device, assignments, save, out, wait_sound, wait_words, port, no_browser,
          as_json) -> None:  # fmt: skip
    """Live valence and arousal of a camera, a file or a pipe.

    The page is for this machine only. Ctrl-C, or the end of the source, ends it.

    \b
    affuse watch --run run
    affuse watch --run run --source clip.mp4 --save store --out live.csv
    """
    from affuse.pipelines.watch.watch import described, watch_source

    result = watch_source(
        list(runs), source, weights_dir=weights_dir, device=device, assignments=assignments, save=save, out=out,
        waits={"audio": wait_sound, "text": wait_words}, port=port, browse=not no_browser, announce=say,
    )  # fmt: skip
    say(described(result))
    if as_json:
        answer(result, True, "")
