"""What this machine has: the table of backbones, the report of what was found, the verdict on each profile, and a
clip that goes all the way."""

import json
import re

import pytest
import torch
from click.testing import CliRunner

from affuse.commands import main
from affuse.extract import rehearsal
from affuse.extract.profiles import PROFILES
from affuse.extract.weights import doctor
from affuse.extract.weights import locate as weights
from affuse.extract.weights import table as sources
from affuse.features.seal import Problem
from affuse.features.store import FeatureStore, Verification
from shelf import BODY, DIGEST, changing, serving, settle

CPU = torch.device("cpu")


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
    result = CliRunner().invoke(main, ["doctor", "--quick", "--weights-dir", str(folder)])
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == "profile paper: 2 backbones missing (whisper-base.en, bert-base-uncased)"
    assert lines[1].endswith(": affuse download --profile paper")
    assert lines[2] == "profile offline: 2 backbones missing (resnet50-imagenet-caffe, minilm-l6)"
    assert lines[4].endswith("to be brought, as -v says: resnet50-imagenet-caffe")
    assert "--allow-untrained" not in result.stdout  # there are no words without their network
    assert "https://" not in result.stdout
    assert str(folder) not in result.stdout
    told = CliRunner().invoke(main, ["doctor", "--quick", "-v", "--weights-dir", str(folder)]).stdout
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
    asked = ["doctor", "--quick", "--weights-dir", str(home), "--profile"]
    ready = CliRunner().invoke(main, [*asked, "paper"])
    assert ready.exit_code == 0
    assert ready.stdout.splitlines()[:2] == ["profile paper: ready", ""]
    (home / "bert-base-uncased" / "config.json").unlink()
    assert "1 backbone damaged (bert-base-uncased)" in CliRunner().invoke(main, [*asked, "paper"]).stdout
    assert CliRunner().invoke(main, [*asked, "offline"]).exit_code == 1
    facts = json.loads(CliRunner().invoke(main, [*asked, "offline", "--json"]).stdout)["profiles"]
    assert "resnet50-imagenet-caffe" in facts["offline"]["by_hand"]
    assert CliRunner().invoke(main, [*asked, "papr"]).exit_code == 2


# the clip


@pytest.fixture
def offline(monkeypatch):
    def refuse(*asked, **_):
        raise AssertionError(f"the network was asked for {asked}")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)


def test_a_clip_goes_all_the_way_and_each_stage_has_its_time(offline):
    result = CliRunner().invoke(main, ["doctor", "--profile", "offline", "--json"])
    clip = json.loads(result.stdout)["clip"]
    assert (clip["profile"], tuple(clip["stages"])) == ("offline", rehearsal.STAGES)
    states = {name: stage["state"] for name, stage in clip["stages"].items()}
    whole = ("clip", "load", "decode", "faces", "speech", "text", "store")
    assert states == {**dict.fromkeys(rehearsal.STAGES, "seeded"), **dict.fromkeys(whole, "ok")}
    assert clip["stages"]["audio"]["why"] == "the weights of vggish are missing"
    assert all(stage["seconds"] > 0 for stage in clip["stages"].values())
    assert "--quick leaves it out" in result.stderr
    assert result.exit_code == 1  # two backbones of it are missing


@pytest.mark.parametrize("options", [(), ("--quick",)])
def test_a_device_that_is_not_there_is_said(options):
    result = CliRunner().invoke(main, ["doctor", "--device", "cuda:99", *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Device 'cuda:99' cannot be used" in result.stderr


def test_words_whose_weights_are_missing_are_left_out_and_named(offline):
    lines = rehearsal.describe_rehearsal(rehearsal.rehearse("paper", None, CPU))
    assert lines[0] == "a clip of 2 s through profile paper, on cpu"
    told = {line.split()[0]: line for line in lines[1:]}
    assert told["speech"].split(maxsplit=3)[1:] == [
        "skipped",
        "–",
        "the weights of whisper-base.en are missing",
    ]
    assert told["text"].split(maxsplit=3)[1:] == [
        "skipped",
        "–",
        "the weights of bert-base-uncased are missing",
    ]
    assert re.fullmatch(r" {4}store +ok +\d+\.\d\d s", told["store"])


def test_what_does_not_serve_fails_its_stage_and_the_command(home, offline):
    (home / "vggish.pth").write_bytes(BODY)
    asked = ["doctor", "--weights-dir", str(home)]
    result = CliRunner().invoke(main, asked)
    failed = next(line for line in result.stdout.splitlines() if line.startswith("    load"))
    assert failed.split()[1] == "failed"
    assert str(home / "vggish.pth") in failed
    assert result.stdout.startswith("profile paper: 3 backbones missing")
    assert "through profile offline" in result.stdout  # it lacks the least
    assert result.exit_code == 1
    assert CliRunner().invoke(main, [*asked, "--quick"]).exit_code == 0


def test_a_store_that_is_read_otherwise_fails(monkeypatch, offline, home):
    damage = Verification(1, 1, [Problem("clip", "", "", "its digest differs")])
    monkeypatch.setattr(FeatureStore, "verify", lambda store: damage)
    store = rehearsal.rehearse("paper", None, CPU)["stages"]["store"]
    assert (store["state"], store["why"]) == (
        "failed",
        "What was written was read otherwise: its digest differs.",
    )


def test_without_a_sample_of_a_face_the_picture_is_none(monkeypatch, tmp_path):
    def refuse(*_):
        raise FileNotFoundError

    monkeypatch.setattr("matplotlib.cbook.get_sample_data", refuse)
    assert rehearsal.write_clip(tmp_path / "clip.mp4") == "without a face: matplotlib's sample is not here"
    assert (tmp_path / "clip.mp4").stat().st_size
