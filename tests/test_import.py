"""Features from elsewhere into a store: formats, clocks, missing rows, what is refused."""

import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from affuse import commands as cli
from affuse.features import AffuseError, FeatureStore, Status, UsageError, align
from affuse.features.columns import Columns
from affuse.features.importing import Layout, import_features, parse_layout
from affuse.features.table import BLOCK, read_table

RATE = {"visual": 25, "audio": 25, "text": 25}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def save(path, array, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    if arrays:
        np.savez(path, embedding=array, **arrays)
    else:
        np.save(path, array)


def bring(folder, **layout):
    return import_features(folder / "in", folder / "store", Layout(**layout)), folder / "store"


def test_every_format_becomes_the_same_record(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)).astype(np.float16)
    time = np.arange(50) / 25
    save(tmp_path / "in/visual/a.npy", x)
    save(tmp_path / "in/visual/b.npz", x.astype(np.float64), time=time)
    rows = "\n".join(
        f"{t:.3f}," + ",".join(repr(float(v)) for v in row) for t, row in zip(time, x, strict=True)
    )
    write(tmp_path / "in/visual/deep/c.csv", f"time,f0,f1,f2\n{rows}\n")
    result, path = bring(tmp_path, rates={"visual": 25})
    assert result == {
        "written": ["a", "b", "deep/c"],
        "kept": [],
        "failed": {},
        "causes": {},
        "widths": {"visual": 3},
        "columns": {},
    }
    store = FeatureStore(path)
    for video_id in store.ids:
        video = store[video_id]
        np.testing.assert_array_equal(video.visual.embedding, x)
        np.testing.assert_allclose(video.visual.time, time, atol=1e-12)
        assert video.visual.valid.all()
        assert (video.audio.status, video.text.status) == (Status.SKIPPED, Status.SKIPPED)
        assert (video.frames, video.fps, video.duration) == (50, pytest.approx(25), pytest.approx(2))
    assert store.provenance.backbones["visual"].name == "imported"
    assert len(store["a"].source.sha256) == 64
    assert not store.verify().problems
    again, _ = bring(tmp_path, rates={"visual": 25})
    assert again["kept"] == ["a", "b", "deep/c"]
    save(tmp_path / "in/visual/a.npy", -x)
    assert bring(tmp_path, rates={"visual": 25})[0]["written"] == ["a"]
    np.testing.assert_array_equal(FeatureStore(path)["a"].visual.embedding, -x)


def test_missing_rows_are_masked_in_every_modality(tmp_path):
    """Frames every 40 ms; rows 3 and 4 are missing, everywhere."""
    time = np.arange(10) / 25
    x = np.arange(1, 11)[:, None] * np.ones((1, 2))
    x[3, 0] = x[4] = np.nan
    for m in ("visual", "audio", "text"):
        write(tmp_path / f"in/{m}/a.csv", "time,p,q\n" + "\n".join(
            f"{t:.2f}," + ",".join("" if np.isnan(v) else str(v) for v in row) for t, row in zip(time, x, strict=True)
        ))  # fmt: skip
    _, path = bring(tmp_path)
    store = FeatureStore(path)
    aligned = align(store["a"], store.frame_times("a"))
    for embedding, valid in aligned.values():
        assert valid.tolist() == [True] * 3 + [False] * 2 + [True] * 5
        np.testing.assert_array_equal(embedding[valid, 1], [1, 2, 3, 6, 7, 8, 9, 10])
        assert not embedding[~valid].any()


def test_text_rows_at_another_rate_leave_no_frame_between_them(tmp_path):
    """15 rows a second under 30 frames a second: every other frame lies just between two rows."""
    save(tmp_path / "in/visual/a.npy", np.ones((60, 2)))
    save(tmp_path / "in/text/a.npy", np.arange(1, 31)[:, None])
    _, path = bring(tmp_path, rates={"visual": 30, "text": 15})
    store = FeatureStore(path)
    embedding, valid = align(store["a"], store.frame_times("a"), ["text"])["text"]
    assert valid.all()
    np.testing.assert_array_equal(embedding[:4, 0], [1, 1, 2, 2])


