"""Decoding through PyAV: pictures and blocks of sound with their true times.

All times are seconds from the start of the container, so that frames, sound and words share one clock.
Only local files in the listed container formats are opened: a playlist that calls itself .mp4 cannot make
the decoder read other files or the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from affuse.errors import AffuseError

if TYPE_CHECKING:
    import torch
    from av.codec.hwaccel import HWAccel

SUFFIXES = [
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts",
    ".vob", ".webm", ".wmv",
]  # fmt: skip
FORMATS = "3gp,asf,avi,flv,m4v,matroska,mov,mp4,mpeg,mpegts,mpegvideo,mxf,ogg,webm"
MAX_PIXELS = 8192 * 4320  # one 8K frame
LONGEST = 4 * 3600.0  # s; embeddings are held in memory, and take 0.5 GB an hour at 30 frames a second
CHUNK_BYTES = 2**28  # of frames handed out at once
SLACK = 0.005  # s by which sound may miss its clock: containers round their times to whole ms, each way
MOMENT = 1e-6  # s from a frame to the next one where the clock does not go on
LONGEST_GAP, LONGEST_RETURN = 3600.0, 1.0  # s ahead and back; more is no gap or overlap but a clock set anew
WRAP = 2**33 / 90_000  # s after which the clock of MPEG streams begins anew; a time just below it is before zero
OBLONG = 4.0  # times a pixel may be as wide as high, or as high as wide; more is not believed
BEYOND = f"what lies beyond {LONGEST / 3600:.0f} hours was not read"


class UndecodableError(AffuseError):
    """The file, or one of its streams, could not be decoded. The message says what and why."""


@dataclass(frozen=True)
class Media:
    """What a container says about itself. `fps` is the mean rate, 0 without video; `duration` is in seconds."""

    fps: float
    duration: float
    width: int
    height: int
    has_video: bool
    has_audio: bool


@dataclass(frozen=True)
class Picture:
    """A frame as it was decoded. time: in seconds; aspect: of a coded pixel, its width by its height."""

    time: float
    frame: av.VideoFrame
    aspect: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as it is shown: in pixels made square by widening or heightening, and upright."""
        wider, higher = max(1.0, self.aspect), max(1.0, 1 / self.aspect)
        return self._turned((round(self.frame.width * wider), round(self.frame.height * higher)))

    def pixels(self, short_side: int | None = None) -> np.ndarray:
        """RGB (H, W, 3) uint8 as it is shown, scaled down (never up) until the shorter side has `short_side`."""
        scale = min(1.0, short_side / min(self.size)) if short_side else 1.0
        width, height = (max(1, round(side * scale)) for side in self.size)
        return self.scaled((width, height))

    def scaled(self, size: tuple[int, int]) -> np.ndarray:
        """RGB (height, width, 3) uint8 as it is shown, at a size of width and height."""
        if self.on_gpu:
            return self.kept(size).cpu().numpy()
        width, height = self._turned(size)
        how = "AREA" if width <= self.frame.width and height <= self.frame.height else "BILINEAR"
        pixels = self.frame.to_ndarray(format="rgb24", width=width, height=height, interpolation=how)
        return np.ascontiguousarray(np.rot90(pixels, self._quarters)) if self._quarters else pixels

    def kept(self, size: tuple[int, int] | None = None) -> torch.Tensor:
        """The same, or in its own size, where it was decoded: on a GPU, or in memory."""
        import torch

        from affuse.extract.nvdec import rgb

        if not self.on_gpu:
            return torch.from_numpy(self.scaled(size or self.size))
        width, height = self._turned(size or self.size)
        return torch.rot90(rgb(self.frame, height, width), self._quarters)

    @property
    def on_gpu(self) -> bool:
        return self.frame.format.name == "cuda"

    def _turned(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[::-1] if self._quarters % 2 else size

    @property
    def _quarters(self) -> int:
        """Quarter turns that make it upright, by the rotation metadata."""
        return round(getattr(self.frame, "rotation", 0) / 90) % 4


@dataclass(frozen=True)
class Frames:
    """Consecutive pictures: time (n,) float64, seconds; pixels (n, H, W, 3) uint8, RGB; size (n, 2) float64, each
    picture's width and height before it was scaled down."""

    time: np.ndarray
    pixels: np.ndarray
    size: np.ndarray


@contextmanager
def opened(path: Path, protocol: str = "file", accelerator: HWAccel | None = None):
    """The container of a file, or of what is at a path of another protocol. Raises UndecodableError where it is none,
    and where reading it fails meanwhile."""
    options = {"protocol_whitelist": protocol, "format_whitelist": FORMATS}
    more = {"hwaccel": accelerator} if accelerator else {}
    try:
        with av.open(f"{protocol}:{path}", options=options, metadata_errors="replace", **more) as container:
            yield container
    except av.error.ArgumentError:
        raise UndecodableError(
            f"{path.name} cannot be opened as a video: it is in none of the formats that are read ({FORMATS})."
        ) from None
    except av.error.FFmpegError as error:
        raise UndecodableError(f"{path.name} cannot be opened as a video: {reason(error)}.") from None
    except OSError as error:
        raise UndecodableError(f"{path.name} cannot be read: {error.strerror or error}.") from None


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def picture_stream(container):
    """The first real video stream; cover art in an audio file is not one."""
    art = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & art), None)


