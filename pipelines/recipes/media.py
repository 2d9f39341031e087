"""Media that extraction takes no other way, put into a container: frames in a folder, a file of sound alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
from PIL import Image

from affuse.extract.videos import Job
from affuse.files import file_name, make_folder, publish
from affuse.pipelines.recipes.dataset import PICTURES, SOUND

FRAME_RATE = 25  # of frames in a folder, which say no rate


def contained(jobs: list[Job], out: Path) -> list[Job]:
    """The same jobs, those of pictures and of sound with a file in `out`, which is made where it is not there yet."""
    return [replace(job, path=_contain(job, out)) if _is_bare(job.path) else job for job in jobs]


def _is_bare(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() == SOUND


def _contain(job: Job, out: Path) -> Path:
    path = make_folder(out) / f"{file_name(job.id)}.mkv"
    if not path.exists() or path.stat().st_mtime < job.path.stat().st_mtime:
        publish(path, lambda sink: (_film if job.path.is_dir() else _sound)(job.path, sink))
    return path


def _film(folder: Path, sink) -> None:
    """Frames in the order of their names; all of them as large as the first."""
    with av.open(sink, "w", format="matroska") as film:
        stream = None
        for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES):
            frame = av.VideoFrame.from_image(Image.open(path).convert("RGB"))
            if stream is None:
                stream = film.add_stream("libx264", rate=FRAME_RATE, options={"crf": "10", "preset": "veryfast"})
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv444p"
            film.mux(stream.encode(frame.reformat(stream.width, stream.height, "yuv444p")))
        film.mux(stream.encode())


def _sound(path: Path, sink) -> None:
    with av.open(str(path)) as source, av.open(sink, "w", format="matroska") as film:
        heard = source.streams.audio[0]
        stream = film.add_stream("pcm_s16le", rate=heard.rate, layout=heard.layout.name)
        resampler = av.AudioResampler("s16", heard.layout.name, heard.rate)
        for frame in source.decode(heard):
            for block in resampler.resample(frame):
                film.mux(stream.encode(block))
        film.mux(stream.encode())