def test_without_visual_the_clock_is_that_of_audio_with_its_missing_rows(tmp_path):
    x = np.ones((8, 2))
    x[5] = np.nan
    save(tmp_path / "in/audio/a.npy", x)
    write(tmp_path / "in/text/a.csv", "start,end,e\n0.0,0.2,0.5\n")
    _, path = bring(tmp_path, rates={"audio": 10})
    store = FeatureStore(path)
    np.testing.assert_allclose(store.frame_times("a"), np.arange(8) / 10)
    aligned = align(store["a"], store.frame_times("a"), ["audio", "text"], store.widths)
    assert aligned["audio"][1].tolist() == [True] * 5 + [False] + [True] * 2
    assert aligned["text"][1].tolist() == [False, True] + [False] * 6
    assert set(store.widths) == {"audio", "text"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "time,f\n0,1\n0.04,x\n", "line 3: f is 'x', not a number"),
        ("a.csv", "time,f,g\n0,1,2\n0.04,1\n", "line 3: 2 fields under 3 names"),
        ("a.csv", "time,f\n0,1\n0.04,1,2\n", "line 3: 3 fields under 2 names"),
        ("a.csv", "time,f\n0,1,2\n0.04,1,2\n", "line 2: 3 fields under 2 names"),
        ("a.csv", "time,f\n0,1\n\n0.04,1\n", "line 3: 0 fields under 2 names"),
        ("a.csv", "time,f\n0,1\n0,1\n", "line 3: time is 0; times are"),
        ("a.csv", "time,f\n,1\n", "line 2: time is nan"),
        ("a.csv", "time,f\n0,1\n0.04,inf\n", "line 3: value inf"),
        ("a.csv", "time,f\n0,1\n0.04,70000\n", "line 3: value 70000"),
        ("a.csv", "time,f,f\n0,1,1\n", "line 1: the column 'f' is there twice"),
        ("a.csv", "0.0,0.5\n0.1,0.5\n", "line 1: expected a header"),
        ("a.csv", ",f\n0,0.5\n", "a column has no name"),
        ("a.csv", "f\n0.5\n", "has no time. Name its rows per second, for example --rate visual=25"),
        ("a.csv", "start,end,f\n0,1,0.5\n", "one moment per row"),
        ("a.npy", "nonsense", "a.npy cannot be read"),
    ],
)
def test_a_bad_file_fails_with_its_line_and_the_others_go_on(tmp_path, name, text, message):
    write(tmp_path / "in/visual/0.csv", "time,f\n0,1\n0.04,1\n")
    write(tmp_path / "in/visual" / name, text)
    try:
        result, _ = bring(tmp_path)
        found = result["failed"]["a"]
        assert result["written"] == ["0"]
    except AffuseError as error:  # of the first file, whose width the whole store needs
        found = str(error)
    assert message in found
    assert str(tmp_path / "in/visual" / name) in found


def test_lengths_that_do_not_match_are_told_with_video_modality_and_rows(tmp_path):
    save(tmp_path / "in/visual/clip07.npy", np.ones((8000, 2)))
    save(tmp_path / "in/audio/clip07.npy", np.ones((7000, 2)))
    result, _ = bring(tmp_path, rates=RATE)
    said = result["failed"]["clip07"]
    assert "'clip07'" in said
    assert "visual has 8000 rows (320.00 s); audio has 7000 rows (280.00 s)" in said
    assert "audio ends 40.00 s early" in said
    save(tmp_path / "in/audio/clip07.npy", np.ones((7980, 2)))
    assert bring(tmp_path, rates=RATE)[0]["written"] == ["clip07"]
    save(tmp_path / "in/visual/other.npz", np.ones((5, 2)), time=np.arange(4) / 25)
    assert "embedding has 5 rows, time 4" in bring(tmp_path, rates=RATE)[0]["failed"]["other"]
    save(tmp_path / "in/visual/wide.npy", np.ones((5, 3)))
    assert (
        "wide.npy is 3 wide, where the visual of other videos is 2"
        in bring(tmp_path, rates=RATE)[0]["failed"]["wide"]
    )


