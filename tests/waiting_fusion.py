"""A fusion model for tests: it begins to train only when the file at GATE is there, and dies where that says so."""

import os
import signal
import time
from pathlib import Path

from affuse.fuse import register
from own_fusion import Bottleneck

GATE = Path(os.environ.get("GATE", ""))


@register("waiting", title="Waiting", paper="of the tests", recursions=2)
class Waiting(Bottleneck):
    def forward(self, x, valid):
        if self.training:
            (GATE.parent / f"{os.getpid()}.training").touch()
            while not GATE.exists():
                time.sleep(0.05)
            if GATE.read_text() == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x, valid)
