"""Extraction in several processes: the same features as in one."""

import json
import re
import subprocess
import sys
import time
from shutil import which
from socket import gethostname

import pytest
from distributed import LocalCluster

from affuse.errors import AffuseError
from affuse.extract import cluster as tasks
from affuse.version import VERSION
from processes import SOUND_ALONE, Cluster, shards
from whole import NAMES, Whole

pytestmark = pytest.mark.usefixtures("no_waiting_for_ever")
OTHER_WEIGHTS = """
import os
from dataclasses import replace
from pathlib import Path
from affuse.extract.run import Recipe
def dask_setup(worker, extractor=Recipe.extractor):
    other = Path(os.environ["OTHER"])
    Recipe.extractor = lambda recipe: extractor(replace(recipe, weights_dir=other))
"""
OTHER_VERSION = "import affuse.version; affuse.version.VERSION = '0.0.9'"
NO_AFFUSE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "affuse":
            raise ModuleNotFoundError("No module named 'affuse'")
sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """A scheduler with two workers."""
    with Cluster(tmp_path_factory.mktemp("remote"), workers=2) as own:
        yield own


def logged(store) -> str:
    return "".join(path.read_text() for path in (store / "logs").iterdir())


def test_more_threads_give_the_same_bytes(whole, tmp_path):
    whole.extract(tmp_path / "store", "--threads", 2)
    whole.check(tmp_path / "store")


def test_more_threads_or_workers_give_the_same_bytes_in_bfloat16_too(tmp_path):
    whole = Whole(tmp_path, "--set", "precision=bfloat16")
    for option in ("--threads", "--workers"):
        whole.extract(tmp_path / option, option, 2)
        whole.check(tmp_path / option)


def test_workers_of_a_scheduler_give_the_same_bytes(whole, remote, tmp_path):
    result = whole.extract(tmp_path / "store", "--scheduler", remote.address, "--json")
    assert sorted(json.loads(result.stdout)["made"]) == list(NAMES)
    assert all(f" INFO {name}: " in logged(tmp_path / "store") for name in NAMES)
    whole.check(tmp_path / "store")
    (lines,) = (tmp_path / "store" / "logs").glob("*.jsonl")
    last = json.loads(lines.read_text().splitlines()[-1])
    assert (last["done"], sum(worker["made"] for worker in last["workers"].values())) == (6, 6)
    assert all(worker.startswith("tcp://127.0.0.1") for worker in last["workers"])


def test_a_worker_with_other_weights_is_told_from_the_others(whole, tmp_path):
    for folder in ("mine", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "vggish.pth").write_text(folder)
    (tmp_path / "preload.py").write_text(OTHER_WEIGHTS)
    with Cluster(tmp_path / "cluster") as own:
        own.add_worker("--preload", tmp_path / "preload.py", OTHER=str(tmp_path / "other"))
        result = whole.extract(tmp_path / "store", "--scheduler", own.address, "--weights-dir",
            tmp_path / "mine", code=1,
        )  # fmt: skip
    assert "other weights or another version than where the run was started: " in result.stderr
    assert f"On a worker on {gethostname()}: " in result.stderr
    assert "audio" in result.stderr
    assert not shards(tmp_path / "store")


@pytest.mark.parametrize(
    ("preload", "message"),
    [
        (
            OTHER_VERSION,
            rf"A worker on {gethostname()} has affuse 0\.0\.9, and the run was started with {VERSION}",
        ),
        (
            NO_AFFUSE,
            r"could not read or do its task \(.*No module named 'affuse'.*\)\. Both need affuse installed",
        ),
    ],
)
def test_a_worker_without_affuse_or_with_another_version_is_named(whole, tmp_path, preload, message):
    (tmp_path / "preload.py").write_text(preload)
    with Cluster(tmp_path / "cluster") as own:
        own.add_worker("--preload", tmp_path / "preload.py")
        own.wait_for_workers(1)
        result = whole.extract(tmp_path / "store", "--scheduler", own.address, code=1)
    assert re.search(message, result.stderr), result.stderr
    assert "dask shows" not in result.stderr  # this scheduler serves no dashboard
    assert not shards(tmp_path / "store")


