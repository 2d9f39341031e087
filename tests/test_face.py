"""The public face against what notebook users do: wrong types, empty paths, cells that are edited and run again."""

import pytest
from torch import nn

import affuse
import tiny
from affuse.errors import AffuseError, UsageError
from affuse.extract.extraction import Compute
from affuse.fuse.models import registry

SMALL = {**tiny.SMALL, "epochs": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("face"), 2, 1)


def cell(name, factor):
    """A notebook's cell that registers a model; its class is known by its text."""

    def forward(self, x, valid):
        return {m: factor * v for m, v in x.items()}

    body = {"forward": forward, "__module__": "__main__", "__qualname__": "Mine"}
    return affuse.register(name)(
        type("Mine", (nn.Module,), {**body, "__init__": lambda s, *_: nn.Module.__init__(s)})
    )


def test_an_edited_cell_is_not_taken_for_the_model_that_was_trained(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        registry, "source", lambda block: str(block.forward.__closure__[0].cell_contents).encode()
    )
    cell("celled", 1.0)
    train = lambda out: affuse.train(*data, out, **SMALL, model="celled")  # noqa: E731
    run = train(tmp_path / "run")
    assert train(tmp_path / "run").best == run.best
    cell("celled", -7.0)
    with pytest.raises(UsageError, match=r"celled\.py is not what it was"):
        train(tmp_path / "run")
    with pytest.raises(UsageError, match="its code is another"):
        affuse.load_run(tmp_path / "run")
    registry.OWN.pop("celled")


@pytest.mark.parametrize("name", [None, 3, "all", "a b"])
def test_names_that_no_model_can_have(name):
    with pytest.raises(UsageError, match="cannot be named"):
        affuse.register(name)


def test_a_block_is_a_module_and_what_it_raises_is_said(data, tmp_path):
    with pytest.raises(UsageError, match=r"must be a class of torch\.nn\.Module"):
        affuse.register("function")(len)

    @affuse.register("raising")
    class Raising(nn.Module):
        def __init__(self, widths, options):
            super().__init__()

        def forward(self, x, valid):
            raise KeyError("smell")

    with pytest.raises(UsageError, match="The block of model 'raising' failed: KeyError: 'smell'"):
        affuse.train(*data, tmp_path / "run", **SMALL, model="raising")
    registry.OWN.pop("raising")


def test_settings_are_settings_or_a_dictionary_of_them(data, tmp_path):
    made = affuse.compare(*data, tmp_path / "out", "concat", settings=SMALL)
    assert made.facts["protocol"]["epochs"] == 1
    with pytest.raises(UsageError, match="Settings are made by train_settings"):
        affuse.compare(*data, tmp_path / "out", "concat", settings=3)
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        affuse.train(*data, tmp_path / "run", settings={"epoks": 1})


def test_a_rate_is_more_than_nothing(data, tmp_path):
    run = affuse.train(*data, tmp_path / "run", **SMALL, model="concat")
    for rate in (-1, 0, "a"):
        with pytest.raises(UsageError, match="label_rate"):
            run.evaluate(*data, rate=rate)


def test_an_empty_path_is_no_path(data):
    for call in (affuse.FeatureStore, affuse.load_run, lambda path: affuse.extract_videos(path, "out")):
        with pytest.raises(AffuseError, match=r"not by ''|not an empty text|is not a folder of videos"):
            call("")


@pytest.mark.parametrize("options", [{"workers": -1}, {"workers": "a"}, {"threads": 0}])
def test_processes_and_threads_are_counted(options):
    with pytest.raises(UsageError, match="must be a whole number"):
        Compute(**options)
