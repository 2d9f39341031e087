"""Packs: the same records in few files, whatever happens while they are made, read or damaged."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from affuse.commands import main
from affuse.errors import AffuseError
from affuse.features import FeatureStore, index, packing
from affuse.features import store as store_module
from affuse.features.layout import shard_path
from affuse.features.pack import Loose, read_table
from affuse.features.packing import pack, unpack
from affuse.features.repair import quarantine
from affuse.features.seal import DamagedError
from builders import assert_same, provenance, random_video
from differences import differences
from processes import ROOT
from shards import chunks, flip

FLIPS, KILLS = (
    int(os.environ.get(f"AFFUSE_{name}", default)) for name, default in (("FLIPS", 60), ("KILLS", 6))
)
NAMES = [f"v{number}" for number in range(7)]
NAMED = {name: random_video(name, seed=seed, views=("flip",)) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> FeatureStore:
    store = FeatureStore(tmp_path_factory.mktemp("made") / "store", create=True)
    for video in NAMED.values():
        store.write(video, provenance())
    return store


@pytest.fixture
def loose(made, tmp_path) -> FeatureStore:
    """Seven videos, each in a file of its own."""
    return FeatureStore(shutil.copytree(made.path, tmp_path / "store"))


@pytest.fixture
def packed(loose) -> FeatureStore:
    """The same in packs of three, three and one."""
    assert pack(loose, most=3)["records"] == 7
    return FeatureStore(loose.path)


def check(store: FeatureStore, **others) -> None:
    """Every video is there once, as it was, or as `others` say."""
    opened = FeatureStore(store.path)
    assert opened.ids == NAMES
    assert len(opened.places()) == len(NAMES)
    assert opened.verify().problems == []
    for name, video in {**NAMED, **others}.items():
        assert_same(opened.read(name, views=True), video)


def test_packed_records_are_read_as_loose_ones_are(made, packed):
    check(packed)
    assert packed.files() == []
    assert [len(read_table(path).lines) for path in packed.packs()] == [3, 3, 1]
    assert differences(made, packed) == []
    assert packed.info() == made.info()
    assert packed.table().equals(made.table())
    assert packed.provenance == made.provenance
    assert "v3" in packed
    assert packed.verify().checked == 7
    rows = np.array([0, 3, 17])
    out = np.zeros((3, 24), np.float16)
    packed.read_rows("v3", [("visual/embedding", rows, out)])
    assert out.tobytes() == NAMED["v3"].visual.embedding[rows].tobytes()


def test_shards_come_out_of_a_pack_as_they_went_in(made, packed):
    assert unpack(packed) == {"records": 7, "problems": []}
    assert packed.packs() == []
    for name in NAMES:
        before, after = made.shard(name), packed.shard(name)
        assert after.read_bytes() == before.read_bytes()
        assert after.stat().st_mtime_ns == before.stat().st_mtime_ns


def test_a_pack_is_hdf5_that_holds_whole_shards(made, packed, tmp_path):
    for path in packed.packs():
        with h5py.File(path) as file:
            for name, dataset in file.items():
                (tmp_path / name).write_bytes(dataset[()].tobytes())
                assert (tmp_path / name).read_bytes() == next(made.shards.glob(f"*/{name}")).read_bytes()


def test_packs_have_bounds(loose):
    size = loose.shard("v0").stat().st_size
    pack(loose, largest=2 * size + 100)
    assert [len(read_table(path).lines) for path in loose.packs()] == [2, 2, 2, 1]
    unpack(loose)
    pack(loose, largest=1)
    assert len(loose.packs()) == 7
    check(loose)


def test_what_is_written_later_counts_and_what_is_packed_later(packed):
    newer, newest = random_video("v3", seed=30, views=("flip",)), random_video("v3", seed=31, views=("flip",))
    for video in (newer, newest):
        version = packed.version("v3")
        packed.write(video, provenance())
        assert packed.version("v3") != version
        check(packed, v3=video)
        pack(packed)
        check(packed, v3=video)
    assert packed.files() == []
    assert unpack(packed)["records"] == 7
    check(packed, v3=newest)


def test_a_pack_of_which_nothing_counts_is_removed(packed):
    (alone,) = [path for path in packed.packs() if len(read_table(path).lines) == 1]
    (name,) = read_table(alone).lines
    packed.write(NAMED[name], provenance())
    pack(packed)
    assert alone.exists(), "another process may be making it"
    os.utime(alone, (0, 0))
    pack(packed)
    assert not alone.exists()
    check(packed)


def test_what_is_damaged_is_not_packed(loose):
    place = loose.shard("v2")
    flip(place, 8 * (chunks(place, "audio/embedding")[0][0] + 3))
    result = CliRunner().invoke(main, ["features", "pack", str(loose.path), "--json"])
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["records"], len(told["packs"])) == (6, 1)
    assert [(problem["video"], problem["dataset"]) for problem in told["problems"]] == [
        ("v2", "audio/embedding")
    ]
    assert loose.files() == [place]


def test_every_flipped_bit_is_found_and_takes_no_other_record_along(packed, capsys):
    rng = random.Random(FLIPS)
    files = packed.packs()
    for number in range(FLIPS):
        path = rng.choice(files)
        bits = 8 * path.stat().st_size
        edge = rng.choice([rng.randrange(64 * 1024), bits - 1 - rng.randrange(40_000)])
        bit = rng.randrange(bits) if number % 3 else edge
        flip(path, bit)
        opened = FeatureStore(packed.path)
        problems = opened.verify().problems
        assert problems, f"bit {bit} of {path.name} was not seen"
        assert {problem.file for problem in problems} == {path.name}
        assert len({problem.video for problem in problems}) == 1
        assert opened.ids == NAMES
        for name in {*NAMES} - {problem.video for problem in problems}:
            assert_same(opened.read(name, views=True), NAMED[name])
        flip(path, bit)
    check(packed)
    with capsys.disabled():
        print(f" {FLIPS} of {FLIPS} flipped bits seen ", end="")


def test_a_damaged_record_is_set_aside_with_its_pack_and_the_others_live_on(packed):
    place = packed.shard("v4")
    flip(place.path, 8 * (place.first + place.size - 100))
    with pytest.raises(DamagedError, match="Video 'v4' in the feature store is damaged"):
        packed.read("v4", views=True)
    (moved,) = quarantine(packed)
    assert {problem.video for problem in moved.problems} == {"v4"}
    assert Path(moved.path).parent.name == "quarantine"
    opened = FeatureStore(packed.path)
    assert opened.ids == [name for name in NAMES if name != "v4"]
    assert opened.examine("v4", "", 0, 0, str)[0] == "new"
    assert (len(opened.packs()), len(opened.files())) == (2, 2)
    opened.write(NAMED["v4"], provenance())
    check(opened)
    assert quarantine(opened) == []


def test_a_pack_whose_tables_are_both_lost_is_named(packed):
    path = packed.packs()[0]
    for bit in (8 * 20, 8 * (path.stat().st_size - 30)):
        flip(path, bit)
    opened = FeatureStore(packed.path)
    assert len(opened.ids) == 4
    assert [(problem.file, problem.reason) for problem in opened.damaged] == [
        (path.name, "its table is damaged")
    ]
    assert path.name in CliRunner().invoke(main, ["features", "info", str(packed.path)]).stdout
    (moved,) = quarantine(opened)
    assert moved.path.endswith(f"{path.name}.1")
    assert FeatureStore(packed.path).damaged == []


def test_a_record_in_a_pack_is_taken_out_where_its_video_is_made_otherwise(packed):
    source = random_video("clip").source
    records = [random_video(f"clip#{number}", people=2, seed=number, source=source) for number in (1, 2)]
    packed.replace("clip", records, provenance())
    pack(packed)
    assert packed.of("clip") == ["clip#1", "clip#2"]
    packed.replace("clip", [random_video("clip")], provenance())
    assert packed.of("clip") == ["clip"]
    assert FeatureStore(packed.path).ids == ["clip", *NAMES]
    assert packed.verify().problems == []


def test_a_run_resumes_on_packs_without_opening_a_record(packed, monkeypatch):
    monkeypatch.setattr(index, "read_entry", lambda path: pytest.fail(f"{path} was opened"))
    source = NAMED["v5"].source
    known = provenance().settings_hash, source.size, source.mtime_ns, str
    assert packed.examine("v5", *known)[0] is None
    assert packed.examine("v5", "other", *known[1:])[0] == "settings changed"
    assert packed.examine("v5", *known, verify=True)[0] is None


def test_who_reads_while_shards_are_packed_reads_them_in_the_pack(loose, monkeypatch):
    read = store_module.read_shard

    def late(place, *arguments):
        if isinstance(place, Path):
            pack(FeatureStore(loose.path))
        return read(place, *arguments)

    monkeypatch.setattr(store_module, "read_shard", late)
    assert_same(loose.read("v1", views=True), NAMED["v1"])


def test_two_who_pack_at_once_lose_and_double_nothing(loose, monkeypatch):
    write, turns = packing.write_pack, []

    def between(folder, group):
        turns.append(len(group))
        if len(turns) == 1:
            pack(FeatureStore(loose.path), most=2)
        return write(folder, group)

    monkeypatch.setattr(packing, "write_pack", between)
    pack(loose, most=3)
    assert len(turns) > 4
    check(loose)
    assert loose.files() == []


def test_what_is_made_anew_while_it_is_packed_is_kept(loose, monkeypatch):
    newer, remove = random_video("v3", seed=9, views=("flip",)), Loose.remove

    def late(shard):
        if shard.entry.id == "v3":
            FeatureStore(loose.path).write(newer, provenance())
        remove(shard)

    monkeypatch.setattr(Loose, "remove", late)
    pack(loose)
    assert loose.files() == [loose.shard("v3")]
    check(loose, v3=newer)


KILLED = """
import os, signal, sys
from pathlib import Path
from affuse.features import FeatureStore
from affuse.features.packing import pack, unpack
from builders import provenance, random_video