def pixel_aspect(stream) -> float:
    """Of a coded pixel, its width by its height."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / OBLONG <= aspect <= OBLONG else 1.0


def frame_step(stream) -> float:
    """Seconds from one frame to the next, in the mean."""
    return 1 / float(stream.average_rate or stream.guessed_rate or 25)


class Clock:
    """A stream's clock. One that is set anew midway goes on from where it was, and returns when it is set right."""

    def __init__(self, container):
        self.origin = container.start_time / av.time_base if container.start_time is not None else 0.0
        self.offset = 0.0  # s by which it was set anew

    def time(self, frame, due: float) -> float:
        """When a frame begins, in seconds; `due` is when the one before it ends."""
        if frame.time is None:
            return due
        own = frame.time - self.origin
        time = min(own, own - WRAP, own + self.offset, key=lambda time: abs(time - due))
        if not -LONGEST_RETURN < time - due < LONGEST_GAP:
            self.offset, time = due - own, due
        return time


def probe(path: Path) -> Media:
    """Read the headers. Raises UndecodableError where the file is no media, or too large or long to be read."""
    with opened(path) as container:
        video = picture_stream(container)
        audio = container.streams.audio
        if video is None and not audio:
            raise UndecodableError(f"{path.name} holds neither pictures nor sound.")
        # Without a decoder for its codec a stream has no context, and does not know its size.
        coded = video.codec_context if video else None
        width, height = (coded.width, coded.height) if coded else (0, 0)
        if width * height > MAX_PIXELS:
            raise UndecodableError(
                f"{path.name} has frames of {width}×{height}; at most 8192×4320 is read. Scale it down first."
            )
        duration = (container.duration or 0) / av.time_base
        if duration > LONGEST:  # headers and broken clocks claim anything: how long do the packets last together?
            stream = video or audio[0]
            duration = float(sum(packet.duration or 0 for packet in container.demux(stream)) * stream.time_base)
        if duration > LONGEST:
            raise UndecodableError(
                f"{path.name} is {duration / 3600:.1f} hours long; at most {LONGEST / 3600:.0f} are read. Cut it "
                "into parts."
            )
        fps = float(video.average_rate or video.guessed_rate or 0) if video else 0.0
        return Media(fps, duration, width, height, video is not None, bool(audio))


def frame_count(path: Path) -> int:
    """How many frames the file has, without decoding one: as its header says, else by its packets. 0 without video.

    Raises UndecodableError where the file is no media.
    """
    with opened(path) as container:
        video = picture_stream(container)
        if video is None:
            return 0
        return video.frames or sum(packet.size > 0 for packet in container.demux(video))


def decoded(container, stream, damage: list[str]) -> Iterator:
    """Frames of a stream, decoded by one thread: with more, a damaged stream differs from run to run. In `damage` are
    noted packets that cannot be decoded, which are passed over, and damaged frames, which are handed out."""
    if stream.codec_context is None:
        damage.append(f"there is no decoder for the codec of its {stream.type}")
        return
    stream.codec_context.thread_count = 1
    if stream.type == "video":
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError as error:
                damage.append(reason(error))
            else:
                damage += [f"the frame at {frame.time or 0:.2f} s is damaged" for frame in frames if frame.is_corrupt]
                yield from frames
    except av.error.FFmpegError as error:  # no packet can be read any more
        damage.append(reason(error))


def read_pictures(path: Path, damage: list[str] | None = None, accelerator: HWAccel | None = None) -> Iterator[Picture]:
    """Decode the frames of a video, one by one, on the CPU or by an accelerator.

    Times rise strictly: frames that stand still or go back follow within moments until the clock has caught up. A clock
    set anew, ahead by more than LONGEST_GAP or back by more than LONGEST_RETURN, goes on at the mean rate from there.
    damage: collects a reason for every packet that could not be decoded, and every frame that is damaged.
    """
    damage = damage if damage is not None else []
    with opened(path, accelerator=accelerator) as container:
        stream = picture_stream(container)
        clock, aspect, step = Clock(container), pixel_aspect(stream), frame_step(stream)
        last, due = -MOMENT, 0.0
        for frame in decoded(container, stream, damage):
            last = max(clock.time(frame, due), last + MOMENT)
            due = last + step
            if last > LONGEST:
                damage.append(BEYOND)
                break
            yield Picture(last, frame, aspect)


def read_frames(pictures: Iterable[Picture], *, chunk: int = 32, short_side: int | None = None) -> Iterator[Frames]:
    """Pictures in pixels, see `Picture.pixels`, and in chunks, so that memory does not grow with the video's length or
    the pictures' size."""
    times, pixels, sizes = [], [], []
    for picture in pictures:
        scaled = picture.pixels(short_side)
        most = min(chunk, max(1, CHUNK_BYTES // scaled.nbytes))
        if pixels and (len(pixels) == most or scaled.shape != pixels[0].shape):
            yield Frames(np.array(times), np.stack(pixels), np.array(sizes, float))
            times, pixels, sizes = [], [], []
        times.append(picture.time)
        pixels.append(scaled)
        sizes.append(picture.size)
    if pixels:
        yield Frames(np.array(times), np.stack(pixels), np.array(sizes, float))


def read_sound(path: Path, damage: list[str] | None = None) -> Iterator[tuple[float, av.AudioFrame]]:
    """The first sound stream as it is decoded, block by block, each with the second at which it begins."""
    due, damage = 0.0, damage if damage is not None else []
    with opened(path) as container:
        clock = Clock(container)
        for frame in decoded(container, container.streams.audio[0], damage):
            time = clock.time(frame, due)
            due = time + frame.samples / frame.sample_rate
            if time > LONGEST:
                damage.append(BEYOND)
                break
            yield time, frame
