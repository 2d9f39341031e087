"""Shards: what goes in comes out, nothing damaged passes, and nothing half-written is ever seen."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affuse.features import MODALITIES, AffuseError, FeatureStore, Status, UsageError
from affuse.features.layout import ROWS, _finite, chunk_shape, paths, shard_name
from affuse.features.seal import DamagedError, Seal
from affuse.features.shard import (
    describe_shard,
    read_frame_times,
    read_header,
    read_shard,
    verify_shard,
    write_shard,
)
from affuse.files import HOST, sweep
from builders import assert_same, provenance, random_video

ROOT = Path(__file__).resolve().parents[1]
VIEWS = ("flip", "top-left")
ODD_IDS = {
    "plain": "clip01",
    "folders": "batch1/new vids/a.b",
    "climbing": "../../etc/passwd",
    "dots": "..",
    "hidden": ".clip",
    "unicode": "видео/映像 é",
    "newline": "a\nb\r\n\tc",
    "nul": "a\0b",
    "not UTF-8": "caf\udce9",
    "empty": "",
    "long": "x" * 300,
    "long and wide": "\N{GRINNING FACE}" * 300,
    "HDF5 path": "/visual/embedding",
    "JSON": '{"id": "\\u0000"}',
}


def put(folder: Path, video=None, made=None) -> Path:
    video = video or random_video()
    path = folder / shard_name(video.id)
    write_shard(path, video, made or provenance())
    return path


def chunks(path: Path, name: str) -> list[tuple[int, int]]:
    """First byte and length of each chunk of a dataset."""
    with h5py.File(path) as file:
        identifier = file[name].id
        infos = [identifier.get_chunk_info(i) for i in range(identifier.get_num_chunks())]
        return [(info.byte_offset, info.size) for info in infos]


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file, in place."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


# ---- round trips


@pytest.mark.parametrize("video_id", ODD_IDS.values(), ids=ODD_IDS.keys())
def test_any_id_comes_back(tmp_path, video_id):
    video, made = random_video(video_id), provenance()
    path = put(tmp_path, video, made)
    assert list(tmp_path.iterdir()) == [path]
    assert len(path.name) <= 92
    back, how = read_shard(path)
    assert_same(back, video)
    assert how == made
    assert verify_shard(path) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    video_id=st.text(st.characters(), max_size=20),
    frames=st.integers(0, 30),
    words=st.integers(0, 5),
    width=st.integers(0, 9),
    faces=st.sampled_from([0.0, 0.5, 1.0]),
    reason=st.text(st.characters(), max_size=20),
    seed=st.integers(0, 99),
    views=st.lists(st.sampled_from(["flip", "top-left", "bottom-right"]), unique=True),
)
def test_any_record_comes_back(tmp_path, video_id, frames, words, width, faces, reason, seed, views):
    video = random_video(video_id, frames, words, dict.fromkeys(MODALITIES, width), seed, faces, views)
    video = dataclasses.replace(video, audio=dataclasses.replace(video.audio, reason=reason))
    path = put(tmp_path, video)
    assert_same(read_shard(path, views=True)[0], video)
    assert verify_shard(path) == []
    assert list(read_header(path).views) == views


def test_names_differ_where_ids_do():
    ids = [*ODD_IDS.values(), "a/b", "a_b", "A_b", "x" * 301]
    assert len({shard_name(i).lower() for i in ids}) == len(ids)


def test_words_of_any_script_come_back(tmp_path):
    spoken = np.array(["Straße", "日本", "", "don't", "\N{GRINNING FACE}", " "])
    video = random_video(words=len(spoken))
    video = dataclasses.replace(video, text=dataclasses.replace(video.text, word=spoken))
    assert read_shard(put(tmp_path, video))[0].text.word.tolist() == spoken.tolist()


def test_a_large_record_lies_in_chunks_of_half_a_mebibyte(tmp_path):
    video = random_video(frames=3000, widths={"visual": 512})
    path = put(tmp_path, video)
    sizes = [size for _, size in chunks(path, "visual/embedding")]
    assert len(sizes) == 6
    assert all(2**18 <= size <= 2**20 for size in sizes)
    assert_same(read_shard(path)[0], video)
    arrays = sum(getattr(video, m).embedding.nbytes for m in MODALITIES)
    assert path.stat().st_size < arrays * 1.1 + 100_000


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 257, 1000])
def test_chunks_hold_all_rows_with_little_to_spare(rows):
    array = np.zeros((rows, 1024), np.float16)
    each, width = chunk_shape(array)
    pieces = -(-rows // each)
    assert width == 1024
    assert each * 2048 <= 2**19
    assert pieces * each - rows < max(pieces, 1) + (rows == 0)


def test_every_dataset_has_a_checksum_and_no_compression(tmp_path):
    with h5py.File(put(tmp_path, random_video(views=VIEWS))) as file:
        for name in paths(VIEWS):
            assert file[name].fletcher32, name
            assert file[name].compression is None, name
            assert file[name].maxshape[0] is None, name


def test_a_video_without_a_face_takes_no_room(tmp_path):
    video = random_video(frames=2000, faces=0, widths={"visual": 2048}, views=VIEWS)
    path = put(tmp_path, video)
    assert path.stat().st_size < 250_000
    assert_same(read_shard(path, views=True)[0], video)
    assert verify_shard(path) == []


def test_negative_zeros_are_kept(tmp_path):
    video = random_video(faces=0)
    visual = dataclasses.replace(video.visual, embedding=-video.visual.embedding)
    video = dataclasses.replace(video, visual=visual)
    assert_same(read_shard(put(tmp_path, video))[0], video)


@pytest.mark.parametrize("modalities", [(), ("visual",), ["audio", "text"]])
def test_modalities_not_asked_for_keep_their_status(tmp_path, modalities):
    video = random_video(words=0)
    back, _ = read_shard(put(tmp_path, video), modalities)
    for m in MODALITIES:
        mine, theirs = getattr(video, m), getattr(back, m)
        assert (theirs.status, theirs.reason) == (mine.status, mine.reason)
        rows = len(mine.embedding) if m in modalities else 0
        assert theirs.embedding.shape == (rows, mine.embedding.shape[1])
        assert theirs.embedding.dtype == np.float16
    assert (back.frames, back.fps, back.source) == (video.frames, video.fps, video.source)


def test_views_come_without_rows_unless_asked_for(tmp_path):
    video = random_video(views=VIEWS)
    path = put(tmp_path, video)
    for asked in ({}, {"views": True, "modalities": ("audio",)}):
        views = read_shard(path, **asked)[0].visual.views
        assert {view: rows.shape for view, rows in views.items()} == dict.fromkeys(VIEWS, (0, 24))
    with pytest.raises(AffuseError, match=r"visual/views/flip has shape \(0, 24\), not \(40, 24\)"):
        put(tmp_path, read_shard(path)[0])  # so that nobody loses them by writing back what was read


def test_a_view_that_is_not_there_is_damage(tmp_path, monkeypatch):
    path = put(tmp_path, random_video(views=VIEWS))
    text = path.read_bytes().split(b"\n")[1]
    with h5py.File(path, "r+") as file:
        del file["visual/views/flip"]
    assert [p.reason for p in verify_shard(path)] == ["its structure is not the one that was written"]
    monkeypatch.setattr("affuse.features.seal._structure", lambda *_: "sealed anew")
    reseal(path, text)
    assert "visual/views/flip" in [p.dataset for p in verify_shard(path)]
    with pytest.raises(DamagedError, match="visual/views/flip"):
        read_shard(path)


def test_a_view_of_another_shape_is_refused(tmp_path, monkeypatch):
    path = put(tmp_path, random_video(views=VIEWS))
    text = path.read_bytes().split(b"\n")[1]
    with h5py.File(path, "r+") as file:
        file["visual/views/flip"].resize(23, axis=1)
    monkeypatch.setattr("affuse.features.seal._structure", lambda *_: "sealed anew")
    reseal(path, text)
    with pytest.raises(DamagedError, match=r"visual/views/flip: \(40, 23\) .* not the layout"):
        read_shard(path)


def test_the_header_says_all_but_the_arrays(tmp_path):
    video, made = random_video(faces=0), provenance()
    header = read_header(put(tmp_path, video, made))
    assert (header.id, header.source, header.fps, header.frames) == (video.id, video.source, 25.0, 40)
    assert (header.seconds, header.provenance) == (video.seconds, made)
    assert header.visual.status is Status.NO_FACE
    assert (header.text.rows, header.text.width) == (6, 12)


@pytest.mark.parametrize(("frames", "rows"), [(40, 40), (0, 7)])
def test_the_clock_is_the_frames_or_else_the_sound(tmp_path, frames, rows):
    video = random_video(frames=frames)
    audio = dataclasses.replace(video.audio, embedding=np.ones((7, 8), np.float16), time=np.arange(7.0))
    path = put(tmp_path, dataclasses.replace(video, audio=audio))
    expected = video.visual.time if frames else audio.time
    np.testing.assert_array_equal(read_frame_times(path), expected)
    assert len(expected) == rows


def test_equal_features_have_equal_digests_whatever_the_clock_said(tmp_path):
    one = random_video()
    other = dataclasses.replace(one, seconds={}, source=dataclasses.replace(one.source, mtime_ns=99))
    for folder, video in (("a", one), ("b", other)):
        (tmp_path / folder).mkdir()
        put(tmp_path / folder, video)
    paths = [tmp_path / folder / shard_name(one.id) for folder in "ab"]
    assert read_header(paths[0]).features_digest == read_header(paths[1]).features_digest
    assert describe_shard(paths[0]) == describe_shard(paths[1])
    with h5py.File(paths[0]) as a, h5py.File(paths[1]) as b:
        assert a.attrs["digest"] != b.attrs["digest"]


def broken(video, modality, **changes):
    return dataclasses.replace(video, **{modality: dataclasses.replace(getattr(video, modality), **changes)})


@pytest.mark.parametrize(
    ("modality", "changes", "message"),
    [
        ("visual", {"embedding": np.zeros((40, 24), np.float32)}, "visual/embedding is float32, not float16"),
        (
            "visual",
            {"views": {"flip": np.zeros((40, 8), np.float16)}},
            r"visual/views/flip has shape \(40, 8\)",
        ),
        ("visual", {"views": {"flip": np.full((40, 24), np.inf, "<f2")}}, "visual/views/flip holds NaN"),
        ("visual", {"valid": np.ones(39, bool)}, r"visual/valid has shape \(39,\), not \(40,\)"),
        ("visual", {"box": np.zeros((40, 3), np.float32)}, r"visual/box has shape \(40, 3\)"),
        ("visual", {"time": np.arange(40.0)[::-1]}, "visual/time goes back in time"),
        ("audio", {"embedding": np.full((40, 8), np.nan, np.float16)}, "audio/embedding holds NaN"),
        ("audio", {"time": np.arange(40)}, "audio/time is int64"),
        ("text", {"end": np.full(6, np.inf)}, "text/end holds NaN or infinity"),
        ("text", {"word": np.array(["a"])}, r"text/word has shape \(1,\), not \(6,\)"),
    ],
)
def test_a_record_that_breaks_its_contract_is_not_kept(tmp_path, modality, changes, message):
    with pytest.raises(AffuseError, match=f"'clip01' cannot be kept: {message}"):
        put(tmp_path, broken(random_video(), modality, **changes))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [0, 1, ROWS, ROWS + 1, 3 * ROWS])
def test_a_number_that_is_none_is_found_in_any_row(rows):
    array = np.zeros((rows, 3), np.float16)
    assert _finite(array)
    if rows:
        array[-1, 2] = np.nan
        assert not _finite(array)


def test_a_record_without_a_finite_rate_is_not_kept(tmp_path):
    with pytest.raises(AffuseError, match="nan frames/s"):
        put(tmp_path, random_video(fps=float("nan")))


# ---- damage


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
    for read in (read_shard, read_header, read_frame_times, describe_shard):
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
    monkeypatch.setattr("affuse.features.seal._structure", lambda *_: "sealed anew")
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
    text = path.read_bytes().split(b"\n")[1]
    with h5py.File(path, "r+") as file:
        for name in ("time", "valid", "embedding", "box", "confidence"):
            file[f"visual/{name}"].resize(2**40, axis=0)
    monkeypatch.setattr("affuse.features.seal._structure", lambda *_: "sealed anew")
    reseal(path, text)
    with pytest.raises(DamagedError, match="not the layout of a shard"):
        read_shard(path)


def sealed(path: Path, **changes) -> None:
    """Give a shard a whole seal that says something else."""
    seal = json.loads(path.read_bytes().split(b"\n")[1])
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
    assert [damaged["file"] for damaged in info["damaged"]] == [path.name]
    assert "other" in info["videos"]


def test_a_seal_of_another_video_is_damage(tmp_path):
    path = put(tmp_path)
    sealed(path, id="other")
    path = path.rename(tmp_path / shard_name("other"))
    with pytest.raises(DamagedError, match="its attributes are not those that were written"):
        read_header(path)


def test_rows_that_are_not_stored_are_refused_whatever_the_size_of_the_file(tmp_path, monkeypatch):
    path = put(tmp_path)
    with h5py.File(path, "r+") as file:
        for name in ("time", "valid", "embedding", "box", "confidence"):
            file[f"visual/{name}"].resize(10**12, axis=0)
    os.truncate(path, 10**13)  # of which next to nothing is on the disk
    monkeypatch.setattr(
        "affuse.features.shard.check_seal", lambda path: Seal("clip01", provenance().settings_hash)
    )
    for read in (read_shard, read_frame_times):
        with pytest.raises(DamagedError, match="not the layout of a shard"):
            read(path)
    assert "not the layout of a shard" in verify_shard(path)[1].reason


def test_a_newer_format_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as future:
        future.setattr("affuse.features.seal.FORMAT_VERSION", 2)
        path = put(tmp_path)
    for read in (read_shard, read_header, verify_shard):
        with pytest.raises(
            UsageError, match=r"clip01-.*\.h5 has format version 2, .* up to 1\. Update affuse"
        ):
            read(path)


# ---- publishing


def test_a_remade_video_replaces_its_shard(tmp_path):
    put(tmp_path, random_video(seed=1))
    path = put(tmp_path, random_video(seed=2))
    assert list(tmp_path.iterdir()) == [path]
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
        (partial,) = tmp_path.glob(".*.partial")
        flip(partial, 8 * (chunks(partial, "audio/embedding")[0][0] + 1))

    monkeypatch.setattr("os.fsync", damage)
    with pytest.raises(AffuseError, match="audio/embedding"):
        put(tmp_path, random_video(seed=2))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
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
    assert list(tmp_path.iterdir()) == [path]
    assert_same(read_shard(path)[0], random_video(seed=1))


def run_python(code: str, *arguments, prefix: tuple[str, ...] = (), wait: bool = True):
    command = [*prefix, sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    if not wait:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_writes_that_fail_midway_never_crash(tmp_path):
    """The system itself refuses to write beyond a size, at many sizes; HDF5 alone dies of that."""
    done = run_python(
        """
        import resource, sys
        from pathlib import Path
        from builders import provenance, random_video
        from affuse.features import AffuseError
        from affuse.features.layout import shard_name
        from affuse.features.shard import verify_shard, write_shard

        folder, video = Path(sys.argv[1]), random_video(frames=2000, widths={"visual": 512})
        path = folder / shard_name(video.id)
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
            assert list(folder.iterdir()) == [path]
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
        assert len(list((store.path / "shards").iterdir())) == i
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
        caught += len(list((path / "shards").glob(".*.partial"))) > 0
    assert caught >= 6, "no kill fell into a write"
    done = run_python(writer, path, 8, -1)
    assert done.returncode == 0, done.stderr
    store = FeatureStore(path)
    assert len(list((path / "shards").iterdir())) == len(store) == 4
    for i in range(4):
        assert_same(
            store[f"clip{i}"], random_video(f"clip{i}", frames=300, widths={"visual": 256}, seed=i + 4)
        )


def test_sweeping_takes_only_what_the_dead_left(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    day = 25 * 3600

    def leave(host: str, process: int, age: float = 0) -> Path:
        path = tmp_path / f".a.h5.{host}.{process}.partial"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
        return path

    gone = [leave(HOST, dead.pid), leave("elsewhere", 1, day), leave(HOST, os.getppid(), day)]
    kept = [leave(HOST, os.getpid()), leave("elsewhere", dead.pid), tmp_path / ".hand.partial", put(tmp_path)]
    kept[2].write_bytes(b"not ours")
    assert sweep(tmp_path) == len(gone)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
