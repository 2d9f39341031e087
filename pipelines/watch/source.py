"""Where pictures and sound come from, as they happen: a camera, a file at its own speed, or what a pipe brings."""

from __future__ import annotations

import logging
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import av

from affuse.errors import UsageError, first_line
from affuse.extract.media import (
    MAX_PIXELS,
    MOMENT,
    Clock,
    Picture,
    UndecodableError,
    frame_step,
    opened,
    picture_stream,
    pixel_aspect,
    reason,
)
from affuse.pipelines.watch.sound import RecentSound

log = logging.getLogger("affuse")

KINDS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}  # of cameras, by system
OPTIONS = {  # of a camera's container
    "v4l2": {"framerate": "30", "video_size": "640x480"},
    "avfoundation": {"framerate": "30", "video_size": "640x480"},
    "dshow": {"framerate": "30", "video_size": "640x480", "rtbufsize": "64M"},
}
NOTHING_YET = 0.005  # s
STDIN = "-"
MICROPHONE = "alsa"  # beside a camera of v4l2, which has no sound


@dataclass(frozen=True)
class Camera:
    """What a camera is opened with: `kind`, a container of ffmpeg's; `address`, what that calls the device; `hears`,
    whether the microphone is a part of it; `microphone`, the address of one that is opened beside it, or ""."""

    kind: str
    address: str
    hears: bool
    microphone: str = ""

    @property
    def name(self) -> str:
        return f"camera {self.address}"

    @property
    def options(self) -> dict[str, str]:
        return OPTIONS[self.kind]


@dataclass(frozen=True)
class Stream:
    """A file or a pipe, at a path of a protocol of ffmpeg's: file or pipe."""

    path: Path
    protocol: str = "file"

    @property
    def name(self) -> str:
        return "standard input" if self.protocol == "pipe" else self.path.name


def find_source(given: str | None, system: str = sys.platform, devices: Path = Path("/dev")) -> Camera | Stream:
    """What is meant by `--source`: None is the first camera, "-" standard input, a path a file, a named pipe or a
    camera's device, and a number or, on Windows, a name that of a camera. Raises UsageError for what is none."""
    kind = KINDS.get(system)
    if given == STDIN:
        return Stream(Path("0"), "pipe")
    path = Path(given) if given else None
    mode = path.stat().st_mode if path and path.exists() else 0
    if stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
        return Stream(path)
    if given and not (given.isdecimal() or stat.S_ISCHR(mode) or kind == "dshow"):
        raise UsageError(f"--source {given} is no file, no pipe and no camera. Check the path, or leave it out.")
    if kind is None:
        raise UsageError(f"Cameras are opened on Linux, macOS and Windows, not on {system}. Give a file or a pipe.")
    return _camera(kind, given, devices)


def _camera(kind: str, given: str | None, devices: Path) -> Camera:
    if kind == "avfoundation":
        return Camera(kind, f"{given or 'default'}:default", hears=True)
    if kind == "v4l2":
        found = sorted(map(str, devices.glob("video*")))
        address = (str(devices / f"video{given}") if given.isdecimal() else given) if given else next(iter(found), "")
        if not given and not found:
            raise UsageError("There is no camera here (no /dev/video*). Name a video file or a pipe with --source.")
        there = MICROPHONE in av.formats_available
        return Camera(kind, address, hears=False, microphone="default" if there else "")
    cameras, microphones = _listed("video"), _listed("audio")
    if not given or given.isdecimal():
        number = int(given or 0)
        if number >= len(cameras):
            raise UsageError("No such camera was found. Name it as Windows does, or give a video file with --source.")
        given = cameras[number]
    heard = f":audio={microphones[0]}" if microphones else ""
    return Camera(kind, f"video={given}{heard}", hears=bool(heard))


def _listed(medium: str) -> list[str]:
    """Names of Windows' cameras or microphones; newer versions of PyAV list them."""
    listing = getattr(av, "enumerate_input_devices", None)
    return [found.name for found in listing("dshow") if medium in found.media_types] if listing else []


