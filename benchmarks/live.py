"""What `affuse watch` takes of two cores, and what it gives: a clip over and over at its own speed, with one page open.

    python benchmarks/live.py clip.mp4 --minutes 10 --json live.json

The run that watches is trained here, for an epoch, on synthetic videos of the clip's frame rate: an RJCMA of face (the
small network of `resnet18.py`, seeded), sound and words; what its values mean does not matter here. Of every stretch it
prints the faces looked at and the values shown per second, the delay, the memory, and at which addresses it listens.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import av
import click
import numpy as np
import psutil

from affuse.extract.extraction import extract_videos
from affuse.extract.weights.doctor import environment
from affuse.fuse.training.checkpoint import RunFolder
from affuse.pipelines.demo.data import make_dataset
from affuse.pipelines.prediction import train

HERE = Path(__file__).resolve().parent
BESIDE = {"clip": "video.mkv", "run": "run", "data": "data", "store": "store"}  # in the folder that is made
LEAST = 30.0  # s before the first stretch: models are loaded, and windows full


def over_and_over(clip: Path, seconds: float, out: Path) -> float:
    """Write the streams of a clip one after the other, as they are, until they last so long; gives its frame rate."""
    with av.open(str(clip)) as given, av.open(str(out), "w") as container:
        pictures, sound = given.streams.video[0], given.streams.audio[:1]
        streams = {s: container.add_stream_from_template(s) for s in (pictures, *sound)}
        rate = float(pictures.average_rate)
        packets = [packet for packet in given.demux([*streams]) if packet.dts is not None]
        begin = min(packet.dts * packet.time_base for packet in packets)  # below 0 where frames are not in their order
        length = max((packet.dts + packet.duration) * packet.time_base for packet in packets) - begin
        for turn in range(int(np.ceil(seconds / length))):
            given.seek(0)
            for packet in given.demux([*streams]):
                if packet.dts is None:
                    continue
                for name in ("pts", "dts"):
                    setattr(packet, name, getattr(packet, name) + round((turn * length - begin) / packet.time_base))
                packet.stream = streams[packet.stream]
                container.mux(packet)
    return rate


def make_run(place: Path, rate: float, weights: Path | None, modalities: list[str]) -> Path:
    """A run for watching, on synthetic videos of that frame rate; one that is there already is taken as it is."""
    if RunFolder(place / BESIDE["run"]).finished:
        return place / BESIDE["run"]
    data = make_dataset(place / BESIDE["data"], speakers=3, seconds=14.0, fps=round(rate))
    store = extract_videos(
        data.videos, place / BESIDE["store"], profile="offline", allow_untrained=True, weights_dir=weights,
        device="cpu", modalities=modalities, visual=f"{HERE / 'resnet18.py'}:ResNet18",
    )  # fmt: skip
    train(store, data.labels, place / BESIDE["run"], epochs=1, tensorboard=False, modalities=modalities, device="cpu")
    return place / BESIDE["run"]


class Page:
    """A page that is open all the while, so that pictures are drawn for it; what it was told of last."""

    def __init__(self, address: str):
        self.state, self.bytes = {}, 0
        threading.Thread(target=self._read, args=(address,), daemon=True).start()

    def _read(self, address: str) -> None:
        with urlopen(address + "events") as events:  # noqa: S310 - of this machine
            kind = ""
            for line in events:
                self.bytes += len(line)
                if line.startswith(b"event: "):
                    kind = line[7:].decode().strip()
                elif kind == "state" and line.startswith(b"data: "):
                    self.state = json.loads(line[6:])


def stretches(process: subprocess.Popen, page: Page, every: float) -> Iterator[dict]:
    """What was done in each stretch of so many seconds, until the process ends."""
    watched, before, begun = psutil.Process(process.pid), None, time.monotonic()
    while process.poll() is None:
        if page.state:
            now, cpu = time.monotonic(), sum(watched.cpu_times()[:2])
            here = {**page.state, "at": now, "cpu": cpu}
            if before and here["frames"] > before["frames"]:  # no longer once the source has ended
                spent = now - before["at"]
                done = {name: (here[name] - before[name]) / spent for name in ("frames", "dropped", "shown", "cpu")}
                yield {
                    "second": round(now - begun),
                    "faces": round(done["frames"] - done["dropped"], 1),
                    "values": round(done["shown"], 1),
                    "dropped": round(done["dropped"], 1),
                    "cores": round(done["cpu"], 2),
                    "delay": here["delay"]["median"],
                    "mebibytes": round(watched.memory_info().rss / 2**20),
                    "listens": sorted({c.laddr.ip for c in watched.net_connections() if c.status == "LISTEN"}),
                }
            before = here
        time.sleep(LEAST if before is None else every)


@click.command(help=__doc__.partition("\n")[0])
@click.argument("clip", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--every", default=30.0, show_default=True, help="Seconds of a stretch.")
@click.option("--modalities", default="visual,audio,text", show_default=True)
@click.option("--cores", default=2, show_default=True, help="Of how many it may use, where the system can say.")
@click.option("--weights-dir", type=click.Path(path_type=Path))
@click.option("--folder", type=click.Path(path_type=Path), help="Where the run is made, and found again.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Also write all of it there.")
def main(clip, minutes, every, modalities, cores, weights_dir, folder, out) -> None:
    with TemporaryDirectory(prefix="affuse-live-") as own:
        place = (folder or Path(own)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        film = place / BESIDE["clip"]
        rate = over_and_over(clip, 60 * minutes, film)
        run = make_run(place, rate, weights_dir, modalities.split(","))
        command = [sys.executable, "-m", "affuse", "watch", "--run", run, "--source", film, "--no-browser", "--json"]
        command += ["--device", "cpu", *(["--weights-dir", weights_dir.resolve()] if weights_dir else [])]
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([*map(str, command)], cwd=HERE, **pipes) as watch:
            address = next(found[0] for line in watch.stderr if (found := re.search(r"http://\S+", line)))
            said = threading.Thread(target=lambda: [click.echo(line, err=True, nl=False) for line in watch.stderr])
            said.start()
            page, rows = Page(address), []
            for row in stretches(watch, page, every):
                rows.append(row)
                click.echo("  ".join(f"{name} {value}" for name, value in row.items()))
            summary = json.loads(watch.stdout.read())
            said.join()
    facts = {"clip": clip.name, "fps": rate, "minutes": minutes, "modalities": modalities, "cores": cores}
    facts |= {"summary": summary, "stretches": rows, "page_bytes": page.bytes, "machine": environment()}
    click.echo(json.dumps(summary))
    if out:
        out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
