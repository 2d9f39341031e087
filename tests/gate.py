"""The command line behind a gate: no video is finished before the test allows it, however fast the machine is.

Until the store may hold one more, its extraction begins anew, so that whoever is killed or interrupted meanwhile is at
work; or, where the test is for the moment of writing, its shard stays written but hidden. Local workers import the main
module and so are behind the gate too; those of a scheduler preload this file.
"""

import os
import time
from pathlib import Path

from affuse.extract.extractor import Extractor
from affuse.features import shard

GATE, SHARDS = Path(os.environ["GATE"]), Path(os.environ["STORE"]) / "shards"


def may(moment: str) -> bool:
    """Whether to go on past this moment."""
    videos, held = GATE.read_text().split()
    return len(list(SHARDS.glob("*/[!.]*.h5"))) < int(videos) or (moment, held) == ("extracting", "writing")


def again_and_again(extractor, job, extract=Extractor.__call__):
    """Leaves a file named after this process, then extracts until the gate is open."""
    (GATE.parent / f"{os.getpid()}.extracting").touch()
    while True:
        video = extract(extractor, job)
        for _ in range(40):  # two seconds, in which the processors are left to others
            if may("extracting"):
                return video
            time.sleep(0.05)


def whole_but_hidden(partial, check=shard._verify_or_raise):
    """Leaves such a file for as long as what it has written is not the video's shard yet."""
    check(partial)
    marker = GATE.parent / f"{os.getpid()}.writing"
    marker.touch()
    while not may("writing"):
        time.sleep(0.05)
    marker.unlink()


Extractor.__call__ = again_and_again
shard._verify_or_raise = whole_but_hidden

if __name__ == "__main__":
    from affuse.commands import main

    main()
