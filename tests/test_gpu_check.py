"""The check of a GPU, rehearsed on the CPU: it tests and measures, and packs what a machine lacks."""

import json
import re
import runpy
import subprocess
import sys

from media import talking_head
from processes import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu_check.py"


def check(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, SCRIPT, "run", *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def test_what_is_marked_runs_and_what_is_measured_is_written(tmp_path):
    talking_head(tmp_path / "videos" / "a.mp4", seconds=0.3)
    options = ("--video-dir", tmp_path / "videos", "--device", "cpu", "--out", tmp_path)
    done = check(*options, "--repeats", 1, "--threads", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed in", done.stdout, re.MULTILINE)  # and none skipped
    facts = json.loads((tmp_path / "extract-cpu-rehearsed.json").read_text())
    assert (facts["device"], facts["frames"]) == ("cpu", 3)
    assert facts["settings"]["modalities"] == ["visual", "audio"]


def test_a_gpu_that_is_not_there_is_no_success(tmp_path):
    done = check("--video-dir", tmp_path, "--device", "cuda:77", "--out", tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_a_machine_lacks_is_found_down_to_the_needs_of_what_is_needed():
    lacking = runpy.run_path(str(SCRIPT))["lacking"]
    there = {"torch", "numpy", "transformers"}
    found = lacking(there, "3.12")
    assert not there & found.keys()
    assert {"affuse", "pytest", "distributed", "tornado", "more-itertools"} <= found.keys()  # and an extra's
    assert "importlib-metadata" not in found  # of older Pythons
    assert "importlib-metadata" in lacking(there, "3.11")
    assert "affuse" not in lacking({*there, "affuse"}, "3.12")
