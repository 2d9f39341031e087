"""Finding videos: below a folder, as files, and what is said of anything else."""

import os
from pathlib import Path

import numpy as np
import pytest

from affuse.errors import UsageError
from affuse.extract.videos import Job, chosen, find_jobs, named_videos
from affuse.features.parts import Status
from affuse.features.record import Source, VideoFeatures
from affuse.features.store import FeatureStore
from builders import provenance


@pytest.fixture
def clips(tmp_path) -> Path:
    for name in ("a.mp4", "sub/b.mkv", "notes.txt"):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"-")
    return tmp_path / "clips"


def found(videos, **given) -> list[tuple[str, str, Path]]:
    return [(job.id, job.name, job.path) for job in find_jobs(videos, **given)]


def test_a_folder_a_file_or_several(clips):
    a, b, odd = clips / "a.mp4", clips / "sub" / "b.mkv", clips / "odd.bin"
    whole = [("a", "a.mp4", a), ("sub/b", "sub/b.mkv", b)]
    assert found(clips) == found(str(clips)) == found([clips]) == whole
    assert found(b) == found(str(b)) == [("b", "b.mkv", b)]
    assert found([b, str(a)]) == [("b", "b.mkv", b), ("a", "a.mp4", a)]
    assert found(path for path in (a,)) == [("a", "a.mp4", a)]
    odd.touch()
    assert found(odd) == [("odd", "odd.bin", odd)]  # whoever names a file means it


def test_a_text_file_is_a_list_of_files_and_folders_from_where_it_lies(clips):
    a, b, videos = clips / "a.mp4", clips / "sub" / "b.mkv", clips / "list.TXT"
    videos.write_text(f"\ufeff# the second first\nsub\n\n  {a}  \n", encoding="utf-8")
    assert found(videos) == found([videos]) == [("b", "b.mkv", b), ("a", "a.mp4", a)]
    videos.write_text("# nothing\n")
    with pytest.raises(UsageError, match=r"No videos: the list .*list\.TXT names none"):
        found(videos)
    videos.write_text("gone.mp4\n")
    with pytest.raises(UsageError, match=r"gone\.mp4 is not a folder.* The list .*list\.TXT names it"):
        found(videos)


def test_a_video_named_twice_is_taken_once(clips):
    a = clips / "a.mp4"
    assert found([a, clips, clips / "sub" / ".." / "a.mp4"]) == [
        ("a", "a.mp4", a),
        ("sub/b", "sub/b.mkv", clips / "sub" / "b.mkv"),
    ]


def test_what_is_given_beside_a_file_is_found_by_its_name(clips, tmp_path):
    (tmp_path / "faces" / "b").mkdir(parents=True)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "b.vtt").touch()
    (job,) = find_jobs(clips / "sub" / "b.mkv", str(tmp_path / "faces"), tmp_path / "words")
    assert job.crops == tmp_path / "faces" / "b"
    assert job.transcript == tmp_path / "words" / "b.vtt"


def test_crops_are_looked_at_once(clips, tmp_path, monkeypatch):
    """Of millions of them: one scan of the folder, one look at each, and no byte."""
    folder = tmp_path / "faces" / "b"
    folder.mkdir(parents=True)
    for number in (1, 2, 4):
        (folder / f"{number:05d}.jpg").write_bytes(b"12345")
    (job,) = find_jobs(clips / "sub" / "b.mkv", tmp_path / "faces")
    scans, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scans.append(path) or scan(path))
    monkeypatch.setattr(Path, "is_file", lambda path: pytest.fail(f"looked at {path}"))
    monkeypatch.setattr("builtins.open", lambda path, *_: pytest.fail(f"read {path}"))
    assert job.size == 1 + 3 * 5
    assert job.mtime_ns >= folder.stat().st_mtime_ns
    assert scans == [folder]
    np.testing.assert_array_equal(job.given_crops(3), [0, 1])
    np.testing.assert_array_equal(job.given_crops(9), [0, 1, 3])


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (None, "a folder, a file, or a list of these, not None"),
        (7, "not 7"),
        (b"clips", "not b'clips'"),
        ([None], r"not \[None\]"),
        ([], "No videos"),
        ("gone.mp4", r"gone\.mp4 is not a folder of videos, and no video either"),
        (["clips/a.mp4", "clips/gone.mp4"], r"clips/gone\.mp4 is not a folder"),
        (["clips", "other/a.mp4"], r"clips/a\.mp4 and other/a\.mp4 would both be called 'a'"),
    ],
)
def test_anything_else_is_a_sentence(clips, monkeypatch, videos, message):
    monkeypatch.chdir(clips.parent)
    (clips.parent / "other").mkdir()
    (clips.parent / "other" / "a.mp4").touch()
    with pytest.raises(UsageError, match=message):
        find_jobs(videos)


@pytest.mark.parametrize("given", [7, b"faces", "gone"])
@pytest.mark.parametrize("option", ["faces_dir", "transcripts"])
def test_what_is_given_beside_videos_is_a_folder(clips, option, given):
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} .* is not a folder"):
        find_jobs(clips, **{option: given})


def test_a_record_of_nothing_can_be_kept(tmp_path):
    made = provenance()
    source = Source("a.mp4", 1, "0" * 64)
    store = FeatureStore(tmp_path / "store", create=True)
    store.write(VideoFeatures.undecodable("a", source, "it is empty", made), made)
    video = store["a"]
    assert video.failure == "it is empty"
    for modality in ("visual", "audio", "text"):
        part = getattr(video, modality)
        assert (part.status, part.reason) == (Status.UNDECODABLE, "it is empty")
        assert part.embedding.shape == (0, made.backbones[modality].width)
        assert part.embedding.dtype == np.float16


# ---- a part of them


def test_parts_do_not_overlap_and_together_are_all():
    jobs = [Job(f"clip{n}", f"clip{n}.mp4", Path(f"clip{n}.mp4")) for n in range(200)]
    parts = [[job.id for job in chosen(jobs, f"{k}/7")] for k in range(1, 8)]
    assert sorted(name for part in parts for name in part) == sorted(job.id for job in jobs)
    assert min(map(len, parts)) > 10
    fewer = [job.id for job in chosen(jobs[::2], "3/7")]  # whatever else there is, a video stays in its part
    assert fewer == [name for name in parts[2] if int(name[4:]) % 2 == 0]
    assert [job.id for job in chosen(jobs[:3], "3/7")] == [name for name in parts[2] if int(name[4:]) < 3]
    assert chosen(jobs) == jobs
    alike = [Job(name, f"{name}.mp4", Path(name)) for name in ("x", "x#1", "x#12")]
    assert sorted(len(chosen(alike, f"{k}/7")) for k in range(1, 8)) == [0] * 6 + [3]


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "1/0", "-1/3", "a/b", ""])
def test_what_is_no_part_is_refused(part):
    with pytest.raises(UsageError, match="from 1/N to N/N, such as 3/100"):
        chosen([], part)


def test_a_list_of_any_name_beside_a_folder(clips):
    listing = clips.parent / "videos.lst"
    (clips.parent / "more.mp4").touch()
    listing.write_text("# two of them\nmore.mp4\nclips/sub\n")
    assert [job.id for job in find_jobs(named_videos(None, listing))] == ["more", "b"]
    assert [job.id for job in find_jobs(named_videos(clips / "sub", listing))] == ["b", "more"]
    assert named_videos(clips, None) == clips
    with pytest.raises(UsageError, match="give --video-dir, a folder, or --video-list"):
        named_videos(None, None)