@pytest.mark.parametrize("served", [True, False])
def test_the_address_of_dasks_dashboard_is_said_where_there_is_one(monkeypatch, served):
    module, said = "distributed.dashboard.scheduler", []
    with LocalCluster(n_workers=0, processes=False, protocol="tcp://", dashboard_address=":0") as cluster:
        monkeypatch.delitem(sys.modules, module, raising=False)
        if served:
            monkeypatch.setitem(sys.modules, module, sys)
        with tasks.joined(cluster.scheduler_address, None, said.append):
            pass
    assert any("dask shows who works on what: http://" in line for line in said) == served


def test_a_worker_that_does_not_see_the_store_says_so(tmp_path):
    with pytest.raises(AffuseError, match=rf"A worker on {gethostname()} does not see the store .*/gone"):
        tasks.work(None, None, tmp_path / "far" / "gone", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scheduler", "tcp://127.0.0.1:1"], "No dask scheduler answers at tcp://127.0.0.1:1"),
        (["--scheduler", ""], "--scheduler has no address"),
        (["--scheduler", "nonsense"], "No dask scheduler answers at nonsense"),
        (["--scheduler", "tls://127.0.0.1:1"], "--tls-ca, --tls-cert and --tls-key"),
        (["--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "give one"),
        (["--scheduler", "tls://127.0.0.1:1", "--tls-ca", "ca.pem"], "give all three, or none"),
        (["--tls-ca", "a", "--tls-cert", "b", "--tls-key", "c"], "The --tls options are for --scheduler"),
        (
            ["--scheduler", "tls://127.0.0.1:1", "--tls-ca", "a", "--tls-cert", "b", "--tls-key", "c"],
            "a of the --tls options is no file",
        ),
    ],
)
def test_schedulers_that_cannot_be_reached_are_a_sentence(whole, tmp_path, options, message):
    begin = time.monotonic()
    result = whole.extract(tmp_path / "store", *options, code=2)
    assert time.monotonic() - begin < 60  # five are given to the scheduler
    assert message in result.stderr


@pytest.fixture
def tls(tmp_path) -> list[str]:
    """An authority made for the occasion, and one certificate for everybody: the options that name them."""
    if not which("openssl"):
        pytest.skip("makes certificates with the program openssl")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    openssl(*new, "-subj", "/CN=authority", "-x509", "-days", "2", "-keyout", "ca-key.pem", "-out", "ca.pem")
    openssl(*new, "-subj", "/CN=member", "-keyout", "key.pem", "-out", "request.pem")
    openssl(
        "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
        "-days", "2", "-out", "cert.pem",
    )  # fmt: skip
    files = {"ca-file": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
    return [part for name, file in files.items() for part in (f"--tls-{name}", str(tmp_path / file))]


def test_a_scheduler_that_speaks_tls_works_with_the_three_files_alone(tls, tmp_path):
    whole = Whole(tmp_path / "whole", *SOUND_ALONE)
    files = ["--tls-ca", *tls[1:]]
    with Cluster(tmp_path / "cluster", workers=1, tls=tls) as own:
        assert own.address.startswith("tls://")
        swapped = [tls[1], tls[3], tls[1]]
        options = [part for pair in zip(files[::2], swapped, strict=True) for part in pair]
        refused = whole.extract(tmp_path / "store", "--scheduler", own.address, *options, code=2)
        assert "do not serve" in refused.stderr
        for address in (own.address, own.address.replace("tls:", "tcp:")):
            refused = whole.extract(tmp_path / "store", "--scheduler", address, code=2)
            assert "--tls-ca, --tls-cert and --tls-key" in refused.stderr
        whole.extract(tmp_path / "store", "--scheduler", own.address, *files)
    whole.check(tmp_path / "store")
