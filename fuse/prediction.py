"""Apply a finished run to videos that have features and no labels: one CSV and one figure for each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from features import FeatureStore
from features.config import nearest
from features.device import pick_device
from features.errors import AffuseError, UsageError
from fuse import report
from fuse.data import Windows, load_corpus
from fuse.evaluation import predict_frames
from fuse.run import Run, file_name, load_run, write_predictions


def predict(
    run: Path | Run,
    store: Path | FeatureStore,
    out: Path,
    ids: Iterable[str] | None = None,
    device: str = "auto",
    figures: bool = True,
) -> dict:
    """Write `<out>/<video>.csv` (time, targets, valid) and a figure for every video of the store, or those in
    `ids`.

    One video is in memory at a time. Gives {"written": {id: {"csv", "figure", "frames", "valid"}}, "failed":
    {id: why}}; a video without any of the run's modalities fails and the others go on. Raises AffuseError for
    features made otherwise than the run's, UsageError for an id that the store does not have.
    """
    run = run if isinstance(run, Run) else load_run(run)
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    run.check_features(store)
    ids = list(store.ids if ids is None else ids)
    if unknown := [video for video in ids if video not in store]:
        raise UsageError(
            f"Video {unknown[0]!r} is not in the store {store.path}{nearest(unknown[0], store.ids)}"
        )
    target, out = pick_device(device), Path(out)
    model, normalisation = run.model.to(target), run.normalisation.to(target)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"Output folder {out} cannot be made: {error.strerror}.") from None
    written, failed = {}, {}
    for video in ids:
        try:
            corpus = load_corpus(store, [video], run.settings.modalities, list(model.targets), device=target)
        except AffuseError as error:
            failed[video] = str(error)
            continue
        windows = Windows(corpus, run.settings.window, run.settings.hop, normalisation)
        prediction = predict_frames(model, windows, run.settings.batch, run.settings.precision)
        present = corpus.any_present().cpu().numpy()
        table, figure = (out / f"{file_name(video)}.{kind}" for kind in ("csv", "png"))
        write_predictions(table, corpus.time, corpus.targets, prediction, present)
        if figures:
            report.traces(figure, video, corpus.time, corpus.targets, prediction, present)
        written[video] = {
            "csv": str(table),
            "figure": str(figure) if figures else None,
            "frames": len(present),
            "valid": int(present.sum()),
        }
    return {"written": written, "failed": failed}
