"""Odd recordings: pictures and sound keep the times the file says, and pixels their shape."""

import hashlib
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from affuse.extract.media import read_frames, read_pictures
from affuse.extract.sound import SAMPLE_RATE, read_audio
from hostile import mux, patched
from media import face_frames, plain_frames, squeezed, tone, write_media

BLOCK = 1024  # samples of a packet
DAYS = 360_000_000  # ms
TEN_MINUTES = 600_000  # ms
MOMENTS = 1e-4  # s


def stamped(path, stream_of, frames, ticks):
    """Write frames whose packets say `ticks`, ms, in whatever order."""
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = stream_of(container)
        packets = [packet for frame in [*frames, None] for packet in stream.encode(frame)]
        for i, (packet, tick) in enumerate(zip(packets, ticks, strict=True)):
            packet.time_base, packet.pts, packet.dts = Fraction(1, 1000), tick, i - 2**31
            container.mux(packet)
    return path


def picture_times(path, ticks):
    def stream_of(container):
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        return stream

    frames = [av.VideoFrame.from_ndarray(p, "rgb24") for p in plain_frames(len(ticks), (32, 24))]
    for i, frame in enumerate(frames):
        frame.pts, frame.time_base = i, Fraction(1, 10)
    stamped(path, stream_of, frames, ticks)
    times = np.concatenate([chunk.time for chunk in read_frames(read_pictures(path))])
    assert (np.diff(times) > 0).all()
    return times


def blocks_of_sound(path, ticks, samples):
    """Packets of BLOCK samples, float32, that begin at `ticks`, ms."""
    frames = []
    for block in samples.reshape(len(ticks), 1, BLOCK):
        frame = av.AudioFrame.from_ndarray((block * 32767).astype(np.int16), "s16", "mono")
        frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        frame.pts = BLOCK * len(frames)
        frames.append(frame)

    def stream_of(container):
        return container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")

    return stamped(path, stream_of, frames, [int(tick) for tick in ticks])


def clicks(ticks):
    """Silence with a click in the middle of every tenth packet, and when they are to be heard, s."""
    samples = np.zeros((len(ticks), BLOCK), np.float32)
    samples[9::10, BLOCK // 2] = 0.9
    return samples, np.asarray(ticks[9::10]) / 1000 + BLOCK / 2 / SAMPLE_RATE


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        ([0, 100, 100, 100, 200, 200, 300], [0, 0.1, 0.1, 0.1, 0.2, 0.2, 0.3]),
        ([0, 100, 200, 300, 100, 200, 350, 400], [0, 0.1, 0.2, 0.3, 0.3, 0.3, 0.35, 0.4]),
        ([500, 200, 300, 600, 750], [0, 0, 0, 0.1, 0.25]),
        ([0, 100, DAYS, 300, 400], [0, 0.1, 0.2, 0.3, 0.4]),
        ([0, 100, DAYS, 170, 250, 400], [0, 0.1, 0.2, 0.2, 0.25, 0.4]),
        ([0, 100, DAYS, DAYS + 250, DAYS + 300], [0, 0.1, 0.2, 0.45, 0.5]),
        ([0, 15_000, 15_100, 0, 50, 300], [0, 15, 15.1, 15.2, 15.25, 15.5]),
        ([0, 15_000, 15_100, 0, 15_350, 15_400], [0, 15, 15.1, 15.2, 15.35, 15.4]),
    ],
    ids=["twice", "back", "negative", "leap-and-return", "between", "leap", "restart", "one-astray"],
)
def test_pictures_after_a_disturbance_have_their_own_times(tmp_path, ticks, expected):
    np.testing.assert_allclose(picture_times(tmp_path / "a.mkv", ticks), expected, atol=MOMENTS)


def test_disturbed_pictures_are_on_their_clock_at_the_end_of_ten_minutes(tmp_path):
    """Every five seconds a frame comes twice, one is stamped early, or one far astray."""
    ticks = np.arange(0, TEN_MINUTES, 100)
    odd = {0: 0, 50: -700, 100: DAYS, 150: -100}
    given = [
        tick
        for i, true in enumerate(ticks)
        for tick in ([true, true + odd[i % 200]] if i % 200 in odd else [true])
    ]
    times = picture_times(tmp_path / "a.mkv", given)
    steady = np.flatnonzero(np.isin(given, ticks[5::10]) & (np.diff(given, prepend=-100) == 100))
    assert given[steady[-1]] > TEN_MINUTES - 1000
    np.testing.assert_allclose(times[steady], np.array(given)[steady] / 1000, atol=MOMENTS)


