"""A fusion model for tests: it begins to train only when the file at GATE is there, and dies where that says so.

Where the file says a number, it goes no further while the runs below RUNS have that many epochs, and leaves a file
named after its process meanwhile.
"""

import os
import signal
import time
from pathlib import Path

from affuse.fuse import register
from own_fusion import Bottleneck

GATE, RUNS = (Path(os.environ.get(name, "")) for name in ("GATE", "RUNS"))


def may_go_on() -> bool:
    if not GATE.exists():
        return False
    epochs = sum(len(path.read_text().splitlines()) - 1 for path in RUNS.glob("*/metrics.csv"))
    return not (allowed := GATE.read_text()).isdigit() or epochs < int(allowed)


@register("waiting", title="Waiting", paper="of the tests", recursions=2)
class Waiting(Bottleneck):
    def forward(self, x, valid):
        if self.training:
            (GATE.parent / f"{os.getpid()}.training").touch()
            held = GATE.parent / f"{os.getpid()}.held"
            while not may_go_on():
                held.touch()
                time.sleep(0.05)
            held.unlink(missing_ok=True)
            if GATE.read_text() == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x, valid)
