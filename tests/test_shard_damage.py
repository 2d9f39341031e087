"""Shards that were damaged or made up: none passes."""

from __future__ import annotations

import json
import os
import pickle
import random
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from affuse.commands import main
from affuse.features import MODALITIES, FeatureStore, UsageError
from affuse.features.layout import paths, shard_path
from affuse.features.rows import read_arrays
from affuse.features.seal import DamagedError, read_entry
from affuse.features.shard import describe_shard, read_header, read_shard, verify_shard
from builders import provenance, random_video
from shards import VIEWS, chunks, edit, flip, put, settle

VISUAL = 7  # its place in the row of an entry


@pytest.mark.parametrize("name", paths(VIEWS))
def test_a_flipped_bit_in_a_dataset_names_video_and_dataset(tmp_path, name):
    path = put(tmp_path, random_video(frames=300, widths={"visual": 1024}, views=VIEWS))
    whole = path.read_bytes()
    rng = random.Random(name)
    modality = name.partition("/")[0]
    for first, size in chunks(path, name):
        flip(path, 8 * first + rng.randrange(8 * size))
        (problem,) = verify_shard(path)
        assert (problem.video, problem.dataset, problem.file) == ("clip01", name, path.name)
        with pytest.raises(DamagedError, match=f"'clip01' .* dataset {name}") as caught:
            read_shard(path, views=True)
        assert pickle.loads(pickle.dumps(caught.value)).problem == caught.value.problem
        read_shard(path, [m for m in MODALITIES if m != modality])  # the others still serve
        path.write_bytes(whole)
    assert verify_shard(path) == []


def test_any_flipped_bit_is_seen(tmp_path):
    path = put(tmp_path, random_video(frames=20, views=VIEWS))
    size = path.stat().st_size
    rng = random.Random(1)
    nameless = 0
    for bit in [0, 8 * size - 1, *(rng.randrange(8 * size) for _ in range(400))]:
        flip(path, bit)
        problems = verify_shard(path)
        assert problems, f"bit {bit} passed"
        assert all(p.file == path.name for p in problems)
        nameless += not problems[0].video
        flip(path, bit)
    assert nameless < 20  # only a damaged seal hides whose shard it is
    assert verify_shard(path) == []


def test_a_damaged_structure_is_seen_at_every_read(tmp_path):
    path = put(tmp_path)
    flip(path, 8 * (path.read_bytes().index(b"\x89HDF") + 50))
    for read in (read_shard, read_header, describe_shard):
        with pytest.raises(DamagedError, match=r"'clip01' .* structure .* Run affuse extract again"):
            read(path)


@pytest.mark.parametrize(
    "attribute", ["fps", "source_sha256", "provenance", "local", "features_digest", "digest"]
)
def test_an_edited_attribute_is_seen(tmp_path, attribute, monkeypatch):
    """Even one that was sealed after the edit: the digests inside are a second net."""
    path = put(tmp_path)
    before = path.read_bytes()
    with h5py.File(path, "r+") as file:
        value = file.attrs[attribute]
        file.attrs[attribute] = value + 1 if attribute == "fps" else value.replace("1", "2")
    assert path.read_bytes() != before
    monkeypatch.setattr("affuse.features.seal.structure", lambda *_: "sealed anew")
    text = path.read_bytes().split(b"\n")[1]
    reseal(path, text)
    assert [p.reason for p in verify_shard(path)] == ["its attributes are not those that were written"]


def reseal(path: Path, text: bytes) -> None:
    """Put a seal on an edited file, as one who means harm would."""
    seal = json.loads(text) | {"structure": "sealed anew", "size": path.stat().st_size}
    lines = b"affuse features\n" + json.dumps(seal).encode() + b"\n"
    lines += sha256(lines).hexdigest().encode() + b"\n"
    with path.open("r+b") as file:
        file.write(lines.ljust(seal["start"], b"\0"))


def test_a_view_that_is_not_there_is_damage(tmp_path, monkeypatch):
    path = put(tmp_path, random_video(views=VIEWS))
    text = path.read_bytes().split(b"\n")[1]
    with h5py.File(path, "r+") as file:
        del file["visual/views/flip"]
    assert [p.reason for p in verify_shard(path)] == ["its structure is not the one that was written"]
    monkeypatch.setattr("affuse.features.seal.structure", lambda *_: "sealed anew")
    reseal(path, text)
    assert "visual/views/flip" in [p.dataset for p in verify_shard(path)]
    with pytest.raises(DamagedError, match="visual/views/flip"):
        read_shard(path)


def test_a_view_of_another_shape_is_refused(tmp_path, monkeypatch):
    path = put(tmp_path, random_video(views=VIEWS))
    text = path.read_bytes().split(b"\n")[1]
    with h5py.File(path, "r+") as file:
        file["visual/views/flip"].resize(23, axis=1)
    monkeypatch.setattr("affuse.features.seal.structure", lambda *_: "sealed anew")
    reseal(path, text)
    with pytest.raises(DamagedError, match=r"visual/views/flip: \(40, 23\) .* not the layout"):
        read_shard(path)


