"""Corpora as a pool makes them: number for number what reading and aligning each video by itself gives, with every
embedding read once and in memory once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from affuse.errors import AffuseError
from affuse.features import FeatureStore, Status, align
from affuse.features.parts import TextFeatures, VisualFeatures
from affuse.features.resampling import resampled
from affuse.features.timeline import moments, on_clock
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.pool import Pool, Want, load_corpus
from affuse.fuse.data.track import lay
from builders import provenance, random_video
from shards import VIEWS, chunks, flip

MODALITIES = ["visual", "audio", "text"]
TARGETS = ["valence", "arousal"]
WIDE = {"visual": 2048}  # a chunk of a shard is 128 rows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A store of videos of every kind, and a track for each."""
    folder = tmp_path_factory.mktemp("pool")
    store = FeatureStore(folder / "store", create=True)
    plain = [
        random_video(f"clip{k}", frames, words, WIDE, seed=k, faces=0.9, views=VIEWS)
        for k, (frames, words) in enumerate([(300, 40), (1, 0), (140, 9), (257, 30)])
    ]
    long, _, dense, held = plain
    faces = long.visual.valid & (np.arange(300) // 60 != 2)  # for a while none, though rows are not zeros
    dark = replace(held.visual, valid=np.zeros(257, bool), views={}, status=Status.NO_FACE, reason="night")
    everywhere = {
        **{video.id: video for video in plain},
        "clip0": replace(long, visual=replace(long.visual, valid=faces)),
        "clip2": replace(dense, audio=replace(random_video("x", 560, widths=WIDE).audio, time=np.arange(560) / 100)),
        "dark": replace(held, id="dark", visual=dark),
        "fast": _at_rate(random_video("fast", 200, 30, WIDE, seed=9, views=VIEWS), 50.0),
        "mute": replace(dense, id="mute", text=TextFeatures.absent(12, Status.NO_SPEECH, "nobody speaks")),
        "nothing": replace(
            long, id="nothing", frames=0,
            visual=VisualFeatures.absent(2048, Status.NO_VIDEO, "sound only"),
            text=TextFeatures.absent(12, Status.NO_SPEECH, "nobody speaks"),
        ),
    }  # fmt: skip
    for video in everywhere.values():
        store.write(video, provenance(WIDE))
    tracks = {}
    for seed, name in enumerate(store):
        file = folder / f"{name}.txt"
        values = np.random.default_rng(seed).uniform(-1, 1, (len(store.frame_times(name)), 2)).round(3)
        values[5:9] = -5
        np.savetxt(file, values, "%.3f", ",", header="valence,arousal", comments="")
        tracks[name] = read_track(file)
    return store, tracks


def _at_rate(video, fps):
    time = np.arange(video.frames) / fps
    return replace(
        video, fps=fps, visual=replace(video.visual, time=time), audio=replace(video.audio, time=time)
    )


def by_itself(store, name, modalities, tracks, fps, view=""):
    """Time, {modality: (embedding, valid)}, truth and annotated of one video, read whole and aligned."""
    video, time = store.read(name, modalities, views=True), store.frame_times(name)
    clocks = (time,)
    if fps and not on_clock(time, fps):
        clocks = moments(time, fps), time
        video = resampled(video, time, fps)
    if view:
        faces = video.visual.views.get(view, video.visual.embedding)
        video = replace(video, visual=replace(video.visual, embedding=faces))
    return clocks[0], align(video, clocks[0], modalities, store.widths), *lay(tracks[name], TARGETS, *clocks)


def expected(store, names, modalities, tracks, fps, view=""):
    each = [by_itself(store, name, modalities, tracks, fps, view) for name in names]
    time, aligned, truth, annotated = zip(*each, strict=True)
    features = {m: np.concatenate([own[m][0] for own in aligned]) for m in modalities}
    present = {m: np.concatenate([own[m][1] for own in aligned]) for m in modalities}
    start = np.cumsum([0, *map(len, time)])
    return start, np.concatenate(time), features, present, np.concatenate(truth), np.concatenate(annotated)


@pytest.mark.parametrize("fps", [None, 10.0, 25.0])
@pytest.mark.parametrize(
    ("modalities", "without"),
    [(MODALITIES, []), (["text", "visual"], ["nothing"]), (["visual"], ["dark", "nothing"])],
)
def test_a_corpus_is_what_its_videos_are_one_by_one(data, modalities, without, fps):
    store, tracks = data
    corpus = load_corpus(store, store.ids, modalities, TARGETS, tracks, views=True, fps=fps)
    assert sorted(corpus.left_out) == without
    assert corpus.videos == [name for name in store.ids if name not in without]
    start, time, features, present, truth, annotated = expected(store, corpus.videos, modalities, tracks, fps)
    np.testing.assert_array_equal(corpus.start, start)
    np.testing.assert_array_equal(corpus.time, time)
    np.testing.assert_array_equal(corpus.truth, truth)
    np.testing.assert_array_equal(corpus.annotated, annotated)
    for m in modalities:
        np.testing.assert_array_equal(corpus.features[m][:], features[m])
        np.testing.assert_array_equal(corpus.present[m], present[m])
    assert list(corpus.views) == list(VIEWS)
    for view in VIEWS:
        faces = expected(store, corpus.videos, modalities, tracks, fps, view)[2]["visual"]
        np.testing.assert_array_equal(corpus.views[view][:], faces)


def test_what_stands_for_no_frame_or_for_many_is_in_memory_never_or_once(data):
    store, _ = data
    corpus = load_corpus(store, ["clip2", "mute", "clip0"], MODALITIES, TARGETS)
    faces = sum(int(store[name].visual.valid.sum()) for name in corpus.videos)
    spoken = sum(len(np.unique(own[own.any(1)], axis=0)) for own in _text(corpus))
    assert {m: len(own.values) - 1 for m, own in corpus.features.items()} == {
        "visual": faces,
        "audio": 140 + 140 + 300,  # of the 560 rows of clip2 those at its frames
        "text": spoken,
    }
    assert spoken < corpus.present["text"].sum() / 2


def _text(corpus):
    return [corpus.features["text"][corpus.frames(video)].numpy() for video in range(len(corpus.videos))]


def test_without_gaps_a_corpus_draws_on_the_same_memory(data):
    store, tracks = data
    corpus = load_corpus(store, ["clip0", "clip3"], MODALITIES, TARGETS, tracks, views=True)
    closed, kept = corpus.closed("train"), corpus.annotated
    assert len(closed.truth) == kept.sum() < len(kept)
    for own, whole in ((closed.features, corpus.features), (closed.views, corpus.views)):
        for name, embeddings in own.items():
            np.testing.assert_array_equal(embeddings[:], whole[name][kept])
            assert embeddings.values is whole[name].values


# ---- several corpora


def test_a_pool_reads_each_array_once(data, read):
    store, tracks = data
    wants = [Want(["clip0", "clip2"], tracks, views=True), Want(["clip3", "dark"], tracks)]
    pool = Pool(store)
    first = pool.corpora(wants, ["visual"], TARGETS)
    assert sorted(read) == sorted(
        [(v, "visual/embedding") for v in ("clip0", "clip2", "clip3")]
        + [(v, f"visual/views/{view}") for v in ("clip0", "clip2") for view in VIEWS]
    )
    read.clear()
    again = pool.corpora(wants, ["text", "visual"], ["arousal"])
    assert sorted(read) == [(v, "text/embedding") for v in ("clip0", "clip2", "clip3", "dark")]
    for one, other in zip(first, again, strict=True):
        assert one.features["visual"].values is other.features["visual"].values
        np.testing.assert_array_equal(one.truth[:, 1:], other.truth[: len(one.truth)])


def test_folds_draw_on_the_same_memory(data, read):
    store, tracks = data
    names = ["clip0", "clip2", "clip3", "fast"]
    pool, made = Pool(store, names), []
    for out in names:
        train = [name for name in names if name != out]
        made += pool.corpora([Want(train, tracks), Want([out], tracks)], ["visual", "text"], TARGETS)
    assert len(read) == len(set(read)) == 8
    assert len({corpus.features["visual"].values.data_ptr() for corpus in made}) == 1
    for corpus in made:
        features = expected(store, corpus.videos, ["visual", "text"], tracks, None)[2]
        for m in ("visual", "text"):
            np.testing.assert_array_equal(corpus.features[m][:], features[m])


def test_a_video_that_was_extracted_again_is_read_again(tmp_path, read):
    pool = Pool(FeatureStore(tmp_path / "store", create=True))
    for seed in (1, 2):
        pool.store.write(random_video("clip01", seed=seed), provenance())
        for _ in range(2):
            (corpus,) = pool.corpora([Want(["clip01"])], ["visual"], TARGETS)
            np.testing.assert_array_equal(corpus.features["visual"][:], pool.store["clip01"].visual.embedding)
    assert len(read) == 2


def test_a_damaged_chunk_is_seen(tmp_path):
    store = FeatureStore(tmp_path / "store", create=True)
    for name in ("clip01", "clip02"):
        store.write(random_video(name, 300, widths=WIDE), provenance(WIDE))
    first, _ = chunks(store.shard("clip02"), "visual/embedding")[1]
    flip(store.shard("clip02"), 8 * first + 999)
    with pytest.raises(AffuseError, match=r"'clip02' in the feature store is damaged.*visual/embedding"):
        load_corpus(store, store.ids, ["visual"], TARGETS)
    load_corpus(store, store.ids, ["audio"], TARGETS)
