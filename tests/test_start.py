"""The command line's first and last moments: Ctrl-C while Python imports, an answer that nobody can take."""

import subprocess
import sys

import pytest

from affuse.features import FeatureStore
from builders import provenance, random_video
from processes import ROOT

WAYS = {
    "affuse": "from affuse.__main__ import main; main()",
    "python -m affuse": "import runpy; runpy.run_module('affuse', run_name='__main__', alter_sys=True)",
}
GATE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
moment, seen = int(sys.argv.pop(1)), []

class Gate:
    def find_spec(self, name, path=None, target=None):
        if seen or name == "affuse.commands":
            seen.append(name)
            if len(seen) == moment:
                os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Gate())
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = FeatureStore(tmp_path_factory.mktemp("start") / "store", create=True)
    store.write(random_video(), provenance())
    return store.path


def run(code: str, *arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, text=True, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_at_any_import_is_no_traceback(store, way):
    """The signal comes just as the process asks for its n-th module, before the command begins and after."""
    codes = []
    for moment in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987):
        done = run(GATE + WAYS[way], moment, "features", "info", store, stdout=subprocess.PIPE)
        assert "Traceback" not in done.stderr, moment
        assert done.stderr in ("", "Stopped.\n")
        codes.append(done.returncode)
        assert ("clip01" in done.stdout) == (done.returncode == 0)
    assert set(codes) <= {0, 130}
    assert codes.count(130) >= 10


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "command", [["--version"], ["extract", "--help"], ["features", "info", "STORE", "--json"]]
)
def test_a_full_disk_is_one_sentence(store, way, command):
    with open("/dev/full", "w") as full:
        done = run(WAYS[way], *(str(store) if part == "STORE" else part for part in command), stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: the disk is full, and not all could be written. Free some space and run the same command again.\n"
    )