@dataclass
class Player:
    """A source that plays into two ears: `see` gets every picture and the second, of time.monotonic, at which it was
    taken; `sound` gets the sound. Files and pipes are held to their own speed.

    start begins what is to go on beside it, by what is done and what that is given. ready is set once it is open, and
    hears is known: whether there is sound. damage: what could not be decoded, last.
    """

    found: Camera | Stream
    see: Callable[[Picture, float], None]
    sound: RecentSound
    stopped: Event
    start: Callable[..., Thread]
    ready: Event = field(default_factory=Event)
    hears: bool = False
    damage: list[str] = field(default_factory=list)
    begun: float | None = None  # of time.monotonic, when the first picture was there

    def play(self) -> None:
        """Hand out all there is, until it ends or `stopped` is set. Raises UndecodableError where it cannot be opened,
        or has no pictures."""
        found = self.found
        with self._camera() if isinstance(found, Camera) else opened(found.path, found.protocol) as container:
            pictures = picture_stream(container)
            if pictures is None or pictures.codec_context is None:
                raise UndecodableError(f"{found.name} has no pictures that can be decoded, and watching needs them.")
            pictures.codec_context.thread_count = 1
            pictures.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            microphone = self._microphone()
            self.hears = bool(container.streams.audio) or microphone is not None
            self.ready.set()
            if microphone is not None:
                self.start(self._listen, microphone)
            self._play(container)

    @contextmanager
    def _camera(self) -> Iterator[av.container.InputContainer]:
        camera = self.found
        try:
            with av.open(camera.address, format=camera.kind, options=camera.options) as container:
                yield container
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UndecodableError(
                f"The {camera.name} cannot be opened: {first_line(error)}. Is it plugged in, free, and may this "
                "program use it? Name another one with --source."
            ) from None

    def _play(self, container: av.container.InputContainer) -> None:
        pictures, ears = picture_stream(container), container.streams.audio[:1]
        clocks, due = {stream: Clock(container) for stream in (pictures, *ears)}, dict.fromkeys((pictures, *ears), 0.0)
        aspect, step, last = pixel_aspect(pictures), frame_step(pictures), -MOMENT
        for frame, stream in self._frames(container, [pictures, *ears]):
            moment = clocks[stream].time(frame, due[stream])
            if stream is not pictures:
                due[stream] = moment + frame.samples / frame.sample_rate
                self.sound.hear(moment, frame)
                continue
            last = max(moment, last + MOMENT)
            due[stream] = last + step
            self._hold(last)
            if self.stopped.is_set():
                return
            self.see(Picture(last, frame, aspect), time.monotonic())

    def _microphone(self) -> av.container.InputContainer | None:
        """That beside a camera; None where there is none, or it cannot be opened."""
        address = getattr(self.found, "microphone", "")
        try:
            return av.open(address, format=MICROPHONE) if address else None
        except (av.error.FFmpegError, OSError, ValueError) as error:
            log.warning("the microphone cannot be opened: %s", first_line(error))
            return None

    def _listen(self, microphone: av.container.InputContainer) -> None:
        """Hear a microphone that is no part of the camera until `stopped` is set; its sound begins at the first block
        after the first picture."""
        due = None
        with microphone:
            for frame, _ in self._frames(microphone, list(microphone.streams.audio[:1])):
                if self.begun is None:
                    continue
                length = frame.samples / frame.sample_rate
                due = max(0.0, time.monotonic() - self.begun - length) if due is None else due
                self.sound.hear(due, frame)
                due += length

    def _frames(self, container: av.container.InputContainer, streams: list) -> Iterator[tuple]:
        """Frames with their streams; packets that cannot be decoded are passed over."""
        while not self.stopped.is_set():
            try:
                for packet in container.demux(streams):
                    if self.stopped.is_set():
                        return
                    with self._noted():
                        yield from ((frame, packet.stream) for frame in packet.decode())
                return
            except av.error.BlockingIOError:  # of a camera that has nothing yet
                self.stopped.wait(NOTHING_YET)
            except av.error.FFmpegError as error:
                self.damage = [reason(error)]
                return

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except av.error.FFmpegError as error:
            self.damage = [reason(error)]

    def _hold(self, moment: float) -> None:
        """Wait until this second of the source has come; a camera's has."""
        now = time.monotonic()
        if self.begun is None:
            self.begun = now - moment
        if isinstance(self.found, Stream):
            self.stopped.wait(max(0.0, self.begun + moment - now))
