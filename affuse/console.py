"""What all commands share: options that have one name everywhere, and messages for the person watching.

Results go to stdout, messages to stderr.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from pathlib import Path

import click

from affuse.errors import AffuseError

Announce = Callable[[str], None]  # a sentence on what is about to happen
Progress = Callable[[str, str | None, bool], None]  # the state so far, why an item failed, whether it was the last

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
SET = click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated."
)
CONFIG = click.option("--config", type=FILE, help="YAML file of settings; --set goes over it.")
DEVICE = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, or auto.")
WEIGHTS = click.option("--weights-dir", type=FOLDER, envvar="AFFUSE_WEIGHTS", help="Folder of backbone weights.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object; on an error, none.")
STORE = click.option("--features", "store", type=FOLDER, required=True, help="Feature store.")
VIEWS = click.option("--views", help="Of each face, for training: centre,flip,corners.  [default: centre]")


def together(*options: Callable) -> Callable:
    """Options that several commands have, as one decorator; the help lists them in this order."""
    return lambda command: reduce(lambda whole, option: option(whole), reversed(options), command)


# Where an extraction runs; the command hears of it as `**compute`, which is what Compute.of takes.
compute_options = together(
    DEVICE,
    click.option("--workers", type=click.IntRange(0), help="Processes; 0: this one.  [default: one per GPU, or 0]"),
    click.option("--scheduler", metavar="ADDRESS", help="A running dask scheduler whose workers to use, tcp://…"),
    click.option("--threads", type=click.IntRange(1), help="CPU threads per process.  [default: the cores, shared]"),
    click.option(
        "--time-limit",
        type=float,
        default=60.0,
        show_default=True,
        help="Give a video up after so many times its length.",
    ),
    click.option("--tls-ca", type=FILE, help="For a tls:// scheduler: certificate authority, PEM."),
    click.option("--tls-cert", type=FILE, help="For a tls:// scheduler: own certificate, PEM."),
    click.option("--tls-key", type=FILE, help="For a tls:// scheduler: own key, PEM."),
)


def shown(name: str) -> str:
    """A name, or a sentence with names in it, on one line: what a terminal acts on, or cannot print, is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def progress_bar(**options):
    """The one display of progress, tqdm's: on a terminal only, nothing in a pipe."""
    from tqdm import tqdm

    return tqdm(file=sys.stderr, disable=None, **options)


class _Status:
    """One line that says how far the work is; every text replaces the one before."""

    def __init__(self):
        self._bar = None

    def show(self, text: str) -> None:
        if self._bar is None:
            self._bar = progress_bar(bar_format="{desc}")
        self._bar.set_description_str(shown(text))

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


_status = _Status()


def say(text: str) -> None:
    """A message for the person watching; results are given with `answer`."""
    _status.end()
    click.echo("\n".join(map(shown, text.split("\n"))), err=True)


def answer(facts: dict | list, as_json: bool, text: str) -> None:
    """A command's result: one JSON object where it is asked for, else the same for a person."""
    _status.end()
    click.echo(json.dumps(facts, indent=2) if as_json else text)


def show_epoch(row: dict) -> None:
    _status.show(f"  epoch {row['epoch']} of {row['epochs']}: CCC {row['ccc_mean']:.3f}")


def show_progress(line: str, failure: str | None, last: bool) -> None:
    if failure:
        say(f"failed: {shown(failure)}")
    _status.show(line)
    if last:
        _status.end()


class Once(logging.Filter):
    """Lets a message through the first time only."""

    def __init__(self):
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        before = len(self.said)
        self.said.add(record.getMessage())
        return len(self.said) > before


class Messages(logging.Handler):
    """What the packages have to say, as sentences on stderr, each once."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.addFilter(Once())

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {shown(record.getMessage())}")


class Commands(click.Group):
    """Turns our errors, and Ctrl-C, into a sentence and an exit status."""

    def invoke(self, context: click.Context):
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # batch systems end a job so: it is Ctrl-C
        try:
            return super().invoke(context)
        except AffuseError as error:
            say(f"Error: {error}")
            context.exit(error.exit_code)
        except KeyboardInterrupt:
            say("Stopped. What was finished is kept; the same command goes on from there.")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)  # what threads still compute would be waited for, and nobody wants it any more
