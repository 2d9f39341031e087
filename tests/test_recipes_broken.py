"""Data sets that are broken in one place at a time, and what is asked of them that cannot be."""

import json
import shutil

import pytest
from click.testing import CliRunner

import layouts
import tiny
from affuse import commands as cli
from affuse.fuse.data.partitions import find_labels

pytestmark = pytest.mark.usefixtures("undrawn")
NAMES = list(layouts.LAYOUTS)


def affuse(*arguments):
    return CliRunner().invoke(cli.main, ["recipe", *map(str, arguments)])


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return layouts.make_all(tmp_path_factory)


def edit(path, line, text):
    """Another text in a line, counted from 1."""
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")


HOSTILE = [
    ("recola", "AVEC_2016/ratings_individual/valence/train_1.csv", 3, "0.04;0.1;0.1;x;0;0;0",
     "line 3: FM3 is 'x', not a number"),
    ("recola", "AVEC_2016/ratings_individual/valence/train_1.csv", 4, "0.08;0.1;0.1;7;0;0;0",
     "line 4: valence is 7, but is rated from -1 to 1"),
    ("recola", "AVEC_2016/ratings_individual/valence/train_1.csv", 5, "0.12;0.1;0.1",
     "line 5: 3 fields, expected 7"),
    ("recola", "AVEC_2016/ratings_gold_standard/arousal/dev_1.arff", 10, "dev_1,0.04",
     "line 10: 2 fields, expected 3"),
    ("recola", "AVEC_2016/ratings_gold_standard/arousal/dev_1.arff", 12, "dev_1,9.9,0",
     "of dev_1 are not of the same moments"),
    ("sewa", "labels/Devel_HU_01.csv", 1, "name;timeStamp;arousal;pleasure;liking",
     "line 1: no column 'valence'"),
    ("sewa", "labels/Devel_HU_01.csv", 1, "name,timeStamp,arousal,valence,liking",
     "5 fields, expected 1"),
    ("sewa", "labels/Train_DE_01.csv", 2, "'Train_DE_01';0.1;0;-1.5;0",
     "line 2: valence is -1.5, but is rated from -1 to 1"),
    ("omg-emotion", "omg_TrainVideos.csv", 3, "l,0.6,1.2,aaa,u,0.1,99,4",
     "line 3: valence is 99, but is rated from -1 to 1"),
    ("omg-emotion", "omg_TrainVideos.csv", 3, "l,soon,1.2,aaa,u,0.1,0,4",
     "line 3: start is 'soon', not a number"),
    ("omg-empathy", "Training/Annotations/Subject_1_Story_2.csv", 7, "good",
     "line 7: valence is 'good', not a number"),
    ("afew-va", "003/003.json", 2, ' "actor": "x" "frames": {', "003.json is not JSON"),
    ("iemocap", "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", 3, "[0.0 - 0.4] Ses01F_impro01_F000 neu",
     "line 3: '[0.0 - 0.4] Ses01F_impro01_F000 neu' is neither a turn nor a rating"),
    ("iemocap", "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", 6, "A-E3:\tval 9; act 2; dom  2;\t()",
     "line 3: valence is 9, but is rated from 1 to 5"),
    ("msp-improv", "Evaluation.txt", 2, "A1B2_x; Neutral; A:high",
     "line 2: 'A1B2_x; Neutral; A:high' is neither a turn nor a rating"),
    ("msp-improv", "Evaluation.txt", 1, "UTD-IMPROV-S01A-F01-P-FM00.avi; N; A:x; V:3; D:NaN ; N:4;",
     "line 1: rating is 'x', not a number"),
    ("msp-podcast", "Labels/labels_consensus.csv", 3, "MSP-PODCAST_0001_0002.wav,N,8,4,4,30,Male,Train",
     "line 3: arousal is 8, but is rated from 1 to 7"),
    ("msp-podcast", "Labels/labels_detailed.csv", 2, "MSP-PODCAST_0001_0001.wav,nothing",
     "line 2: 'nothing' is no rating"),
    ("cmu-mosei", "cmu_mosei_std_folds.py", 1, "standard_train_fold = open('/etc/passwd')",
     "does not hold the lists"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "line", "text", "message"), HOSTILE)
def test_what_is_broken_is_named_with_its_line(roots, tmp_path, name, file, line, text, message):
    root = shutil.copytree(roots[name][0], tmp_path / "data")
    edit(root / file, line, text)
    said = affuse("check", name, root)
    assert said.exit_code == 1
    assert message in said.output
    assert (root / file).stem.split("_")[0] in said.output
    ran = affuse("run", name, root, "--out", tmp_path / "out", "--features", tmp_path)
    assert ran.exit_code == 1
    assert message in ran.stderr


