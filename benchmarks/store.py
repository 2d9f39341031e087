"""What a large store costs to ask: a synthetic one of many small records; the time of the first look at it, of a run
with nothing to do, of `affuse features info`, and of one video more.

    python benchmarks/store.py OUT --records 200000 --json benchmarks/store.json

Every record is a whole shard with an id, digests and a seal of its own, of a video that is there: the first is written
as all are, the others are its bytes with what differs put in. A sample of them is verified.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import click
import h5py
from tqdm import tqdm

from affuse.extract.extraction import HERE, extract_settings
from affuse.extract.extractor import Extractor
from affuse.extract.networks import decided, extraction_device
from affuse.extract.rehearsal import write_clip
from affuse.extract.run import Recipe
from affuse.features import FeatureStore, Source
from affuse.features.entry import Entry
from affuse.features.index import SHARDS
from affuse.features.layout import shard_path
from affuse.features.record import VideoFeatures, canonical
from affuse.features.seal import write_seal
from affuse.features.shard import _describe

SOUND = ("--profile", "offline", "--allow-untrained", "--set", "modalities=[audio]")
FIRST = "v00000000"  # all ids are as long
CONTENT = b"no video, but the source of a record\n"


def extractor() -> Extractor:
    """What `affuse extract` with SOUND makes."""
    settings = decided(extract_settings("offline", modalities=["audio"]), extraction_device("auto"))
    return Recipe(settings, None, True, "auto", HERE.lanes).extractor()


class Copier:
    """Makes shards out of one that is there, which differ in id and source alone."""

    def __init__(self, path: Path):
        self.data = path.read_bytes()
        seal = json.loads(self.data.split(b"\n")[1])
        self.seal, self.entry = seal, Entry.from_row(seal["entry"])
        with h5py.File(path, "r") as file:
            self.described = canonical(_describe(file))
            self.digests = [json.loads(file.attrs[name]) for name in ("features_digest", "digest")]
            self.local = json.loads(file.attrs["local"])

    def __call__(self, video_id: str) -> bytes:
        features = hashlib.sha256(self.described.replace(FIRST, video_id).encode()).hexdigest()
        digests = features, hashlib.sha256(canonical([features, self.local]).encode()).hexdigest()
        data = self.data.replace(FIRST.encode(), video_id.encode())
        for old, new in zip(self.digests, digests, strict=True):
            data = data.replace(old.encode(), new.encode())
        file = io.BytesIO(data)
        file.write(bytes(self.seal["start"]))
        source = replace(self.entry.source, name=f"{video_id}.mp4")
        entry = replace(self.entry, id=video_id, source=source, features_digest=features)
        write_seal(file, entry, *(self.seal[name] for name in ("start", "data", "arrays")))
        return file.getvalue()


def make(out: Path, records: int) -> int:
    """The videos and the store of them; bytes of a record."""
    videos, store = out / "videos", FeatureStore(out / "store", create=True)
    videos.mkdir()
    source = Source(f"{FIRST}.mp4", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), 10**18)
    made = extractor().provenance
    record = VideoFeatures.undecodable(FIRST, source, "a clip of two seconds", made)
    store.write(replace(record, duration=2.0), made)
    copier = Copier(store.shard(FIRST))
    for number in tqdm(range(records), "records"):
        video_id = f"v{number:08d}"
        video = videos / f"{video_id}.mp4"
        video.write_bytes(CONTENT)
        os.utime(video, ns=(10**18, 10**18))
        if video_id != FIRST:
            path = store.path / SHARDS / shard_path(video_id)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(copier(video_id))
    verification = store.verify(200 / records if records > 200 else 1.0)
    assert not verification.problems, verification.problems[:3]
    return len(copier.data)


USED = """
import resource, sys
from affuse.commands import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print("used", used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)
"""


def timed(*arguments: object) -> tuple[dict[str, float], str]:
    """What an affuse command takes, and what it says."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", USED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    processor, peak = map(float, re.findall(r"used (\S+) (\S+)", done.stderr)[-1])
    taken = {"seconds": seconds, "processor_seconds": processor, "gib": peak / 2**20}
    return {what: round(number, 2) for what, number in taken.items()}, done.stdout + done.stderr


def measure(out: Path) -> dict[str, dict]:
    """{what: `timed`}"""
    run, facts = ("extract", "--video-dir", out / "videos", "--out", out / "store", *SOUND), {}

    def note(what: str, told: tuple[dict[str, float], str]) -> str:
        facts[what], said = told
        click.echo(f"{what}: {facts[what]}")
        return said

    assert "nothing to do" in note("first look, nothing to do", timed(*run))
    assert "nothing to do" in note("nothing to do", timed(*run))
    note("info", timed("features", "info", out / "store"))
    note("info --json", timed("features", "info", out / "store", "--json"))
    alone = out / "alone"
    alone.mkdir()
    write_clip(alone / "new.mp4")
    shutil.copy(alone / "new.mp4", out / "videos" / "new.mp4")
    note("one video alone", timed("extract", "--video-dir", alone, "--out", out / "one", *SOUND))
    assert "1 to extract" in note("one video more", timed(*run))
    note("info after it", timed("features", "info", out / "store"))
    return facts


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--records", default=200_000, show_default=True)
@click.option("--json", "result", type=click.Path(path_type=Path), help="Where to write the result.")
def main(out: Path, records: int, result: Path | None) -> None:
    """Make a store in OUT, ask it, and take it away again."""
    out.mkdir(parents=True)
    size = make(out, records)
    click.echo(f"{records} records of {size} bytes")
    facts = {"records": records, "bytes": size, "cpus": os.cpu_count(), "measured": measure(out)}
    facts["index_bytes"] = sum(file.stat().st_size for file in (out / "store" / "index").iterdir())
    if result:
        result.write_text(json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
