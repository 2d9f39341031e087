"""Extraction as people run it: going on, remaking, kills, and every kind of bad input."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from affuse.commands import main
from affuse.errors import UsageError
from affuse.extract.audio import SoundEncoder
from affuse.extract.placement import visible_gpus
from affuse.extract.videos import find_jobs
from affuse.features.layout import shard_path
from affuse.features.store import FeatureStore
from differences import differences
from media import plain_frames, talking_head, write_media
from processes import SEEDED, SOUND_ALONE


def affuse(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def extract(videos, store, *more):
    result = affuse("extract", "--video-dir", videos, "--out", store, *SEEDED, *more)
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def videos(tmp_path) -> Path:
    for name in ("a", "b", "c"):
        talking_head(tmp_path / "videos" / f"{name}.mp4", seconds=0.4)
    return tmp_path / "videos"


def test_a_second_run_extracts_nothing_and_changes_remake(videos, tmp_path):
    store = tmp_path / "store"
    first = extract(videos, store)
    assert first.exit_code == 0
    assert "3 extracted, 0 already there" in first.stdout
    assert "untrained" in first.stderr

    again = extract(videos, store)
    assert "0 extracted, 3 already there" in again.stdout
    assert "nothing to do" in again.stderr

    os.utime(videos / "a.mp4")  # touched, not changed
    assert "0 extracted" in extract(videos, store).stdout
    talking_head(videos / "a.mp4", seconds=0.6)
    changed = extract(videos, store)
    assert "1 extracted, 2 already there" in changed.stdout
    assert FeatureStore(store).header("a").frames == 6

    other = extract(videos, store, "--set", "audio_anchor=end")
    assert "3 extracted" in other.stdout
    assert FeatureStore(store).provenance.settings["audio_anchor"] == "end"


def test_one_bad_video_does_not_stop_the_others(videos, tmp_path):
    store = tmp_path / "store"
    (videos / "bad.mp4").write_text("not a video")
    write_media(videos / "faceless.mp4", plain_frames(3))
    result = extract(videos, store)
    assert result.exit_code == 1
    assert "4 extracted, 0 already there, 1 failed" in result.stdout
    assert "failed: bad: bad.mp4 cannot be opened as a video" in result.stderr
    assert "no_face 1" in result.stdout
    info = json.loads(affuse("features", "info", store, "--json").stdout)
    assert info["videos"]["bad"]["visual"]["status"] == "undecodable"
    assert info["videos"]["faceless"]["audio"]["status"] == "no_audio"
    assert affuse("features", "info", store).stdout.count("bad.mp4 cannot be opened") == 1
    assert info["backbones"]["visual"] == info["backbones"]["visual"] | {"trained": False, "width": 512}

    again = extract(videos, store)
    assert again.exit_code == 1
    assert "nothing to do" in again.stderr
    assert "4 already there, 1 failed, 1 of them in an earlier run" in again.stdout
    assert "--retry-failed tries these again" in again.stdout
    talking_head(videos / "bad.mp4", seconds=0.2)
    assert extract(videos, store).exit_code == 0


def test_a_flipped_bit_is_named_and_remade(videos, tmp_path):
    store = tmp_path / "store"
    extract(videos, store)
    assert affuse("features", "verify", store).exit_code == 0
    whole = shutil.copytree(store, tmp_path / "whole")
    (shard,) = (store / "shards").glob("*/b-*.h5")
    data = bytearray(shard.read_bytes())
    import h5py

    with h5py.File(shard) as file:
        dataset = file["audio/embedding"]
        place = dataset.id.get_chunk_info(0).byte_offset
    data[place + 10] ^= 4
    shard.write_bytes(data)
    result = affuse("features", "verify", store)
    assert result.exit_code == 1
    assert "b: audio/embedding" in result.stdout
    assert "nothing to do" in extract(videos, store).stderr  # which trusts the seal
    remade = extract(videos, store, "--verify")
    assert "1 to extract (1 damaged: audio/embedding: it cannot be read" in remade.stderr
    assert "1 extracted, 2 already there" in remade.stdout
    assert differences(FeatureStore(whole), FeatureStore(store)) == []


def test_what_is_no_file_in_a_shards_place_is_named_and_replaced_where_it_can_be(videos, tmp_path):
    names = {name: tmp_path / "store" / "shards" / shard_path(name) for name in "abc"}
    for path in names.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(names["a"])
    names["b"].mkdir()
    names["c"].symlink_to(tmp_path / "nowhere")
    for command in ("verify", "info"):
        result = affuse("features", command, tmp_path / "store")
        assert result.exit_code == 1
        for path in names.values():
            assert f"in {path.name}: it cannot be read (" in result.stdout
    result = extract(videos, tmp_path / "store", *SOUND_ALONE)
    assert result.exit_code == 1
    assert "3 to extract (2 damaged: it cannot be read (Not a file); 1 damaged: it" in result.stderr
    assert f"failed: b: {names['b']} is a folder, in the place of the features of" in result.stderr
    assert FeatureStore(tmp_path / "store").ids == ["a", "c"]
    assert not names["c"].is_symlink()
    assert "moved to" in affuse("features", "repair", tmp_path / "store").stdout
    assert extract(videos, tmp_path / "store", *SOUND_ALONE).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["extract", "--video-dir", "gone", "--out", "s"], 2, "gone is not a folder"),
        (["extract", "--video-dir", "empty", "--out", "s"], 2, "No videos below empty"),
        (["extract", "--video-dir", "empty", "--out", "s", "--profile", "papr"], 2, "did you mean 'paper'?"),
        (
            ["extract", "--video-dir", "empty", "--out", "s", "--set", "detction.margin=1"],
            2,
            "did you mean 'detection'?",
        ),
        (
            ["extract", "--video-dir", "empty", "--out", "s", "--set", "detection.margn=1"],
            2,
            "did you mean 'margin'?",
        ),
        (
            ["extract", "--video-dir", "empty", "--out", "s", "--set", "backbones.visual=resnet"],
            2,
            "did you mean",
        ),
        (
            ["extract", "--video-dir", "empty", "--out", "s", "--set", "backbones.text=vggish"],
            2,
            "unknown text backbone",
        ),
        (["extract", "--video-dir", "empty", "--out", "s", "--set", "audio_anchor=begin"], 2, "audio_anchor"),
        (["extract", "--video-dir", "empty", "--out", "s", "--set", "faces=given"], 2, "--faces-dir"),
        (["extract", "--video-dir", "empty", "--out", "s", "--set", "transcripts=given"], 2, "--transcripts"),
        (
            ["extract", "--video-dir", "empty", "--out", "s", "--set", "detection.margin=nan"],
            2,
            "detection.margin",
        ),
        (
            ["extract", "--video-dir", "empty", "--out", "s", "--set", "detection.short_side=-5"],
            2,
            "detection.short_side",
        ),
        (["extract", "--out", "s"], 2, "No videos are named: give --video-dir"),
        (["extrakt"], 2, "No such command 'extrakt'"),
        (["features", "info", "gone"], 2, "affuse extract --video-dir"),
        (["features", "verify", "empty"], 2, "has no features in it"),
        (["fuse", "evaluate", "--run", "gone", "--features", "s", "--labels", "l"], 1, "gone"),
    ],
)
def test_bad_requests_are_a_sentence(tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = affuse(*arguments)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_folders_of_crops_or_transcripts_that_fit_no_video_are_refused(videos, tmp_path):
    (tmp_path / "other").mkdir()
    for option, looked_for in (("--faces-dir", "a/00001.jpg"), ("--transcripts", "a.json")):
        result = extract(videos, tmp_path / "store", option, tmp_path / "other")
        assert result.exit_code == 2
        assert str(tmp_path / "other" / looked_for) in result.stderr


def test_what_is_no_file_is_passed_over_and_what_cannot_be_listed_is_refused(videos, tmp_path, monkeypatch):
    os.mkfifo(videos / "pipe.mp4")  # reading it would wait for ever
    (videos / "gone.mp4").symlink_to(tmp_path / "nowhere")
    assert [job.id for job in find_jobs(videos)] == ["a", "b", "c", "gone"]

    (videos / "locked").mkdir()
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UsageError, match="locked cannot be read: Permission denied"):
        find_jobs(videos)


def test_a_job_can_be_done_from_another_folder(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces" / "a").mkdir(parents=True)
    job = find_jobs(Path("videos"), faces_dir=Path("faces"))[0]
    there = job.absolute()
    assert (there.id, there.name, there.transcript) == ("a", "a.mp4", None)
    assert (there.path, there.crops) == (tmp_path / "videos" / "a.mp4", tmp_path / "faces" / "a")


def test_features_that_cannot_be_kept_do_not_stop_the_others(videos, tmp_path, monkeypatch):
    encode = SoundEncoder.__call__
    spoiled = iter([np.nan, 1, 1])
    monkeypatch.setattr(SoundEncoder, "__call__", lambda *given: encode(*given) * np.float16(next(spoiled)))
    result = extract(videos, tmp_path / "store")
    assert result.exit_code == 1
    assert "failed: a: The features of video 'a' cannot be kept: audio/embedding holds NaN" in result.stderr
    assert FeatureStore(tmp_path / "store").ids == ["b", "c"]


@pytest.mark.parametrize("junk", [True, False])
def test_weights_that_cannot_be_used_stop_the_run_at_once(videos, tmp_path, junk):
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "vggish.pth"
    path.write_text("junk") if junk else torch.save({"features.0.weight": torch.zeros(3)}, path)
    result = extract(videos, tmp_path / "store", "--weights-dir", tmp_path / "weights")
    assert result.exit_code == 1
    message = "vggish.pth cannot be read" if junk else "vggish.pth does not hold the weights of vggish: "
    assert result.stderr.count(message) == 1


def test_a_device_that_extraction_does_not_know_is_refused(videos, tmp_path):
    result = affuse(
        "extract", "--video-dir", videos, "--out", tmp_path / "store", "--profile", "offline",
        "--allow-untrained", "--device", "meta",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "Extraction runs on cpu or cuda, not on meta" in result.stderr


def test_a_log_that_cannot_be_made_is_a_warning(videos, tmp_path):
    FeatureStore(tmp_path / "store", create=True)
    (tmp_path / "store" / "logs").write_text("")
    result = extract(videos, tmp_path / "store")
    assert result.exit_code == 0
    assert "no log is kept, " in result.stderr
    assert "cannot be written: File exists" in result.stderr


@pytest.mark.parametrize(
    ("chosen", "count", "names"),
    [(None, 2, ["0", "1"]), ("2,3", 2, ["2", "3"]), ("GPU-abc,MIG-def,7", 3, ["GPU-abc", "MIG-def", "7"])],
)
def test_gpus_are_those_left_to_this_process(monkeypatch, chosen, count, names):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert visible_gpus() == names


def test_no_weights_and_no_network_is_said_at_once(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    begin = time.monotonic()
    result = affuse("extract", "--video-dir", videos, "--out", tmp_path / "s")
    assert time.monotonic() - begin < 120  # retries would take longer
    assert result.exit_code == 1
    for part in (
        "resnet50-ferplus",
        "Weights of 4 backbones are missing",
        "--weights-dir",
        "--profile offline",
        "--allow-untrained",
    ):
        assert part in result.stderr


def test_help_is_quick_and_complete():
    begin = time.monotonic()
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run(
        [sys.executable, "cli.py", "--help"], cwd=root, capture_output=True, text=True, check=True
    )
    assert time.monotonic() - begin < 20
    for command in ("extract", "features", "fuse", "predict", "demo", "doctor"):
        assert command in result.stdout
    probe = "import sys, cli; print(sorted({'torch', 'h5py', 'av', 'transformers', 'pydantic'} & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", probe], cwd=root, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
