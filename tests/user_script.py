"""A user's script as mypy reads it, strictly: the public face has types. It is never run."""

from __future__ import annotations

from pathlib import Path

import affuse

store: affuse.FeatureStore = affuse.extract_videos(
    Path("videos"), "store", modalities=["visual"], detection={"every": 1}
)
ids: list[str] = store.ids
failed: dict[str, str] = store.failed
rows: int = len(store.table())
video = store[ids[0]]
frames: int = len(video.to_frame(embeddings=True).columns)
aligned = affuse.align(video, video.visual.time, affuse.MODALITIES)
width: int = aligned["visual"][0].shape[1]
settings = affuse.train_settings(model="rjcma")
window: int = settings.window
run: affuse.Run = affuse.train(store, "labels", "run", model="rjcma")
result: affuse.Predictions = run.predict("clip.mp4")
predicted: affuse.Prediction = result["clip"]
columns: int = len(predicted.frame.columns)
result["clip"].plot().savefig("clip.png")
scores: dict = run.evaluate(store, "labels")
table: str = affuse.compare(store, "labels", "compared", "rjcma,concat", seeds=[0, 1]).text
again: affuse.Run = affuse.load_run(Path("run"))
both: affuse.Run = affuse.load_run(["run", Path("other")])
per_second: int = len(predicted.smoothed(1).every(1.0))
version: str = affuse.__version__
try:
    affuse.FeatureStore("nowhere")
except affuse.UsageError as error:
    code: int = error.exit_code
