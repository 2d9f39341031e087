"""Features of a store for other programs: equal bytes, formats, names, what is refused."""

import pickle

import numpy as np
import pytest

from affuse.features import AffuseError, FeatureStore, UsageError, align
from affuse.features.exporting import export_features
from affuse.features.importing import Layout, import_features
from builders import provenance as made
from builders import random_video

RATE = {"visual": 25, "audio": 25, "text": 25}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


@pytest.fixture
def store(tmp_path):
    store = FeatureStore(tmp_path / "made", create=True)
    for seed, name in enumerate(("a", "set/b.c", "no words")):
        store.write(random_video(name, 30 + seed, words=4 * (seed < 2), seed=seed), made())
    return store


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_export_import_export_gives_the_same_bytes(store, tmp_path):
    result = export_features(store, tmp_path / "one", "npz")
    assert result == {"videos": 3, "files": 8}
    import_features(tmp_path / "one", tmp_path / "store")
    export_features(FeatureStore(tmp_path / "store"), tmp_path / "two", "npz")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert sorted(one) == ["audio/a.npz", "audio/no words.npz", "audio/set/b.c.npz", "text/a.npz", "text/set/b.c.npz",
                           "visual/a.npz", "visual/no words.npz", "visual/set/b.c.npz"]  # fmt: skip
    assert one == two
    imported = FeatureStore(tmp_path / "store")
    assert imported["a"].transcript == store["a"].transcript
    np.testing.assert_array_equal(imported["a"].visual.box, store["a"].visual.box)


@pytest.mark.parametrize("kind", ["abaw3", "parquet"])
def test_an_imported_store_exports_the_same_bytes_in_the_other_formats(store, tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    export_features(store, tmp_path / "npz", "npz")
    import_features(tmp_path / "npz", tmp_path / "store")
    export_features(store, tmp_path / "one", kind)
    export_features(FeatureStore(tmp_path / "store"), tmp_path / "two", kind)
    assert len(contents(tmp_path / "one")) >= 8
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_files_of_the_abaw3_code_come_back_as_the_same_bytes(store, tmp_path):
    """Its rows are the frames: a file per modality, moved to where `import` looks, and the frames' rate."""
    export_features(store, tmp_path / "one", "abaw3")
    for name in store.ids:
        for m, file in (("visual", "visual"), ("audio", "vggish"), ("text", "bert")):
            save(tmp_path / "in" / m / f"{name}.npy", np.load(tmp_path / "one" / name / f"{file}.npy"))
    import_features(tmp_path / "in", tmp_path / "store", Layout(rates=RATE))
    export_features(FeatureStore(tmp_path / "store"), tmp_path / "two", "abaw3")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_features_without_pictures_come_back_too(tmp_path):
    x = np.ones((8, 2))
    x[5] = np.nan
    save(tmp_path / "in/audio/a.npy", x)
    import_features(tmp_path / "in", tmp_path / "first", Layout(rates={"audio": 10}))
    export_features(FeatureStore(tmp_path / "first"), tmp_path / "one", "npz")
    import_features(tmp_path / "one", tmp_path / "second")
    export_features(FeatureStore(tmp_path / "second"), tmp_path / "two", "npz")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    np.testing.assert_allclose(FeatureStore(tmp_path / "second").frame_times("a"), np.arange(8) / 10)


def test_the_layout_of_the_abaw3_code(store, tmp_path):
    export_features(store, tmp_path / "out", "abaw3")
    info = pickle.loads((tmp_path / "out/dataset_info.pkl").read_bytes())
    assert info["trial"] == store.ids
    assert info["length"] == [len(store.frame_times(v)) for v in store.ids]
    for name in store.ids:
        aligned = align(store[name], store.frame_times(name))
        for m, file in (("visual", "visual"), ("audio", "vggish"), ("text", "bert")):
            rows = np.load(tmp_path / "out" / name / f"{file}.npy")
            assert rows.dtype == np.float32
            np.testing.assert_array_equal(rows, aligned[m][0].astype(np.float32))


def test_parquet_has_a_column_for_every_feature_or_says_what_is_missing(store, tmp_path, monkeypatch):
    try:
        import pandas as pd
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match=r"pip install 'affuse\[parquet\]'"):
            export_features(store, tmp_path / "out", "parquet")
        return
    export_features(store, tmp_path / "out", "parquet")
    table = pd.read_parquet(tmp_path / "out/visual/a.parquet")
    np.testing.assert_array_equal(table["visual_3"], store["a"].visual.embedding[:, 3].astype(np.float32))
    assert list(table.columns[:3]) == ["time", "valid", "confidence"]


@pytest.mark.parametrize("video_id", ["x" * 251, "\N{GRINNING FACE}" * 62, "y" * 251 + "/" + "x" * 251])
def test_a_name_as_long_as_any_file_system_takes_is_exported(tmp_path, video_id):
    store = FeatureStore(tmp_path / "made", create=True)
    store.write(random_video(video_id, 5), made())
    assert export_features(store, tmp_path / "out", "npz")["files"] == 3
    assert (tmp_path / "out" / "audio" / f"{video_id}.npz").stat().st_size


def test_a_name_that_is_too_long_stops_the_export_before_anything_is_written(store, tmp_path):
    store.write(random_video("zz" + "x" * 251, 5), made())
    with pytest.raises(AffuseError, match="is longer than a file's name may be"):
        export_features(store, tmp_path / "out", "npz")
    assert not (tmp_path / "out").exists()


def test_export_refuses_a_full_folder_an_unknown_format_and_a_name_that_leads_out(store, tmp_path):
    with pytest.raises(UsageError, match="Unknown format 'hdf'"):
        export_features(store, tmp_path / "out", "hdf")
    with pytest.raises(UsageError, match="is not empty"):
        export_features(store, store.path, "npz")
    store.write(random_video("../../evil", 5), made())
    with pytest.raises(AffuseError, match="leads out of the folder"):
        export_features(store, tmp_path / "out", "npz")
