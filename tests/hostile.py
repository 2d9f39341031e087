"""Media that are broken, odd or out to deceive, each with how it must end. Everything is written with PyAV."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from media import RATE, face_frames, plain_frames, tone, write_media

SECRET = "the-secret-that-nobody-may-print"
SECRET_FILE = "/secret/notes.txt"
WIDTH, HEIGHT = 96, 72


@dataclass(frozen=True)
class Case:
    """A file, how it is made, and what becomes of it.

    visual, audio: the statuses in the store. reason: a pattern found in one of the reasons, or in the failure.
    frames, faces: how many, where that is certain.
    """

    name: str
    build: Callable[[Path], object]
    visual: str = "ok"
    audio: str = "no_audio"
    reason: str = ""
    frames: int | None = None
    faces: int | None = None

    @property
    def id(self) -> str:
        return self.name.rpartition(".")[0]


def mux(
    path: Path,
    pictures: list[np.ndarray] | np.ndarray = (),
    *,
    codec: str = "ffv1",
    pix_fmt: str = "yuv420p",
    ticks: list[int] | None = None,
    fps: int = 10,
    samples: np.ndarray | None = None,
    audio_codec: str = "pcm_s16le",
    rate: int = RATE,
    layout: str = "mono",
    sound_ticks: Callable[[int], int] = lambda first: first,
    **options: str,
) -> Path:
    """Write any codec, pixel format and timestamps (`ticks`, ms); pictures of other sizes than the first are encoded
    by an encoder of their own and follow in the same stream."""
    with av.open(str(path), "w", options=options) as container:
        stream = sound = None
        if pictures is not None and len(pictures):
            stream = container.add_stream(codec, rate=fps)
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = pix_fmt
            stream.codec_context.time_base = Fraction(1, 1000)
        if samples is not None:
            sound = container.add_stream(audio_codec, rate=rate, layout=layout)
        if stream is not None:
            encoder = stream.codec_context
            ticks = ticks or [round(1000 * i / fps) for i in range(len(pictures))]
            for picture, tick in zip(pictures, ticks, strict=True):
                if picture.shape[:2] != (encoder.height, encoder.width):
                    _send(container, stream, encoder.encode())
                    encoder = av.CodecContext.create(codec, "w")
                    encoder.height, encoder.width = picture.shape[:2]
                    encoder.pix_fmt, encoder.time_base = pix_fmt, Fraction(1, 1000)
                frame = _picture(picture, pix_fmt)
                frame.pts, frame.time_base = tick, Fraction(1, 1000)
                _send(container, stream, encoder.encode(frame))
            _send(container, stream, encoder.encode())
        if sound is not None:
            kind = sound.codec_context.format.name
            for first in range(0, len(samples), 1024):
                block = samples[first : first + 1024]
                frame = _sound_frame(block, kind, layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = sound_ticks(first)
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return path


def _picture(picture: np.ndarray, pix_fmt: str) -> av.VideoFrame:
    if pix_fmt == "pal8":  # no converter makes palettes: 256 greys
        greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1)
        greys[:, 0] = 255
        return av.VideoFrame.from_ndarray((picture.mean(axis=2).astype(np.uint8), greys), format="pal8")
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)


def _send(container, stream, packets) -> None:
    for packet in packets:
        packet.stream = stream
        container.mux(packet)


def _sound_frame(block: np.ndarray, kind: str, layout: str) -> av.AudioFrame:
    channels = av.AudioLayout(layout).nb_channels
    planar = kind.endswith("p")
    values = np.tile(block, (channels, 1)) if planar else np.repeat(block, channels)[None]
    if kind[0] == "s":  # s16 or s32
        values = (values.clip(-1, 1) * (2 ** (int(kind[1:3]) - 1) - 128)).astype(f"i{int(kind[1:3]) // 8}")
    return av.AudioFrame.from_ndarray(np.ascontiguousarray(values), kind, layout)


# ---- pictures and sound


def plain(count: int = 3, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    return plain_frames(count, size)


def faces(count: int = 3, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    return face_frames(count, size)


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, round(seconds * RATE)).astype(np.float32)


def talking(path: Path) -> Path:
    """Eight frames in H.264, the first three with a face, and sound."""
    frames = faces(8)
    frames[3:] = 90
    return write_media(path, frames, samples=tone(0.8))


# ---- damage


def cut(keep: Callable[[bytes], bytes], suffix: str) -> Callable[[Path], object]:
    """A whole file of which `keep` leaves a part."""

    def build(path: Path) -> None:
        data = talking(path.with_name(f"whole{suffix}")).read_bytes()
        path.with_name(f"whole{suffix}").unlink()
        path.write_bytes(keep(data))

    return build


def corrupt(data: bytes) -> bytes:
    """Bytes flipped all over the second half."""
    data = bytearray(data)
    for place in np.random.default_rng(1).integers(len(data) // 2, len(data), 60):
        data[place] ^= 0xFF
    return bytes(data)


def patched(box: bytes, offset: int, value: bytes, make=talking) -> Callable[[Path], object]:
    """An MP4 in which `value` stands at `offset` from every `box` name."""

    def build(path: Path) -> None:
        data = bytearray(make(path).read_bytes())
        place = data.find(box)
        assert place > 0
        while place > 0:
            data[place + offset : place + offset + len(value)] = value
            place = data.find(box, place + 4)
        path.write_bytes(data)

    return build


def turned(path: Path) -> None:
    """A face lying on its side, and a matrix that tells players to turn it upright."""
    quarter = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    frames = np.ascontiguousarray(np.rot90(faces(3, (WIDTH, WIDTH)), 1, axes=(1, 2)))
    patched(b"tkhd", 44, quarter, lambda path: write_media(path, frames))(path)


def growing(path: Path) -> None:
    write_media(path, plain(5))


def cover(codec: str) -> Callable[[Path], object]:
    """Sound with a picture of its cover beside it."""

    def build(path: Path) -> None:
        with av.open(str(path), "w", format={"mp3": "mp3", "aac": "mp4"}[codec]) as container:
            sound = container.add_stream(codec, rate=RATE, layout="mono")
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(faces(1)[0], format="rgb24").reformat(format="yuvj420p")
            frame.pts = 0
            _send(container, picture, [*picture.encode(frame), *picture.encode()])
            kind = sound.codec_context.format.name
            samples = tone(0.5)
            for first in range(0, len(samples), 1024):
                block = _sound_frame(samples[first : first + 1024], kind, "mono")
                block.sample_rate, block.time_base, block.pts = RATE, Fraction(1, RATE), first
                container.mux(sound.encode(block))
            container.mux(sound.encode())

    return build


def text(content: str) -> Callable[[Path], object]:
    """A file of text, in which {secret} is a file that is none of a video's business."""
    return lambda path: path.write_text(
        content.replace("{secret}", str(path.parent.parent) + SECRET_FILE), newline=""
    )


