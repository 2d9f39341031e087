"""Setting aside what is damaged, and saying what a store lacks and why."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from affuse.commands import main
from affuse.extract.extraction import extract_settings
from affuse.features import AffuseError, FeatureStore, UsageError
from affuse.features.layout import shard_name
from affuse.features.repair import quarantine
from affuse.fuse import train
from builders import provenance, random_video
from shards import cut
from test_store import damage
from tiny import write_labels


def affuse(*arguments):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    store = FeatureStore(tmp_path / "store", create=True)
    for name, changes in {
        "clip01": {},
        "clip02": {},
        "face\nless": {"faces": 0},
        "mute": {"words": 0},
        "mute2": {"words": 0},
    }.items():
        store.write(random_video(name, seed=len(name), **changes), provenance())
    return store


def files(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_what_is_damaged_or_misnamed_is_set_aside_and_nothing_is_lost(store):
    shards = store.path / "shards" / "ab"
    shards.mkdir()
    flipped = damage(store, "clip01", "audio/embedding").read_bytes()
    cut = store.shard("clip02").read_bytes()[:3000]
    store.shard("clip02").write_bytes(cut)
    copy = store.shard("mute").read_bytes()
    (shards / "copy.h5").write_bytes(copy)

    result = affuse("features", "repair", store.path)
    assert result.exit_code == 0
    assert f"clip01: audio/embedding in {shard_name('clip01')}: it cannot be read" in result.stdout
    assert f"clip02: in {shard_name('clip02')}: it has 3000 bytes" in result.stdout
    assert "in copy.h5: it lies where no shard of this video does" in result.stdout
    assert "3 set aside. Run affuse extract again" in result.stdout
    kept = {
        f"{shard_name('clip01')}.1": flipped,
        f"{shard_name('clip02')}.1": cut,
        "copy.h5.1": copy,
    }
    assert {
        name: (store.path / "quarantine" / name).read_bytes() for name in files(store.path / "quarantine")
    } == kept

    opened = FeatureStore(store.path)
    assert opened.ids == store.ids == ["face\nless", "mute", "mute2"]
    assert opened.verify().problems == []
    assert opened.examine("clip01", "", 0, 0, str)[0] == "new"
    assert "nothing to repair" in affuse("features", "repair", store.path).stdout


def test_a_second_damage_does_not_take_the_place_of_the_first(store):
    for number in (1, 2, 3):
        damage(store, "clip01", "visual/time")
        result = affuse("features", "repair", store.path, "--json")
        (moved,) = json.loads(result.stdout)["quarantined"]
        assert moved["path"].endswith(f"/quarantine/{shard_name('clip01')}.{number}")
        assert [(p["video"], p["dataset"]) for p in moved["problems"]] == [("clip01", "visual/time")]
        store.write(random_video("clip01"), provenance())
    assert len(files(store.path / "quarantine")) == 3


def test_nothing_is_moved_where_a_shard_is_newer_or_cannot_be(store, monkeypatch):
    damage(store, "clip01", "visual/time")
    with monkeypatch.context() as future:
        future.setattr("affuse.features.seal.FORMAT_VERSION", 9)
        store.write(random_video("zz-new"), provenance())
    with pytest.raises(UsageError, match="format version 9"):
        quarantine(store)
    store.shard("zz-new").unlink()
    (store.path / "quarantine").write_text("a file")
    with pytest.raises(AffuseError, match=r"could not be moved to .*quarantine: File exists"):
        quarantine(store)
    assert store.shard("clip01").exists()


def test_info_says_what_is_missing_and_why(store):
    facts = json.loads((whole := affuse("features", "info", store.path, "--json")).stdout)
    assert whole.exit_code == 0
    assert facts["missing"] == {
        "visual": {"no_face": {"count": 1, "reasons": {"no face found in 40 frames": ["face\nless"]}}},
        "audio": {},
        "text": {"no_speech": {"count": 2, "reasons": {"no speech was recognised": ["mute", "mute2"]}}},
    }
    assert facts["failed"] == {}

    path = damage(store, "clip01", "text/start")
    cut(path, 3000)
    result = affuse("features", "info", store.path)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    at = lines.index("Without visual features: 1 video.")
    assert lines[at : at + 3] == [
        "Without visual features: 1 video.",
        "  no_face 1",
        "    no face found in 40 frames: face\\nless",
    ]
    assert "    no speech was recognised: mute, mute2" in lines
    (damaged,) = [line for line in lines if line.startswith("Damaged: ")]
    assert damaged.startswith(f"Damaged: clip01: in {path.name}: it has 3000 bytes")
    assert "affuse features repair" in lines[-1]


def test_names_no_terminal_can_print_are_escaped(tmp_path):
    store = FeatureStore(tmp_path, create=True)
    store.write(random_video("a\udcff\x1b[31mb\u202e"), provenance())
    assert "  a\\udcff\\x1b[31mb\\u202e: 40 frames" in affuse("features", "info", tmp_path).stdout
    facts = json.loads(affuse("features", "info", tmp_path, "--json").stdout)
    assert list(facts["videos"]) == ["a\udcff\x1b[31mb\u202e"]


def test_training_on_damaged_shards_alone_says_why(tmp_path):
    store = FeatureStore(tmp_path / "store", create=True)
    store.write(random_video("clip01"), provenance())
    store.shard("clip01").write_bytes(b"junk")
    for partition, name in (("train", "clip01"), ("validation", "clip02")):
        write_labels(tmp_path / "labels" / partition / f"{name}.txt", np.zeros((10, 2)))
    with pytest.raises(
        AffuseError, match=rf"1 are damaged; {shard_name('clip01')}: it is not a shard of affuse"
    ):
        train(store.path, tmp_path / "labels", tmp_path / "run")


# ---- settings


def test_the_order_of_modalities_is_no_setting():
    one, other, twice = (
        extract_settings("offline", assignments=[f"modalities=[{names}]"])
        for names in ("audio, visual", "visual, audio", "audio, visual, audio")
    )
    assert one == other == twice
    assert one.modalities == ("visual", "audio")


@pytest.mark.parametrize(("given", "code"), [("de", "de"), ("German", "de"), ("no", "no"), ("null", None)])
def test_languages_are_whispers(given, code):
    assert extract_settings("offline", assignments=[f"language={given}"]).language == code


@pytest.mark.parametrize(("given", "meant"), [("germn", "german"), ("xx", "")])
def test_other_languages_are_refused(given, meant):
    with pytest.raises(UsageError, match="Setting language: unknown language") as caught:
        extract_settings("offline", assignments=[f"language={given}"])
    assert (f"did you mean '{meant}'?" if meant else "Known: ") in str(caught.value)
