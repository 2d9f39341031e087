"""Decoding: the frames' own clock, sound on the same clock, and files that must not be opened."""

from fractions import Fraction

import av
import numpy as np
import pytest

from affuse.extract.media import UndecodableError, probe, read_frames, read_pictures
from affuse.extract.sound import SAMPLE_RATE, read_audio
from media import face_frames, plain_frames, tone, write_media


def times_of(path, damage=None):
    return np.concatenate([chunk.time for chunk in read_frames(read_pictures(path, damage))])


def test_a_variable_rate_keeps_its_own_times(tmp_path):
    times = np.array([0.0, 0.1, 0.15, 0.4, 0.45, 1.0])
    path = write_media(tmp_path / "a.mp4", plain_frames(6), times=times)
    np.testing.assert_allclose(times_of(path), times, atol=2e-3)


def test_chunks_are_of_the_same_frames(tmp_path):
    path = write_media(tmp_path / "a.mp4", face_frames(11))
    (whole,) = read_frames(read_pictures(path), chunk=99)
    chunked = np.concatenate([chunk.pixels for chunk in read_frames(read_pictures(path), chunk=4)])
    np.testing.assert_array_equal(chunked, whole.pixels)
    one_by_one = list(read_pictures(path))
    np.testing.assert_array_equal([picture.time for picture in one_by_one], whole.time)
    np.testing.assert_array_equal([picture.pixels() for picture in one_by_one], whole.pixels)


def test_short_side_scales_down_and_never_up(tmp_path):
    path = write_media(tmp_path / "a.mp4", plain_frames(2, (200, 100)))
    assert next(read_frames(read_pictures(path), short_side=50)).pixels.shape == (2, 50, 100, 3)
    assert next(read_frames(read_pictures(path), short_side=500)).pixels.shape == (2, 100, 200, 3)


def test_sound_is_mono_16_khz_on_the_pictures_clock(tmp_path):
    samples = tone(1.0, 500, rate=48_000)
    path = write_media(tmp_path / "a.mp4", plain_frames(20), samples=samples, rate=48_000, audio_start=0.5)
    sound = read_audio(path)[:]
    assert abs(len(sound) - 1.5 * SAMPLE_RATE) < 0.1 * SAMPLE_RATE
    assert np.abs(sound[: int(0.45 * SAMPLE_RATE)]).max() < 0.02
    middle = sound[int(0.7 * SAMPLE_RATE) : int(1.3 * SAMPLE_RATE)]
    spectrum = np.abs(np.fft.rfft(middle))
    assert abs(np.argmax(spectrum) * SAMPLE_RATE / len(middle) - 500) < 5


def test_sound_behind_a_gap_stays_on_the_clock(tmp_path):
    samples = (tone(1.0) * 32767).astype(np.int16)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for start in (0, 2 * SAMPLE_RATE):  # nothing from 1 s to 2 s, as where packets were lost
            for first in range(0, len(samples), 1000):
                frame = av.AudioFrame.from_ndarray(samples[None, first : first + 1000], "s16", "mono")
                frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
                frame.pts = start + first
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    sound = read_audio(tmp_path / "a.mkv")[:]
    assert len(sound) == 3 * SAMPLE_RATE
    loud = np.abs(sound).reshape(3, -1).max(axis=1) > 0.2
    np.testing.assert_array_equal(loud, [True, False, True])


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_number_of_channels(tmp_path, channels):
    path = write_media(tmp_path / "a.mkv", samples=tone(1.0), channels=channels)
    assert np.abs(read_audio(path)[:]).max() > 0.1
    assert not probe(path).has_video


def test_damaged_packets_are_counted_and_passed_over(tmp_path):
    path = write_media(tmp_path / "a.mkv", face_frames(40), samples=tone(4.0))
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(0)
    for place in generator.integers(len(data) // 2, len(data) - 200, 300):
        data[place] ^= 0xFF
    path.write_bytes(data)
    damage = []
    frames = len(times_of(path, damage))
    assert 0 < frames <= 40
    read_audio(path, damage)
    assert damage


def test_a_truncated_tail_keeps_the_head(tmp_path):
    path = write_media(tmp_path / "a.mkv", face_frames(40))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert 0 < len(times_of(path)) < 40


@pytest.mark.parametrize("content", [b"", b"not a video at all\n" * 50])
def test_what_is_no_media_says_so(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(UndecodableError, match=r"a\.mp4 cannot be opened as a video"):
        probe(path)


def test_a_playlist_cannot_open_other_files(tmp_path):
    secret = write_media(tmp_path / "secret.ts", plain_frames(10))
    playlist = tmp_path / "a.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n")
    with pytest.raises(UndecodableError):
        probe(playlist)
    listing = tmp_path / "b.mp4"
    listing.write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    with pytest.raises(UndecodableError):
        probe(listing)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UndecodableError, match=r"gone\.mp4"):
        probe(tmp_path / "gone.mp4")