def container(**options) -> Callable[[Path], object]:
    return lambda path: mux(path, faces(), **{"samples": tone(0.3), "audio_codec": "aac", **options})


def pixels(pix_fmt: str, codec: str = "ffv1") -> Callable[[Path], object]:
    return lambda path: mux(path, faces(), codec=codec, pix_fmt=pix_fmt)


def sound(samples: np.ndarray, **options) -> Callable[[Path], object]:
    return lambda path: mux(path, plain(), samples=samples, **options)


def jpegs(pictures: list[np.ndarray], **options) -> Callable[[Path], object]:
    return lambda path: mux(path, pictures, codec="mjpeg", pix_fmt="yuvj420p", **options)


def media(frames: np.ndarray | None, **options) -> Callable[[Path], object]:
    return lambda path: write_media(path, frames, **options)


def renamed(suffix: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """A file written as what `suffix` says, under another name."""

    def build(path: Path) -> None:
        make(path.with_suffix(suffix))
        path.with_suffix(suffix).rename(path)

    return build


def without_packets(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.open()
        container.start_encoding()


def side_by_side() -> np.ndarray:
    """A larger face on the left, a smaller one on the right."""
    frames = np.full((3, 144, 320, 3), 90, np.uint8)
    frames[:, :, :144] = face_frames(3, (144, 144), drift=0)
    frames[:, 40:130, 220:310] = face_frames(3, (90, 90), drift=0)
    return frames


def coming_and_going() -> np.ndarray:
    frames = faces(8)
    frames[[0, 3, 4, 7]] = 90
    return frames


def image_sequence(path: Path) -> None:
    """A name that stands for numbered pictures, and the pictures: only the file itself may be read."""
    from PIL import Image

    for number in range(3):
        Image.fromarray(faces(1)[0]).save(str(path) % number, format="png")
        os.rename(str(path) % number, (str(path) % number).replace(".mp4", ".png"))
    path.write_text("secret")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def linked(path: Path) -> None:
    """A video that lies outside the folder, and a folder that contains itself."""
    path.symlink_to(write_media(path.parent.parent / "outside.mkv", plain(2)))
    (path.parent / "inside-out").symlink_to(path.parent, target_is_directory=True)


NOT_OPENED = {"visual": "undecodable", "audio": "undecodable", "reason": "cannot be opened as a video"}
NOT_A_FORMAT = {**NOT_OPENED, "reason": "none of the formats that are read|Invalid data"}
SOUND = {"visual": "no_face", "audio": "ok"}
LONG_DURATION = b"\x7f\xff\xff\xff"  # ms: 24 days

CASES = [
    # damaged
    Case("empty.mp4", lambda path: path.write_bytes(b""), **NOT_OPENED),
    Case("text.mp4", text("not a video at all\n" * 50), **NOT_OPENED),
    Case("random.mkv", lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), **NOT_OPENED),
    Case("head-cut.mp4", cut(lambda data: data[300:], ".mp4"), **NOT_OPENED),
    Case("head-cut-mkv.mkv", cut(lambda data: data[300:], ".mkv"), **NOT_OPENED),
    Case("middle-cut.ts", cut(lambda data: data[: len(data) * 2 // 5] + data[len(data) * 3 // 5 :], ".ts"),
         audio="ok", reason="passed over "),
    Case("tail-cut.mp4", cut(lambda data: data[: len(data) * 3 // 4], ".mp4"), **NOT_OPENED),
    Case("tail-cut-mkv.mkv", cut(lambda data: data[: len(data) * 3 // 4], ".mkv"), audio="ok"),
    Case("half-copied.mkv", lambda path: path.write_bytes(
        (whole := mux(path, plain(30), fps=5)).read_bytes()[: whole.stat().st_size // 2]),
        visual="no_face", reason=r"the file ends at [12]\.\d s of the 6\.0 s that its header says"),
    Case("corrupt-packets.mkv", cut(corrupt, ".mkv"), audio="ok", reason="passed over "),
    Case("wrong-ending.avi", renamed(".mkv", talking), audio="ok", frames=8, faces=3),
    Case("no-packets.mp4", without_packets, visual="undecodable", audio="undecodable",
         reason="neither pictures nor sound"),
    Case("no-frames.avi", without_packets, visual="undecodable", reason="the stream is empty"),
    # what is there and what is not
    Case("one-frame.mp4", media(faces(1)), frames=1, faces=1),
    Case("sound-only.mp4", media(None, samples=tone(0.5)), visual="no_video", audio="ok", frames=0),
    Case("pictures-only.mp4", media(faces(3)), frames=3, faces=3),
    Case("short-sound.mkv", media(plain(10), samples=tone(0.3)), **SOUND, frames=10),
    Case("long-sound.mkv", media(plain(3), samples=tone(2.5)), **SOUND, frames=3),
    Case("no-face.mp4", media(plain(3)), visual="no_face", reason="no face found in 3 frames", faces=0),
    Case("two-faces.mkv", lambda path: mux(path, side_by_side()), frames=3, faces=3),
    Case("comes-and-goes.mkv", lambda path: mux(path, coming_and_going()), frames=8, faces=4),
    Case("cover-art.mp4", cover("aac"), visual="no_video", audio="ok"),
    Case("cover-art-mp3.mp4", renamed(".mp3", cover("mp3")), **NOT_A_FORMAT),
    Case("gif.mp4", renamed(".gif", lambda path: mux(path, plain(), codec="gif", pix_fmt="rgb8")), **NOT_A_FORMAT),
    # clocks
    Case("negative-times.mkv", lambda path: mux(path, faces(4), ticks=[-200, -100, 0, 100],
         avoid_negative_ts="disabled"), frames=4, faces=4),
    Case("leap.mkv", lambda path: mux(path, plain(4), ticks=[0, 100, 10_000, 10_100]), visual="no_face", frames=4),
    Case("leap-of-days.mkv", lambda path: mux(path, plain(4), ticks=[0, 100, 360_000_000, 360_000_100]),
         visual="no_face", frames=4),
    Case("jumps-back.ts", lambda path: path.write_bytes(2 * talking(path).read_bytes()), audio="ok", frames=16),
    Case("variable-rate.mkv", lambda path: mux(path, plain(5), ticks=[0, 20, 500, 510, 900]), visual="no_face",
         frames=5),
    Case("120-fps.mp4", media(plain(24), fps=120), visual="no_face", frames=24),
    Case("lying-duration.mp4", patched(b"mvhd", 20, LONG_DURATION), audio="ok", frames=8),
    Case("lying-track-duration.mp4", patched(b"mdhd", 20, LONG_DURATION), audio="ok", frames=8),
    Case("lying-clock.mp4", patched(b"mvhd", 16, LONG_DURATION), visual="undecodable", audio="too_short"),
    # sizes
    Case("1x1.mkv", lambda path: mux(path, plain(2, (1, 1)), pix_fmt="yuv444p"), visual="no_face", frames=2),
    Case("8k.mkv", jpegs(faces(2, (7680, 4320))), frames=2, faces=2),
    Case("too-large.mkv", jpegs(plain(1, (8192, 4400))), visual="undecodable", audio="undecodable",
         reason="frames of 8192×4400; at most 8192×4320"),
    Case("grows-too-large.mkv", jpegs([*plain(2), *plain(1, (8192, 4400))]), visual="no_face", frames=2),
    Case("lying-size.mp4", patched(b"avc1", 28, struct.pack(">HH", 60_000, 60_000)), audio="ok", frames=8),
    Case("lying-raw-size.avi", patched(b"strf", 12, struct.pack("<II", 60_000, 60_000),
         lambda path: mux(path, plain(), codec="rawvideo", pix_fmt="bgr24")), visual="undecodable",
         reason="no frame could be decoded"),
    Case("size-changes.ts", lambda path: mux(path, [*faces(3, (192, 144)), *faces(3)], codec="libx264"), frames=6,
         faces=6),
    Case("size-changes-up.mkv", jpegs([*faces(3), *faces(3, (192, 144))]), frames=6, faces=6),
    Case("turned.mp4", turned, frames=3, faces=3),
    # pixels
    Case("yuv444p10.mkv", pixels("yuv444p10le"), frames=3, faces=3),
    Case("gray.mkv", pixels("gray"), frames=3, faces=3),
    Case("pal8.mov", pixels("pal8", "png"), frames=3, faces=3),
    Case("rgb24.mov", pixels("rgb24", "png"), frames=3, faces=3),
    Case("yuva420p.mkv", pixels("yuva420p"), frames=3, faces=3),
    # sound
    Case("mono.mkv", sound(tone(0.3)), **SOUND),
    Case("5.1.mkv", sound(tone(0.3, rate=48_000), rate=48_000, layout="5.1"), **SOUND),
    Case("8-khz.mkv", sound(tone(0.3, rate=8000), rate=8000), **SOUND),
    Case("96-khz.mkv", sound(tone(0.3, rate=96_000), rate=96_000), **SOUND),
    Case("silence.mkv", sound(np.zeros(5000, np.float32)), **SOUND),
    Case("clipping-noise.mkv", sound(noise(0.3)), **SOUND),
    Case("no-numbers.mkv", sound(np.array([np.nan, np.inf, 1e30, 0.1] * 1200, np.float32), audio_codec="pcm_f32le"),
         **SOUND, reason="3600 samples of sound are no numbers"),
    # containers
    Case("matroska.mkv", container(), audio="ok", frames=3, faces=3),
    Case("web.webm", container(codec="libvpx", audio_codec="libopus", samples=tone(0.3, rate=48_000), rate=48_000),
         audio="ok", frames=3, faces=3),
    Case("riff.avi", container(codec="mpeg4", audio_codec="pcm_s16le"), audio="ok", frames=3, faces=3),
    Case("quicktime.mov", container(codec="mpeg4"), audio="ok", frames=3, faces=3),
    Case("transport.ts", container(codec="libx264"), audio="ok", frames=3, faces=3),
    Case("flash.flv", container(codec="flv1"), audio="ok", frames=3, faces=3),
    # what would open other files
    Case("playlist.mp4", text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n"),
         **NOT_A_FORMAT),
    Case("concat.mp4", text("ffconcat version 1.0\nfile {secret}\n"), **NOT_A_FORMAT),
    Case("session.mp4", text("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP "
         "96\r\na=rtpmap:96 H264/90000\r\n"), **NOT_A_FORMAT),
    Case("rtsp.mp4", text("[Reference]\nRef1=rtsp://127.0.0.1:9/x\n"), **NOT_A_FORMAT),
    Case("rtsp-text.mov", text("RTSPtextrtsp://127.0.0.1:9/x\n"), **NOT_A_FORMAT),
    Case("pictures-%03d.mp4", image_sequence, **NOT_A_FORMAT),
    # names
    Case("loop.mp4", loop, visual="", reason="cannot be read: .*symbolic links"),
    Case("linked.mkv", linked, visual="no_face", frames=2),
    Case(f"{'n' * 251}.mkv", media(plain(2)), visual="no_face", frames=2),
    Case("new\nline \x1b[31mred.mkv", media(plain(2)), visual="no_face", frames=2),
    Case("new\nline broken.mkv", text("junk"), **NOT_OPENED),
    Case("up..and..away.mkv", media(plain(2)), visual="no_face", frames=2),
    Case("not-utf-8-\udcff\udcfe.mkv", media(plain(2)), visual="no_face", frames=2),
    Case("back\\slash:colon*?.mkv", media(plain(2)), visual="no_face", frames=2),
    Case("-dash.mkv", media(plain(2)), visual="no_face", frames=2),
    Case("visual/embedding.mkv", media(plain(2)), visual="no_face", frames=2),
    Case("folder.mp4/inside.mkv", media(plain(2)), visual="no_face", frames=2),
    Case("http:localhost.mkv", media(plain(2)), visual="no_face", frames=2),
    # while it is read
    Case("grows.ts", growing, visual="no_face"),
]  # fmt: skip


def build_all(folder: Path) -> None:
    """Every case below `folder`, a file with the secret beside it, and what is no video at all."""
    secret = folder.parent / SECRET_FILE.lstrip("/")
    secret.parent.mkdir()
    secret.write_text(SECRET)
    for case in CASES:
        path = folder / case.name
        path.parent.mkdir(parents=True, exist_ok=True)
        case.build(path)
    (folder / "empty-folder.mp4").mkdir()
    mux(folder / "passed-over.gif", plain(), codec="gif", pix_fmt="rgb8")
    (folder / ".hidden.mp4").write_text("hidden")
