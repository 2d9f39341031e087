"""Lists of videos, as text and as tables: what each video is called, and what is given beside it."""

import json
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from affuse.commands import main
from affuse.errors import UsageError
from affuse.extract import lists
from affuse.extract.videos import MANY, find_jobs, named_videos
from affuse.features import FeatureStore
from media import talking_head
from processes import SEEDED, SOUND_ALONE

TABLE = [
    {"id": "anna/1", "path": "clips/a.mp4", "faces": "faces/a", "transcript": "words/a.vtt"},
    {"id": "ben, 2", "path": "clips/sub/a.mp4", "faces": "", "transcript": ""},
]


@pytest.fixture
def place(tmp_path) -> Path:
    for name in ("clips/a.mp4", "clips/sub/a.mp4", "faces/a/00001.jpg", "words/a.vtt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"-")
    return tmp_path


def write(path: Path, rows=TABLE) -> Path:
    table = pd.DataFrame(rows)
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        table.replace("", None).to_parquet(path)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_says_what_a_video_is_called_and_what_is_given_beside_it(place, ending):
    table = write(place / f"list.{ending}")
    first, second = find_jobs(named_videos(None, table))
    assert (first.id, first.name, first.path) == ("anna/1", "a.mp4", place / "clips" / "a.mp4")
    assert (first.crops, first.transcript) == (place / "faces" / "a", place / "words" / "a.vtt")
    assert (second.id, second.path) == ("ben, 2", place / "clips" / "sub" / "a.mp4")
    assert (second.crops, second.transcript) == (None, None)
    assert lists.given_in(table) == (True, True)
    assert lists.given_in(None) == (False, False)
    assert find_jobs(table) == [first, second]
    plain = write(place / f"plain.{ending}", [{"path": "clips"}])
    assert [job.id for job in find_jobs(plain)] == ["a", "sub/a"]
    assert lists.given_in(plain) == (False, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,file\na,clips/a.mp4\n", "has the columns id, file; a table of videos has path, and may have id"),
        ("", r"has the columns \(none\)"),
        ("path,rating\nclips/a.mp4,1\n", "has the columns path, rating"),
        ("path\n", "names none"),
        ("id,path\na,\n", "has no path in row 1"),
        ("id,path\na,gone.mp4\n", "gone.mp4 is not a folder of videos, and no video either"),
        ("id,path\na,clips\n", "clips is a folder; id, faces and transcript are for a video"),
        ("path,faces\nclips/a.mp4,words/a.vtt\n", "a.vtt, which is given for .*a.mp4, is not there"),
        ("path,transcript\nclips/a.mp4,words\n", "words, which is given for .*a.mp4, is not there"),
        ("id,path\na,clips/a.mp4\na,clips/sub/a.mp4\n", "would both be called 'a'"),
        ("path\nclips/a.mp4\nclips/sub/a.mp4\n", "would both be called 'a'"),
    ],
)
def test_a_table_that_cannot_be_is_a_sentence(place, text, message):
    (place / "list.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        find_jobs(place / "list.csv")


def test_parquet_that_is_none_or_cannot_be_read_here_is_a_sentence(place, monkeypatch):
    (place / "list.parquet").write_bytes(b"no parquet")
    if find_spec("pyarrow"):
        with pytest.raises(UsageError, match="It is no Parquet file"):
            find_jobs(place / "list.parquet")
    monkeypatch.setattr(lists, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'affuse\[parquet\]'; or give a CSV"):
        find_jobs(place / "list.parquet")


def test_a_store_given_as_videos_is_known_as_one(tmp_path):
    FeatureStore(tmp_path, create=True)
    with pytest.raises(UsageError, match="is a feature store: what videos were made into"):
        find_jobs(tmp_path)


def test_videos_are_told_of_as_they_are_found_in_order_of_their_path(tmp_path):
    for number in range(MANY + 1):
        (tmp_path / f"{number:04d}").mkdir()
        (tmp_path / f"{number:04d}" / "x.mp4").touch()
    (tmp_path / "0000.mp4").touch()
    heard = []
    jobs = find_jobs(tmp_path, on_found=heard.append)
    assert heard == [MANY]
    assert [job.path for job in jobs] == sorted(tmp_path.rglob("*.mp4"))


def test_a_run_over_a_table_goes_on_where_its_limit_ended(tmp_path):
    talking_head(tmp_path / "clip.mp4", seconds=0.3)
    (tmp_path / "clip.mp4").rename(tmp_path / "x.mp4")
    (tmp_path / "y.mp4").write_bytes((tmp_path / "x.mp4").read_bytes())
    table = write(tmp_path / "list.csv", [{"id": "one", "path": "x.mp4"}, {"id": "two", "path": "y.mp4"}])
    command = ["extract", "--video-list", table, "--out", tmp_path / "store", "--limit", 1, "--json"]
    for made in (["one"], ["two"], []):
        result = CliRunner().invoke(main, [*map(str, command), *SEEDED, *SOUND_ALONE])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["made"] == made
    assert FeatureStore(tmp_path / "store").ids == ["one", "two"]
