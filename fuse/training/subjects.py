"""People whom a model knows: how far off it was on their training videos is taken off what it says of their others.

The offset of a subject with n training videos is Σ_v mean(truth − prediction in v) / (n + 1): the mean of his videos,
shrunk as if one more had shown none: the best linear guess where people differ as much as the videos of one do.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from affuse.errors import UsageError, first_line
from affuse.fuse.data.corpus import Corpus
from affuse.fuse.scoring.estimate import Estimate
from affuse.fuse.scoring.evaluate import pairs

log = logging.getLogger("affuse")


def read_subjects(path: Path | str) -> dict[str, str]:
    """{video: subject} of a CSV with these two columns. Raises UsageError for a file that is none."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return dict(zip(table["video"], table["subject"], strict=True))
    except (OSError, ValueError, KeyError) as error:
        why = f"{first_line(error)}. Give a CSV with the columns video and subject"
        raise UsageError(f"Table of subjects {path} cannot be read: {why}.") from None


def offsets(training: Corpus, estimate: Estimate, validation: Corpus, subjects: dict[str, str]) -> dict[str, list]:
    """{video: offset of each target}, of all videos of the subjects that have training videos. A warning says so where
    none of the validation videos is among them."""
    errors: dict[str, list[np.ndarray]] = {}
    for video, (truth, predicted) in pairs(training, estimate.values).items():
        if video in subjects:
            errors.setdefault(subjects[video], []).append((truth - predicted).mean(axis=0))
    known = {subject: (np.sum(found, axis=0) / (len(found) + 1)).tolist() for subject, found in errors.items()}
    if not known.keys() & {subjects.get(video) for video in validation.videos}:
        log.warning("no validation video is of a subject with training videos: what `subjects` is worth is not seen")
    return {video: known[subject] for video, subject in subjects.items() if subject in known}
