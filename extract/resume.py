"""What is left to extract, by the store's index: no record is opened unless all are to be verified."""

from __future__ import annotations

from collections.abc import Callable

from affuse.extract.videos import Job
from affuse.features.record import person_id
from affuse.features.store import FeatureStore


def remaining(
    jobs: list[Job],
    store: FeatureStore,
    settings_hash: str,
    retry_failed: bool = False,
    verify: bool = False,
    limit: int | None = None,
    on_look: Callable[[int], None] = lambda looked: None,
) -> tuple[dict[str, str], dict[str, str], int]:
    """The ids still to extract, each with the reason: new, or why what the store has of it does not serve; of the
    others those that failed, with why; and how many jobs were looked for, which are all unless there is a `limit` to
    what is still to extract. `on_look` hears how many so far.
    """
    reasons: dict[str, str] = {}
    failed: dict[str, str] = {}
    len(store)  # one look at what is there now, which all the jobs are asked of
    for number, job in enumerate(jobs, start=1):
        if limit is not None and len(reasons) == limit:
            return reasons, failed, number - 1
        failure = None
        try:
            reason, failure = _look(job, store, settings_hash, verify)
        except OSError as error:  # the video is not readable: extraction will say so
            reason = f"unreadable: {error.strerror or error}"
        if reason is None and retry_failed and failure:
            reason = "failed before"
        if reason is not None:
            reasons[job.id] = reason
        elif failure:
            failed[job.id] = failure
        on_look(number)
    return reasons, failed, len(jobs)


def _look(job: Job, store: FeatureStore, settings_hash: str, verify: bool) -> tuple[str | None, str | None]:
    """Why a video must be extracted (again), see `FeatureStore.examine`, of all its people, where each has a record;
    and, where it need not be, why it failed, if it did."""
    source = settings_hash, job.size, job.mtime_ns, job.digest, verify, False
    reason, first = store.examine(job.record, *source)
    people = range(2, first.people + 1) if first and job.everyone else ()
    for number in people:
        reason = reason or store.examine(person_id(job.id, number), *source)[0]
    return reason, first.failure if first else None
