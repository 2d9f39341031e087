"""`affuse watch`: a file through the whole of it, what it leaves, what it refuses, how it ends."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from affuse.extract.media import read_pictures
from affuse.features import FeatureStore
from affuse.features.record import VideoFeatures
from affuse.fuse.models.model import build_model
from affuse.fuse.models.registry import MODELS
from affuse.pipelines.prediction import load_run
from affuse.pipelines.watch.lanes import WAITING, Faces
from affuse.pipelines.watch.memory import Memory
from live import HERE, clip, make_run, watch
from processes import ROOT, Started
from tiny import make_data, small

FOREVER = "1000000"  # s that sound is waited for: what comes out then depends on no machine's speed


@pytest.fixture(scope="module")
def run(tmp_path_factory, undrawn) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def watched(run, tmp_path_factory) -> tuple[Path, dict]:
    """A folder with what a watch of clip.mkv has left, and its summary."""
    place = tmp_path_factory.mktemp("watched")
    told = watch(
        run, clip(place / "clip.mkv"), "--save", place / "kept", "--out", place / "live.csv", 
        "--wait-sound", FOREVER, "--json",
    )  # fmt: skip
    assert "http://127.0.0.1:" in told.stderr
    assert "shown, of these with face 100 %, sound 100 %; delay " in told.stderr
    assert "kept as 'clip'" in told.stderr
    return place, json.loads(told.stdout)


def cut(video: VideoFeatures, end: float) -> VideoFeatures:
    """The rows of a record up to a second, and the words that have begun by then."""
    seen, heard, said = (video.visual.time <= end, video.audio.time <= end, video.text.start <= end)

    def rows(part, which: np.ndarray, *names: str):
        return dataclasses.replace(part, **{name: getattr(part, name)[which] for name in names})

    return dataclasses.replace(
        video,
        frames=int(seen.sum()),
        visual=rows(video.visual, seen, "embedding", "time", "valid", "box", "confidence"),
        audio=rows(video.audio, heard, "embedding", "time"),
        text=rows(video.text, said, "embedding", "start", "end", "word", "confidence"),
    )


def last_prediction(run: Path, video: VideoFeatures, provenance, folder: Path) -> np.ndarray:
    """What `affuse fuse predict` says of the last frame of a video."""
    store = FeatureStore(folder, create=True)
    store.write(video, provenance)
    return load_run(run).predict(store, device="cpu")[video.id].values[-1]


def test_a_value_is_what_predict_says_of_the_last_frame_of_a_video_that_ends_there(run, watched, tmp_path):
    place, summary = watched
    store = FeatureStore(place / "kept")
    rows = list(csv.DictReader((place / "live.csv").open()))
    assert len(rows) == summary["shown"] >= 2
    assert {row["sound"] for row in rows} == {"1"}
    for i, row in enumerate(rows):
        video = cut(store["clip"], float(row["time"]) + 1e-3)
        said = last_prediction(run, video, store.provenance, tmp_path / str(i))
        assert [float(row["valence"]), float(row["arousal"])] == pytest.approx(said, abs=2e-6)
    assert len({row["valence"] for row in rows}) > 1


def test_a_record_is_kept_as_extraction_keeps_one(run, watched):
    place, summary = watched
    store, extracted = FeatureStore(place / "kept"), FeatureStore(run.parent / "store")
    video = store["clip"]
    assert summary["saved"] == "clip"
    assert video.frames == summary["frames"] - summary["dropped"] == len(video.visual.time)
    assert video.source.name == "clip.mkv"
    assert len(video.source.sha256) == 64
    assert store.provenance.settings == extracted.provenance.settings | {"live": True}
    assert store.provenance.backbones == extracted.provenance.backbones
    assert list(store.verify().problems) == []
    assert video.visual.valid.all()
    reached = video.visual.time < 2.4 - 0.975
    assert np.isin(video.visual.time[reached], video.audio.time).all()
    assert len(load_run(run).predict(store, device="cpu")["clip"].time) == video.frames
    assert "pictures were not looked at" in video.visual.reason


def test_faces_and_sound_are_embedded_as_extraction_embeds_them(run, watched, tmp_path):
    """Where boxes agree: at the pictures in which faces were looked for, to the rounding of the boxes."""
    place, _ = watched
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "clip.mkv").symlink_to(place / "clip.mkv")
    from affuse.extract.extraction import extract_videos
    from live import OWN

    other = extract_videos(
        tmp_path / "again",
        tmp_path / "store",
        profile="offline",
        modalities=["visual", "audio"],
        device="cpu",
        **OWN,
    )["clip"]
    live = FeatureStore(place / "kept")["clip"]
    rows = np.searchsorted(other.audio.time, live.audio.time)
    np.testing.assert_allclose(live.audio.embedding, other.audio.embedding[rows], atol=2e-3)
    rows = np.searchsorted(other.visual.time, live.visual.time)
    np.testing.assert_allclose(live.visual.time, other.visual.time[rows], atol=1e-6)
    first = live.visual.time == 0
    if first.any():
        np.testing.assert_allclose(live.visual.box[first], other.visual.box[:1], atol=0.1)
    np.testing.assert_allclose(live.visual.box, other.visual.box[rows], atol=12)


def test_a_record_is_never_replaced_nor_put_beside_those_of_another_kind(run, watched, tmp_path):
    place, _ = watched
    assert (
        "has a record 'clip' already"
        in watch(run, place / "clip.mkv", "--save", place / "kept", code=2).stderr
    )
    said = watch(run, place / "clip.mkv", "--save", run.parent / "store", code=2).stderr
    assert "holds features of another kind" in said
    assert "settings.live" in said


def test_a_pipe_is_read_and_named_by_the_moment(run, watched, tmp_path):
    place, _ = watched
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sender = threading.Thread(target=lambda: pipe.write_bytes((place / "clip.mkv").read_bytes()))
    sender.start()
    told = watch(run, pipe, "--save", tmp_path / "kept", "--json")
    sender.join()
    (name,) = FeatureStore(tmp_path / "kept").ids
    assert json.loads(told.stdout)["saved"] == name
    assert name.startswith("live-20")
    assert FeatureStore(tmp_path / "kept")[name].source.sha256 == ""


def test_ctrl_c_ends_it_and_what_was_seen_is_kept(run, watched, tmp_path):
    """The source is a pipe that does not end before the test lets it."""
    place, _ = watched
    pipe, out = tmp_path / "pipe", tmp_path / "live.csv"
    os.mkfifo(pipe)
    command = ["-m", "affuse", "watch", "--run", run, "--source", pipe, "--weights-dir", HERE, "--no-browser"]
    started = Started(
        tmp_path / "log",
        [*command, "--device", "cpu", "--save", tmp_path / "kept", "--out", out],
        PYTHONPATH=str(ROOT),
    )
    with pipe.open("wb") as sender:
        sender.write((place / "clip.mkv").read_bytes())
        sender.flush()
        started.until(lambda: out.exists() and len(out.read_text().splitlines()) > 2, "values")
        os.kill(started.process.pid, signal.SIGINT)
        assert started.wait() == 0, started.said
    assert "values shown" in started.said
    assert "Traceback" not in started.said
    (name,) = FeatureStore(tmp_path / "kept").ids
    assert FeatureStore(tmp_path / "kept")[name].frames > 0


def test_files_without_pictures_or_that_are_none_are_a_sentence(run, tmp_path):
    from media import tone, write_media

    assert "has no pictures" in watch(run, write_media(tmp_path / "a.mkv", samples=tone(1)), code=1).stderr
    (tmp_path / "b.mkv").write_text("no video")
    told = watch(run, tmp_path / "b.mkv", "--out", tmp_path / "new.csv", code=1).stderr
    assert "cannot be opened" in told
    assert "has no sound" not in told
    assert not (tmp_path / "new.csv").exists()
    (tmp_path / "old.csv").write_text("kept")
    assert (
        "old.csv is there already"
        in watch(run, tmp_path / "b.mkv", "--out", tmp_path / "old.csv", code=2).stderr
    )
    assert (tmp_path / "old.csv").read_text() == "kept"
    assert "is no file, no pipe and no camera" in watch(run, tmp_path / "c.mkv", code=2).stderr
    assert "no length of time" in watch(run, tmp_path / "b.mkv", "--wait-words", "-1", code=2).stderr


def test_without_sound_pictures_alone_are_watched(run, tmp_path):
    from media import face_frames, write_media

    silent = write_media(tmp_path / "silent.mkv", face_frames(8))
    told = watch(run, silent, "--out", tmp_path / "live.csv")
    assert "has no sound: its pictures alone" in told.stderr
    rows = list(csv.DictReader((tmp_path / "live.csv").open()))
    assert rows
    assert {(row["face"], row["sound"], row["valid"]) for row in rows} == {("1", "0", "1")}


def test_only_causal_models_can_be_watched_with(tmp_path):
    widths = {"visual": 8, "audio": 8, "text": 8}
    both_ways = {
        name
        for name, spec in MODELS.items()
        if not build_model(name, {m: widths[m] for m in spec.standard}, window=4).causal
    }
    assert both_ways == {"rjca", "dca"}


def test_a_run_that_reads_backwards_is_refused(tmp_path, undrawn):
    run = make_run(tmp_path, model="rjca", channels={"visual": [8], "audio": [8]}, epochs=1)
    assert "in both directions" in watch(run, clip(tmp_path / "clip.mkv", 0.5), code=2).stderr


def test_other_features_than_the_runs_are_refused(run, watched, tmp_path):
    place, _ = watched
    said = watch(run, place / "clip.mkv", "--set", "audio_anchor=end", code=1).stderr
    assert "audio_anchor: start → end" in said
    (tmp_path / "own_backbone.py").write_text((HERE / "own_backbone.py").read_text() + "\n# another\n")
    said = watch(run, place / "clip.mkv", "--weights-dir", tmp_path, code=1).stderr
    assert re.search(r"visual backbone own_backbone\.py:Grid: sha256 [0-9a-f]{12} → [0-9a-f]{12}\.", said)


def test_a_run_on_features_that_videos_do_not_give_is_refused(tmp_path, undrawn):
    from affuse.fuse import train

    store, labels = make_data(tmp_path, train=2, validation=1)
    train(store.path, labels, tmp_path / "run", small(epochs=1))
    said = watch(tmp_path / "run", clip(tmp_path / "clip.mkv", 0.5), code=2).stderr
    assert "features that `affuse extract` does not make" in said


def test_of_more_pictures_than_can_be_looked_at_the_newest_are(tmp_path):
    """Nobody looks before all of them are there."""
    pictures = list(read_pictures(clip(tmp_path / "clip.mkv", 1.2)))
    memory, looked = Memory((), {"visual": 0, "audio": 0, "text": 0}, 10.0, 8, {}), []
    faces = Faces(None, memory, lambda picture, face: looked.append(picture.time))
    for picture in pictures:
        faces.give(picture, 0.0)
    faces.finish()
    faces.work(threading.Event())
    assert looked == [picture.time for picture in pictures[-WAITING:]]
    assert (faces.seen, faces.dropped) == (len(pictures), len(pictures) - WAITING)


def test_a_wrong_port_is_a_sentence(run, watched):
    import socket

    place, _ = watched
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = watch(run, place / "clip.mkv", "--port", other.getsockname()[1], code=2).stderr
    assert "cannot be served on port" in said
