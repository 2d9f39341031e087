"""Shards on their way to the disk: nothing half-written is ever seen."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
import pytest

from affuse.features import AffuseError, FeatureStore
from affuse.features.shard import read_shard
from affuse.files import MACHINE, Sink, publish, sweep, write_bytes
from builders import assert_same, random_video
from shards import chunks, flip, put

ROOT = Path(__file__).resolve().parents[1]


def test_a_remade_video_replaces_its_shard(tmp_path):
    put(tmp_path, random_video(seed=1))
    path = put(tmp_path, random_video(seed=2))
    assert list(path.parent.iterdir()) == [path]
    assert_same(read_shard(path)[0], random_video(seed=2))


def test_a_reader_keeps_what_it_opened_while_the_shard_is_replaced(tmp_path):
    path = put(tmp_path, random_video(seed=1))
    with h5py.File(path, "r", locking=False) as file:
        put(tmp_path, random_video(seed=2))
        np.testing.assert_array_equal(file["visual/embedding"][()], random_video(seed=1).visual.embedding)


def test_what_is_written_wrongly_is_not_published(tmp_path, monkeypatch):
    """The check before the renaming reads the disk, not the memory."""
    path = put(tmp_path, random_video(seed=1))
    sync = os.fsync

    def damage(descriptor):
        sync(descriptor)
        (partial,) = path.parent.glob(".*.partial")
        flip(partial, 8 * (chunks(partial, "audio/embedding")[0][0] + 1))

    monkeypatch.setattr("os.fsync", damage)
    with pytest.raises(AffuseError, match="audio/embedding"):
        put(tmp_path, random_video(seed=2))
    monkeypatch.undo()
    assert list(path.parent.iterdir()) == [path]
    assert_same(read_shard(path)[0], random_video(seed=1))


def test_half_written_files_are_private_and_whole_ones_follow_the_folder(tmp_path, monkeypatch):
    tmp_path.chmod(0o750)
    modes = []
    sync = os.fsync

    def look(descriptor):
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        sync(descriptor)

    monkeypatch.setattr("os.fsync", look)
    path = put(tmp_path)
    assert modes[0] == 0o600
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            errno.ENOSPC,
            r"The disk is full: .*clip01-.*\.h5 .* MiB are free.* Free some space and run .* again",
        ),
        (errno.EDQUOT, "The disk is full"),
        (errno.EIO, "could not be written: Input/output error. Check the folder"),
    ],
)
def test_an_error_of_the_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch, number, message):
    path = put(tmp_path, random_video(seed=1))

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(AffuseError, match=message):
        put(tmp_path, random_video(seed=2))
    assert list(path.parent.iterdir()) == [path]
    assert_same(read_shard(path)[0], random_video(seed=1))


def run_python(code: str, *arguments, prefix: tuple[str, ...] = (), wait: bool = True, **pipes):
    command = [*prefix, sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    if not wait:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **pipes)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_writes_that_fail_midway_never_crash(tmp_path):
    """The system itself refuses to write beyond a size, at many sizes; HDF5 alone dies of that."""
    done = run_python(
        """
        import resource, sys
        from pathlib import Path
        from builders import provenance, random_video
        from affuse.features import AffuseError
        from affuse.features.layout import shard_path
        from affuse.features.shard import verify_shard, write_shard

        folder, video = Path(sys.argv[1]), random_video(frames=2000, widths={"visual": 512})
        path = folder / shard_path(video.id)
        path.parent.mkdir()
        write_shard(path, video, provenance())
        size, (_, hard) = path.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
        failed = 0
        for limit in [0, 1, 1000, *range(5000, 90000, 8000), *range(90000, size, 400000), size - 1]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                write_shard(path, video, provenance())
            except AffuseError as error:
                failed += "File too large" in str(error)
            else:
                raise SystemExit(f"{limit} of {size} bytes were enough")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            assert list(path.parent.iterdir()) == [path]
        assert verify_shard(path) == []
        print(failed)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15


NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
CAN_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run(
        [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    ).returncode
    == 0
)


@pytest.mark.skipif(not CAN_MOUNT, reason="this system lets no user mount a small disk")
def test_a_full_disk_keeps_what_was_done(tmp_path):
    done = run_python(
        """
        import subprocess, sys
        from builders import assert_same, provenance, random_video
        from affuse.features import AffuseError, FeatureStore

        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", sys.argv[1]], check=True)
        store = FeatureStore(sys.argv[1] + "/store", create=True)
        for i in range(100):
            video = random_video(f"clip{i}", frames=400, widths={"visual": 512}, seed=i)
            try:
                store.write(video, provenance())
            except AffuseError as error:
                print(error)
                break
        assert 1 <= len(store) == i < 10
        assert store.verify().problems == []
        assert len(list((store.path / "shards").glob("*/*"))) == i
        for i, video_id in enumerate(store):
            assert_same(store[video_id], random_video(video_id, frames=400, widths={"visual": 512}, seed=i))
        """,
        tmp_path,
        prefix=NAMESPACE,
    )
    assert done.returncode == 0, done.stderr
    assert "The disk is full" in done.stdout


