"""Watching: what is opened for a source, and sound as it is heard."""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from affuse.errors import UsageError
from affuse.extract.media import read_sound
from affuse.extract.sound import SAMPLE_RATE, Blocks, read_audio
from affuse.pipelines.watch import source
from affuse.pipelines.watch.sound import RecentSound
from affuse.pipelines.watch.source import Camera, Player, Stream, find_source
from media import block, face_frames, tone, write_media

# ---- sources


def test_a_camera_is_what_the_system_calls_it(tmp_path, monkeypatch):
    for name in ("video2", "video0", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr(source.av, "formats_available", {"alsa", "v4l2"})
    first = find_source(None, "linux", tmp_path)
    assert (first.kind, first.address, first.hears) == ("v4l2", str(tmp_path / "video0"), False)
    assert first.microphone == "default"
    assert find_source("2", "linux", tmp_path).address == str(tmp_path / "video2")
    monkeypatch.setattr(source.av, "formats_available", {"v4l2"})
    assert find_source(None, "linux", tmp_path).microphone == ""
    assert find_source(None, "darwin") == Camera("avfoundation", "default:default", True)
    assert find_source("1", "darwin") == Camera("avfoundation", "1:default", True)
    assert "framerate" in find_source("1", "darwin").options


def test_windows_calls_cameras_by_name(monkeypatch):
    there = [
        SimpleNamespace(name="Cam A", media_types=["video"]),
        SimpleNamespace(name="Mic", media_types=["audio"]),
        SimpleNamespace(name="Cam B", media_types=["video"]),
    ]
    monkeypatch.setattr(source.av, "enumerate_input_devices", lambda kind: there, raising=False)
    assert find_source(None, "win32") == Camera("dshow", "video=Cam A:audio=Mic", True)
    assert find_source("1", "win32").address == "video=Cam B:audio=Mic"
    assert find_source("Another", "win32").address == "video=Another:audio=Mic"
    monkeypatch.setattr(source.av, "enumerate_input_devices", lambda kind: there[::2])
    assert find_source(None, "win32") == Camera("dshow", "video=Cam A", False)
    monkeypatch.delattr(source.av, "enumerate_input_devices")
    with pytest.raises(UsageError, match="Name it as Windows does"):
        find_source(None, "win32")


def test_files_pipes_and_nothing_are_told_apart(tmp_path):
    file, pipe = tmp_path / "a.mkv", tmp_path / "pipe"
    file.touch()
    os.mkfifo(pipe)
    assert find_source(str(file)) == Stream(file)
    assert find_source(str(pipe)) == Stream(pipe)
    assert find_source("-").protocol == "pipe"
    assert find_source("-").name == "standard input"
    for wrong in (str(tmp_path / "b.mkv"), str(tmp_path), "camera"):
        with pytest.raises(UsageError, match="no file, no pipe and no camera"):
            find_source(wrong, "linux")
    with pytest.raises(UsageError, match="There is no camera here"):
        find_source(None, "linux", tmp_path)
    with pytest.raises(UsageError, match="not on sunos"):
        find_source(None, "sunos")


# ---- sound


@pytest.mark.parametrize("changes", [{}, {"audio_start": 0.35}, {"rate": 44_100, "channels": 2}])
def test_sound_is_heard_as_extraction_reads_it(tmp_path, changes):
    rate = changes.get("rate", SAMPLE_RATE)
    path = write_media(tmp_path / "a.mkv", face_frames(6), samples=tone(2.0, rate=rate), **changes)
    sound = RecentSound()
    for time, frame in read_sound(path):
        sound.hear(time, frame)
    sound.finish()
    begun, samples = sound.since(0.0)
    assert begun == 0.0
    whole = read_audio(path)[:]
    assert len(samples) == len(whole)
    np.testing.assert_array_equal(samples, whole)
    assert sound.heard == len(whole) / SAMPLE_RATE


def heard(kept: float, *blocks: tuple[float, float, float]) -> RecentSound:
    """Blocks of sound: when each begins, its seconds, and its level."""
    sound = RecentSound(kept)
    for begin, seconds, level in blocks:
        sound.hear(begin, block(np.full(round(seconds * SAMPLE_RATE), level)))
    sound.finish()
    return sound


def test_what_is_left_out_is_silence_and_what_overlaps_is_heard_once():
    sound = heard(60, (-0.5, 1, 0.1), (0.5, 0.5, 0.2), (1.5, 0.5, 0.3), (1.5, 1.0, 0.4), (2.5, 0.5, 0.5))
    _, samples = sound.since(0)
    levels = samples.reshape(-1, SAMPLE_RATE // 2)
    assert levels.std(axis=1).max() < 1e-6
    assert levels.mean(axis=1) == pytest.approx([0.1, 0.2, 0.0, 0.3, 0.4, 0.5], abs=1e-6)


def test_only_the_last_seconds_of_sound_are_kept():
    sound = heard(2, *((float(i), 1.0, i / 100) for i in range(50)))
    assert sound.samples.nbytes == 4 * 4 * SAMPLE_RATE
    begun, samples = sound.since(0.0)
    assert begun + len(samples) / SAMPLE_RATE == sound.heard == 50
    assert begun <= 48
    assert samples[-SAMPLE_RATE] == pytest.approx(0.49)
    begun, samples = sound.since(49.5)
    assert (begun, len(samples)) == (49.5, SAMPLE_RATE // 2)
    begun, samples = heard(2, (0, 1, 0.1), (3000, 1, 0.2)).since(0.0)
    assert begun + len(samples) / SAMPLE_RATE == 3001
    assert samples[-1] == pytest.approx(0.2)
    assert not samples[:-SAMPLE_RATE].any()


def test_sound_that_cannot_be_kept_is_an_error_and_that_cannot_be_resampled_is_silence():
    def full(place, samples):
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        Blocks(full)(0.0, block(np.ones(SAMPLE_RATE)))
    said, heard = [], []
    blocks = Blocks(lambda place, samples: heard.append((place, len(samples))), said)
    for time, samples in ((0.0, SAMPLE_RATE), (1.0, 0), (1.0, SAMPLE_RATE)):
        blocks(time, block(np.ones(samples)) if samples else source.av.AudioFrame())
    assert [place for place, _ in heard] == [0, SAMPLE_RATE]
    assert len(said) == 1


def test_a_microphone_that_fails_ends_the_watch(monkeypatch):
    """It is read beside the camera, by a thread that whoever watches has begun."""
    begun = []
    camera, microphone = Camera("v4l2", "/dev/video0", False, "default"), SimpleNamespace()
    player = Player(
        camera, lambda *_: None, RecentSound(), threading.Event(), lambda *given: begun.append(given)
    )
    monkeypatch.setattr(player, "_microphone", lambda: microphone)
    monkeypatch.setattr(
        player, "_camera", lambda: nullcontext(SimpleNamespace(streams=SimpleNamespace(audio=())))
    )
    monkeypatch.setattr(
        source, "picture_stream", lambda container: SimpleNamespace(codec_context=SimpleNamespace())
    )
    monkeypatch.setattr(player, "_play", lambda container: None)
    player.play()
    assert begun == [(player._listen, microphone)]
