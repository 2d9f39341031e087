"""Shards: what goes in comes out."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affuse.features import MODALITIES, AffuseError, FeatureStore, Status
from affuse.features.layout import ROWS, _finite, chunk_shape, paths, shard_name, shard_path
from affuse.features.shard import describe_shard, read_header, read_shard, verify_shard
from builders import assert_same, provenance, random_video
from shards import VIEWS, chunks, put

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


@pytest.mark.parametrize("video_id", ODD_IDS.values(), ids=ODD_IDS.keys())
def test_any_id_comes_back(tmp_path, video_id):
    video, made = random_video(video_id), provenance()
    path = put(tmp_path, video, made)
    assert list(path.parent.iterdir()) == [path]
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
    store = FeatureStore(tmp_path, create=True)
    store.write(dataclasses.replace(video, audio=audio), provenance())
    expected = video.visual.time if frames else audio.time
    np.testing.assert_array_equal(store.frame_times("clip01"), expected)
    assert len(expected) == rows


def test_equal_features_have_equal_digests_whatever_the_clock_said(tmp_path):
    one = random_video()
    other = dataclasses.replace(one, seconds={}, source=dataclasses.replace(one.source, mtime_ns=99))
    for folder, video in (("a", one), ("b", other)):
        (tmp_path / folder).mkdir()
        put(tmp_path / folder, video)
    paths = [tmp_path / folder / shard_path(one.id) for folder in "ab"]
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
