"""What is made beside a prediction: a WebVTT track of the words, and an annotated video in step with its own."""

import struct
from dataclasses import replace
from functools import partial

import av
import numpy as np
import pytest
import webvtt
from PIL import Image

from affuse import fuse
from affuse.errors import AffuseError, UsageError
from affuse.extract.media import read_pictures
from affuse.extract.sound import read_audio
from affuse.features.parts import TextFeatures, VisualFeatures
from affuse.fuse.scoring.predict import Prediction
from affuse.pipelines import prediction
from affuse.pipelines.canvas import BOX, GREY, LEFT, ROW, SIDE, TRACE, Canvas, mixed
from affuse.pipelines.film import draw_film
from affuse.pipelines.subtitles import cues, write_track
from hostile import patched
from media import RATE, plain_frames, squeezed, tone, write_media
from tiny import make_data, make_video, small

NOBODY = VisualFeatures.absent(12, "skipped", "nobody is looked for")


def spoken(*words: tuple[str, float, float]) -> TextFeatures:
    """Words with their start and end in seconds."""
    word, start, end = (np.array(column) for column in zip(*words, strict=True))
    return TextFeatures(
        np.zeros((len(word), 2)), start.astype(float), end.astype(float), word, np.ones(len(word))
    )


def predicted(
    time: np.ndarray, valid: np.ndarray | None = None, deviation: np.ndarray | None = None
) -> Prediction:
    """Valence that rises from -1 to 1, arousal that is -0.5."""
    values = np.stack([np.linspace(-1, 1, len(time)), np.full(len(time), -0.5)], axis=1)
    valid = np.ones(len(time), bool) if valid is None else valid
    return Prediction("clip", time, ("valence", "arousal"), values, {"visual": valid}, deviation)


# ---- words


def test_a_track_has_each_word_once_and_the_means_of_its_span(tmp_path):
    text = spoken(
        ("<b>R&D", 0.2, 0.5), ("-->", 0.5, 0.6), ("done.", 0.6, 1.0), ("Next", 1.2, 1.2), ("one", 4.0, 4.5)
    )
    time = np.arange(50) / 10
    made = predicted(time, time < 2, np.full((50, 2), 0.25))
    write_track(tmp_path / "clip.vtt", text, made)
    read = webvtt.read(str(tmp_path / "clip.vtt")).captions
    assert [(cue.start, cue.end) for cue in read] == [
        ("00:00:00.200", "00:00:01.000"), ("00:00:01.200", "00:00:01.201"), ("00:00:04.000", "00:00:04.500"),
    ]  # fmt: skip
    words, values = read[0].raw_text.split("\n")
    assert words == "&lt;b&gt;R&amp;D --&gt; done."
    mean = made.values[(time > 0.15 - 1e-9) & (time < 1.05), 0].mean()
    assert values == f"valence {mean:+.2f} ± 0.25, arousal −0.50 ± 0.25".replace("-", "−")
    assert "valence" in read[1].raw_text  # a word that takes no time has the frame it is in
    assert read[2].raw_text == "one"  # nothing was there to go by


def test_cues_end_with_a_sentence_a_pause_and_before_they_are_too_long():
    words = [(f"word{i}", 0.3 * i, 0.3 * i + 0.2) for i in range(60)]
    assert [len(cue) for cue in cues(spoken(*words[:3], ("end.", 0.9, 1.1), ("more", 1.2, 1.3)))] == [4, 1]
    assert [len(cue) for cue in cues(spoken(*words[:3], ("late", 3.0, 3.1)))] == [3, 1]
    whole = cues(spoken(*words))
    assert [i for cue in whole for i in cue] == list(range(60))
    assert max(sum(len(words[i][0]) + 1 for i in cue) for cue in whole) <= 72
    assert cues(TextFeatures.absent(2, "no_speech", "nobody speaks")) == []


def test_a_video_without_words_has_a_track_without_cues(tmp_path):
    write_track(tmp_path / "clip.vtt", TextFeatures.absent(2, "no_speech", ""), predicted(np.arange(5) / 5))
    assert (tmp_path / "clip.vtt").read_text() == "WEBVTT\n"