@pytest.mark.parametrize("keep", [0, 10, 600, 5000, -1])
def test_a_truncated_shard_is_seen(tmp_path, keep):
    path = put(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    (problem,) = verify_shard(path)
    if keep in (5000, -1):
        assert "bytes where" in problem.reason
    with pytest.raises(DamagedError):
        read_shard(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"notes\n", b"\x89HDF\r\n\x1a\n" + bytes(5000), b"affuse features\n" + b"[" * 10**5 + b"\n"],
)
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"not a shard of affuse|first lines"):
        read_shard(path)


def test_a_sealed_file_without_our_layout_is_refused(tmp_path, monkeypatch):
    """What claims more rows than the file has bytes must not fill the memory."""
    path = put(tmp_path)
    seal = json.loads(path.read_bytes().split(b"\n")[1])
    seal["entry"][VISUAL][2] = 2**40
    with h5py.File(path, "r+") as file:
        for name in ("time", "valid", "embedding", "box", "confidence"):
            file[f"visual/{name}"].resize(2**40, axis=0)
    monkeypatch.setattr("affuse.features.seal.structure", lambda *_: "sealed anew")
    reseal(path, json.dumps(seal).encode())
    with pytest.raises(DamagedError, match="not the layout of a shard"):
        read_shard(path)
    with pytest.raises(DamagedError, match=r"visual/time: its rows cannot be where"):
        read_arrays(path, ["visual/time"])
    seal["entry"][VISUAL][2] = 2**20
    seal["arrays"]["visual/time"] = [8, 2**20, [None]]
    reseal(path, json.dumps(seal).encode())
    with pytest.raises(DamagedError, match=r"visual/time: it cannot have so many rows"):
        read_arrays(path, ["visual/time"])


def sealed(path: Path, **changes) -> None:
    """Give a shard a whole seal that says something else, also as `id` or `settings_hash` of its entry."""
    seal = json.loads(path.read_bytes().split(b"\n")[1])
    for place, name in enumerate(("id", "settings_hash")):
        seal["entry"][place] = changes.pop(name, seal["entry"][place])
    lines = b"affuse features\n" + json.dumps(seal | changes).encode() + b"\n"
    lines += sha256(lines).hexdigest().encode() + b"\n"
    with path.open("r+b") as file:
        file.write(lines.ljust(seal["start"], b"\0"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": 5}, "not a shard of affuse"),
        ({"settings_hash": ["x"]}, "not a shard of affuse"),
        ({"settings_hash": "x"}, "its attributes are not those that were written"),
        ({"start": 10**13}, "not a shard of affuse"),
        ({"start": 10**12, "data": [], "size": 10**12 + 1}, "not a shard of affuse"),
        ({"start": 2**70}, "not a shard of affuse"),
        ({"start": -(2**70)}, "not a shard of affuse"),
        ({"data": [[10**13, 10**14]]}, "not a shard of affuse"),
        ({"data": [[5000, 4000]] * 9}, "not a shard of affuse"),
    ],
)
def test_a_seal_that_cannot_be_is_damage_and_the_others_go_on(tmp_path, changes, reason):
    store = FeatureStore(tmp_path, create=True)
    for name in ("clip01", "other"):
        store.write(random_video(name), provenance())
    path = store.shard("clip01")
    sealed(path, **changes)
    os.truncate(path, changes.get("size", path.stat().st_size))
    (problem,) = store.verify().problems
    assert reason in problem.reason
    info = FeatureStore(tmp_path).info()
    told = [damaged["file"] for damaged in info["damaged"]]
    assert told == [path.name] or reason == "its attributes are not those that were written"
    assert "other" in info["videos"]


MADE = provenance().as_dict()