def test_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        bring(tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(UsageError, match="No features below"):
        bring(tmp_path)
    save(tmp_path / "in/visual/a.npy", np.ones((5, 3)))
    write(tmp_path / "in/visual/a.csv", "time,f\n0,1\n")
    with pytest.raises(UsageError, match="both visual of 'a'"):
        bring(tmp_path)
    for folders, rates in (
        (["visaul=x"], []),
        ([], ["x"]),
        ([], ["audio=0"]),
        (["visual"], []),
        ([], ["adio=3"]),
    ):
        with pytest.raises(UsageError):
            parse_layout(folders, rates)
    layout = parse_layout(["visual=openface"], ["30", "audio=10"])
    assert layout.folders == {"visual": "openface"}
    assert (layout.rates["visual"], layout.rates["audio"]) == (30, 10)


def test_columns_that_are_no_features_are_left_out(tmp_path):
    path = write(tmp_path / "a.csv", "frame,timestamp,f\n1,0.0,0.5\n2,0.1,0.25\n")
    table = read_table(path, Columns(["timestamp"], ["frame"]))
    np.testing.assert_array_equal(table.embedding[:, 0], [0.5, 0.25])
    np.testing.assert_array_equal(table.columns["time"], [0, 0.1])


HALFWAY = 1 + 2**-11  # between two numbers of float16; by way of float32, all that is near it falls on it


@given(st.lists(st.floats(-65504, 65504), min_size=1, max_size=20))
@example(
    [HALFWAY, HALFWAY + 1e-14, HALFWAY - 1e-14, -HALFWAY - 1e-14, 5e-324, 65504.0, 2**-25, 2**-25 + 1e-20]
)
def test_numbers_are_rounded_once_and_rightly(numbers):
    with tempfile.TemporaryDirectory() as folder:
        rows = "\n".join(f"{i},{number!r}" for i, number in enumerate(numbers))
        table = read_table(write(Path(folder, "a.csv"), f"time,f\n{rows}\n"))
    np.testing.assert_array_equal(table.embedding[:, 0], np.array(numbers).astype(np.float16))


def test_every_block_of_a_long_file_is_read(tmp_path):
    """The middle block has a missing row; a wrong number in the last one is told with its line."""
    x = np.arange(2 * BLOCK + 3) % 1000 / 8
    rows = [f"{i},{value}" for i, value in enumerate(x)]
    rows[BLOCK + 7] = f"{BLOCK + 7},"
    table = read_table(write(tmp_path / "a.csv", "\n".join(["time,f", *rows])))
    assert np.flatnonzero(~table.valid).tolist() == [BLOCK + 7]
    x[BLOCK + 7] = 0
    np.testing.assert_array_equal(table.embedding[:, 0], x)
    np.testing.assert_array_equal(table.columns["time"], np.arange(len(x)))
    for wrong, message in (("1e5", "value 100000 in column 0"), ("-inf", "value -inf"), ("x", "f is 'x'")):
        rows[-1] = f"{len(x) - 1},{wrong}"
        with pytest.raises(AffuseError, match=f"line {len(x) + 1}: {message}"):
            read_table(write(tmp_path / "a.csv", "\n".join(["time,f", *rows])))


def test_through_the_command_line(tmp_path):
    save(tmp_path / "in/openface/a.npy", np.ones((50, 2)))
    run = CliRunner().invoke
    args = [
        "features",
        "import",
        str(tmp_path / "s"),
        "--from",
        str(tmp_path / "in"),
        "--folder",
        "visual=openface",
    ]
    result = run(cli.main, [*args, "--rate", "25", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["written"] == ["a"]
    result = run(cli.main, ["features", "export", str(tmp_path / "s"), "--out", str(tmp_path / "o")])
    assert result.exit_code == 0, result.output
    with zipfile.ZipFile(tmp_path / "o/visual/a.npz") as file:
        assert file.testzip() is None
    write(tmp_path / "in/openface/b.csv", "time,f,g\n0,x,1\n")
    result = run(cli.main, args)
    assert result.exit_code == 1
    assert "line 2: f is 'x'" in result.stderr


@pytest.mark.parametrize("suffix", ["npy", "csv"])
def test_memory_stays_flat_over_many_videos(tmp_path, suffix):
    """Thirty videos of 1 MiB each in the store: the process must not grow by what it has read."""
    import subprocess

    first = tmp_path / f"in/visual/v00.{suffix}"
    if suffix == "npy":
        save(first, np.ones((2048, 256), np.float16))
    else:
        rows = [",".join("1" * 256)] * 2048
        write(first, "\n".join([",".join(f"f{i}" for i in range(256)), *rows]))
    for i in range(1, 30):
        os.link(first, first.with_stem(f"v{i:02}"))
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from affuse.features.importing import Layout, import_features\n"
        "seen = []\n"
        "import_features(Path(sys.argv[1]), Path(sys.argv[2]), Layout(rates={'visual': 25}),\n"
        "    lambda *_: seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))\n"
        "print(seen[5], seen[-1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "in", tmp_path / "store"],
        capture_output=True,
        text=True,
        check=True,
    )
    early, late = map(float, done.stdout.split())
    assert late - early < 16  # MiB; what is read after the sixth video are 24
