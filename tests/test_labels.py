"""Label files: what is read, what counts, what is refused and in which words."""

import numpy as np
import pytest

from affuse.errors import AffuseError, UsageError
from affuse.fuse.data.labels import read_abaw
from affuse.fuse.data.partitions import Split, find_labels, partition_files
from affuse.fuse.data.track import on_frames


def write(path, rows, header="valence,arousal"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_row_counts_only_when_both_values_do(tmp_path):
    path = write(tmp_path / "a.txt", ["0.5,-0.25", "-5,0.1", "0.1,-5.0", "-5,-5", "-1,1"])
    track = read_abaw(path)
    assert track.targets == ("valence", "arousal")
    assert track.valid.tolist() == [True, False, False, False, True]
    np.testing.assert_array_equal(track.values[[0, 4]], np.float32([[0.5, -0.25], [-1, 1]]))
    assert np.isnan(track.values[1, 0])
    assert track.values[1, 1] == np.float32(0.1)


def test_byte_order_mark_windows_line_ends_and_trailing_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffvalence, arousal\r\n0.5,0.5\r\n0,0\r\n\r\n".encode())
    assert len(read_abaw(path).values) == 2


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("arousal,valence", ["0,0"], "line 1: the columns are swapped"),
        ("0.1,0.2", ["0,0"], "no header"),
        ("valence", ["0"], "line 1: expected the header"),
        ("valence,arousal", [], "no rows"),
        ("valence,arousal", ["0,0", "x,0"], "line 3: expected two numbers, found 'x,0'"),
        ("valence,arousal", ["0,0", "0.5"], "line 3"),
        ("valence,arousal", ["0.5", "0.5"], "line 2"),
        ("valence,arousal", ["0,0,0"], "line 2"),
        ("valence,arousal", ["0,0", "", "0,0"], "line 3"),
        ("valence,arousal", ["0,0", "0,1.5"], "line 3: arousal is 1.5"),
        ("valence,arousal", ["-4,0"], "line 2: valence is -4"),
        ("valence,arousal", ["nan,0"], "line 2: valence is nan"),
        ("valence,arousal", ["# 0,0"], "line 2"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, header, rows, message):
    path = write(tmp_path / "clip07.txt", rows, header)
    with pytest.raises(AffuseError) as error:
        read_abaw(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_empty_and_binary_files_are_refused(tmp_path):
    for content in (b"", b"\xff\xfe\x00\x01"):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(AffuseError, match=r"a\.txt"):
            read_abaw(tmp_path / "a.txt")


def test_row_i_is_frame_i_also_after_early_gaps(tmp_path):
    track = read_abaw(write(tmp_path / "a.txt", ["-5,-5", "-5,-5", "0.2,0.3", "0.4,0.5"]))
    values, valid = on_frames(track, ["arousal", "valence"], 4)
    assert valid.tolist() == [False, False, True, True]
    np.testing.assert_array_equal(values, np.float32([[0, 0], [0, 0], [0.3, 0.2], [0.5, 0.4]]))


def test_one_row_more_or_fewer_is_tolerated_two_are_not(tmp_path):
    track = read_abaw(write(tmp_path / "a.txt", ["0.1,0.1"] * 10))
    assert on_frames(track, ["valence"], 9)[1].all()
    values, valid = on_frames(track, ["valence"], 11)
    assert valid.tolist() == [True] * 10 + [False]
    assert values.shape == (11, 1)
    for frames in (8, 12):
        with pytest.raises(AffuseError, match=rf"a\.txt has 10 rows, its video has {frames} frames"):
            on_frames(track, ["valence"], frames)
    with pytest.raises(AffuseError, match="no target 'valance'; did you mean 'valence'"):
        on_frames(track, ["valance"], 10)


@pytest.mark.parametrize("names", [("train", "validation"), ("Train_Set", "Validation_Set")])
def test_subfolders_are_the_split_and_ids_may_have_folders(tmp_path, names):
    write(tmp_path / names[0] / "a.b.txt", ["0,0"])
    write(tmp_path / names[0] / "batch1" / "c.txt", ["0,0"])
    write(tmp_path / names[0] / ".hidden.txt", ["0,0"])
    write(tmp_path / names[1] / "d.txt", ["0,0"])
    split = find_labels(tmp_path)
    assert {partition: list(files) for partition, files in split.items()} == {
        "train": ["a.b", "batch1/c"],
        "validation": ["d"],
    }


def test_a_flat_folder_needs_a_list(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.txt", ["0,0"])
    with pytest.raises(UsageError, match="subfolders train/ and validation/"):
        partition_files(tmp_path, "train")
    assert list(partition_files(tmp_path, "train", Split(["b"]))) == ["a", "c"]
    assert list(partition_files(tmp_path, "validation", Split(["b"]))) == ["b"]
    assert list(partition_files(tmp_path, "all")) == ["a", "b", "c"]
    with pytest.raises(UsageError, match="'bb' has no label file"):
        partition_files(tmp_path, "train", Split(["bb"]))


def test_contradictory_and_overlapping_splits_are_refused(tmp_path):
    write(tmp_path / "train" / "a.txt", ["0,0"])
    write(tmp_path / "validation" / "b.txt", ["0,0"])
    with pytest.raises(UsageError, match="Keep one of them"):
        find_labels(tmp_path, Split(["b"]))
    write(tmp_path / "validation" / "a.txt", ["0,0"])
    with pytest.raises(AffuseError, match="video 'a' is in train and in validation"):
        find_labels(tmp_path)
    (tmp_path / "Train_Set").mkdir()
    with pytest.raises(UsageError, match="has both train and Train_Set"):
        find_labels(tmp_path)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        find_labels(tmp_path / "nowhere")
    with pytest.raises(AffuseError, match="no label files"):
        find_labels(tmp_path)
