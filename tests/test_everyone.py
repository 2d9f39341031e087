"""`--face all` from the command line: a record of every person, kept, made anew and predicted on like any other."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from affuse.commands import main
from affuse.errors import UsageError
from affuse.extract.videos import everyone, find_jobs
from affuse.features.layout import shard_path
from affuse.features.record import Source
from affuse.features.store import FeatureStore
from builders import provenance, random_video
from cast import LEFT, RIGHT, Part, film, scene
from processes import OWN_SOUND, ROOT

SOURCE = Source("two.mp4", 1000, "ab" * 32, 17)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    film(folder / "two.mp4", scene(1, LEFT, RIGHT))
    film(folder / "one.mp4", scene(1, Part("ann", 160, 160)))
    return folder


def extract(videos, store, *more, code: int = 0) -> dict:
    grid = OWN_SOUND.replace("audio=", "visual=").replace("Loudness", "Grid")
    options = [
        "--profile",
        "offline",
        "--set",
        "modalities=[visual, audio]",
        "--set",
        OWN_SOUND,
        "--set",
        grid,
    ]
    given = ["extract", "--video-dir", str(videos), "--out", str(store), *options, "--json", *more]
    result = CliRunner().invoke(main, given, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_a_record_of_everyone_is_made_once(videos, tmp_path):
    summary = extract(videos, tmp_path, "--face", "all")
    assert (sorted(summary["made"]), summary["people"]) == (["one", "two"], 3)
    store = FeatureStore(tmp_path)
    assert store.ids == ["one#1", "two#1", "two#2"]
    assert store.of("two") == ["two#1", "two#2"]
    assert [store.header(own).people for own in store] == [1, 2, 2]
    table = store.table()
    assert (table["faces"] == 1).all()
    again = extract(videos, tmp_path, "--face", "all")
    assert (again["made"], again["kept"]) == ([], 2)


@pytest.mark.parametrize("person", [1, 2])
def test_a_person_who_is_missing_has_the_video_made_anew(videos, tmp_path, person):
    extract(videos, tmp_path, "--face", "all")
    before = {own: FeatureStore(tmp_path).header(own).features_digest for own in FeatureStore(tmp_path)}
    (tmp_path / "shards" / shard_path(f"two#{person}")).unlink()
    summary = extract(videos, tmp_path, "--face", "all")
    assert (summary["made"], summary["kept"]) == (["two"], 1)
    assert {
        own: FeatureStore(tmp_path).header(own).features_digest for own in FeatureStore(tmp_path)
    } == before


def test_what_a_file_was_before_goes(videos, tmp_path):
    """A store made of the main person, then of everyone, then of the main person again: never both."""
    for face, ids in (
        ("main", ["one", "two"]),
        ("all", ["one#1", "two#1", "two#2"]),
        ("main", ["one", "two"]),
    ):
        extract(videos, tmp_path, "--face", face)
        assert FeatureStore(tmp_path).ids == ids
        assert FeatureStore(tmp_path).provenance.settings["detection"]["face"] == face


def test_a_file_of_a_persons_name_is_refused_and_never_deleted(tmp_path):
    film(tmp_path / "videos" / "two.mp4", scene(0.5, LEFT))
    film(tmp_path / "videos" / "two#1.mp4", scene(0.5, LEFT))
    with pytest.raises(UsageError, match="that a person in 'two' would have"):
        everyone(find_jobs(tmp_path / "videos"))
    extract(tmp_path / "videos", tmp_path / "store")
    (tmp_path / "videos" / "two.mp4").touch()
    extract(tmp_path / "videos", tmp_path / "store")
    assert FeatureStore(tmp_path / "store").ids == ["two", "two#1"]


def test_crops_that_are_given_are_one_persons(videos, tmp_path):
    (tmp_path / "one").mkdir()
    result = CliRunner().invoke(main, ["extract", "--video-dir", str(videos), "--out", str(tmp_path / "store"),
                                       "--faces-dir", str(tmp_path), "--face", "all"])  # fmt: skip
    assert result.exit_code == 2
    assert "crops are given" in result.output


def test_labels_and_predictions_are_of_each_person(videos, tmp_path):
    from affuse import load_run, train

    store = tmp_path / "store"
    extract(videos, store, "--face", "all")
    for partition, own in (("train", "one#1"), ("train", "two#1"), ("validation", "two#2")):
        folder = tmp_path / "labels" / partition
        folder.mkdir(parents=True, exist_ok=True)
        rows = np.random.default_rng(0).uniform(-1, 1, (10, 2))
        lines = ["valence,arousal", *(f"{v:.3f},{a:.3f}" for v, a in rows)]
        (folder / f"{own}.txt").write_text("\n".join(lines) + "\n")
    run = train(
        store, tmp_path / "labels", tmp_path / "run", model="concat", modalities=["visual", "audio"], epochs=1
    )
    assert list(run.predict(store)) == ["one#1", "two#1", "two#2"]
    out = load_run(tmp_path / "run").predict(
        videos / "two.mp4", keep=tmp_path / "kept", weights_dir=ROOT / "tests"
    )
    assert list(out) == ["two#1", "two#2"]
    assert out["two#1"].time.tolist() == out["two#2"].time.tolist()


class Killed(Exception):
    pass


@pytest.mark.parametrize("steps", range(12))
def test_killed_at_any_step_a_video_with_fewer_people_leaves_none_of_the_old(tmp_path, monkeypatch, steps):
    """Of five people three are left, under other settings; whoever is killed midway does it again."""
    old, new = (
        provenance(settings={"detection": {"every": 1}}),
        provenance(settings={"detection": {"every": 4}}),
    )

    def people(count: int) -> list:
        return [random_video(f"two#{n}", source=SOURCE, people=count) for n in range(1, count + 1)]

    store = FeatureStore(tmp_path, create=True)
    store.replace("two", people(5), old)
    left = iter(range(steps))

    def step(function):
        def act(*given, **options):
            if next(left, None) is None:
                raise Killed
            return function(*given, **options)

        return act

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(FeatureStore, "write", step(FeatureStore.write))
        patch.setattr(Path, "unlink", step(Path.unlink))
        store.replace("two", people(3), new)
    if store.examine("two#1", new.settings_hash, SOURCE.size, SOURCE.mtime_ns, lambda: SOURCE.sha256)[0]:
        store.replace("two", people(3), new)
    assert FeatureStore(tmp_path).ids == ["two#1", "two#2", "two#3"]
    assert FeatureStore(tmp_path).provenance == new


def test_people_of_a_file_go_with_it_when_its_suffix_changes(tmp_path):
    store = FeatureStore(tmp_path, create=True)
    store.replace("two", [random_video(f"two#{n}", source=SOURCE, people=2) for n in (1, 2)], provenance())
    store.replace("two", [random_video("two#1", source=replace(SOURCE, name="two.mkv"))], provenance())
    assert store.ids == ["two#1"]


def test_a_record_that_another_run_takes_out_meanwhile_is_no_error(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path, create=True)
    store.write(random_video("two", source=SOURCE), provenance())

    def found(self, video_id, of=FeatureStore.of):
        there = of(self, video_id)
        (tmp_path / "shards" / shard_path("two")).unlink()
        return there

    monkeypatch.setattr(FeatureStore, "of", found)
    store.replace("two", [random_video("two#1", source=SOURCE)], provenance())
    assert store.ids == ["two#1"]
