"""One extraction over every hostile or odd file there is: each ends as stated, and takes no other along."""

import os
import re
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner

from affuse.commands import main
from affuse.extract.lanes import Lanes
from affuse.extract.media import UndecodableError, probe, read_frames, read_pictures
from affuse.extract.run import process
from affuse.extract.sight import Sight
from affuse.extract.sound import SAMPLE_RATE, read_audio
from affuse.extract.videos import find_jobs
from affuse.features.parts import MODALITIES
from affuse.features.store import FeatureStore
from builders_extract import seeded_extractor
from cast import LEFT, RIGHT, film, scene
from hostile import CASES, SECRET, build_all, mux
from media import face_frames, plain_frames, talking_head, tone
from processes import OWN_SOUND

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2
NORMAL = ["aa-normal", "normal", "zz-normal"]
TWO_PEOPLE = ROOT.parent / "shared" / "clips" / "two-faces-12fps.mp4"


def arguments(videos: Path, store: Path) -> list[str]:
    command = ["extract", "--video-dir", str(videos), "--out", str(store), "--device", "cpu"]
    command += ["--profile", "offline", "--allow-untrained", "--set", "modalities=[visual, audio]"]
    return [*command, "--set", "backbones.visual=ir50-ferplus", "--set", OWN_SOUND]  # the smallest


def extract(videos: Path, store: Path) -> subprocess.CompletedProcess:
    """As people run it, in processes that may crash on their own."""
    command = [sys.executable, "cli.py", *arguments(videos, store), "--workers", str(WORKERS)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(store.parent / "cache")}
    environment |= {"OMP_THREAD_LIMIT": "1"}  # small pictures: more threads only wait for each other
    environment.pop("AFFUSE_WEIGHTS", None)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=1200)


class Run:
    """The extraction of all cases, while one of the files grows, and of the normal videos alone."""

    def __init__(self, folder: Path):
        self.videos = folder / "videos"
        build_all(self.videos)
        for seed, name in enumerate(NORMAL):
            for place in (self.videos, folder / "alone"):
                talking_head(place / f"{name}.mp4", seconds=0.4 + 0.1 * seed)
        done = threading.Event()
        grower = threading.Thread(target=self._grow, args=(done,))
        grower.start()
        try:
            self.result = extract(self.videos, folder / "store")
        finally:
            done.set()
            grower.join()
        self.alone = CliRunner().invoke(main, arguments(folder / "alone", folder / "store-alone"))
        self.store, self.normal = FeatureStore(folder / "store"), FeatureStore(folder / "store-alone")
        self.stderr = self.result.stderr.decode("utf-8", "surrogateescape")

    def _grow(self, done: threading.Event) -> None:
        path = self.videos / "grows.ts"
        more = path.read_bytes()
        with path.open("ab") as file:
            over = False
            while not over:
                over = done.wait(0.5)
                file.write(
                    more[: len(more) // 10]
                )  # once when all is over, too: it has grown since it was read
                file.flush()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return Run(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.name)[:40])
def test_it_ends_as_stated(run, case):
    if not case.visual:  # nothing can be kept of it: the run says why
        assert case.id not in run.store
        assert re.search(f"failed: {case.id}: .*{case.reason}", run.stderr)
        return
    video = run.store[case.id]
    assert {m: getattr(video, m).status.value for m in MODALITIES} == {
        "visual": case.visual,
        "audio": case.audio,
        "text": "undecodable" if case.visual == case.audio == "undecodable" else "skipped",
    }
    reasons = [getattr(video, m).reason for m in MODALITIES]
    assert any(re.search(case.reason, reason) for reason in reasons), reasons
    assert case.frames in (None, video.frames)
    assert case.faces in (None, np.count_nonzero(video.visual.valid))
    if case.visual == "ok":
        assert video.visual.embedding[video.visual.valid].any(axis=1).all()


def test_neighbours_are_as_if_alone(run):
    assert run.alone.exit_code == 0, run.alone.stderr
    for name in NORMAL:
        assert run.store.header(name).features_digest == run.normal.header(name).features_digest


def test_the_run_says_what_failed_and_nothing_it_should_not(run):
    assert run.result.returncode == 1
    said = run.stderr + run.result.stdout.decode("utf-8", "surrogateescape")
    for forbidden in ("Traceback", "Please report", SECRET, "\x1b", "\udcff"):
        assert forbidden not in said
    assert set(run.store.ids) == {case.id for case in CASES if case.visual} | set(NORMAL)
    failed = [case for case in CASES if not case.visual or run.store[case.id].failure]
    lines = [line for line in run.stderr.splitlines() if line.startswith("failed: ")]
    assert len(lines) == len(failed) > 15
    assert "failed: new\\nline broken: " in run.stderr


def test_the_store_is_whole(run):
    assert run.store.verify().problems == []
    for line in (run.store.path / "shards").glob("*/*"):
        assert SECRET.encode() not in line.read_bytes()


def test_a_file_that_grew_is_remade(run):
    again = CliRunner().invoke(main, arguments(run.videos, run.store.path))
    assert "2 to extract (1 source changed; 1 unreadable" in again.stderr
    settled = CliRunner().invoke(main, arguments(run.videos, run.store.path))
    assert "source changed" not in settled.stderr


