"""Which columns of a feature file become features, in the files that OpenFace, openSMILE and spreadsheets write."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from affuse.commands import main
from affuse.features import AffuseError, FeatureStore
from affuse.features.columns import Columns
from affuse.features.table import read_table

OPENFACE = """frame, face_id, timestamp, confidence, success, AU01_r, AU02_r, AU04_r, AU05_r, AU45_r
1, 0, 0.000, 0.98, 1, 0.10, 0.20, 0.30, 0.40, 0.50
2, 0, 0.040, 0.98, 1, 0.11, 0.21, 0.31, 0.41, 0.51
"""
OPENFACE_OPTIONS = ["--time-column", "timestamp"]
for mark in ("frame", "face_id", "confidence", "success"):
    OPENFACE_OPTIONS += ["--ignore", mark]
OPENSMILE = "name;frameTime;Loudness_sma3;alphaRatio_sma3\n'a';0.00;0.5;-1.5\n'a';0.01;0.25;-2.5\n"


@pytest.fixture
def bring(tmp_path):
    def run(files: dict[str, str | bytes], *options):
        """The files {path: content} brought into tmp_path/store."""
        for name, content in files.items():
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        store = ["features", "import", str(tmp_path / "store"), "--from", str(tmp_path / "in")]
        return CliRunner().invoke(main, [*store, *options])

    return run


def test_openface_and_the_columns_taken_are_told(bring, tmp_path):
    files = {"visual/a.csv": OPENFACE, "audio/a.csv": "time,mfcc_0\n0,1\n0.04,2\n"}
    result = bring(files, "--ignore", "frame")
    assert result.exit_code == 1
    said = result.stderr
    assert said.count("a.csv") == 1
    assert "labels, no features: face_id, timestamp, confidence, success" in said
    assert "--ignore face_id --time-column timestamp --ignore confidence --ignore success" in said
    assert not (tmp_path / "store").exists()
    (tmp_path / "in/audio/a.csv").write_text("timestamp,mfcc_0\n0,1\n0.04,2\n")
    result = bring({}, *OPENFACE_OPTIONS)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == (
        "1 written, 0 kept, 0 failed.\n  visual: 5 columns, AU01_r … AU45_r\n  audio: 1 column, mfcc_0\n"
    )
    result = json.loads(bring({}, *OPENFACE_OPTIONS, "--json").stdout)
    assert result["columns"] == {
        "visual": ["AU01_r", "AU02_r", "AU04_r", "AU05_r", "AU45_r"],
        "audio": ["mfcc_0"],
    }
    video = FeatureStore(tmp_path / "store")["a"]
    np.testing.assert_array_equal(video.visual.embedding[1], np.float16([0.11, 0.21, 0.31, 0.41, 0.51]))
    np.testing.assert_array_equal(video.visual.time, [0, 0.04])


def test_opensmile_whose_name_column_is_told(bring, tmp_path):
    result = bring({"audio/a.csv": OPENSMILE}, "--time-column", "frameTime")
    assert result.exit_code == 1
    assert "line 2: name is \"'a'\", not a number" in result.stderr
    assert "--ignore name" in result.stderr
    assert not (tmp_path / "store").exists()
    result = bring({}, "--time-column", "frameTime", "--ignore", "name")
    assert result.exit_code == 0, result.stderr
    assert "audio: 2 columns, Loudness_sma3, alphaRatio_sma3" in result.stdout
    np.testing.assert_array_equal(
        FeatureStore(tmp_path / "store")["a"].audio.embedding, [[0.5, -1.5], [0.25, -2.5]]
    )


@pytest.mark.parametrize(
    ("columns", "wrong", "options"),
    [
        ("seconds,index,valence,f", "index, valence", ["--time-column", "seconds"]),
        ("timestamp,f", "timestamp", ["--rate", "25"]),
        ("valence,arousal", "valence, arousal", ["--rate", "25"]),  # Aff-Wild2's labels in the wrong folder
        ("time,Frame_Index,f", "Frame_Index", []),
        ("time,seconds,dominance,f", "seconds, dominance", []),
    ],
)
def test_clocks_counters_and_labels_are_no_features_unless_asked_for(
    bring, tmp_path, columns, wrong, options
):
    count = columns.count(",") + 1
    text = "\n".join([columns, *(",".join([str(row)] * count) for row in (0, 1))])
    refused = bring({"visual/a.csv": text}, *options)
    assert refused.exit_code == 1
    assert f"{tmp_path / 'in/visual/a.csv'}: " in refused.stderr
    assert f"no features: {wrong}. Give --" in refused.stderr
    names = wrong.split(", ")
    asked = [part for name in names for part in ("--feature", name)]
    taken = json.loads(bring({}, *options, *asked, "--json").stdout)
    assert taken["columns"]["visual"] == [n for n in columns.split(",") if n in names or n == "f"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ignore", "nosuch"], "--ignore nosuch: no file has such a column. Known: f, seconds."),
        (["--time-column", "secs"], "--time-column secs: no file has such a column; did you mean 'seconds'?"),
        (["--feature", "secnds"], "--feature secnds: no file has such a column; did you mean 'seconds'?"),
        (["--rate", "text=3"], "--rate text=3: there are no text files."),
        (["--folder", "visual=vsual"], "vsual; did you mean 'visual'? Known: visual."),
    ],
)
def test_an_option_that_matches_nothing_is_wrong_usage(bring, tmp_path, options, message):
    result = bring({"visual/a.csv": "seconds,f\n0,1\n1,2\n"}, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_separators_and_byte_order_marks(tmp_path, separator, mark):
    path = tmp_path / "a.csv"
    path.write_bytes(
        mark + separator.join(["time ", "f", "g"]).encode() + b"\n" + separator.join("012").encode()
    )
    table = read_table(path)
    assert table.names == ("f", "g")
    np.testing.assert_array_equal(table.embedding, [[1, 2]])


def test_another_encoding_and_a_column_without_a_name_are_told(bring):
    result = bring({"visual/a.csv": "time,f\n0,1\n".encode("utf-16")})
    assert "is no text in UTF-8" in result.stderr
    nameless = ",time,f\n0,0,1\n1,0.04,2\n"  # as pandas writes its index
    assert "--ignore ''" in bring({"visual/a.csv": nameless}).stderr
    assert bring({}, "--ignore", "").exit_code == 0


def test_a_common_cause_is_told_once_and_leaves_no_store(bring, tmp_path):
    names = [f"v{i:02}" for i in range(12)]
    result = bring({f"visual/{name}.csv": "f,g\n1,2\n" for name in names})
    assert result.exit_code == 1
    assert result.stderr.count("has no time") == 1
    assert "failed: v00, v01, v02, v03, v04, v05, v06, v07 and 4 more: " in result.stderr
    assert result.stdout.startswith("0 written, 0 kept, 12 failed.")
    assert not (tmp_path / "store").exists()
    (tmp_path / "store").mkdir()
    bring({})
    assert list((tmp_path / "store").iterdir()) == []
    assert bring({}, "--rate", "25").exit_code == 0
    assert bring({}).exit_code == 1  # and what is there stays
    assert len(FeatureStore(tmp_path / "store")) == 12


def test_the_first_file_may_be_the_bad_one(bring, tmp_path):
    result = bring({"visual/a.csv": "0.1,0.2\n", "visual/b.csv": "time,f\n0,1\n0.04,1\n"})
    assert result.exit_code == 1
    assert "a.csv, line 1: expected a header" in result.stderr
    assert FeatureStore(tmp_path / "store").ids == ["b"]


def test_files_with_other_columns_do_not_mix(bring, tmp_path):
    result = bring({"visual/a.csv": "time,f,g\n0,1,2\n1,1,2\n", "visual/b.csv": "time,g,f\n0,2,1\n1,2,1\n"})
    assert "has the features g, f, where other videos have f, g" in result.stderr
    assert FeatureStore(tmp_path / "store").ids == ["a"]


def test_files_may_have_clocks_of_different_names_but_only_one_each(bring, tmp_path):
    files = {"visual/a.csv": "timestamp,f\n0,1\n1,2\n", "audio/a.csv": "frameTime;g\n0;1\n1;2\n"}
    both = ("--time-column", "timestamp", "--time-column", "frameTime")
    assert bring(files, *both).exit_code == 0
    assert FeatureStore(tmp_path / "store").widths == {"visual": 1, "audio": 1}
    result = bring({"audio/a.csv": "frameTime;timestamp;g\n0;0;1\n1;1;2\n"}, *both)
    assert (
        "has the seconds twice, in frameTime and timestamp. Leave one out: --ignore timestamp."
        in result.stderr
    )


def test_an_array_that_is_a_label_by_name_is_no_feature(tmp_path):
    np.savez(tmp_path / "a.npz", valence=np.ones(3), time=np.arange(3))
    with pytest.raises(AffuseError, match="no features: valence"):
        read_table(tmp_path / "a.npz")
    assert read_table(tmp_path / "a.npz", Columns(wanted=["valence"])).embedding.shape == (3, 1)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:200])
    with pytest.raises(AffuseError, match=r"b\.npz cannot be read"):
        read_table(tmp_path / "b.npz")


@pytest.mark.parametrize("rate", [[], ["--resample", "5"]])
@pytest.mark.parametrize("times", [("0", "1e308"), ("1732700000.00", "1732700000.04"), ("0", "86400040")])
def test_a_clock_in_milliseconds_or_since_1970_is_refused(bring, times, rate):
    rows = "".join(f"{time},1\n" for time in times)
    result = bring({"visual/a.csv": f"time,f\n{rows}"}, *rate)
    assert result.exit_code == 1
    assert f"line {2 if times[0] != '0' else 3}: time is {float(times[times[0] == '0']):g}" in result.output
    assert "rows go on for 24 hours at most. Give seconds from the video's beginning." in result.output
