"""The run folder: what is in it, that it stands alone, and what is said when it is not what was asked for."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import tiny
from affuse import fuse
from affuse.errors import AffuseError, UsageError
from affuse.files import file_name
from affuse.fuse.training.checkpoint import RunFolder, read_tensors, write_tensors
from affuse.fuse.training.settings import train_settings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    store, labels = tiny.make_data(folder, 3, 2)
    fuse.train(store, labels, folder / "run", tiny.small(gaps="mask", epochs=2))
    return folder / "run", store, labels


def test_a_finished_run_has_everything_and_nothing_else(trained):
    run, store, _ = trained
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    assert names == [
        "card.md",
        "config.yaml",
        "data.json",
        "figures/learning-curve.png",
        "figures/set%2Fv0.png",
        "figures/set%2Fv1.png",
        "metrics.csv",
        "model.safetensors",
        "predictions/set%2Fv0.csv",
        "predictions/set%2Fv1.csv",
    ]
    assert train_settings(run / "config.yaml") == tiny.small(gaps="mask", epochs=2, threads=1)
    card = (run / "card.md").read_text()
    assert store.provenance.settings_hash in card
    assert "| mean |" in card
    assert "Untrained" not in card
    figure = np.asarray(Image.open(run / "figures" / "set%2Fv0.png").convert("RGB"))
    assert len(np.unique(figure.reshape(-1, 3), axis=0)) > 50
    table = np.genfromtxt(run / "predictions" / "set%2Fv0.csv", delimiter=",", names=True)
    assert table.dtype.names == ("time", "valence", "arousal", "face", "sound", "words", "valid")
    np.testing.assert_allclose(table["time"], store["set/v0"].visual.time, atol=1e-6)


def test_the_model_file_says_how_it_came_to_be(trained):
    run, store, _ = trained
    with safe_open(run / "model.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["affuse"])
    assert facts["settings"] == yaml.safe_load((run / "config.yaml").read_text())
    assert facts["provenance"] == store.provenance.as_dict()
    assert facts["best"]["epoch"] in (1, 2)
    assert facts["version"]
    assert "git" in facts


def test_a_run_loads_without_its_training_data(trained, tmp_path):
    moved = trained[0].rename(tmp_path / "moved")
    try:
        before = torch.random.get_rng_state()
        run = fuse.load_run(moved)
        assert (torch.random.get_rng_state() == before).all()
        assert not run.model.training
        assert list(run.model.targets) == ["valence", "arousal"]
        assert {m: len(mean) for m, mean in run.normalisation.mean.items()} == tiny.WIDTHS
        x = {m: torch.randn(1, 32, width) for m, width in tiny.WIDTHS.items()}
        assert run.model(x).shape == (1, 32, 2)
    finally:
        moved.rename(trained[0])


def test_a_finished_run_is_not_trained_over(trained, tmp_path):
    run, store, labels = trained
    kept = (run / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="finished run with these settings: nothing to do"):
        fuse.train(store, labels, run, tiny.small(gaps="mask", epochs=2))
    with pytest.raises(UsageError, match="batch is 4 there and 5 here"):
        fuse.train(store, labels, run, tiny.small(gaps="mask", epochs=2, batch=5))
    other = tiny.copy_labels(labels, tmp_path / "labels")
    tiny.change_label(other / "train/t1.txt")
    with pytest.raises(
        AffuseError, match="finished run that began with other data: labels of video 't1' have"
    ):
        fuse.train(store, other, run, tiny.small(gaps="mask", epochs=2))
    assert (run / "model.safetensors").read_bytes() == kept


def test_an_unfinished_run_with_other_settings_names_the_difference(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(tiny.small(), {})
    folder.check(tiny.small(device="auto", tensorboard=True), {})
    with pytest.raises(
        UsageError, match="unfinished run with other settings: batch is 4 there and 5 here; seed is"
    ):
        folder.check(tiny.small(batch=5, seed=1), {})
    with pytest.raises(AffuseError, match="not finished"):
        fuse.load_run(folder.path)


def test_a_folder_of_other_things_is_not_taken(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UsageError, match="not empty and holds no run"):
        RunFolder(tmp_path).check(tiny.small(), {})
    with pytest.raises(AffuseError, match="not a run folder"):
        fuse.load_run(tmp_path)
    with pytest.raises(UsageError, match="cannot be made"):
        RunFolder(tmp_path / "holiday.jpg" / "run").begin(tiny.small(), {})


def test_damaged_foreign_and_newer_model_files_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    write_tensors(path, {"a": torch.arange(6.0)}, {"n": 1})
    tensors, facts = read_tensors(path)
    assert tensors["a"].tolist() == [0, 1, 2, 3, 4, 5]
    assert facts["n"] == 1
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(AffuseError, match="cannot be read"):
        read_tensors(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(AffuseError, match="not one of affuse's"):
        read_tensors(path)
    write_tensors(path, {"a": torch.zeros(1)}, {"format": 99})
    with pytest.raises(AffuseError, match="newer affuse"):
        read_tensors(path)


def flip(path, tensor):
    """Flip a bit in the middle of a tensor's bytes."""
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8 : 8 + length])[tensor]["data_offsets"]
    content[8 + length + (begin + end) // 2] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_a_model_or_checkpoint_is_seen(trained, tmp_path):
    run = shutil.copytree(trained[0], tmp_path / "run")
    flip(run / "model.safetensors", next(iter(read_tensors(run / "model.safetensors")[0])))
    with pytest.raises(
        AffuseError, match=r"model\.safetensors .* not what was written.*, or delete it and run"
    ):
        fuse.load_run(run)
    path = tmp_path / "checkpoint.safetensors"
    write_tensors(
        path, {"half": torch.ones(3, dtype=torch.bfloat16), "step": torch.tensor(3.0)}, {"epoch": 2}
    )
    assert read_tensors(path)[1]["epoch"] == 2
    whole = path.read_bytes()
    for damaged in (whole.replace(b'epoch\\": 2', b'epoch\\": 3'), whole[:-1] + b"\0"):
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises(AffuseError, match="not what was written"):
            read_tensors(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("model"),
        lambda facts: facts.update(best=3),
        lambda facts: facts.update(settings=[1]),
        lambda facts: facts["settings"].update(own=1),
        lambda facts: facts["settings"].update(batch="many"),
        lambda facts: facts["model"].update(own=1),
        lambda facts: facts["model"].update(window=10**9),
        lambda facts: facts["model"].update(window=10**5),  # whose weights would be 40 GB for each modality
        lambda facts: facts["provenance"].update(own=1),
        lambda facts: facts["provenance"].pop("backbones"),
    ],
)
def test_a_model_file_that_says_what_cannot_be_is_refused(trained, tmp_path, change):
    run = shutil.copytree(trained[0], tmp_path / "run")
    tensors, facts = read_tensors(run / "model.safetensors")
    change(facts)
    write_tensors(run / "model.safetensors", tensors, facts)
    with pytest.raises(AffuseError, match=r"model\.safetensors"):
        repr(fuse.load_run(run))


@pytest.mark.parametrize("text", ["no JSON", "[" * 10**5, "[1]", "{}", '{"format": "x"}', '{"format": 1}'])
def test_metadata_that_is_none_of_ours_is_refused(tmp_path, text):
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"affuse": text})
    with pytest.raises(AffuseError, match=r"m\.safetensors"):
        read_tensors(path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.safetensors"
    write_tensors(path, {"a": torch.ones(1)}, {})
    old = path.read_bytes()
    with pytest.raises(TypeError):
        write_tensors(path, {"a": torch.zeros(1)}, {"not": object()})
    assert path.read_bytes() == old
    with pytest.raises(AffuseError, match="could not be written"):
        write_tensors(tmp_path / "absent" / "deeper" / "m.safetensors", {"a": torch.zeros(1)}, {})


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_file_names_are_safe_and_tell_videos_apart(one, other):
    assert not set(file_name(one)) & set('/\\:*?"<>|\0\n')
    assert (file_name(one) == file_name(other)) == (one == other)
