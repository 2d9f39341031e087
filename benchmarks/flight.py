"""What dask itself costs: tasks that do nothing, handed by the real code to the workers of a local scheduler,
which lives in this process: its memory and CPU time are those of scheduler and client.

    python benchmarks/flight.py --json benchmarks/flight-cpu.json
"""

from __future__ import annotations

import gc
import json
import time
from datetime import date
from pathlib import Path

import click
import distributed
import psutil
from distributed import get_worker

from affuse.extract.cluster import local_cluster
from affuse.extract.flight import Flight, Orders, told
from affuse.extract.summary import Receipt, Summary
from affuse.extract.videos import Job
from affuse.features.parts import MODALITIES

MIB = 2**20


def nothing(job: Job, orders: str) -> Receipt:
    """Of a video that is done at once, with a receipt of the usual size."""
    assert orders in get_worker().plugins
    seconds = dict.fromkeys(("decode", "detect", "crop", "visual", "audio", "speech", "text"), 1.2345)
    return Receipt(job.id, None, 300, 10.0, dict.fromkeys(MODALITIES, "ok"), seconds)


def measure(tasks: int, workers: int, every: int) -> list[dict]:
    """Time and memory at the first task that is done, and after every so many."""
    jobs = [Job(f"day/clip{n:06d}", f"day/clip{n:06d}.mp4", Path(f"/videos/day/clip{n:06d}.mp4")) for n in range(tasks)]
    process, summary, rows = psutil.Process(), Summary(todo=tasks), []
    with local_cluster(workers, [], 1) as client:
        client.wait_for_workers(workers)
        with told(client, Orders(None, Path("/store"), None)) as name:
            begin, before = time.perf_counter(), sum(process.cpu_times()[:2])
            for job, receipt in Flight(client, jobs, nothing, name):
                summary.add(receipt, job, 1000)
                if summary.done == 1 or summary.done % every == 0:
                    seconds = time.perf_counter() - begin
                    gc.collect()
                    cpu = sum(process.cpu_times()[:2]) - before
                    mib = process.memory_info().rss / MIB
                    rows.append({"done": summary.done, "seconds": seconds, "cpu_seconds": cpu, "mib": mib})
                    click.echo(rows[-1], err=True)
    return rows


@click.command()
@click.option("--tasks", default=20_000, show_default=True)
@click.option("--workers", default=4, show_default=True)
@click.option("--every", default=2_000, show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), help="File for the numbers.")
def main(tasks: int, workers: int, every: int, out: Path | None) -> None:
    rows = measure(tasks, workers, every)
    facts = {
        "date": str(date.today()),
        "tasks": tasks,
        "workers": workers,
        "ms_per_task": 1000 * rows[-1]["seconds"] / tasks,
        "cpu_ms_per_task": 1000 * rows[-1]["cpu_seconds"] / tasks,
        "mib_grown": rows[-1]["mib"] - rows[1]["mib"],
        "load_average": psutil.getloadavg()[2],  # of 15 minutes; above the cores, others had a share of them
        "cores": psutil.cpu_count(),
        "every": rows,
        "distributed": distributed.__version__,
    }
    text = json.dumps(facts, indent=2)
    if out:
        out.write_text(text + "\n")
    click.echo(text)


if __name__ == "__main__":
    main()
