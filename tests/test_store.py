"""The store as people and schedulers use it: looking in, resuming, verifying, comparing."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from affuse.features import MODALITIES, AffuseError, Backbone, FeatureStore, UsageError
from affuse.features.commands import account, describe
from affuse.features.layout import PATHS, shard_name, shard_path
from builders import assert_same, provenance, random_video
from differences import differences
from shards import cut


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    """Three videos: one whole, one without a face, one without words."""
    store = FeatureStore(tmp_path / "store", create=True)
    store.write(random_video("clip01", seed=1), provenance())
    store.write(random_video("faceless", seed=2, faces=0), provenance())
    store.write(random_video("batch1/mute", seed=3, words=0), provenance())
    return store


def damage(store: FeatureStore, video_id: str, dataset: str) -> Path:
    """Flip one bit in a dataset of a video."""
    path = store.shard(video_id)
    with h5py.File(path) as file:
        place = file[dataset].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    return path


def forbidden() -> str:
    raise AssertionError("the source was read though nothing about it had changed")


# ---- opening and looking


def test_a_missing_store_says_how_to_make_one(tmp_path):
    with pytest.raises(
        UsageError, match=r"nowhere is not a folder. .* affuse extract --video-dir .* --out .*nowhere"
    ):
        FeatureStore(tmp_path / "nowhere")


def test_a_folder_without_features_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(
        UsageError, match=r"no features in it\. Name a store; .* --out STORE$"
    ):  # not --out of this one
        FeatureStore(tmp_path)


def test_a_store_cannot_be_made_where_a_file_is(tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(UsageError, match="cannot be made"):
        FeatureStore(tmp_path / "file", create=True)


def test_it_behaves_as_a_collection(store):
    assert store.ids == list(store) == ["batch1/mute", "clip01", "faceless"]
    assert len(store) == 3
    assert "clip01" in store
    assert "clip1" not in store
    assert_same(store["clip01"], random_video("clip01", seed=1))


def test_an_unknown_video_names_the_nearest(store):
    with pytest.raises(UsageError, match=r"'clip_01' is not among the 3 .*; did you mean 'clip01'\?"):
        store["clip_01"]
    with pytest.raises(UsageError, match="'zzz' is not among the 3"):
        store.header("zzz")


def test_reading_one_modality(store):
    video = store.read("clip01", ("audio",))
    assert [len(getattr(video, m).embedding) for m in MODALITIES] == [0, 40, 0]
    np.testing.assert_array_equal(store.frame_times("clip01"), store["clip01"].visual.time)


def test_what_others_write_is_seen(store):
    assert len(store) == 3
    FeatureStore(store.path).write(random_video("new"), provenance())
    assert "new" in store
    assert len(pickle.loads(pickle.dumps(store))) == 4


def test_provenance_and_widths(store):
    assert store.provenance == provenance()
    assert store.widths == {"visual": 24, "audio": 8, "text": 12}


def test_widths_know_only_what_was_extracted(tmp_path):
    made = provenance()
    made = provenance(backbones={p: b for p, b in made.backbones.items() if p in ("audio", "speech")})
    store = FeatureStore(tmp_path, create=True)
    store.write(random_video(), made)
    assert store.widths == {"audio": 8}


def test_an_empty_store_has_no_provenance(tmp_path):
    store = FeatureStore(tmp_path, create=True)
    assert (len(store), store.ids) == (0, [])
    with pytest.raises(AffuseError, match="No video in"):
        _ = store.widths
    assert store.info() == {"settings": {}, "settings_hash": "", "backbones": {}, "videos": {}, "damaged": []}


def test_features_of_different_settings_are_not_mixed(store):
    store.write(random_video("other"), provenance(settings={"audio_anchor": "centre"}))
    with pytest.raises(UsageError) as caught:
        _ = store.provenance
    assert "3 one way, 1 otherwise (settings.audio_anchor: start → centre)" in str(caught.value)
    assert "Run affuse extract again" in str(caught.value)
    store.write(random_video("other"), provenance())
    assert store.provenance == provenance()


# ---- info


def test_info_is_plain_json_of_the_promised_form(store):
    info = store.info()
    assert json.loads(json.dumps(info)) == info
    assert info["settings"] == provenance().settings
    assert info["settings_hash"] == provenance().settings_hash
    assert set(info["backbones"]) == {"visual", "audio", "speech", "text"}
    assert {"name", "source", "sha256", "trained", "width"} <= set(info["backbones"]["visual"])
    assert list(info["videos"]) == store.ids
    video = info["videos"]["clip01"]
    assert set(video) == {"fps", "duration", "frames", "faces", *MODALITIES}
    assert (video["fps"], video["frames"]) == (25.0, 40)
    assert video["faces"] == store["clip01"].visual.valid.sum()
    assert video["text"] == {"status": "ok", "reason": "", "rows": 6, "width": 12}
    assert info["videos"]["faceless"]["visual"]["status"] == "no_face"
    assert info["videos"]["faceless"]["visual"]["reason"] == "no face found in 40 frames"
    assert info["damaged"] == []


def test_info_says_how_much_a_video_has_of_each_modality(store):
    store.write(random_video("one", words=1), provenance())
    said = describe(account(store.info()))
    faces = store["clip01"].visual.valid.sum()
    assert 0 < faces < 40
    assert f"  clip01: 40 frames, 1.6 s: face in {faces} of 40 frames, sound in 40 rows, 6 words\n" in said
    assert "  faceless: 40 frames, 1.6 s: visual no_face, sound in 40 rows, 6 words\n" in said
    assert "sound in 40 rows, 1 word\n" in said
    assert "sound in 40 rows, text no_speech\n" in said


def test_info_has_lines_for_the_first_of_many_videos(store, monkeypatch):
    whole = describe(account(store.info()))
    assert "more" not in whole
    monkeypatch.setattr("affuse.features.commands.LISTED", 2)
    said = describe(account(store.info()))
    assert "  … and 1 more, which --json lists.\n" in said
    assert "  faceless: " not in said
    assert "  faceless: " in whole
    assert "no face found in 40 frames: faceless" in said


def test_info_has_no_digest_where_none_is_known(store):
    backbones = {"visual": Backbone("imported", "mine", "", True, 24)}
    other = FeatureStore(store.path / "imported", create=True)
    other.write(store["clip01"], provenance(backbones=backbones))
    said = describe(account(other.info()))
    assert "visual  imported, 24 wide, mine, weights not known\n" in said
    assert "sha256" not in said
    assert "sha256 " in describe(account(store.info()))


def test_info_survives_damage(store):
    shard = store.shard("faceless")
    cut(shard, 3000)
    info = FeatureStore(store.path).info()
    assert list(info["videos"]) == ["batch1/mute", "clip01"]
    assert [(d["video"], d["dataset"], d["file"]) for d in info["damaged"]] == [("faceless", "", shard.name)]


# ---- verify


def test_a_whole_store_verifies(store):
    seen = []
    verification = store.verify(progress=lambda *told: seen.append(told))
    assert (verification.checked, verification.of, verification.problems) == (3, 3, [])
    assert seen == [("3 of 3 videos read", None, True)]


@pytest.mark.parametrize("dataset", PATHS)
def test_verify_names_video_and_dataset(store, dataset):
    path = damage(store, "clip01", dataset)
    (problem,) = store.verify().problems
    assert (problem.video, problem.dataset, problem.file) == ("clip01", dataset, path.name)
    assert problem.reason


def test_foreign_files_are_named_and_stop_nothing(store):
    shards = store.path / "shards" / "ab"
    shards.mkdir(exist_ok=True)
    (shards / "notes.txt").write_text("mine")
    (shards / ".hidden.h5").write_text("mine")
    (shards / "folder.h5").mkdir()
    (shards / "loop.h5").symlink_to("loop.h5")
    (shards / "foreign.h5").write_text("mine")
    with h5py.File(shards / "other.h5", "w") as file:
        file["x"] = np.arange(5)
    shutil.copy(store.shard("clip01"), shards / "copy.h5")
    opened = FeatureStore(store.path)
    assert opened.ids == store.ids
    problems = {p.file: p for p in opened.verify().problems}
    assert (
        set(problems)
        == {"foreign.h5", "other.h5", "copy.h5", "folder.h5", "loop.h5"}
        == {d["file"] for d in opened.info()["damaged"]}
    )
    assert "not a shard of affuse" in problems["foreign.h5"].reason
    assert problems["copy.h5"].video == "clip01"
    assert shard_name("clip01") in problems["copy.h5"].reason


# ---- resuming


def test_only_what_must_be_is_remade(store):
    video, made = random_video("clip01", seed=1), provenance()
    size, mtime, sha256 = video.source.size, video.source.mtime_ns, video.source.sha256

    def why(video_id="clip01", settings=made.settings_hash, size=size, mtime=mtime, digest=forbidden):
        return store.examine(video_id, settings, size, mtime, digest)[0]

    assert why() is None
    assert why(mtime=mtime + 1, digest=lambda: sha256) is None
    assert why(mtime=mtime + 1, digest=lambda: "other") == "source changed"
    assert why(size=size + 1) == "source changed"
    assert why(settings="other") == "settings changed"
    assert why("clip02") == "new"


@pytest.mark.parametrize("dataset", ["visual/embedding", "text/word"])
def test_damage_is_remade_where_it_is_looked_for(store, dataset):
    video, made = random_video("clip01", seed=1), provenance()
    damage(store, "clip01", dataset)
    known = ("clip01", made.settings_hash, video.source.size, video.source.mtime_ns, forbidden)
    assert store.examine(*known, verify=True)[0].startswith(f"damaged: {dataset}: ")
    assert store.examine(*known)[0] is None  # the seal does not know of it
    cut(store.shard("clip01"), 0)
    assert store.examine(*known)[0].startswith("damaged: ")
    store.write(video, made)
    assert store.examine(*known, verify=True)[0] is None
    assert store.verify().problems == []


def test_nothing_newer_is_overwritten(store, monkeypatch):
    with monkeypatch.context() as future:
        future.setattr("affuse.features.seal.FORMAT_VERSION", 9)
        store.write(random_video("new"), provenance())
    content = store.shard("new").read_bytes()
    with pytest.raises(UsageError, match="format version 9"):
        store.examine("new", "", 0, 0, forbidden)[0]
    with pytest.raises(UsageError, match="format version 9"):
        store.write(random_video("new"), provenance())
    with pytest.raises(UsageError, match="format version 9"):
        FeatureStore(store.path).info()
    assert store.shard("new").read_bytes() == content


def test_two_ids_never_share_a_file(store, monkeypatch):
    monkeypatch.setattr("affuse.features.store.shard_path", lambda video_id: shard_path("clip01"))
    with pytest.raises(AffuseError, match="'clip01' and 'clip02' would share the file"):
        store.write(random_video("clip02"), provenance())
    with pytest.raises(AffuseError, match="would share"):
        store.examine("clip02", "", 0, 0, forbidden)[0]


def test_shards_under_each_others_names_are_made_anew(store):
    one, other = store.shard("clip01"), store.shard("faceless")
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    reason = f"it lies where no shard of this video does, which would be {shard_path('faceless')}"
    assert store.examine("clip01", provenance().settings_hash, 0, 0, forbidden)[0] == f"damaged: {reason}"
    with pytest.raises(
        AffuseError, match=f"'faceless' in the feature store is damaged: .*{one.name}: {reason}"
    ):
        store["clip01"]
    for seed, video_id in enumerate(("clip01", "faceless"), start=1):
        store.write(random_video(video_id, seed=seed), provenance())
    assert store.verify().problems == []
    assert_same(store["clip01"], random_video("clip01", seed=1))


def test_sweep_is_the_shards(store):
    leftover = store.path / "shards" / f".a.h5.{0:012x}.{0:016x}.partial"
    leftover.write_bytes(b"")
    assert store.sweep() == 0
    assert store.verify().checked == 3


def test_many_processes_write_at_once(tmp_path):
    code = """
