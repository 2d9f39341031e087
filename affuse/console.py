"""What all commands share: options that have one name everywhere, and messages for the person watching.

Results go to stdout, messages to stderr: with -q only warnings and errors, with -v what else the packages can say.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial, reduce
from itertools import islice
from pathlib import Path
from typing import Any

import click

from affuse.errors import AffuseError, by_reason, listed
from affuse.files import FULL

QUIET, USUAL, VERBOSE = -1, 0, 1
GOES_ON = "affuse.goes_on"  # in what a call knows: whether its command goes on where it was stopped

Announce = Callable[[str], None]  # a sentence on what is about to happen
Progress = Callable[[str, str | None, bool], None]  # the state so far, why an item failed, whether it was the last

PAUSE = 10.0  # seconds between two lines on the same work
MOST = 20  # reasons of failures that are given at the end

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
CONFIG = click.option("--config", type=FILE, help="YAML file of settings; --set goes over it.")
DEVICE = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, or auto.")
WEIGHTS = click.option("--weights-dir", type=FOLDER, envvar="AFFUSE_WEIGHTS", help="Folder of backbone weights.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object; on an error, none.")
STORE = click.option("--features", "store", type=FOLDER, required=True, help="Feature store.")


_loudness = USUAL  # of this call of the command line
_told: set[str] = set()  # the failures that were said in it


def verbose() -> bool:
    """Whether -v asks for what is else held back."""
    return _loudness == VERBOSE


def be(loudness: int) -> None:
    """As loud as that from here on; of what the packages have to say, -v lets all through."""
    global _loudness
    _loudness = loudness
    _told.clear()
    log = logging.getLogger("affuse")
    log.handlers = [Messages(logging.DEBUG if verbose() else logging.WARNING)]
    log.setLevel(logging.DEBUG if verbose() else logging.NOTSET)


def watched() -> bool:
    """Whether somebody looks on, so that progress is worth showing."""
    return sys.stderr.isatty() and _loudness != QUIET


def completing(names: Callable[[], Iterable[str]], several: bool = False) -> Callable:
    """For a shell's completion: those of the names that begin with what is typed; where several may be given, after the
    last comma. They are asked for only then."""

    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
        before, comma, begun = typed.rpartition(",") if several else ("", "", typed)
        return [f"{before}{comma}{name}" for name in names() if name.startswith(begun)]

    return complete


def one_of(*names: str) -> Callable:
    """`completing` of names that are known beforehand."""
    return completing(lambda: names)


def set_option(settings: Callable[[], Any]) -> Callable:
    """--set of a class of settings, which is asked for only when its keys are to be completed."""
    return click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        shell_complete=completing(lambda: [f"{key}=" for key in settings().named()]),
        help="Change one setting; may be repeated.",
    )


VIEWS = click.option(
    "--views",
    shell_complete=completing(lambda: ("centre", "flip", "corners"), several=True),
    help="Of each face, for training: centre,flip,corners.  [default: centre]",
)


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
    """The one display of progress, tqdm's: on a terminal only."""
    from tqdm import tqdm

    return tqdm(file=sys.stderr, disable=True if _loudness == QUIET else None, **options)


class Status:
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


status = Status()  # of this process


def say(text: str) -> None:
    """A message for the person watching, unless -q; results are given with `answer`."""
    if _loudness != QUIET:
        warn(text)


def warn(text: str) -> None:
    """A warning or an error, also with -q."""
    status.end()
    click.echo("\n".join(map(shown, text.split("\n"))), err=True)


def answer(facts: dict | list, as_json: bool, text: str) -> None:
    """A command's result: one JSON object where it is asked for, else the same for a person."""
    status.end()
    click.echo(json.dumps(facts, indent=2) if as_json else text)


def tell_failures(failed: Mapping[str, str]) -> None:
    """What failed and why {id: reason}, each reason once, so many of them; not what `show_progress` has said of
    already."""
    left = {name: reason for name, reason in failed.items() if f"{name}: {reason}" not in _told}
    reasons = by_reason(left)
    for reason, names in islice(reasons.items(), MOST):
        warn(f"failed: {listed([*map(shown, names)])}: {shown(reason)}")
    if len(reasons) > MOST:
        warn(f"failed for other reasons: {len(reasons) - MOST} more; --json gives them all.")


def show_progress(line: str, failure: str | None, last: bool) -> None:
    if failure:
        _told.add(failure)
        warn(f"failed: {shown(failure)}")
    status.show(line)
    if last:
        status.end()


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

    def __init__(self, level: int):
        super().__init__(level)
        self.addFilter(Once())

    def emit(self, record: logging.LogRecord) -> None:
        warn(f"{record.levelname.lower()}: {shown(record.getMessage())}")


def _heard(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked:
        be(QUIET if parameter.name == "quiet" else VERBOSE)


class Command(click.Command):
    """A command with -v and -q, which the groups above it have too; of several the last counts. goes_on: whether the
    same once more goes on where it was stopped."""

    def __init__(self, *arguments, goes_on: bool = False, **options):
        super().__init__(*arguments, **options)
        self.goes_on = goes_on
        flag = partial(click.Option, is_flag=True, expose_value=False, callback=_heard)
        self.params += [
            flag(["-v", "--verbose"], help="Say more: details, paths and addresses."),
            flag(["-q", "--quiet"], help="Only warnings and errors; no progress."),
        ]

    def invoke(self, context: click.Context):
        context.meta[GOES_ON] = self.goes_on
        return super().invoke(context)


class Group(Command, click.Group):
    """Of commands that have -v and -q, as it does."""

    command_class = Command


class Commands(Group):
    """Turns our errors, a full disk, and Ctrl-C into a sentence and an exit status."""

    def main(self, args=None, *more, **options):
        be(USUAL)
        self.asked = list(sys.argv[1:] if args is None else args)
        try:
            return super().main(args, *more, **options)
        except OSError as error:
            if error.errno not in FULL:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python tries the rest again
            warn(
                "Error: the disk is full, and not all could be written. Free some space and run the same command again."
            )
            sys.exit(1)

    def invoke(self, context: click.Context):
        try:
            with interruptible():
                return super().invoke(context)
        except AffuseError as error:
            warn(f"Error: {error}")
            context.exit(error.exit_code)
        except KeyboardInterrupt:
            again = shlex.join(["affuse", *self.asked])
            more = f" What was finished is kept. To go on from there: {again}" if context.meta.get(GOES_ON) else ""
            warn(f"Stopped.{more}")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)  # what threads still compute would be waited for, and nobody wants it any more


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt here unless it is ignored, and so does SIGTERM, by which batch systems end a job;
    afterwards all is as before."""
    before = {}
    try:
        with suppress(ValueError):  # not the main thread
            for name in (signal.SIGINT, signal.SIGTERM):
                if name == signal.SIGTERM or signal.getsignal(name) is not signal.SIG_IGN:
                    before[name] = signal.signal(name, signal.default_int_handler)
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