# ---- pictures and sound


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three seconds at a variable rate, a flash and a click at 2 s, a face in the first half alone; the film of it."""
    folder = tmp_path_factory.mktemp("film")
    rng = np.random.default_rng(0)
    time = np.concatenate([[0], np.cumsum(np.round(rng.uniform(0.02, 0.09, 80), 3))])
    time = time[time < 3]
    flash = int(np.searchsorted(time, 2.0))
    frames = plain_frames(len(time))
    frames[flash] = 255
    samples = tone(3.0, level=0.001, rate=22_050)
    samples[round(time[flash] * 22_050) :][:60] = 0.9
    media = write_media(folder / "clip.mp4", frames, times=time, samples=samples, rate=22_050)
    video, _ = make_video("clip", len(time), 0)
    seen = video.visual
    seen.time[:], seen.valid[:], seen.box[:] = time, time < 1.5, (48, 36, 96, 108)
    made = predicted(time, time < 1.5, np.full((len(time), 2), 0.1))
    draw_film(folder / "film.mp4", media, video, made)
    return media, folder / "film.mp4", time, made, video


def test_pictures_keep_their_times_and_the_flash_is_with_the_click(clip):
    media, film, time, _, _ = clip
    pictures = list(read_pictures(film))
    np.testing.assert_allclose([picture.time for picture in pictures], time, atol=1e-3)
    corner = [picture.pixels()[40:80, 8:100].mean() for picture in pictures]
    assert time[int(np.argmax(corner))] == pytest.approx(time[np.searchsorted(time, 2.0)])
    heard, before = (np.argmax(np.abs(read_audio(path)[:])) / RATE for path in (film, media))
    assert heard == pytest.approx(before, abs=0.005)
    assert heard == pytest.approx(time[int(np.argmax(corner))], abs=0.01)
    with av.open(str(film)) as container:
        assert (container.streams.audio[0].rate, container.streams.audio[0].layout.name) == (22_050, "mono")


def test_a_box_where_there_is_a_face_and_else_a_word_that_there_is_none(clip):
    _, film, times, _, _ = clip
    for time, picture in zip(times, read_pictures(film), strict=True):
        pixels = picture.pixels().astype(int)
        edge = pixels[240, 158:164]  # the left edge: 48 of 192 pixels, of 640
        boxed = (abs(edge - [242, 193, 78]).sum(axis=1) < 150).any()
        told = pixels[8:30, 8:84].mean() < 70
        flash = pixels[300, 300].mean() > 200
        assert flash or (boxed, told) == ((True, False) if time < 1.5 else (False, True))


def test_sound_follows_its_clock_over_gaps_and_overlaps(tmp_path):
    """Sound that begins at 0.7 s, in stereo at a rate that AAC does not have, and is as late in the film."""
    samples = tone(1.5, level=0.001, rate=24_000)
    samples[12_000:12_080] = 0.9
    media = write_media(
        tmp_path / "late.mkv", plain_frames(24), samples=samples, rate=24_000, audio_start=0.7, channels=2
    )
    video, _ = make_video("late", 24, 0)
    draw_film(tmp_path / "film.mp4", media, video, predicted(np.arange(24) / 10))
    heard = read_audio(tmp_path / "film.mp4")[:]
    assert np.argmax(np.abs(heard)) / RATE == pytest.approx(1.2, abs=0.005)
    assert np.abs(heard[: int(0.65 * RATE)]).max() < 1e-4


@pytest.mark.parametrize("turned", [False, True])
def test_pictures_are_shown_upright_and_in_square_pixels(tmp_path, turned):
    """Those of the film are those that extraction sees."""
    quarter = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    make = (
        patched(b"tkhd", 44, quarter, lambda path: squeezed(path, "4/3"))
        if turned
        else partial(squeezed, aspect="4/3")
    )
    make(tmp_path / "a.mp4")
    video, _ = make_video("a", 3, 0)
    draw_film(
        tmp_path / "film.mp4", tmp_path / "a.mp4", replace(video, visual=NOBODY), predicted(np.arange(3) / 10)
    )
    size = (270, 480) if turned else (640, 360)
    for shown, own in zip(
        read_pictures(tmp_path / "film.mp4"), read_pictures(tmp_path / "a.mp4"), strict=True
    ):
        there = np.asarray(Image.fromarray(own.pixels()).resize(size), float)
        assert abs(shown.pixels()[: size[1], : size[0]] - there).mean() < 4


@pytest.mark.parametrize("shown", [(384, 144), (144, 192)])
def test_the_box_is_around_the_face(clip, shown):
    *_, made, video = clip
    canvas = Canvas(made, video.visual, video.text, shown)
    assert canvas.picture[0] / canvas.picture[1] == pytest.approx(shown[0] / shown[1], rel=0.01)
    pixels = np.zeros((*canvas.picture[::-1], 3), np.uint8)
    drawn = np.asarray(canvas.draw(0.0, pixels, shown))
    assert drawn.shape == (*canvas.size[::-1], 3)
    ink = np.argwhere((drawn[:, : canvas.picture[0]] == [242, 193, 78]).all(axis=2))
    down = (canvas.top - canvas.picture[1]) / 2
    scale = canvas.picture[0] / shown[0]
    np.testing.assert_allclose(ink.min(axis=0), (36 * scale + down, 48 * scale), atol=3)
    np.testing.assert_allclose(ink.max(axis=0), (108 * scale + down, 96 * scale), atol=3)


def test_the_circumplex_has_the_value_where_it_belongs(clip):
    *_, time, made, video = clip
    canvas = Canvas(made, video.visual, video.text, (640, 480))
    for at in (0.0, 1.4, 2.5):
        row = int(np.argmin(abs(time - at)))
        drawn = np.asarray(canvas.draw(time[row], np.zeros((480, 640, 3), np.uint8), (640, 480)))
        dot = mixed(BOX if made.valid[row] else GREY, 1.0)
        y, x = np.argwhere((drawn[24:224, 640 + (SIDE - 200) // 2 :][:, :200] == dot).all(axis=2)).mean(
            axis=0
        )
        valence, arousal = made.values[row]
        np.testing.assert_allclose((x, y), (100 + 92 * valence, 100 - 92 * arousal), atol=3)


def test_predict_makes_both_on_request(clip, tmp_path, monkeypatch, caplog):
    """From features that are there already; a file without pictures has the track alone, and it is said why."""
    media, _, time, _, _ = clip
    store, labels = make_data(tmp_path / "data", 2, 1)
    fuse.train(store, labels, tmp_path / "run", small(epochs=1))
    sound = write_media(tmp_path / "sound.mp4", samples=tone(1.0))
    there = {"t0": media, "t1": sound}
    monkeypatch.setattr(
        prediction.Run, "extract", lambda *given, **how: (store, there, {"gone": "cannot be opened"})
    )
    made = prediction.predict_videos(tmp_path / "run", [media, sound], tmp_path / "out", vtt=True, video=True)
    assert len(list(read_pictures(tmp_path / "out" / "t0-annotated.mp4"))) == len(time)
    assert made["written"]["t0"]["video"] == str(tmp_path / "out" / "t0-annotated.mp4")
    cue = webvtt.read(made["written"]["t1"]["vtt"]).captions[0]
    assert cue.raw_text.startswith("word0")
    assert "video" not in made["written"]["t1"]
    assert "sound.mp4 has no pictures" in caplog.text
    assert made["failed"] == {"gone": "cannot be opened"}
    for name in ("clip.mp4", "clip-annotated.mp4"):
        (tmp_path / name).write_bytes(media.read_bytes())
    with pytest.raises(UsageError, match=r"clip\.mp4 lies in the folder for predictions"):
        prediction.predict_videos(
            tmp_path / "run", [tmp_path / "clip.mp4", tmp_path / "clip-annotated.mp4"], tmp_path, video=True
        )


def test_traces_are_turned_over_like_pages(clip):
    """A short video is on one page to its last frame, a long one on pages of half a minute, with its own seconds."""
    *_, made, video = clip
    for time, pages in ((made.time, [0, 0]), (made.time * 30, [0, 2])):
        longer = replace(made, time=time)
        canvas = Canvas(longer, video.visual, video.text, (640, 480))
        found = []
        for at in (time[0], time[-1]):
            drawn = np.asarray(canvas.draw(at, np.zeros((480, 640, 3), np.uint8), (640, 480))).astype(int)
            found.append(canvas._page[0])
            row = int(np.argmin(abs(time - at)))
            x = LEFT + (at - found[-1] * canvas.span) / canvas.span * canvas._wide
            y = 480 + ROW + 6 + (1 - made.values[row, 0]) / 2 * (TRACE - 12)
            assert (abs(drawn[round(y), round(x)] - [27, 108, 168]) < 20).all()  # the dot on the trace
        assert found == pages


def test_a_file_without_pictures_says_so(tmp_path, clip):
    sound = write_media(tmp_path / "sound.mp4", samples=tone(1.0))
    with pytest.raises(AffuseError, match=r"sound\.mp4 has no pictures"):
        draw_film(tmp_path / "film.mp4", sound, clip[4], clip[3])
    assert not (tmp_path / "film.mp4").exists()
