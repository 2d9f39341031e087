"""Verifying a store in several processes, and a share of it: what is found, said, and left when it ends."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
from click.testing import CliRunner

from affuse.commands import main
from affuse.errors import AffuseError, UsageError
from affuse.features import FeatureStore, verification
from affuse.features.verification import share_of, verify_files
from builders import provenance, random_video
from processes import ROOT, wait_until
from test_store import damage

pytestmark = pytest.mark.usefixtures("no_waiting_for_ever")
GATED = """
import os, sys, time
from pathlib import Path
from affuse.features import verification
from affuse.features.store import FeatureStore

def wait(batch):
    (Path(sys.argv[2]) / str(os.getpid())).touch()
    while True:
        time.sleep(0.05)

if __name__ == "__main__":
    verification.FEW, verification.BATCH, verification._verify = 0, 1, wait
    FeatureStore(sys.argv[1]).verify(processes=2)
"""


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    store = FeatureStore(tmp_path / "store", create=True)
    for number in range(12):
        store.write(random_video(f"v{number:02d}", frames=4), provenance())
    return store


def affuse(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_several_processes_find_what_one_finds_in_its_order(store, monkeypatch):
    for number in (9, 3, 5):
        damage(store, f"v{number:02d}", "audio/embedding")
    monkeypatch.setattr(verification, "BATCH", 2)
    alone, told = store.verify(), []
    assert len(alone.problems) == 3
    monkeypatch.setattr(verification, "FEW", 4)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("affuse.features.verification.verify_shard", lambda path: pytest.fail("read here"))
        together = store.verify(processes=2, progress=lambda *said: told.append(said))
    assert together == alone
    assert told[-1] == ("12 of 12 videos read", None, True)
    assert len(told) == 6


def test_a_newer_format_is_a_sentence_from_another_process_too(store, monkeypatch):
    with monkeypatch.context() as future:
        future.setattr("affuse.features.seal.FORMAT_VERSION", 9)
        store.write(random_video("new"), provenance())
    monkeypatch.setattr(verification, "FEW", 0)
    monkeypatch.setattr(verification, "BATCH", 4)
    with pytest.raises(UsageError, match="format version 9"):
        store.verify(processes=2)


def test_a_process_that_dies_is_a_sentence(store, monkeypatch):
    monkeypatch.setattr(verification, "FEW", 0)
    monkeypatch.setattr(verification, "BATCH", 4)
    monkeypatch.setattr(
        verification, "_verify", os.abort
    )  # which takes no batch, so it must not be called here
    monkeypatch.setattr(verification, "end_with_parent", os.abort)
    with pytest.raises(AffuseError, match="A process that read the store died"):
        store.verify(processes=2)


def test_a_share_is_drawn_by_its_seed_and_said(store):
    result = affuse("features", "verify", store.path, "--sample", "25%")
    assert result.stdout == "3 videos of 12 (25.00%, drawn by seed 0) checked: all whole.\n"
    read = []
    for seed in (0, 0, 1):
        seen = set()
        for number in range(12):  # who is in the share is seen by whose damage is
            path = store.shard(f"v{number:02d}")
            whole = path.read_bytes()
            damage(store, f"v{number:02d}", "audio/embedding")
            seen |= {p.video for p in verify_files(store.files(), 0.25, seed).problems}
            path.write_bytes(whole)
        read.append(seen)
    assert read[0] == read[1] != read[2]
    assert [len(seen) for seen in read] == [3, 3, 3]
    (some, *_) = read[0]
    damage(store, some, "audio/embedding")
    found = affuse("features", "verify", store.path, "--sample", "25%", "--json")
    assert found.exit_code == 1
    facts = json.loads(found.stdout)
    assert (facts["checked"], facts["of"], [p["video"] for p in facts["problems"]]) == (3, 12, [some])
    assert store.verify(share=1e-9).checked == 1


@pytest.mark.parametrize("text", ["0%", "101%", "1", "a%", "-1%", "nan%", ""])
def test_what_is_no_share_is_refused(store, text):
    result = affuse("features", "verify", store.path, "--sample", text)
    assert result.exit_code == 2
    assert "above 0 and up to 100, such as 1%" in result.stderr


def test_shares():
    assert [share_of(text) for text in ("1%", "0.5%", "100 %", ".1%")] == [0.01, 0.005, 1.0, 0.001]


def test_the_processes_end_with_the_one_that_started_them(store, tmp_path):
    script, there = tmp_path / "gated.py", tmp_path / "there"
    script.write_text(GATED)
    there.mkdir()
    process = subprocess.Popen([sys.executable, script, store.path, there], cwd=ROOT)
    try:
        wait_until(lambda: len(list(there.iterdir())) == 2, "both at work")
        workers = [int(path.name) for path in there.iterdir()]
        assert process.pid not in workers
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: not any(map(psutil.pid_exists, workers)), "the workers' end")
