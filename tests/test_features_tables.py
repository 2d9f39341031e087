"""How a store and a video show themselves: a line of facts, a table, a frame on the video's clock."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest

from affuse.features import MODALITIES, Backbone, FeatureStore, Status, VisualFeatures, align
from affuse.features.record import Source, VideoFeatures
from builders import WIDTHS, provenance, random_video
from shards import cut


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    """One whole video, one without a face, one of which nothing can be decoded; the audio backbone is untrained."""
    backbones = {m: Backbone(f"{m}-net", "", "", m != "audio", WIDTHS[m]) for m in MODALITIES}
    made = provenance(backbones=backbones)
    store = FeatureStore(tmp_path / "<store>", create=True)
    store.write(random_video("clip01", seed=1), made)
    store.write(random_video("faceless", seed=2, faces=0), made)
    store.write(
        VideoFeatures.undecodable("torn", Source("torn.mp4", 1, "0" * 64), "no moov", made),
        made,
    )
    return store


def damage(store: FeatureStore, video_id: str, dataset: str) -> None:
    path = store.shard(video_id)
    with h5py.File(path) as file:
        place = file[dataset].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def test_a_table_has_a_row_per_video(store):
    table = store.table()
    video = store["clip01"]
    assert table.index.name == "id"
    assert list(table.index) == ["clip01", "faceless", "torn"]
    assert list(table.columns) == ["seconds", "fps", "frames", "faces", "words", *MODALITIES, "failure"]
    row = table.loc["clip01"]
    assert (row.seconds, row.fps, row.frames, row.words, row.failure) == (1.6, 25.0, 40, 6, "")
    assert row.faces == pytest.approx(video.visual.valid.mean())
    assert table.faces["faceless"] == 0
    assert list(table.visual) == ["ok", "no_face", "undecodable"]
    assert table.failure["torn"] == store.failed["torn"] == "no moov"
    assert np.isnan(table.faces["torn"])
    assert store.failed.keys() == {"torn"}


def test_a_table_opens_no_record_and_leaves_out_what_is_no_longer_one(store):
    damage(store, "clip01", "visual/embedding")
    cut(store.shard("faceless"), 0)
    table = store.table()
    assert table.frames["clip01"] == 40
    assert "faceless" not in table.index
    assert "2 videos" in repr(store)


def test_an_empty_store_shows_itself(tmp_path):
    store = FeatureStore(tmp_path, create=True)
    assert len(store.table()) == 0
    assert "No video in" in repr(store)
    assert store._repr_html_().startswith("<p>")


def test_a_store_in_one_line_and_in_html(store):
    assert repr(
        store
    ) == f"<FeatureStore {store.path}: 3 videos, 3.2 s; visual 24, audio 8, text 12 wide; " + (
        "untrained: audio (audio-net)>"
    )
    page = store._repr_html_()
    assert "&lt;store&gt;" in page
    assert "<td>no_face</td>" in page
    assert "<store>" not in page


def test_a_record_in_one_line(store):
    video = store["faceless"]
    assert repr(video) == (
        "<VideoFeatures 'faceless': 1.6 s, 40 frames; visual no_face (no face found in 40 frames), audio 40 × 8, "
        "text 6 × 12>"
    )
    assert repr(video.audio) == "<AudioFeatures: 40 × 8>"
    assert repr(store.provenance) == (
        f"<Provenance {store.provenance.settings_hash[:12]}: audio audio-net (untrained), text text-net, "
        "visual visual-net>"
    )


def test_a_frame_lays_all_on_the_videos_clock(store):
    video = store["clip01"]
    frame = video.to_frame()
    assert list(frame.columns) == [
        *("time", "face", "left", "top", "right", "bottom", "confidence", "sound", "word", "words")
    ]
    np.testing.assert_array_equal(frame.time, video.visual.time)
    np.testing.assert_array_equal(frame.face, video.visual.valid)
    np.testing.assert_array_equal(frame[["left", "top", "right", "bottom"]], video.visual.box)
    np.testing.assert_array_equal(frame.confidence, video.visual.confidence)
    np.testing.assert_array_equal(frame.sound, True)
    np.testing.assert_array_equal(frame.words, align(video, video.visual.time)["text"][1])
    for time, word in zip(frame.time, frame.word, strict=True):
        spoken = np.flatnonzero((video.text.start < time) & (time < video.text.end))
        assert word == (video.text.word[spoken[-1]] if len(spoken) else "")


def test_a_frame_with_embeddings_holds_the_aligned_ones(store):
    video = store["clip01"]
    frame = video.to_frame(embeddings=True)
    for m, (embedding, _) in align(video, video.visual.time).items():
        columns = [f"{m}_{i}" for i in range(embedding.shape[1])]
        np.testing.assert_array_equal(frame[columns], embedding.astype(np.float32))


def test_a_frame_of_what_is_missing(store):
    assert not store["faceless"].to_frame().face.any()
    assert store["faceless"].to_frame().left.isna().all()
    assert len(store["torn"].to_frame(embeddings=True)) == 0
    video = random_video()
    deaf = dataclasses.replace(video, visual=VisualFeatures.absent(24, Status.NO_VIDEO, "no pictures"))
    frame = deaf.to_frame()
    np.testing.assert_array_equal(frame.time, video.audio.time)
    assert not frame.face.any()
    assert frame.left.isna().all()
    silent = dataclasses.replace(video, text=random_video(words=0).text).to_frame()
    assert not silent.words.any()
    assert set(silent.word) == {""}
