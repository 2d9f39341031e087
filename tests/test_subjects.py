"""People whom a model knows: their level is learned from their training videos, and nobody else's is touched."""

import numpy as np
import pandas as pd
import pytest

import tiny
from affuse import fuse
from affuse.errors import UsageError

LEVEL = 0.3  # by which the ratings of one subject are higher than his features say


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Videos of four subjects, of whom "high" is rated higher than he looks, in training and in validation."""
    folder = tmp_path_factory.mktemp("subjects")
    store, labels = tiny.make_data(folder, 6, 4)
    paths = {p.relative_to(labels / part).with_suffix("").as_posix(): p
             for part in ("train", "validation") for p in (labels / part).rglob("*.txt")}  # fmt: skip
    rows = []
    for i, (video, path) in enumerate(sorted(paths.items())):
        subject = "high" if i % 2 else ("new" if "validation" in path.parts else "low")
        rows.append([video, subject])
        if subject == "high":
            table = pd.read_csv(path)
            ((0.5 * table + LEVEL).where(table > -5, -5)).to_csv(path, index=False)
    pd.DataFrame(rows, columns=["video", "subject"]).to_csv(folder / "videos.csv", index=False)
    return store, labels, folder / "videos.csv", dict(rows)


def test_a_known_subject_is_met_at_his_level(data, tmp_path):
    store, labels, table, subjects = data
    settings = {"gaps": "mask", "epochs": 12, "loss": "ccc-batch"}
    plain = fuse.train(store, labels, tmp_path / "plain", tiny.small(**settings))
    fuse.train(store, labels, tmp_path / "own", tiny.small(**settings, subjects=str(table)))
    run, without = fuse.load_run(tmp_path / "own"), fuse.load_run(tmp_path / "plain")
    known = {video for video, subject in subjects.items() if subject != "new"}
    assert set(run.offsets) == known
    assert len({tuple(offset) for offset in run.offsets.values()}) == 2
    made, other = run.predict(store), without.predict(store)
    for video, subject in subjects.items():
        expected = other[video].values + np.array(run.offsets[video] if subject != "new" else 0)
        np.testing.assert_allclose(made[video].values, expected.clip(-1, 1), atol=1e-12)
    shown = run.explain(store)["set/v1"]
    np.testing.assert_allclose(shown["valence"], made["set/v1"].values[:, 0])
    scored = run.evaluate(store, labels)["ccc"]
    assert scored == pytest.approx(run.best["ccc"])
    assert scored["mean"] > plain["best"]["ccc"]["mean"]


def test_an_offset_is_the_mean_error_of_his_videos_shrunk_by_one(data, tmp_path):
    store, labels, table, subjects = data
    fuse.train(store, labels, tmp_path / "run", tiny.small(gaps="mask", epochs=2, subjects=str(table)))
    run = fuse.load_run(tmp_path / "run")
    corpus, (values, _) = fuse.load_run(tmp_path / "run").predict_partition(store, labels, "train")
    errors = {}
    for i, video in enumerate(corpus.videos):
        own = corpus.frames(i)
        counted = corpus.annotated[own].numpy()
        before = values[own] - run.offsets[video]
        errors.setdefault(subjects[video], []).append((corpus.truth[own].numpy() - before)[counted].mean(0))
    for video, offset in run.offsets.items():
        found = errors[subjects[video]]
        np.testing.assert_allclose(offset, np.sum(found, 0) / (len(found) + 1), atol=1e-6)


def test_strangers_alone_and_tables_that_are_none_are_said(data, tmp_path, caplog):
    store, labels, _, subjects = data
    strangers = tmp_path / "strangers.csv"
    pd.DataFrame({"video": list(subjects), "subject": list(subjects)}).to_csv(strangers, index=False)
    fuse.train(store, labels, tmp_path / "run", tiny.small(epochs=1, subjects=str(strangers)))
    assert "no validation video is of a subject with training videos" in caplog.text
    for i, text in enumerate((None, "", "video,who\na,b\n")):
        file = tmp_path / f"{i}.csv"
        if text is not None:
            file.write_text(text)
        with pytest.raises(UsageError, match="columns video and subject"):
            tiny.small(subjects=str(file))


def test_another_table_is_another_setting(data, tmp_path):
    store, labels, table, _ = data
    file = tmp_path / "videos.csv"
    file.write_bytes(table.read_bytes())
    fuse.train(store, labels, tmp_path / "run", tiny.small(epochs=1, subjects=str(file)))
    file.write_text(file.read_text().replace("low", "high"))
    with pytest.raises(UsageError, match="other settings"):
        fuse.train(store, labels, tmp_path / "run", tiny.small(epochs=1, subjects=str(file)))
