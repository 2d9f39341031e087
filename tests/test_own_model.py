"""A fusion model of one's own: one file, used by name everywhere a model is named; what goes wrong says why."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open

import tiny
from affuse import fuse
from affuse.commands import main
from affuse.errors import AffuseError, UsageError
from affuse.fuse import build_model, describe
from affuse.fuse.experiments.ablate import plan
from affuse.fuse.experiments.trials import make_entries
from affuse.fuse.models import registry
from test_models import OWN, WIDTHS, WINDOW, inputs, small, tensors

MBT = Path(OWN.removesuffix(":mbt")).read_text()
BARE = """
from affuse.fuse import register
from torch import nn

@register("bare")
class Block(nn.Module):
    def __init__(self, widths, options):
        super().__init__()

    def forward(self, x, valid):
        return {BODY}
"""


def own(path, text=MBT, name="mbt"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return f"{path}:{name}"


def affuse(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("data"), 4, 2)


SETS = [
    part
    for key, value in {**tiny.SMALL, "epochs": 2}.items()
    for part in ("--set", f"{key}={json.dumps(value)}")
]


def test_a_model_in_a_file_is_trained_evaluated_and_predicted_from_elsewhere(data, tmp_path, monkeypatch):
    store, labels = data
    own(tmp_path / "here" / "my_fusion.py")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    place = ("--features", store.path, "--labels", labels)
    affuse(
        "fuse", "train", *place, "--out", "run", "--model", "my_fusion.py:mbt", "--set", "tied=true", *SETS
    )
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == ["my_fusion.py", "run"]
    monkeypatch.chdir(tmp_path / "there")
    run = tmp_path / "here" / "run"
    scored = json.loads(affuse("fuse", "evaluate", "--run", run, *place, "--json").stdout)
    assert scored["videos"] == 2
    affuse("fuse", "predict", "--run", run, "--features", store.path, "--out", "out")
    affuse("fuse", "explain", "--run", run, "--features", store.path, "--out", "seen")
    assert (tmp_path / "there" / "out" / "t0.csv").exists()
    trained = fuse.load_run(run)
    assert trained.settings.model == f"{tmp_path}/here/my_fusion.py:mbt"
    assert trained.model.config["recursions"] == 2
    # The file may change or go: the run has its own.
    own(tmp_path / "here" / "my_fusion.py", MBT.replace("nn.Linear(d, 4)", "nn.Linear(d, 5)"))
    assert fuse.load_run(run).model.config == trained.model.config


def test_a_run_from_elsewhere_runs_no_code_of_its_own_until_it_is_named(data, tmp_path, monkeypatch):
    store, labels = data
    settings = tiny.small(model=own(tmp_path / "my.py"), epochs=1)
    fuse.train(store, labels, tmp_path / "run", settings)
    weights = fuse.load_run(tmp_path / "run").model.state_dict()
    moved = shutil.move(tmp_path / "run", tmp_path / "moved")
    with pytest.raises(AffuseError, match=r"run/my\.py cannot be read.*copy of it.*AFFUSE_MODEL_FILE"):
        fuse.load_run(moved)
    monkeypatch.setenv("AFFUSE_MODEL_FILE", f"{moved}/my.py")
    loaded = fuse.load_run(moved).model.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in weights.items())
    (moved / "my.py").write_text(MBT + "# changed\n")
    with pytest.raises(AffuseError, match=r"moved/my\.py is not the one that the model was trained with"):
        fuse.load_run(moved)


def test_an_unfinished_run_is_gone_on_with_by_the_same_file_only(data, tmp_path, monkeypatch):
    store, labels = data
    settings = tiny.small(model=own(tmp_path / "my.py"), epochs=2)

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fuse.train(store, labels, tmp_path / "run", settings, stop)
    own(tmp_path / "my.py", MBT + "# changed\n")
    with pytest.raises(UsageError, match=r"my\.py is not what it was"):
        fuse.train(store, labels, tmp_path / "run", settings)
    own(tmp_path / "my.py")
    assert fuse.train(store, labels, tmp_path / "run", settings)["resumed_at"] == 1


def test_every_command_that_names_a_model_takes_it(data, tmp_path, monkeypatch):
    store, labels = data
    own(tmp_path / "my.py")
    monkeypatch.chdir(tmp_path)
    rows = json.loads(affuse("fuse", "models", "my.py:mbt", "--json").stdout)
    assert [(row["title"], row["recursions"]) for row in rows] == [("Multimodal Bottleneck", {"released": 2})]
    place = ("--features", store.path, "--labels", labels, *SETS, "--set", "epochs=1")
    names = "my.py:mbt,my.py:mbt:released@visual+audio"
    affuse("fuse", "compare", "--models", names, "--seeds", "0", *place, "--out", "compared")
    runs = sorted(p.name for p in (tmp_path / "compared" / "runs").iterdir())
    assert runs == ["my.py-mbt-released-visual+audio-seed0", "my.py-mbt-seed0"]
    (tmp_path / "folds.csv").write_text("video,fold\nt0,a\nt1,b\nt2,a\nt3,b\nset/v0,a\nset/v1,b\n")
    folds = ("--videos", "folds.csv", "--model", "my.py:mbt", "--out", "folds")
    affuse("fuse", "crossval", *folds, *place)
    (base,) = make_entries("my.py:mbt", tiny.small(), tiny.WIDTHS)
    ablations = plan(base.settings, tiny.WIDTHS)
    assert not any(ablation.why_not for ablation in ablations)
    for ablation in ablations:
        assert make_entries(ablation.levels, base.settings, tiny.WIDTHS)


def test_a_package_offers_a_model(tmp_path, monkeypatch):
    own(tmp_path / "bottleneck_models.py")
    own(tmp_path / "bottleneck_models-1.dist-info" / "entry_points.txt",
        "[affuse.models]\nmbt = bottleneck_models\nbroken = no_such_module\n")  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(UsageError, match="Unknown model 'mbtt'; did you mean 'mbt'"):
            build_model("mbtt", WIDTHS)
        assert describe(["mbt"])[0]["title"] == "Multimodal Bottleneck"
        assert build_model("mbt", WIDTHS, window=8).config["name"] == "mbt"
        with pytest.raises(UsageError, match="'broken' comes with no_such_module, which cannot be loaded"):
            build_model("broken", WIDTHS)
    finally:
        registry.OWN.clear()


def test_a_class_registered_in_this_process_goes_by_its_name():
    try:
        for _ in range(2):  # a notebook's cell that is run again
            exec(BARE.replace("{BODY}", "x"), {"__name__": "__main__"})
        assert len(build_model("bare", WIDTHS, window=8, recursions=3).blocks) == 3
        with pytest.raises(UsageError, match="There is a model 'bare' already"):
            fuse.register("bare")(torch.nn.Linear)
    finally:
        registry.OWN.clear()


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (MBT, "mtb", r"my\.py registers no model 'mtb'; did you mean 'mbt'"),
        (MBT, "", r"my\.py registers no model ''.* Known: mbt"),
        ("", "mbt", r"registers no model 'mbt'\. Write @register"),
        ("import no_such_module", "mbt", r"my\.py cannot be run: ModuleNotFoundError: No module named"),
        ("x = (", "mbt", r"my\.py cannot be run: SyntaxError"),
        (MBT.replace('"mbt"', '"rjcma"'), "rjcma", "There is a model 'rjcma' already"),
        (MBT + MBT, "mbt", "There is a model 'mbt' already"),
        (MBT.replace('"mbt"', '"m b"'), "m b", "cannot be named 'm b'"),
        (MBT.replace("recursions=2", "recursion=2"), "mbt", "'recursion'; did you mean 'recursions'"),
        (MBT.replace("recursions=2", "encoder='tcm'"), "mbt", "Unknown encoder 'tcm'; did you mean 'tcn'"),
    ],
)
def test_files_that_cannot_be_used_say_why(text, name, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        build_model(own(tmp_path / "my.py", text, name), WIDTHS)


def test_a_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"my\.py cannot be read: No such file.*FILE\.py:NAME"):
        build_model("my.py:mbt", WIDTHS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "paper"}, "is only released, not 'paper'"),
        ({"attention": "frame"}, "another reading of the joint attention"),
        ({"recursions": 1, "tied": True}, "shares weights between recursions"),
        ({"widths": {"visual": 3}}, "takes 2 to 3 modalities, not 1"),
    ],
)
def test_what_the_model_does_not_have_is_refused(settings, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        build_model(**{"name": own(tmp_path / "my.py"), "widths": WIDTHS, **settings})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x['visual']", r"'.*my\.py:bare' was given .* has to give the same shapes, not Tensor"),
        ("{m: v[..., :2] for m, v in x.items()}", r"same shapes, not \{'visual': \(3, 24, 2\)"),
        ("{'visual': x['visual']}", "same shapes, not"),
        ("{m: v / 0 for m, v in x.items()}", "makes NaN or infinity of finite visual features"),
    ],
)
def test_blocks_that_give_something_else_say_so(body, message, tmp_path):
    name = own(tmp_path / "my.py", BARE.replace("{BODY}", body), "bare")
    model = build_model(name, WIDTHS, window=WINDOW)
    features, mask = inputs(model)
    with pytest.raises(UsageError, match=message):
        model(tensors(features, torch.float32), tensors(mask))


def test_recursions_gates_and_ties_come_from_the_family(tmp_path):
    name = own(tmp_path / "my.py")
    gated = small(name, gates="hgrjca", recursions=3, tied=True)
    features, mask = inputs(gated)
    seen = gated.explain(tensors(features, torch.float32), tensors(mask))
    assert seen["updates"]["visual"].shape == (3, WINDOW - 3, 3)
    assert (seen["updates"]["visual"][~tensors(mask)["visual"]] == 0).all()
    assert seen["candidates"] == ["G1", "G2", "G3"]
    assert len(gated.blocks) == 1
    none = small(name, recursions=0).eval()
    concat = small("concat").eval()
    concat.load_state_dict(none.state_dict())
    x = tensors(features, torch.float32)
    assert torch.equal(none(x), concat(x))


def test_the_run_keeps_what_it_was_made_from(data, tmp_path):
    store, labels = data
    fuse.train(store, labels, tmp_path / "run", tiny.small(model=own(tmp_path / "my.py"), epochs=1))
    assert (tmp_path / "run" / "my.py").read_text() == MBT
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        config = json.loads(file.metadata()["affuse"])["model"]
    assert config["name"] == f"{tmp_path}/run/my.py:mbt"
    assert len(config["sha256"]) == 64