def test_what_cannot_be_read_may_be_left_out(roots, tmp_path):
    root = shutil.copytree(roots["sewa"][0], tmp_path / "data")
    edit(root / "labels/Train_DE_01.csv", 2, "'Train_DE_01';0.1;0;-1.5;0")
    edit(root / "labels/Devel_DE_01.csv", 2, "'Devel_DE_01';0.1;0;x;0")
    store = layouts.store_of(tmp_path / "store", roots["sewa"][1])
    config = tmp_path / "c.json"
    config.write_text(json.dumps({**tiny.SMALL, "epochs": 1, "channels": {m: [4, 4] for m in tiny.WIDTHS}}))
    arguments = ["run", "sewa", root, "--out", tmp_path / "out", "--features", store.path, "--config", config]
    said = affuse(*arguments, "--model", "concat")
    assert said.exit_code == 1
    assert said.stderr.rstrip().endswith("Unpack them again, or go on without them: --allow-missing.")
    said = affuse(*arguments, "--model", "concat", "--allow-missing", "--json")
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["models"]["concat"]["folds"]["official"]["videos"] == 1
    labels = find_labels(tmp_path / "out/labels")
    assert {part: list(files) for part, files in labels.items()} == {
        "train": ["Train_DE_02", "Train_HU_01"], "validation": ["Devel_HU_01"]
    }  # fmt: skip
    edit(root / "labels/Devel_HU_01.csv", 1, "name")
    said = affuse(*arguments, "--model", "concat", "--allow-missing")
    assert said.exit_code == 2
    assert "Nothing of the validation partition of SEWA" in said.stderr


def test_a_rating_that_is_no_number_in_a_json_file(roots, tmp_path):
    root = shutil.copytree(roots["afew-va"][0], tmp_path / "data")
    path = root / "001/001.json"
    text = path.read_text().splitlines()
    line = next(n for n, said in enumerate(text, start=1) if '"00007"' in said)
    facts = json.loads(path.read_text())
    facts["frames"]["00007"]["valence"] = "high"
    path.write_text(json.dumps(facts, indent=1))
    said = affuse("check", "afew-va", root)
    assert f"001.json, line {line}: frame 00007 has valence 'high'" in said.stdout


@pytest.mark.parametrize("name", NAMES)
def test_another_folder_is_not_the_data_set(tmp_path, name):
    (tmp_path / "empty").mkdir()
    said = affuse("check", name, tmp_path / "empty")
    assert said.exit_code == 2
    assert f"below {tmp_path / 'empty'}" in said.stderr
    assert affuse("check", name, tmp_path / "nowhere").exit_code == 2


def test_missing_videos_stop_the_run_unless_they_may_be_missing(roots, tmp_path):
    root = shutil.copytree(roots["sewa"][0], tmp_path / "data")
    (root / "video/Train_DE_01.mp4").unlink()
    said = affuse("run", "sewa", root, "--out", tmp_path / "out")
    assert said.exit_code == 1
    assert "1 video without a media file" in said.stderr
    assert "Train_DE_01" in said.stderr
    assert json.loads((tmp_path / "out/check.json").read_text())["without_media"] == ["Train_DE_01"]


def test_labels_of_somebody_else_are_never_replaced(roots, tmp_path):
    root = shutil.copytree(roots["sewa"][0], tmp_path / "data")
    said = affuse("run", "sewa", root, "--out", root)
    assert said.exit_code == 2
    assert f"{root / 'labels'} is there already, and not a recipe's" in said.stderr
    assert len(list((root / "labels").iterdir())) == 5
    assert not (root / "check.json").exists()


def test_options_of_another_data_set_and_unknown_names(roots, tmp_path):
    said = affuse("check", "sewa", roots["sewa"][0], "--test-list", tmp_path / "list.txt")
    assert (said.exit_code, said.stderr.strip()) == (
        2, "Error: --test-list is for aff-wild2 only. Leave it out."
    )  # fmt: skip
    said = affuse("run", "aff-wild2", tmp_path, "--out", tmp_path / "out", "--gold", "ewe")
    assert (said.exit_code, said.stderr.strip()) == (
        2,
        "Error: --gold is not for Aff-Wild2, which brings its own.",
    )
    said = affuse("check", "semaine", tmp_path)
    assert said.exit_code == 2
    assert "Unknown data set 'semaine'" in said.stderr
