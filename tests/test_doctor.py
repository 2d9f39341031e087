"""What this machine has: the table of backbones, the report of what was found, the verdict on each profile."""

import json
import re

import pytest
import torch
from click.testing import CliRunner

from affuse.commands import main
from affuse.extract.profiles import PROFILES
from affuse.extract.weights import doctor
from affuse.extract.weights import locate as weights
from affuse.extract.weights import table as sources
from shelf import BODY, DIGEST, changing, serving, settle


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


# the table and the report


def test_whispers_addresses_are_openais():
    import whisper

    ours = {
        name.removeprefix("whisper-"): e.address
        for name, e in sources.BACKBONES.items()
        if e.part == "speech"
    }
    theirs = {name: address for name, address in whisper._MODELS.items() if name not in ("large", "turbo")}
    assert ours == theirs


def test_the_table_is_whole():
    for name, entry in sources.BACKBONES.items():
        assert entry.name == name
        assert entry.licence
        assert (entry.face is not None) == (entry.part == "visual")
        assert (entry.width == 0) == (entry.part == "speech")
        assert not (entry.address and entry.hub)
        assert bool(entry.hub) == bool(entry.files) == bool(entry.revision)
        assert entry.address.startswith("https://") or not entry.address
        assert (
            entry.sha256 or not entry.address or "no hash" in entry.note
        )  # an unpinned address is owned up to
        for _, pin in (*entry.files, *(entry.package.pins if entry.package else ())):
            assert len(pin) == 64
        if entry.face:
            assert entry.face.channels in ("RGB", "BGR")
            assert entry.face.size <= entry.face.face


def test_the_report_has_a_row_for_everything_and_fetches_nothing(home, table, server):
    table("vggish", address=server.address + "/whole")
    folder = home / "mine"
    folder.mkdir()
    (folder / "vggish.pth").write_bytes(BODY)
    (folder / "ir50-ferplus.pth").write_bytes(BODY)
    rows = {row["name"]: row for row in doctor.report(folder)}
    assert rows.keys() == {"mtcnn", *sources.BACKBONES}
    assert len({frozenset(row) for row in rows.values()}) == 1
    assert rows["mtcnn"]["verified"] == "yes"
    assert (rows["vggish"]["state"], rows["vggish"]["verified"]) == ("found", "no")
    assert rows["vggish"]["sha256"] == DIGEST
    assert rows["ir50-ferplus"]["verified"] == "not pinned"
    assert rows["resnet50-ferplus"]["state"] == "missing"
    assert "robots.ox.ac.uk" in rows["resnet50-ferplus"]["how"]
    assert server.asked == []
    assert not weights.cache_folder().exists()


def test_a_damaged_package_is_reported_not_raised(table):
    table("vggish", package=sources.PackageFile("torch", "torch/__init__.py", (("", "0" * 64),)))
    row = next(row for row in doctor.report() if row["name"] == "vggish")
    assert row["verified"] == "no"
    assert "force-reinstall" in row["how"]


def test_the_environment_is_told():
    told = doctor.environment()
    assert told["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert int(told["cores"].split()[0]) >= 1
    told = doctor.surroundings()
    assert set(list(told)[:7]) == {"python", "torch", "gpu", "cuda", "decoder", "disk", "hdf5"}
    assert re.fullmatch(r"\d+ GiB free here, \d+ GiB for weights", told["disk"])


# the verdict


def test_the_verdict_comes_first_and_says_what_fetches_the_rest(home, server, table):
    table("minilm-l6", package=None)
    table("whisper-tiny.en", package=None)
    (folder := home / "mine").mkdir()
    for name in ("resnet50-ferplus.pth", "vggish.pth", "whisper-tiny.en.pt"):
        (folder / name).write_bytes(BODY)
    result = CliRunner().invoke(main, ["doctor", "--weights-dir", str(folder)])
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == "profile paper: 2 backbones missing (whisper-base.en, bert-base-uncased)"
    assert lines[1].endswith(": affuse download --profile paper")
    assert lines[2] == "profile offline: 2 backbones missing (resnet50-imagenet-caffe, minilm-l6)"
    assert lines[4].endswith("to be brought, as -v says: resnet50-imagenet-caffe")
    assert "--allow-untrained" not in result.stdout  # there are no words without their network
    assert "https://" not in result.stdout
    assert str(folder) not in result.stdout
    told = CliRunner().invoke(main, ["doctor", "-v", "--weights-dir", str(folder)]).stdout
    assert "https://" in told
    assert str(folder / "vggish.pth") in told
    assert server.asked == []


def test_a_profile_asked_for_decides_the_exit_status(home):
    for name in PROFILES["paper"].values():
        entry = sources.BACKBONES[name]
        path = home / entry.filename
        path.mkdir() if entry.is_folder else path.write_bytes(BODY)
    for name in ("config.json", "model.safetensors"):
        (home / "bert-base-uncased" / name).write_bytes(BODY)
    asked = ["doctor", "--weights-dir", str(home), "--profile"]
    ready = CliRunner().invoke(main, [*asked, "paper"])
    assert ready.exit_code == 0
    assert ready.stdout.splitlines()[:2] == ["profile paper: ready", ""]
    (home / "bert-base-uncased" / "config.json").unlink()
    assert "1 backbone damaged (bert-base-uncased)" in CliRunner().invoke(main, [*asked, "paper"]).stdout
    assert CliRunner().invoke(main, [*asked, "offline"]).exit_code == 1
    facts = json.loads(CliRunner().invoke(main, [*asked, "offline", "--json"]).stdout)["profiles"]
    assert "resnet50-imagenet-caffe" in facts["offline"]["by_hand"]
    assert CliRunner().invoke(main, [*asked, "papr"]).exit_code == 2
