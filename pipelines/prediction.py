"""A run that takes videos: their features are made exactly as those it was trained on, then it predicts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from affuse.config import resolve
from affuse.console import Announce, Progress
from affuse.errors import AffuseError, UsageError
from affuse.extract.extraction import HERE, Compute, extract_jobs
from affuse.extract.settings import ExtractSettings
from affuse.extract.videos import AnyPath, Job, find_jobs
from affuse.features.index import SHARDS
from affuse.features.record import Provenance
from affuse.features.store import FeatureStore
from affuse.files import as_path
from affuse.fuse.data.corpus import Features, as_store
from affuse.fuse.data.fingerprint import fingerprint
from affuse.fuse.scoring.predict import Prediction, Predictions, check_names, check_spans
from affuse.fuse.training import loading, saving
from affuse.fuse.training import run as trained
from affuse.fuse.training.checkpoint import RunFolder
from affuse.fuse.training.ensemble import train_seeds
from affuse.fuse.training.outputs import Outputs
from affuse.fuse.training.settings import TrainSettings, as_settings
from affuse.fuse.training.train import train as train_run
from affuse.pipelines.film import draw_film
from affuse.pipelines.subtitles import write_track

log = logging.getLogger("affuse")


class Run(trained.Run):
    """A trained model: it predicts on videos or features, evaluates and explains on features."""

    def predict(
        self,
        source: Features | Iterable[AnyPath],
        ids: Iterable[str] | None = None,
        device: str = "auto",
        stream: bool = False,
        *,
        keep: AnyPath | None = None,
        weights_dir: AnyPath | None = None,
        announce: Announce = lambda text: None,
        progress: Progress = lambda line, failure, last: None,
    ) -> Predictions:
        """Predict on a video file, a folder of them, a list of either, or a store (or its path); of `ids` only, where
        they are named.

        Videos are extracted with the run's own settings into a store below the folder `keep`, so that a second call
        is quick, or into none that lasts. What has another frame rate than the run is read at the run's, and predicted
        on its own frames; stream: as for a store. Raises UsageError where the run was trained on features that videos
        alone cannot give, AffuseError where the weights here are not the run's; a video that fails is in `failed`.
        """
        if isinstance(source, FeatureStore) or (isinstance(source, AnyPath) and Path(source, SHARDS).is_dir()):
            return super().predict(source, ids, device, stream)
        with TemporaryDirectory(prefix="affuse-") if keep is None else nullcontext(keep) as folder:
            told = {"weights_dir": weights_dir, "announce": announce, "progress": progress}
            store, there, failed = self.extract(find_jobs(source), Path(folder), Compute(device), **told)
            wanted = there if ids is None else ids
            made = super().predict(store, wanted, device, stream) if there else Predictions({})
            return Predictions(made, {**failed, **made.failed})

    def extract(
        self, jobs: list[Job], keep: Path, compute: Compute, **how: Any
    ) -> tuple[FeatureStore, dict[str, Path], dict[str, str]]:
        """The store of the videos' features below `keep`, {id: its file} of those in it, and {id: why} of the others;
        how: weights_dir, announce and progress of `extract_jobs`."""
        settings = self.extraction()
        out = keep / self.provenance.settings_hash[:12]

        summary, _ = extract_jobs(
            jobs, out, settings, allow_untrained=bool(self.provenance.untrained), compute=compute,
            retry_failed=True, accept=self.accept, **how,
        )  # fmt: skip
        store = FeatureStore(out, create=True)
        made = [job for job in jobs if job.id not in summary.failed]
        return store, {own: job.path for job in made for own in store.of(job.id)}, summary.failed

    def extraction(self, **changes: Any) -> ExtractSettings:
        """The settings that make features of videos as those it was trained on, and changes of them. Raises UsageError
        where videos alone cannot give such features."""
        try:
            made = {key: value for key, value in self.provenance.settings.items() if key not in ("resample", "live")}
            settings = resolve(ExtractSettings, made, changes, {"views": "centre"})
        except UsageError as error:
            log.debug("settings of the run's features: %s", error)
            raise UsageError(
                f"The run {self.path} was trained on features that `affuse extract` does not make. Use `affuse fuse "
                "predict --features` with features of the same kind."
            ) from None
        for given, option in ((settings.faces, "face crops"), (settings.transcripts, "transcripts")):
            if given == "given":
                raise UsageError(
                    f"The run {self.path} was trained on features from given {option}. Extract the new videos with "
                    "`affuse extract` and the same settings, then use `affuse fuse predict --features`."
                )
        return settings

    def accept(self, provenance: Provenance) -> None:
        """Raise AffuseError, saying how they would differ, unless features made so are as those it was trained on."""
        if differences := self.differences(provenance):
            raise AffuseError(
                f"Features made here would not be as those that {self.path} was trained on: {differences}. Give "
                "the run's weights with --weights-dir, or train again with these."
            )


def load_run(path: AnyPath | Iterable[AnyPath]) -> Run:
    """The finished run in a folder; of several folders one, which predicts the mean over their models, and how far off
    it may be. Raises AffuseError where there is none, UsageError where they do not go together."""
    return Run(**vars(loading.load_run(path)))


def train(
    features: Features,
    labels: AnyPath,
    out: AnyPath,
    *,
    settings: TrainSettings | None = None,
    seeds: Iterable[int] = (),
    on_epoch: Callable[[dict], None] | None = None,
    jobs: int | None = 1,
    **options: Any,
) -> Run:
    """Train a model on a store (or its path) and a folder of labels; the run is kept in `out`. With seeds it is one run
    of as many models, which predict together and say how sure they are; jobs of them are trained at the same time, as
    `affuse.compare` has it.

    settings, or any of TrainSettings by name: model="rjcma", preset="affuse", seed=0, epochs=20 … A run that was
    stopped goes on; one that is finished with these settings on these data is taken as it is. Raises UsageError for
    settings that cannot be or a folder that is taken, AffuseError for data that do not fit.
    """
    if settings is not None and options:
        raise UsageError(f"Give settings, or options by name ({', '.join(options)}), not both.")
    store, chosen, seeds = as_store(features), as_settings(settings or options), list(seeds)
    if seeds:
        train_seeds(store, labels, out, seeds, chosen, on_epoch, jobs)
        return load_run(out)
    data = fingerprint(store, labels, chosen.split)
    if not RunFolder(as_path("a folder for the run", out)).check(chosen, data):
        train_run(store, labels, out, chosen, on_epoch)
    return load_run(out)


def apart(outputs: Outputs, jobs: list[Job]) -> list[Job]:
    """The videos, but for annotated ones that an earlier call has left in the folder. Raises UsageError where others
    lie in it: what is made of them would be mixed with what is theirs."""
    films = {outputs.file(job.id, "video").resolve() for job in jobs if outputs.begun}
    given = [job for job in jobs if job.path.resolve() not in films]
    if mixed := next((job.path for job in given if job.path.resolve().parent == outputs.folder.resolve()), None):
        raise UsageError(f"{mixed} lies in the folder for predictions of it. Choose another folder for --out.")
    return given


def predict_videos(
    run: AnyPath | Iterable[AnyPath],
    videos: AnyPath | Iterable[AnyPath],
    out: Path,
    compute: Compute = HERE,
    smooth: float = 0.0,
    every: float | None = None,
    vtt: bool = False,
    video: bool = False,
    stream: bool = False,
    **how: Any,
) -> dict:
    """Predict on videos, each saved in `out` as soon as it is made; their features are kept in `<out>/features`. vtt:
    with a WebVTT track of the words; video: with an annotated MP4. What of these cannot be made is left out, with a
    warning. compute: where features are made; the model runs in this process, on the same device.

    Gives what fuse.predict does, and raises as it and `Run.predict` do; how: weights_dir, announce and progress of it.
    """
    check_spans(smooth, every, stream)
    loaded, places = load_run(run), [videos] if isinstance(videos, AnyPath) else list(videos)
    if store := next((place for place in places if Path(place, SHARDS).is_dir()), None):
        raise UsageError(
            f"{store} is a feature store, not a folder of videos. Predict on its videos with `affuse fuse predict "
            f"--run {loaded.path} --features {store} --out {out}`."
        )
    jobs = find_jobs(places)
    outputs = Outputs(out, loaded, smooth=smooth, every=every, stream=stream)  # refused before anything is extracted
    jobs = apart(outputs, jobs)
    check_names(job.id for job in jobs)
    if vtt and not loaded.provenance.width("text"):
        raise UsageError(f"The run {loaded.path} takes no words, so there are none for --vtt. Leave it out.")
    store, there, failed = loaded.extract(jobs, out / "features", compute, **how)

    def beside(made: Prediction) -> dict:
        files = {}
        try:
            if vtt:
                track = outputs.file(made.id, "vtt")
                write_track(track, store.read(made.id, ["text"]).text, made)
                files["vtt"] = str(track)
            if video:
                film = outputs.file(made.id, "video")
                draw_film(film, there[made.id], store.read(made.id, ["visual", "text"]), made)
                files["video"] = str(film)
        except AffuseError as error:
            log.warning("beside the table of %s something is missing: %s", made.id, error)
        return files

    return saving.predict(
        loaded, store, out, there, compute.device,
        smooth=smooth, every=every, failed=failed, beside=beside, stream=stream,
    )  # fmt: skip
