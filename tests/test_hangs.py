"""A video cannot hurt a run: one that hangs, one that shrinks meanwhile."""

import os
import subprocess
import sys
import threading

import pytest

from affuse.errors import UsageError
from affuse.extract import speech
from affuse.extract.deadline import OverdueError, within
from affuse.extract.extraction import Compute
from affuse.extract.resume import remaining
from affuse.extract.run import process
from affuse.extract.videos import Job, find_jobs
from affuse.features.store import FeatureStore
from builders_extract import seeded_extractor
from media import talking_head
from processes import ROOT, arguments

SILENT = {"words": [], "no_speech_prob": 0.0, "avg_logprob": 0.0, "compression_ratio": 1.0}


@pytest.mark.parametrize("more", [(), ("--workers", "1")])
def test_a_decoder_that_hangs_is_a_failed_video_and_the_run_goes_on(tmp_path, more):
    for name in ("a", "hangs", "z"):
        talking_head(tmp_path / "videos" / f"{name}.mp4", seconds=4 if name == "hangs" else 0.4)
    given = arguments(tmp_path / "videos", tmp_path / "store", "--time-limit", "1", *more)
    command = [sys.executable, str(ROOT / "tests" / "hang.py"), *given]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "DASK_LOGGING__DISTRIBUTED": "critical"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, env=variables, cwd=ROOT)
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert "hangs.mp4 was given up after 10 s; a larger --time-limit gives it more" in run.stderr
    store = FeatureStore(tmp_path / "store")
    assert store.ids == ["a", "hangs", "z"]
    assert list(store.failed) == ["hangs"]
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, env=variables, cwd=ROOT)
    assert again.returncode == 1
    assert "nothing to do" in again.stderr


def test_a_pipe_that_nobody_writes_to_is_given_up(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    extractor = seeded_extractor()
    extractor.time_limit = 0.05
    (record,) = extractor(Job("a", "a.mp4", tmp_path / "a.mp4"))
    assert record.failure == "a.mp4 was given up after 0 s; a larger --time-limit gives it more."
    os.close(os.open(tmp_path / "a.mp4", os.O_WRONLY | os.O_NONBLOCK))  # the thread left behind reads its end


def test_what_was_given_up_reads_no_further():
    """The thread that is left behind ends at its next look, and nothing of it reaches anybody."""
    entered, gate, ended = (threading.Event() for _ in range(3))

    def slow():
        entered.set()
        gate.wait()
        ended.set()
        raise ValueError("too late")

    with pytest.raises(OverdueError) as late:
        within(0.01, slow)
    assert late.value.seconds == 0.01
    assert entered.wait(60)
    gate.set()
    assert ended.wait(60)


@pytest.mark.parametrize("chunked", [False, True])
def test_words_are_looked_for_no_further_in_a_video_that_was_given_up(tmp_path, monkeypatch, chunked):
    path, begun, ended = talking_head(tmp_path / "a.mp4", seconds=4), threading.Event(), threading.Event()
    monkeypatch.setattr(speech, "PIECE", 1)
    monkeypatch.setattr(speech, "PIECE_CUT", 1)
    monkeypatch.setattr(speech, "WINDOW", 1)
    monkeypatch.setattr(speech, "WINDOW_CUT", 1)
    transcription = "chunked" if chunked else "sequential"
    extractor = seeded_extractor(threads=2, modalities=("text",), transcription=transcription)
    transcriber, heard = extractor.networks.transcriber, []
    if chunked:
        transcriber.batch = 1

    def hear(*given):
        heard.append(given)
        begun.set()
        ended.wait(60)
        return [SILENT] if chunked else {"segments": []}

    monkeypatch.setattr(transcriber, "hear" if chunked else "transcribe", hear)
    extractor.time_limit = 0.2
    (record,) = extractor(find_jobs(path)[0])
    assert "was given up" in record.failure
    assert begun.is_set()
    ended.set()
    for lane in [thread for thread in threading.enumerate() if thread.name.startswith("lane")]:
        lane.join(60)
    assert len(heard) == 1


@pytest.mark.parametrize("seconds", [1e30, float("inf")])
def test_what_is_in_time_is_given_or_raised(seconds):
    assert within(seconds, lambda: 7) == 7
    with pytest.raises(TimeoutError, match="its own"):
        within(60, lambda: (_ for _ in ()).throw(TimeoutError("its own")))


@pytest.mark.parametrize("limit", [0, -1, "x", None])
def test_a_time_limit_is_a_number_above_nothing(limit):
    with pytest.raises(UsageError, match="time_limit must be a number above 0"):
        Compute(time_limit=limit)


@pytest.mark.parametrize("change", ["shrinks", "grows"])
def test_a_file_that_shrinks_while_it_is_read_is_not_kept(tmp_path, monkeypatch, change):
    """One that grows is, as far as it went, and made anew by the next run."""
    path = talking_head(tmp_path / "a.mp4", seconds=1)
    talking_head(tmp_path / "b.mp4", seconds=0.3)
    content, extractor = path.read_bytes(), seeded_extractor(modalities=("audio",))
    encode = extractor.networks.sound_encoder

    def changing(samples, times):
        path.write_bytes(content[:-1000] if change == "shrinks" else content + b"more")
        return encode(samples, times)

    changing.portion = encode.portion
    store, made = FeatureStore(tmp_path / "store", create=True), extractor.provenance.settings_hash
    with monkeypatch.context() as patch:
        patch.setattr(extractor.networks, "sound_encoder", changing)
        failure = process(find_jobs(path)[0], extractor, store).failure
    if change == "shrinks":
        assert failure.endswith("a.mp4 shrank while it was read. Extract again when it is finished.")
    reasons, *_ = remaining(find_jobs(tmp_path), store, made)
    assert reasons == {"a": "new" if change == "shrinks" else "source changed", "b": "new"}