import sys
from builders import provenance, random_video
from affuse.features import FeatureStore
store = FeatureStore(sys.argv[1], create=True)
for seed in range(15):
    store.write(random_video(f"clip{seed % 5}", seed=seed % 5), provenance())
    assert len(store) <= 5
"""
    root = Path(__file__).resolve().parents[1]
    environment = {"PYTHONPATH": f"{root}:{root / 'tests'}", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment) for _ in range(3)
    ]
    assert [process.wait(300) for process in processes] == [0, 0, 0]
    store = FeatureStore(tmp_path)
    assert store.verify().problems == []
    for seed, video_id in enumerate(store):
        assert_same(store[video_id], random_video(video_id, seed=seed))


# ---- comparing


def test_equal_stores_do_not_differ(store, tmp_path):
    other = FeatureStore(tmp_path / "other", create=True)
    for video_id in reversed(store.ids):
        video = store[video_id]
        video = dataclasses.replace(video, seconds={"decode": 9.0})
        other.write(video, provenance())
    assert differences(store, other) == []


def test_differences_name_video_and_dataset(store, tmp_path):
    other = FeatureStore(tmp_path / "other", create=True)
    for video_id in store.ids:
        other.write(store[video_id], provenance())
    video = store["clip01"]
    audio = video.audio.embedding.copy()
    audio[3, 2] += 1
    other.write(
        dataclasses.replace(video, fps=30.0, audio=dataclasses.replace(video.audio, embedding=audio)),
        provenance(),
    )
    other.write(random_video("extra"), provenance())
    damage(other, "faceless", "text/start")
    lines = differences(store, other)
    assert any(line.startswith("clip01: audio/embedding differs") for line in lines)
    assert "clip01: / fps: 25.0 and 30.0" in lines
    assert f"extra: not in {store.path}" in lines
    assert f"faceless: text/start damaged in {other.path}" in lines
    assert len(lines) == 4


def test_views_are_told_and_compared(store, tmp_path):
    other = FeatureStore(tmp_path / "other", create=True)
    for place, views in ((store, ("flip", "top-left")), (other, ("top-left", "flip"))):
        place.write(random_video("seen", views=views), provenance())
    assert store.info()["videos"]["seen"]["visual"]["views"] == ["flip", "top-left"]
    assert store.info()["videos"]["clip01"]["visual"]["views"] == []
    assert "of each face: centre, flip, top-left" in describe(account(store.info()))
    assert "of each face" not in describe(account({**store.info(), "videos": {}}))
    lines = [line for line in differences(store, other) if line.startswith("seen")]
    assert len(lines) == 3  # which views, in which order, and what is in each of the two
    assert "seen: visual/views/flip differs: shapes [40, 24] and [40, 24]" in lines
    damage(store, "seen", "visual/views/flip")
    known = ("seen", provenance().settings_hash, 1000, 17, forbidden, True)
    assert store.examine(*known)[0].startswith("damaged: visual/views/flip")
