"""Transcripts that users bring: WebVTT, SRT, Whisper JSON."""

import json

import pytest

from affuse.errors import AffuseError
from affuse.extract.transcripts import find_transcript, read_transcript, spread

VTT = """WEBVTT

00:00:01.000 --> 00:00:02.000
Good day.

00:00:03.500 --> 00:00:05.500
<v Ann>All <00:00:04.000>is <c>well</c>
"""
SRT = "1\n00:00:01,000 --> 00:00:02,000\nGood day.\n\n2\n00:00:03,500 --> 00:00:05,500\nAll well\n"


def words(path):
    return [(w.text, round(w.start, 3), round(w.end, 3)) for w in read_transcript(path)]


def test_webvtt_with_times_inside_a_cue(tmp_path):
    path = tmp_path / "a.vtt"
    path.write_text(VTT)
    assert words(path) == [
        ("Good", 1.0, 1.5),
        ("day.", 1.5, 2.0),
        ("All", 3.5, 4.0),
        ("is", 4.0, 4.5),
        ("well", 4.5, 5.5),
    ]


def test_srt(tmp_path):
    path = tmp_path / "a.srt"
    path.write_text(SRT)
    assert words(path)[0] == ("Good", 1.0, 1.5)
    assert words(path)[-1] == ("well", pytest.approx(3.5 + 2 * 3 / 7, abs=1e-3), 5.5)


def test_whisper_json_with_and_without_word_times(tmp_path):
    path = tmp_path / "a.json"
    timed = {"word": " Hello", "start": 0.5, "end": 0.9, "probability": 0.8}
    segments = [
        {"start": 0.5, "end": 1, "text": " Hello", "words": [timed]},
        {"start": 2, "end": 4, "text": " me too"},
    ]
    path.write_text(json.dumps({"segments": segments}))
    assert words(path) == [("Hello", 0.5, 0.9), ("me", 2.0, 2.8), ("too", 2.8, 4.0)]
    assert read_transcript(path)[0].confidence == 0.8


def test_spread_covers_the_span():
    timed = spread("a bc def", 1.0, 4.0)
    assert [(w.start, w.end) for w in timed] == [(1.0, 1.5), (1.5, 2.5), (2.5, 4.0)]
    assert spread("", 1, 2) == []


@pytest.mark.parametrize(("name", "content"), [("a.json", "{}"), ("a.json", "[1"), ("a.vtt", "no header\n")])
def test_what_is_unreadable_is_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(AffuseError, match=f"{name} is not readable as"):
        read_transcript(tmp_path / name)


def test_times_that_are_no_numbers_are_named(tmp_path):
    (tmp_path / "a.json").write_text('{"segments": [{"words": [{"word": "hi", "start": NaN, "end": 2}]}]}')
    with pytest.raises(AffuseError, match=r"a\.json: 'hi' is spoken from nan to 2"):
        read_transcript(tmp_path / "a.json")


def test_find_prefers_json(tmp_path):
    assert find_transcript(tmp_path, "sub/a") is None
    (tmp_path / "sub").mkdir()
    for suffix in (".srt", ".json"):
        (tmp_path / f"sub/a{suffix}").touch()
    assert find_transcript(tmp_path, "sub/a").suffix == ".json"