@pytest.mark.parametrize("name", ["size-changes", "size-changes-up"])
def test_boxes_are_scaled_by_their_own_frame(run, name):
    boxes = run.store[name].visual.box
    small, large = (boxes[3], boxes[0]) if name == "size-changes" else (boxes[0], boxes[3])
    np.testing.assert_allclose(large, small * 2, atol=8)


def test_time_goes_on_after_a_leap_or_a_jump_back(run):
    np.testing.assert_allclose(run.store["leap"].visual.time, [0, 0.1, 10, 10.1], atol=1e-3)
    np.testing.assert_allclose(run.store["leap-of-days"].visual.time, [0, 0.1, 0.2, 0.3], atol=1e-3)
    assert run.store["leap-of-days"].duration < 1
    assert (np.diff(run.store["jumps-back"].visual.time) > 0).all()
    np.testing.assert_allclose(np.diff(run.store["negative-times"].visual.time), 0.1, atol=1e-3)


def test_folders_that_are_links_are_named_and_not_searched(run):
    assert "inside-out is a link to a folder, which is not searched" in run.stderr


def test_a_file_that_may_not_be_read_fails_alone(tmp_path):
    """Root may read everything, so the child gives up being root once it has loaded what it needs."""
    talking_head(tmp_path / "mine.mp4", 0.2).chmod(0)
    code = """
import os
from builders_extract import seeded_extractor
from affuse.extract.videos import Job
from affuse.extract.run import process
from affuse.features.store import FeatureStore
from pathlib import Path
extractor = seeded_extractor()
extractor.load()
store = FeatureStore(Path(os.environ["FOLDER"]) / "store", create=True)
os.chdir(os.environ["FOLDER"])
if os.geteuid() == 0:
    os.seteuid(65534)
print(process(Job("mine", "mine.mp4", Path("mine.mp4")), extractor, store).failure)
"""
    tmp_path.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "FOLDER": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "mine.mp4 cannot be read: Permission denied. Check its permissions" in result.stdout


def test_a_file_that_shrinks_while_it_is_read_is_said_to(tmp_path, monkeypatch):
    mux(tmp_path / "a.mkv", face_frames(6))
    extractor = seeded_extractor(modalities=("visual",))
    look = Sight.look

    def then_shrink(video):
        found = look(video)
        mux(tmp_path / "a.mkv", face_frames(2))
        return found

    monkeypatch.setattr(Sight, "look", then_shrink)
    receipt = process(find_jobs(tmp_path)[0], extractor, FeatureStore(tmp_path / "store", create=True))
    assert "a.mkv shrank while it was read" in receipt.failure


def test_a_file_that_loses_a_person_while_it_is_read_is_said_to(tmp_path, monkeypatch):
    path, extractor = film(tmp_path / "a.mkv", scene(1, LEFT), scene(1, RIGHT)), seeded_extractor()
    look = Sight.look

    def then_shrink(video):
        found = look(video)
        film(path, scene(1, LEFT))
        return found

    monkeypatch.setattr(Sight, "look", then_shrink)
    receipt = process(find_jobs(path)[0], extractor, FeatureStore(tmp_path / "store", create=True))
    assert "a.mkv shrank while it was read" in receipt.failure


def test_what_is_beyond_the_longest_is_refused_or_said_to_be_left(tmp_path, monkeypatch):
    path = mux(tmp_path / "a.mkv", plain_frames(30), samples=tone(3.0))
    with monkeypatch.context() as patch:
        patch.setattr("affuse.extract.media.LONGEST", 2.0)
        with pytest.raises(UndecodableError, match=r"a\.mkv is 0\.0 hours long; at most 0 are read"):
            probe(path)
        damage = []
        assert sum(len(chunk.time) for chunk in read_frames(read_pictures(path, damage))) == 21
        assert 2.0 <= len(read_audio(path, damage)) / SAMPLE_RATE < 2.2
        assert damage == ["what lies beyond 4 hours was not read"] * 2
    assert probe(path).duration == pytest.approx(3.0, abs=0.1)


def test_large_frames_come_in_smaller_chunks(tmp_path, monkeypatch):
    path = mux(tmp_path / "a.mkv", plain_frames(5, (64, 48)))
    monkeypatch.setattr("affuse.extract.media.CHUNK_BYTES", 2 * 64 * 48 * 3)
    assert [len(chunk.time) for chunk in read_frames(read_pictures(path))] == [2, 2, 1]


@pytest.mark.skipif(not TWO_PEOPLE.exists(), reason="the clip with two people is not here")
def test_of_two_people_the_one_asked_for_is_followed(tmp_path):
    with av.open(str(TWO_PEOPLE)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), 8)]
    mux(tmp_path / "a.mkv", frames, fps=12)
    centres = {}
    for face in ("left", "right"):
        extractor = seeded_extractor(modalities=("visual",), detection={"face": face})
        (job,) = find_jobs(tmp_path)
        with Lanes(1, threading.Event()) as lanes:
            _, (track, *_) = Sight(job, extractor.settings, extractor.networks, 0, lanes).look()
        centres[face] = track.centre
    assert centres["left"] < 160 < centres["right"]