def test_killed_writers_leave_whole_shards_or_none(tmp_path):
    """kill -9 at random moments, every other one in a write, going on each time: every shard there verifies, and the
    end is as if never killed."""
    writer = """
        import os, signal, sys
        from builders import provenance, random_video
        from affuse.features import FeatureStore

        store = FeatureStore(sys.argv[1], create=True)
        store.sweep()
        print("writing", flush=True)
        for i in range(int(sys.argv[2])):
            if i == int(sys.argv[3]):
                os.fsync = lambda descriptor: print("half written", flush=True) or signal.pause()
            store.write(random_video(f"clip{i % 4}", frames=300, widths={"visual": 256}, seed=i), provenance())
    """
    path, rng, caught = tmp_path / "store", random.Random(3), 0
    for held in [-1, rng.randrange(4)] * 6:
        process = run_python(writer, path, 10**6, held, wait=False)
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.12)) if held < 0 else process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = FeatureStore(path, create=True)
        assert store.verify().problems == []
        caught += len(list((path / "shards").glob("*/.*.partial"))) > 0
    assert caught >= 6, "no kill fell into a write"
    done = run_python(writer, path, 8, -1)
    assert done.returncode == 0, done.stderr
    store = FeatureStore(path)
    assert len(list((path / "shards").glob("*/*"))) == len(store) == 4
    for i in range(4):
        assert_same(
            store[f"clip{i}"], random_video(f"clip{i}", frames=300, widths={"visual": 256}, seed=i + 4)
        )


HELD = """
    import sys
    from pathlib import Path
    from affuse import files

    def fill(sink):
        sink.write(b"half")
        print("half", flush=True)
        sys.stdin.read()

    files.publish(Path(sys.argv[1]), fill)
"""


def test_sweeping_takes_only_what_the_dead_left(tmp_path):
    day = 25 * 3600

    def leave(machine: str = MACHINE, age: float = 0, data: bytes = b"half") -> Path:
        path = tmp_path / f".a.h5.{machine}.{os.urandom(8).hex()}.partial"
        path.write_bytes(data)
        os.utime(path, (time.time() - age,) * 2)
        return path

    elsewhere, odd = "0" * 12, tmp_path / ".hand.partial"
    gone = [leave(), leave(data=b""), leave(elsewhere, day)]
    kept = [leave(elsewhere), odd, tmp_path / "a.h5"]
    odd.write_bytes(b"not ours")
    kept[2].write_bytes(b"whole")
    os.utime(odd, (0, 0))
    assert sweep(tmp_path) == len(gone)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_living_process_keeps_its_file_whatever_its_host_and_number(tmp_path):
    """They are not what tells: containers have the same ones."""
    process = run_python(HELD, tmp_path / "a", wait=False, stdin=subprocess.PIPE)
    process.stdout.readline()
    assert sweep(tmp_path) == 0
    process.kill()
    process.communicate()
    assert [path.name[:4] for path in tmp_path.iterdir()] == [f".a.{MACHINE[0]}"]
    assert sweep(tmp_path) == 1
    assert not list(tmp_path.iterdir())


def test_processes_of_one_number_do_not_write_into_one_file(tmp_path):
    def fill(sink):
        sink.write(b"one")
        write_bytes(tmp_path / "a", b"other")

    publish(tmp_path / "a", fill)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_sweep_in_the_moment_before_a_file_is_locked_costs_nothing(tmp_path, monkeypatch):
    begin, swept = Sink.__init__, []

    def sweep_then(sink, path):
        begin(sink, path)
        swept.append(sweep(tmp_path) if not swept else 0)

    monkeypatch.setattr(Sink, "__init__", sweep_then)
    write_bytes(tmp_path / "a", b"whole")
    assert swept == [1, 0]
    assert (tmp_path / "a").read_bytes() == b"whole"


@pytest.mark.parametrize("name", ["EINVAL", "EACCES", "EOPNOTSUPP", "EIO"])
def test_a_file_system_that_syncs_no_folders_is_no_error(tmp_path, monkeypatch, name):
    sync, number = os.fsync, getattr(errno, name)

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(AffuseError, match="Input/output error") if name == "EIO" else nullcontext():
        write_bytes(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
