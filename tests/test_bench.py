"""The benchmark: what it compares is the same computation, and what it says of it is true."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from affuse import commands as cli
from affuse.errors import UsageError
from affuse.extract.extraction import extract_settings
from affuse.pipelines.bench.extract import agree, bench_extract, describe_bench
from media import talking_head


@pytest.fixture(scope="module")
def videos(tmp_path_factory, say) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    talking_head(folder / "a.mp4", seconds=1.0, samples=say("Good morning."))
    return folder


class Video:
    """As much of a record as is compared."""

    def __init__(self, visual, valid, audio, words, text):
        self.visual = type("Visual", (), {"embedding": visual.astype(np.float16), "valid": valid})
        self.audio = type("Audio", (), {"embedding": audio.astype(np.float16)})
        self.text = type("Text", (), {"embedding": text.astype(np.float16), "word": words})


def made(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "visual": rng.normal(size=(10, 6)),
        "valid": np.arange(10) > 1,
        "audio": rng.normal(size=(10, 4)),
        "words": np.array(["a", "b."]),
        "text": rng.normal(size=(2, 5)),
    }


def test_agreement_by_hand():
    plain = made()
    same = agree([plain], [Video(**plain)])
    assert same["visual"]["frames_equal"] == same["audio_equal"] == same["text_equal"] == 1
    assert same["visual"]["in_both"] == 8

    other = {**plain, "visual": plain["visual"].copy(), "audio": plain["audio"].copy()}
    other["visual"][5] *= -1
    other["audio"][3, 2] += 0.1
    other["words"] = np.array(["a", "c."])
    different = agree([plain, plain], [Video(**plain), Video(**other)])
    assert different["visual"]["frames_equal"] == 15 / 16
    assert different["visual"]["cosine_5th_percentile"] < 1
    assert different["audio_equal"] == 79 / 80
    assert not different["words_equal"]


@pytest.mark.weights
def test_the_command_measures_and_writes_what_it_measured(videos, tmp_path):
    out = tmp_path / "b" / "facts.json"
    arguments = [
        "bench",
        "extract",
        "--video-dir",
        videos,
        "--device",
        "cpu",
        "--profile",
        "offline",
        "--allow-untrained",
        "--threads",
        1,
        "--repeats",
        1,
    ]
    result = CliRunner().invoke(cli.main, [str(a) for a in [*arguments, "--out", out]])
    assert result.exit_code == 0, result.output
    facts = json.loads(out.read_text())
    assert describe_bench(facts) in result.stdout
    (plain, default, full), able = facts["sides"].values(), facts["operations"]
    assert default["ratio"] == pytest.approx(plain["seconds"] / default["seconds"])
    assert min(full["stages"]["detect"], default["stages"]["detect"]) > 0
    for side in (plain, default, full):
        assert set(side["stages"]) >= {"decode", "detect", "visual", "audio", "speech"}
        assert 0 < side["seconds"] < side["with_loading"]
        assert side["matrix_share"] == pytest.approx(
            10 * able["face"] / side["seconds"] / able["matrix_rate"]
        )
    same = full["agreement"]
    assert same["visual"]["detected"] == {"straightforward": 10, "affuse": 10}
    assert same["visual"]["median_cosine"] > 0.99999
    assert same["audio_equal"] == 1
    assert same["words_equal"]
    assert facts["frames"] == 10
    assert facts["device"] == "cpu"
    assert facts["settings"]["precision"] == "float32"
    assert able["face"] == pytest.approx(2 * 3.8e9, rel=0.05)  # multiply-adds: He et al. 2016, table 1
    for known in ("cpu", "cores", "python", "torch"):
        assert facts["machine"][known]


def test_faces_and_sound_alone_in_bfloat16(tmp_path):
    """Both sides compute in it: rows point the same way, though hardly one is equal."""
    talking_head(tmp_path / "a.mp4", seconds=0.3)
    settings = extract_settings("offline", None, ["modalities=[visual, audio]", "precision=bfloat16"])
    facts = bench_extract(tmp_path, settings, None, True, threads=1, repeats=1, device="cpu")
    assert "On cpu in bfloat16" in describe_bench(facts)
    assert facts["sides"]["straightforward"]["stages"]["text"] == 0
    same = facts["sides"]["affuse, every full frame"]["agreement"]
    assert set(same) == {"visual", "audio_equal"}
    assert same["visual"]["median_cosine"] > 0.9999
    assert same["visual"]["frames_equal"] < 1


def test_a_device_that_is_absent_is_named(videos):
    with pytest.raises(UsageError, match="Device 'cuda:77' cannot be used"):
        bench_extract(videos, extract_settings("offline"), None, True, 1, device="cuda:77")


def test_what_the_peer_does_not_do_is_refused(videos):
    for assignment in (
        "modalities=[visual]", "audio_anchor=centre", "detection.face=left", "views=flip",
    ):  # fmt: skip
        with pytest.raises(UsageError, match="what both sides extract in one way"):
            bench_extract(videos, extract_settings("offline", None, [assignment]), None, True, 1)


@pytest.mark.parametrize("choice", ["visual=hf:org/model", "audio=mine.py:Mine", "text=mine.py:Mine"])
def test_a_backbone_that_the_peer_does_not_have_is_refused(videos, choice):
    settings = extract_settings("offline", None, [choice])
    part, _, name = choice.partition("=")
    with pytest.raises(UsageError, match=f"has no {part} backbone '{name}'"):
        bench_extract(videos, settings, None, True, threads=1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_text("hello"), "compares what can be decoded: .*b.mp4"),
        (lambda path: talking_head(path, samples=None), "b.mp4 lacks pictures or sound"),
    ],
)
def test_videos_that_cannot_be_compared_are_named_before_anything_is_measured(tmp_path, spoil, message):
    talking_head(tmp_path / "a.mp4", seconds=0.3)
    spoil(tmp_path / "b.mp4")
    with pytest.raises(UsageError, match=message):
        bench_extract(tmp_path, extract_settings("offline"), None, True, 1)


@pytest.mark.parametrize("command", [["extract", "--video-dir", "."], ["memory"]])
def test_facts_that_could_not_be_written_are_not_measured(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(cli.main, ["bench", *command, "--out", "file/facts.json"])
    assert result.exit_code == 2
    assert "--out file/facts.json cannot be written" in result.stderr