@pytest.mark.parametrize("every", [62, 66, 64], ids=["overlapping", "apart", "even"])
def test_sound_stays_on_its_clock_however_long_it_lasts(tmp_path, every):
    ticks = np.arange(TEN_MINUTES // every) * every
    samples, expected = clicks(ticks)
    sound = read_audio(blocks_of_sound(tmp_path / "a.mkv", ticks, samples))[:]
    np.testing.assert_allclose(np.flatnonzero(sound > 0.5) / SAMPLE_RATE, expected, atol=6e-3)


@pytest.mark.parametrize("gap", [50, 130, -40, -150], ids="{:+d} ms".format)
def test_a_gap_is_filled_and_an_overlap_cut_to_the_sample(tmp_path, gap):
    ticks = np.arange(40) * 64 + np.where(np.arange(40) < 15, 0, gap)
    samples, expected = clicks(ticks)
    sound = read_audio(blocks_of_sound(tmp_path / "a.mkv", ticks, samples))[:]
    np.testing.assert_array_equal(np.flatnonzero(sound > 0.5), np.round(expected * SAMPLE_RATE))
    assert len(sound) == 40 * BLOCK + gap * SAMPLE_RATE // 1000


def test_sound_set_back_far_goes_on_and_returns(tmp_path):
    ticks = np.arange(300) * 64
    ticks[200:250] -= 200 * 64
    samples, _ = clicks(ticks)
    sound = read_audio(blocks_of_sound(tmp_path / "a.mkv", ticks, samples))[:]
    np.testing.assert_array_equal(sound > 0.5, samples.ravel() > 0.5)


def plainly(path):
    """The sound as it is decoded, from the time of the first frame on."""
    pieces, first = [], None
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        for frame in container.decode(audio=0):
            first = frame.time if first is None else first
            pieces += resampler.resample(frame)
        pieces += resampler.resample(None)
        start = round((first - container.start_time / av.time_base) * SAMPLE_RATE)
    samples = np.concatenate([piece.to_ndarray()[0] for piece in pieces])
    return np.concatenate([np.zeros(max(0, start), np.float32), samples[max(0, -start) :]])


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize(
    ("name", "codec", "audio_codec", "start"),
    [("a.mp4", "mpeg4", "aac", 0), ("a.mkv", "mpeg4", "aac", 0), ("a.mkv", "mpeg4", "ac3", 0),
     ("a.mkv", "mpeg4", "flac", 0), ("a.ts", "mpeg4", "aac", 1), ("a.ts", "mpeg4", "mp2", 1),
     ("a.flv", "flv1", "aac", 0), ("a.avi", "mpeg4", "libmp3lame", 0), ("a.mpg", "mpeg4", "mp2", 0),
     ("a.webm", "libvpx", "libopus", 0)],
)  # fmt: skip
def test_clean_sound_is_neither_cut_nor_filled(tmp_path, name, codec, audio_codec, start, rate):
    if (name, rate) in {("a.webm", 44_100), ("a.flv", 48_000)}:
        pytest.skip("the format does not have that rate")
    path = mux(
        tmp_path / name, plain_frames(75, (96, 72)), codec=codec, fps=25, samples=tone(3, rate=rate), rate=rate,
        audio_codec=audio_codec, layout="stereo", ticks=[1000 * start + 40 * i for i in range(75)],
        sound_ticks=lambda first: first + start * rate,
    )  # fmt: skip
    np.testing.assert_array_equal(read_audio(path)[:], plainly(path))


@pytest.mark.parametrize("late", [0.313, 0.004])
def test_late_sound_starts_exactly_when_the_file_says(tmp_path, late):
    path = mux(
        tmp_path / "a.mkv", plain_frames(9), samples=np.full(8000, 0.5, np.float32),
        sound_ticks=lambda first: first + round(late * SAMPLE_RATE),
    )  # fmt: skip
    assert np.flatnonzero(read_audio(path)[:])[0] == round(late * SAMPLE_RATE)


def test_early_sound_is_cut_to_the_sample(tmp_path):
    path = mux(
        tmp_path / "a.ts", plain_frames(300, (32, 24)), codec="mpeg4", samples=tone(30, rate=48_000), rate=48_000,
        audio_codec="aac",
    )  # fmt: skip
    with av.open(str(path)) as container:  # the encoder's delay, before zero, where such a clock wraps round
        wrapped = 2**33 / 90_000 - BLOCK / 48_000
        assert next(container.decode(audio=0)).time == pytest.approx(wrapped, abs=1e-4)
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    with av.open(str(path)) as container:
        pieces = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    decoded = np.concatenate([piece.to_ndarray()[0] for piece in [*pieces, *resampler.resample(None)]])
    np.testing.assert_array_equal(read_audio(path)[:], decoded[round(BLOCK / 3) :])


@pytest.mark.parametrize(
    ("before", "after"),
    [({"channels": 6, "rate": 48_000}, {"channels": 2, "rate": 48_000}),
     ({"channels": 2, "rate": 48_000}, {"channels": 2, "rate": 44_100})],
    ids=["channels", "rate"],
)  # fmt: skip
def test_sound_goes_on_where_its_format_changes(tmp_path, before, after):
    data = b""
    for name, start, form in (("a.ts", 0.0, before), ("b.ts", 1.0, after)):
        samples = tone(1.0, rate=form["rate"])
        data += write_media(tmp_path / name, samples=samples, audio_start=start, **form).read_bytes()
    (tmp_path / "c.ts").write_bytes(data)
    damage = []
    sound = read_audio(tmp_path / "c.ts", damage)[:]
    assert damage == []
    assert abs(len(sound) / SAMPLE_RATE - 2) < 0.1
    parts = np.abs(sound[: 19 * 1600].reshape(19, -1)).max(axis=1)
    assert (parts > 0.2).all()


@pytest.mark.parametrize(
    ("aspect", "width", "height"),
    [("4/3", 128, 72), ("3/4", 96, 96), ("1", 96, 72), ("4", 384, 72), ("9/2", 96, 72), ("1/5", 96, 72)],
)
def test_pixels_are_made_square(tmp_path, aspect, width, height):
    path = squeezed(tmp_path / "a.mkv", aspect)
    (frames,) = read_frames(read_pictures(path))
    assert frames.pixels.shape == (3, height, width, 3)
    np.testing.assert_array_equal(frames.size, [[width, height]] * 3)
    (small,) = read_frames(read_pictures(path), short_side=36)
    scale = 36 / min(width, height)
    assert small.pixels.shape == (3, round(height * scale), round(width * scale), 3)
    np.testing.assert_array_equal(small.size, frames.size)


def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path):
    quarter = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    patched(b"tkhd", 44, quarter, lambda path: squeezed(path, "4/3"))(tmp_path / "a.mp4")
    (frames,) = read_frames(read_pictures(tmp_path / "a.mp4"))
    assert frames.pixels.shape == (3, 128, 72, 3)
    np.testing.assert_array_equal(frames.size, [[72, 128]] * 3)


