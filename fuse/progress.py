"""How far trainings are, for the person watching: from the rows of `fuse.train`."""

from __future__ import annotations

import math
import shutil
import time

from affuse.console import PAUSE, say, status, watched


class _Epochs:
    """How far training is, or each of several: the status on a terminal; in a pipe a line, for the first epoch that
    ends after `PAUSE` seconds without one."""

    def __init__(self):
        self._said = -math.inf
        self._rows: dict[str, dict] = {}

    def show(self, row: dict) -> None:
        if watched():
            self._rows[row.get("run", "")] = row
            at_work = [self._rows[name] for name in row.get("at_work", [""]) if name in self._rows]
            status.show(epochs_shown(at_work, shutil.get_terminal_size().columns))
        elif time.monotonic() - self._said >= PAUSE:
            self._said = time.monotonic()
            say("  " + "".join(f"{row[key]}: " for key in ("run",) if key in row) + _epoch(row))


def _epoch(row: dict) -> str:
    return f"epoch {row['epoch']} of {row['epochs']}: loss {row['loss']:.3f}, CCC {row['ccc_mean']:.3f}"


def epochs_shown(rows: list[dict], width: int) -> str:
    """How far trainings side by side are, in a line of that width: each by its name where that fits."""
    if len(rows) == 1:
        return f"  {_epoch(rows[0])}"
    line = "  " + " | ".join(f"{r['run']}: epoch {r['epoch']} of {r['epochs']}, CCC {r['ccc_mean']:.3f}" for r in rows)
    if len(line) < width:
        return line
    epochs, scores = ([row[key] for row in rows] for key in ("epoch", "ccc_mean"))
    return f"  {len(rows)} at work, epochs {min(epochs)} to {max(epochs)}, CCC {min(scores):.3f} to {max(scores):.3f}"


show_epoch = _Epochs().show