@pytest.mark.parametrize(
    ("node", "attributes", "said"),
    [
        ("/", {"frames": "many"}, "frames cannot be 'many'"),
        ("/", {"frames": True}, "frames cannot be True"),
        ("/", {"frames": 1.5}, "frames cannot be 1.5"),
        ("/", {"people": "all"}, "people cannot be 'all'"),
        ("/", {"fps": [25]}, r"fps cannot be \[25\]"),
        ("/", {"fps": np.arange(3.0)}, "cannot be read"),
        ("/", {"duration": float("nan")}, "duration cannot be nan"),
        ("/", {"duration": 10**400}, "cannot be read"),
        ("/", {"id": 7}, "its attributes are not those that were written"),
        ("/", {"views": "flip"}, "views cannot be 'flip'"),
        ("/", {"views": {"flip": 1}}, "views cannot be {'flip': 1}"),
        ("/", {"views": [1]}, "views cannot be 1"),
        ("/", {"source_size": "1"}, "size cannot be '1'"),
        ("/", {"source_name": None}, "name cannot be None"),
        ("/", {"local": {"mtime_ns": 1, "seconds": [1]}}, r"seconds cannot be \[1\]"),
        ("/", {"local": {"mtime_ns": 1, "seconds": {"decode": "x"}}}, "seconds cannot be 'x'"),
        ("/", {"local": {"seconds": {}}}, "mtime_ns"),
        ("/", {"local": 3}, "cannot be read"),
        ("/", {"features_digest": 3}, "features_digest cannot be 3"),
        ("/", {"provenance": {**MADE, "settings": 3}}, "settings cannot be 3"),
        ("/", {"provenance": {**MADE, "backbones": []}}, "cannot be read"),
        ("/", {"provenance": {**MADE, "versions": {"torch": 2}}}, "versions cannot be 2"),
        ("visual", {"status": "fine"}, "'fine' is not a valid Status"),
        ("text", {"reason": 5}, "reason cannot be 5"),
    ],
)
def test_a_header_that_cannot_be_is_damage_and_the_others_go_on(tmp_path, node, attributes, said):
    store = FeatureStore(tmp_path, create=True)
    for name in ("clip01", "other", "third"):
        store.write(random_video(name), provenance())
    path = store.shard("third")  # the last one, of which a store might ask how all were made
    edit(path, node, **attributes)
    with pytest.raises(DamagedError, match=said):
        read_header(path)
    done = CliRunner().invoke(main, ["features", "verify", str(tmp_path)])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert path.name in done.output
    assert "3 videos checked" in done.output
    store = FeatureStore(tmp_path)
    known = provenance().settings_hash, 1000, 17, lambda: ""
    assert store.examine("third", *known, verify=True)[0].startswith("damaged: ")
    assert store.provenance == provenance()
    assert store["other"].frames == 40
    store.write(random_video("third"), provenance())
    assert not store.verify().problems


def test_a_seal_of_another_video_is_damage(tmp_path):
    path = put(tmp_path)
    sealed(path, id="other")
    (tmp_path / shard_path("other")).parent.mkdir()
    path = path.rename(tmp_path / shard_path("other"))
    with pytest.raises(DamagedError, match="its attributes are not those that were written"):
        read_header(path)


def test_rows_that_are_not_stored_are_refused_whatever_the_size_of_the_file(tmp_path, monkeypatch):
    path = put(tmp_path)
    true = read_entry(path)
    with h5py.File(path, "r+") as file:
        for name in ("time", "valid", "embedding", "box", "confidence"):
            file[f"visual/{name}"].resize(10**12, axis=0)
    os.truncate(path, 10**13)  # of which next to nothing is on the disk
    false = replace(true, visual=true.visual._replace(rows=10**12))
    for entry, said in (
        (false, "not the layout of a shard"),
        (true, "its attributes are not those that were written"),
    ):
        monkeypatch.setattr("affuse.features.shard.check_seal", lambda path, entry=entry: entry)
        with pytest.raises(DamagedError, match=said):
            read_shard(path)
        assert "its attributes are not those that were written" in verify_shard(path)[0].reason


def test_a_newer_format_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as future:
        future.setattr("affuse.features.seal.FORMAT_VERSION", 3)
        path = put(tmp_path)
    for read in (read_shard, read_header, verify_shard):
        with pytest.raises(
            UsageError, match=r"clip01-.*\.h5 has format version 3, .* up to 2\. Update affuse"
        ):
            read(path)


def test_an_older_format_is_made_anew(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path, create=True)
    with monkeypatch.context() as past:
        for module in ("seal", "index", "pack"):
            past.setattr(f"affuse.features.{module}.FORMAT_VERSION", 1)
        store.write(random_video("loose"), provenance())
        store.write(random_video("packed"), provenance())
        settle(tmp_path)
        assert len(FeatureStore(tmp_path)) == 2
    old = FeatureStore(tmp_path)
    assert [problem.reason[:24] for problem in old.damaged] == ["it has format version 1,"] * 2
    known = provenance().settings_hash, 1000, 17, lambda: ""
    assert "which an older affuse made" in old.examine("loose", *known)[0]
    for name in ("loose", "packed"):
        old.write(random_video(name), provenance())
    assert (old.ids, old.damaged) == (["loose", "packed"], [])


def test_a_seal_that_says_otherwise_where_an_array_lies_is_found(tmp_path):
    path, names = put(tmp_path, random_video(views=("flip",))), ("visual/embedding", "visual/views/flip")
    pieces = json.loads(path.read_bytes().split(b"\n")[1])["arrays"]
    sealed(path, arrays=pieces | dict(zip(names, (pieces[name] for name in names[::-1]), strict=True)))
    found = [(problem.dataset, problem.reason) for problem in verify_shard(path)]
    assert found == [(name, "it is not what its seal says") for name in names]