def broken(path):
    """60 frames of H.264, two in three of them bidirectional, with bytes flipped in every seventh packet."""
    generator = np.random.default_rng(3)
    grain = generator.integers(0, 60, (60, 144, 192, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "2", "g": "30", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = 192, 144, "yuv420p"
        pixels = (face_frames(60) * 0.7 + grain).astype(np.uint8)
        pictures = [*(av.VideoFrame.from_ndarray(picture, "rgb24") for picture in pixels), None]
        for i, packet in enumerate([packet for picture in pictures for packet in stream.encode(picture)]):
            data = bytearray(bytes(packet))
            if i % 7 == 5:
                for place in generator.integers(len(data) // 3, len(data), 4):
                    data[place] ^= 0xFF
            sent = av.Packet(bytes(data))
            sent.pts, sent.dts, sent.time_base, sent.stream = packet.pts, packet.dts, packet.time_base, stream
            sent.is_keyframe = packet.is_keyframe
            container.mux(sent)
    return path


def test_a_damaged_video_is_the_same_each_time(tmp_path):
    path, runs = broken(tmp_path / "a.mkv"), set()
    for _ in range(6):
        damage, digest = [], hashlib.sha256()
        for chunk in read_frames(read_pictures(path, damage)):
            digest.update(chunk.pixels.tobytes())
        runs.add((digest.hexdigest(), tuple(damage)))
    assert len(runs) == 1


def test_damaged_frames_are_noted_and_used(tmp_path):
    damage = []
    frames = sum(len(chunk.time) for chunk in read_frames(read_pictures(broken(tmp_path / "a.mkv"), damage)))
    assert frames == 60
    assert damage
    assert all("is damaged" in reason for reason in damage)
