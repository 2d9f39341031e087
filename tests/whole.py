"""A folder of videos, and the store made of it without interruption by one thread of one process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from affuse.commands import main
from affuse.features.store import FeatureStore
from differences import differences
from media import talking_head
from processes import Gate, Started, arguments

NAMES = "abcdef"
FORBIDDEN = (
    "Traceback",
    "/distributed/",
    " - distributed.",
    "Worker",
    "Warning",
    "warn(",
    "Nanny",
    "tornado",
    "INFO",
)


def quiet(said: str) -> None:
    """Nothing is said but by affuse itself."""
    for forbidden in FORBIDDEN:
        assert forbidden not in said, said


class Whole:
    """`options` are of every extraction of it."""

    def __init__(self, folder: Path, *options: str):
        self.videos, self.options = folder / "videos", options
        for name in NAMES:
            talking_head(self.videos / f"{name}.mp4", seconds=0.3)
        self.extract(folder / "store", "--workers", 0, "--threads", 1)
        self.store = FeatureStore(folder / "store")

    def extract(self, store: Path, *more, code: int = 0) -> Result:
        """Of the same videos, in this process and those it starts."""
        result = CliRunner().invoke(main, arguments(self.videos, store, *self.options, *more))
        quiet(result.stderr)
        assert result.exit_code == code, result.output
        return result

    def started(self, gate: Gate, store: Path, *more) -> Started:
        command = [gate.SCRIPT, *arguments(self.videos, store, *self.options, "--threads", 1, *more)]
        return Started(store.with_name("log"), command, **gate.environment)

    def check(self, store: Path) -> None:
        assert FeatureStore(store).verify().problems == []
        assert differences(self.store, FeatureStore(store)) == []
