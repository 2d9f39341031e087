"""What is said of a run while it lasts and at its end: failures by reason, by worker, and as JSON lines."""

import json
from pathlib import Path

import pytest

from affuse.extract import summary as summaries
from affuse.extract.summary import Bulletin, Receipt, Summary, describe, without_names
from affuse.extract.videos import Job

OK = dict.fromkeys(("visual", "audio", "text"), "ok")


def job(name: str) -> Job:
    return Job(name, f"{name}.mp4", Path("videos", f"{name}.mp4"))


@pytest.fixture
def summary() -> Summary:
    """Of five videos, one is made, three failed for two reasons, and one is to come."""
    summary = Summary(todo=5, bytes_todo=50, kept=2, earlier=1, failed={"old": "it was no video"})
    summary.add(Receipt("a", None, 30, 1.0, OK, {"decode": 0.5}, worker="w1"), job("a"), 10)
    for name, worker in (("b", "w1"), ("c", "w2")):
        summary.add(Receipt(name, f"{name}.mp4 cannot be opened", worker=worker), job(name), 10)
    summary.add(Receipt("d", f"{Path('videos', 'd.mp4').absolute()} shrank", worker="w2"), job("d"), 10)
    summary.seconds = 8.0
    return summary


def test_failures_are_counted_by_reason_and_work_by_worker(summary):
    assert summary.reasons == {"… cannot be opened": 2, "… shrank": 1}
    assert summary.failed.keys() == {"old", "b", "c", "d"}
    assert summary.workers == {"w1": {"made": 1, "failed": 1}, "w2": {"made": 0, "failed": 2}}
    said = describe(summary).splitlines()
    assert said[0].startswith(
        "1 extracted, 1 already there, 4 failed, 1 of them in an earlier run, in 8.0 s."
    )
    assert said[-3:] == [
        "  workers w1 1 (1 failed), w2 0 (2 failed)",
        "  failed  2 × … cannot be opened",
        "  failed  1 × … shrank",
    ]
    assert summary.line.startswith("4 of 5 videos, 3 failed; 0:00:01 of video done")
    assert summary.line.endswith("about 0:00:02 left")


def test_a_reason_is_of_its_kind_whatever_its_video_is_called():
    for reason in ("day/x.mp4 is cut", "x.mp4 is cut", "/v/day/x.mp4 is cut", "'day/x' is cut"):
        assert without_names(reason, Job("day/x", "day/x.mp4", Path("/v/day/x.mp4"))) == "… is cut"
    assert without_names("a cut", job("a")) == "a cut"


def test_the_state_is_a_json_line_now_and_then_and_at_the_end(summary, tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(summaries.time, "monotonic", lambda: now[0])
    bulletin = Bulletin(tmp_path / "run.jsonl")
    for passed in (0, 1, summaries.PAUSE, 1):
        now[0] += passed
        bulletin.tell(summary)
    summary.add(Receipt("e", None, 30, 1.0, OK, {}), job("e"), 10)
    bulletin.tell(summary)
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [line["done"] for line in lines] == [4, 4, 5]
    first, *_, last = lines
    assert first["seconds_left"] == 2.0
    assert first["reasons"] == {"… cannot be opened": 2, "… shrank": 1}
    assert first["workers"]["w2"] == {"made": 0, "failed": 2}
    assert (last["videos"], last["failed"], last["seconds_left"]) == (5, 3, 0)


def test_where_no_line_can_be_written_the_run_goes_on(summary, tmp_path):
    Bulletin(None).tell(summary)
    Bulletin(tmp_path / "no" / "run.jsonl").tell(summary)
    assert not list(tmp_path.iterdir())
