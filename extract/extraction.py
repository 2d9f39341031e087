"""Videos into a feature store: settings, weights and videos found first, then the run."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from dask.system import CPU_COUNT

from affuse.config import merge, parse_assignments, read_yaml, resolve
from affuse.console import Announce, Progress
from affuse.errors import AffuseError, UsageError, counted
from affuse.extract.cluster import Security, joined, local_cluster, on_dask, tls_security
from affuse.extract.extractor import TIME_LIMIT, Extractor
from affuse.extract.networks import decided, extraction_device
from affuse.extract.placement import visible_gpus
from affuse.extract.profiles import PROFILES
from affuse.extract.run import Engine, Recipe, here, run
from affuse.extract.settings import ExtractSettings
from affuse.extract.summary import Bulletin, Receipt, Summary, describe
from affuse.extract.videos import AnyPath, Job, everyone, find_jobs
from affuse.extract.weights.supply import check_profile
from affuse.features.index import SHARDS
from affuse.features.record import Provenance
from affuse.features.store import FeatureStore

log = logging.getLogger("affuse")
LOOKS = 100  # videos between two words on how many were looked for
SAID = 20  # failures that are said as they come; all are in the log, and counted by reason at the end


def extract_settings(
    profile: str,
    config: AnyPath | None = None,
    assignments: Iterable[str] = (),
    given_faces: bool = False,
    given_transcripts: bool = False,
    views: str | None = None,
    detect_every: int | None = None,
    face: str | None = None,
    **options: Any,
) -> ExtractSettings:
    """Profile ← settings file ← `key=value` assignments ← named options. Raises UsageError naming what is wrong."""
    check_profile(profile)
    given = {"faces": "given"} if given_faces else {}
    given |= {"transcripts": "given"} if given_transcripts else {}
    given |= {"views": views} if views is not None else {}
    given |= {"detection": {"every": detect_every}} if detect_every is not None else {}
    given = merge(given, {"detection": {"face": face}} if face is not None else {})
    given |= options
    file = read_yaml(Path(config)) if config else {}
    settings = resolve(
        ExtractSettings, {"backbones": PROFILES[profile]}, file, parse_assignments(list(assignments)), given
    )
    for key, option in (("faces", "--faces-dir"), ("transcripts", "--transcripts")):
        if getattr(settings, key) == "given" and key not in given:
            raise UsageError(f"Setting {key} is 'given', but no folder was: name it with {option}.")
    return settings


@dataclass(frozen=True)
class Compute:
    """Where an extraction runs, none of which changes its features on CPU.

    device: of each process, or "auto". workers: processes, 0 for this one alone, None for one per GPU where there are
    several and videos for them, and else 0. scheduler: address of a running dask scheduler, whose workers are used
    instead. threads: per process, None for the machine's cores shared among its workers; a scheduler's workers each
    take all the cores of theirs. time_limit: how many times its length a video may take, one of less than 10 s as long
    as one of that length; more makes it a failed one.
    """

    device: str = "auto"
    workers: int | None = None
    scheduler: str | None = None
    threads: int | None = None
    tls: Security | None = None
    time_limit: float = TIME_LIMIT

    def __post_init__(self):
        for name, least in (("workers", 0), ("threads", 1)):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or number < least):
                raise UsageError(f"{name} must be a whole number, {least} or more, not {number!r}.")
        if not (isinstance(self.time_limit, int | float) and self.time_limit > 0):
            raise UsageError(f"time_limit must be a number above 0, not {self.time_limit!r}.")

    @classmethod
    def of(cls, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, **options) -> Compute:
        """From the options of the command line. Raises UsageError where they contradict each other."""
        files = (tls_ca, tls_cert, tls_key)
        scheduler, why = options["scheduler"], None
        if any(files) and not all(files):
            why = "--tls-ca, --tls-cert and --tls-key go together: give all three, or none."
        elif scheduler == "":
            why = "--scheduler has no address: give one like tcp://127.0.0.1:8786, or leave it out."
        elif scheduler and options["workers"] is not None:
            why = "--workers starts processes here, --scheduler uses those of a running one: give one."
        elif any(files) and not scheduler:
            why = "The --tls options are for --scheduler: without one nothing leaves this machine."
        if why:
            raise UsageError(why)
        return cls(**options, tls=tls_security(*files) if all(files) else None)

    @property
    def gpus(self) -> list[str]:
        """Those that workers share: all visible ones, unless the device names one. Raises UsageError for a device that
        is absent."""
        target = extraction_device(self.device)
        return visible_gpus() if target.type == "cuda" and target.index is None else []

    @property
    def processes(self) -> int:
        """Workers to be started here; 0 for this process alone."""
        many = len(self.gpus)
        return self.workers if self.workers is not None else many * (many > 1)

    @property
    def lanes(self) -> int | None:
        """Threads of each process, None for all the cores of a scheduler's workers."""
        share = max(1, CPU_COUNT // max(1, self.processes))
        return self.threads or (None if self.scheduler else share)

    def engine(self, recipe: Recipe, extractor: Extractor, store: FeatureStore, announce: Announce) -> Engine:
        """The engine that works there, begun once it is known how many videos are left."""

        def engine(left: list[Job]) -> Iterator[Receipt]:
            if self.scheduler:
                cluster = joined(self.scheduler, self.tls, announce)
            elif self.processes == 0 or (self.workers is None and len(left) == 1):
                yield from here(extractor, store)(left)
                return
            else:
                cluster = local_cluster(min(self.processes, len(left)), self.gpus, extractor.at_once)
            with cluster as client:
                yield from on_dask(client, recipe, extractor, store, bool(self.scheduler))(left)

        return engine


HERE = Compute()


def extract_videos(
    videos: AnyPath | Iterable[AnyPath],
    out: AnyPath,
    *,
    profile: str = "paper",
    config: AnyPath | None = None,
    weights_dir: AnyPath | None = None,
    allow_untrained: bool = False,
    faces_dir: AnyPath | None = None,
    transcripts: AnyPath | None = None,
    views: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    time_limit: float = TIME_LIMIT,
    retry_failed: bool = False,
    verify: bool = False,
    announce: Announce = lambda text: None,
    progress: Progress = lambda line, failure, last: None,
    **settings: Any,
) -> FeatureStore:
    """Extract `videos`, a folder, a file or several of these, into the store at `out`; what it has already is kept.

    settings: those of `ExtractSettings`, over the profile and the file `config`: `detection={"every": 1}`,
    `modalities=["visual", "audio"]`. All else is as the options of `affuse extract`, see `Compute` for where it runs.
    A video that fails is a warning of the logger "affuse"; one that could not be decoded is in the store's `failed`.
    Raises UsageError and AffuseError for what stops the whole run.
    """
    given = faces_dir is not None, transcripts is not None
    resolved = extract_settings(profile, config, (), *given, views, **settings)
    summary, _ = extract_jobs(
        find_jobs(videos, faces_dir, transcripts),
        out,
        resolved,
        weights_dir=weights_dir,
        allow_untrained=allow_untrained,
        compute=Compute(device, workers, scheduler, threads, time_limit=time_limit),
        retry_failed=retry_failed,
        verify=verify,
        announce=announce,
        progress=progress,
    )
    for video_id, why in summary.failed.items():
        log.warning("%s failed: %s", video_id, why)
    store = FeatureStore(out, create=True)
    if summary.failed and not len(store):
        video_id, why = next(iter(summary.failed.items()))
        many = counted(len(summary.failed), "video")
        raise AffuseError(f"Nothing could be extracted of {many}; {video_id}: {why}")
    return store


def extract_jobs(
    jobs: list[Job],
    out: AnyPath,
    settings: ExtractSettings,
    *,
    weights_dir: AnyPath | None = None,
    allow_untrained: bool = False,
    compute: Compute = HERE,
    retry_failed: bool = False,
    verify: bool = False,
    limit: int | None = None,
    announce: Announce = lambda text: None,
    progress: Progress = lambda line, failure, last: None,
    accept: Callable[[Provenance], None] = lambda provenance: None,
) -> tuple[Summary, Provenance]:
    """Extract those of the videos that the store at `out` does not hold already, of these the first `limit`; with
    `verify`, what it holds is read from end to end first.

    announce hears what is about to happen, progress of every video. `accept` may raise, before anything is extracted,
    where the features would not be of the kind wanted. Raises UsageError and AffuseError for what stops the whole run;
    a video that fails is in the summary.
    """
    weights = Path(weights_dir).absolute() if weights_dir else None
    begun = None if isinstance(out, AnyPath) and not Path(out, SHARDS).is_dir() else FeatureStore(out, create=True)
    settings = decided(settings, extraction_device(compute.device), begun)
    recipe = Recipe(settings, weights, allow_untrained, compute.device, compute.lanes, compute.time_limit)
    if settings.detection.face == "all" and "visual" in settings.modalities:
        jobs = everyone(jobs)
    extractor = recipe.extractor()
    provenance = extractor.provenance
    accept(provenance)
    store = FeatureStore(out, create=True)
    if provenance.untrained:
        log.warning(
            "untrained, seeded backbones: %s; the store says so, and so will every command that reads it",
            ", ".join(provenance.untrained),
        )

    def look(looked: int) -> None:
        if looked % LOOKS == 0:
            progress(f"looking at what is there: {looked} of {len(jobs)}", None, False)

    def start(reasons: Counter[str]) -> None:
        why = "; ".join(f"{n} {reason}" for reason, n in reasons.items())
        todo = reasons.total()
        if todo and path:
            announce(f"Log: {path}")
        announce(f"{counted(len(jobs), 'video')}, {todo} to extract" + (f" ({why})." if why else ": nothing to do."))

    def done(receipt: Receipt, summary: Summary) -> None:
        log.info("%s: %s", receipt.id, receipt.failure or receipt.statuses)
        if receipt.details:
            log.info("%s", receipt.details)
        said = receipt.failure and summary.reasons.total() <= SAID
        failure = f"{receipt.id}: {receipt.failure}" if said else None
        progress(summary.line, failure, summary.done == summary.todo)
        bulletin.tell(summary)

    engine = compute.engine(recipe, extractor, store, announce)
    with logged(store.path / "logs") as path:
        bulletin = Bulletin(path and path.with_suffix(".jsonl"))
        summary = run(jobs, store, provenance.settings_hash, engine, start, done, retry_failed, verify, limit, look)
        log.info("%s", describe(summary))
    return summary, provenance


@contextmanager
def logged(folder: Path) -> Iterator[Path | None]:
    """All that affuse has to say goes to a new file in `folder` too, with the time, and what stops the run. Where none
    can be written, a warning says so and the run goes on without."""
    path = folder / f"extract-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{os.getpid()}.log"
    try:
        folder.mkdir(exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        log.warning("no log is kept, %s cannot be written: %s", path, error.strerror or error)
        yield None
        return
    handler.handleError = lambda record: None  # a full disk: the run says so where it matters
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield path
    except AffuseError as error:
        log.info("%s", error)
        raise
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        with suppress(OSError):
            handler.close()