left = int(sys.argv[3])
def count(function):
    def counted(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return counted

for name in ("replace", "rename", "fsync", "utime"):
    setattr(os, name, count(getattr(os, name)))
Path.unlink = count(Path.unlink)
store = FeatureStore(sys.argv[1])
store.sweep()
if sys.argv[2] == "write":
    for seed, name in enumerate(store.ids):
        store.write(random_video(name, seed=seed, views=("flip",)), provenance())
else:
    pack(store, most=3) if sys.argv[2] == "pack" else unpack(store)
"""


def run(store: FeatureStore, command: str, step: int = 0) -> bool:
    """Have a process pack, unpack or write everything, which is killed at a step; whether it was."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    script = [sys.executable, "-c", KILLED, str(store.path), command, str(step)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode <= 0, done.stderr
    return done.returncode < 0


@pytest.mark.parametrize("command", ["pack", "unpack"])
def test_killed_at_any_step_nothing_is_lost_or_there_twice(made, loose, tmp_path, command):
    """At its first step, its eighth, and so on: each time the store is whole, and going on ends as if never killed."""
    if command == "unpack":
        pack(loose, most=3)
    begun = shutil.copytree(loose.path, tmp_path / "begun")
    for step in range(1, 200, 7):
        shutil.rmtree(loose.path)
        shutil.copytree(begun, loose.path)
        killed = run(loose, command, step)
        check(loose)
        if not killed:
            break
        assert not run(loose, command)
        check(loose)
        assert not list(loose.path.rglob("*.partial"))
        assert (len(loose.files()) == 0) == (command == "pack")
    assert step > 14
    assert differences(made, FeatureStore(loose.path)) == []


def test_killed_again_and_again_a_store_ends_as_one_that_never_was(made, packed):
    """Whoever writes, packs or unpacks, at a step that is drawn: the next goes on with what the last one left."""
    rng, kills = random.Random(KILLS), 0
    while kills < KILLS:
        kills += run(packed, rng.choice(["pack", "unpack", "write"]), rng.randint(1, 40))
        check(packed)
    assert not run(packed, "pack")
    assert not list(packed.path.rglob("*.partial"))
    assert packed.files() == []
    assert differences(made, FeatureStore(packed.path)) == []


def test_a_disk_that_is_full_says_so_and_loses_nothing(loose, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(
            "os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(AffuseError, match=r"The disk is full: .*packs"):
            pack(loose)
    assert not list(loose.path.rglob("*.partial"))
    check(loose)


def test_a_foreign_file_among_packs_is_named_and_stops_nothing(packed):
    (packed.path / "packs" / "00000000-ffffffff-mine.h5").write_text("mine")
    opened = FeatureStore(packed.path)
    assert opened.ids == NAMES
    assert [problem.file for problem in opened.verify().problems] == ["00000000-ffffffff-mine.h5"]
    assert opened.read("v0", views=True).frames == 40


def test_commands_tell_what_they_did(loose):
    said = CliRunner().invoke(main, ["features", "pack", str(loose.path)])
    assert (said.exit_code, said.stdout) == (0, "7 videos in 1 pack.\n")
    assert (loose.path / "shards" / shard_path("v0")).exists() is False
    said = CliRunner().invoke(main, ["features", "unpack", str(loose.path)])
    assert (said.exit_code, said.stdout) == (0, "7 videos unpacked.\n")
    check(loose)
