"""A model frame by frame: pieces against the whole, the whole against windows, a run against its own videos."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affuse.errors import UsageError
from affuse.features import FeatureStore
from affuse.fuse import load_run, predict, train
from affuse.fuse.models.encoders import TCN
from affuse.fuse.models.model import build_model
from affuse.fuse.models.registry import MODELS
from affuse.fuse.models.spec import ModelSpec
from affuse.fuse.models.stream import Stream
from affuse.fuse.scoring.estimate import hold
from affuse.fuse.training.loading import together
from tiny import WIDTHS, make_data, make_video, provenance, small

WINDOW, FRAMES = 24, 70
CAUSAL = [name for name in MODELS if name not in ("rjca", "dca", "mean")]
NARROW = {"visual": [6, 6], "audio": [4, 4, 4], "text": [6, 6]}  # of two and of three layers


def model_and_video(name: str, seed: int = 0, **options):
    """A model in float64, not as it was initialised, and features and mask of a video of FRAMES frames."""
    torch.manual_seed(seed)
    widths = {m: WIDTHS[m] for m in MODELS[name].standard[: MODELS[name].modalities[1]]}
    options |= {} if MODELS[name].fit else {"channels": {m: NARROW[m] for m in widths}, "window": WINDOW}
    model = build_model(name, widths, **options).double().eval()
    for weight in [*model.parameters(), *(b for n, b in model.named_buffers() if n.endswith("running_mean"))]:
        weight.data.add_(0.1 * torch.randn_like(weight))
    x = {m: torch.randn(FRAMES, width, dtype=torch.float64) for m, width in widths.items()}
    mask = {m: torch.rand(FRAMES) > 0.2 for m in widths}
    return model, x, mask


def some(rows: dict, begin: int, end: int) -> dict:
    return {m: x[begin:end] for m, x in rows.items()}


def whole(model, x, mask) -> torch.Tensor:
    stream = Stream(model)
    stream.add(x, mask)
    return stream.values(FRAMES)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_stream_is_attention_over_the_last_frames_encoded_in_the_whole_video(name):
    model, x, mask = model_and_video(name)
    made = whole(model, x, mask)
    batch, valid = ({m: v[None] for m, v in rows.items()} for rows in (x, mask))
    zeroed = {m: v * valid[m][..., None] for m, v in batch.items()}
    with torch.no_grad():
        encoded = model.encode(zeroed, valid)
        for last in range(FRAMES):
            end = last + 1
            if end <= WINDOW:  # then it is what the model says of the last frame of the video cut there
                said = model(
                    {m: v[:, :end] for m, v in batch.items()}, {m: v[:, :end] for m, v in valid.items()}
                )
            else:
                window = slice(end - model.memory, end)
                own = {m: v[:, window] for m, v in valid.items()}
                said = model.fuse({m: v[:, window] for m, v in encoded.items()}, own)[0]
            torch.testing.assert_close(made[last], said[0, -1], rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=3, max_size=12),
    st.integers(0, 3),
    st.sampled_from(["rjcma", "lfan"]),
)
def test_it_makes_no_difference_in_what_pieces_a_video_comes_and_is_told(pieces, seed, name):
    model, x, mask = model_and_video(name, seed)
    expected, stream, end = whole(model, x, mask), Stream(model), 0
    for piece in pieces:
        begin, end = end, min(end + piece, FRAMES)
        if begin == end:
            break
        stream.add(some(x, begin, end), some(mask, begin, end))
        torch.testing.assert_close(
            stream.values(end - begin, batch=5), expected[begin:end], rtol=0, atol=1e-9
        )
        assert stream.frames <= WINDOW - 1 + end - begin


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, WINDOW), st.integers(1, 20))
def test_what_is_taken_back_has_never_been_there(first, taken, more):
    model, x, mask = model_and_video("rjcma")
    expected, stream = whole(model, x, mask), Stream(model)
    wrong = {m: v + 1 for m, v in some(x, 0, FRAMES).items()}
    taken = min(taken, first)
    stream.add(some(x, 0, first - taken), some(mask, 0, first - taken)) if taken < first else None
    stream.add(some(wrong, first - taken, first))
    stream.forget(taken)
    stream.add(some(x, first - taken, first + more), some(mask, first - taken, first + more))
    torch.testing.assert_close(stream.values()[0], expected[first + more - 1], rtol=0, atol=1e-9)


def test_a_stream_has_its_own_copy_of_the_model_and_leaves_the_model_alone():
    model, x, mask = model_and_video("rjcma")
    before, expected = {n: w.clone() for n, w in model.state_dict().items()}, whole(model, x, mask)
    stream = Stream(model.train())
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    stream.add(x, mask)
    assert torch.equal(stream.values(FRAMES), expected)
    assert model.training
    assert model.state_dict().keys() == before.keys()


def test_what_cannot_be_is_refused():
    model, x, _ = model_and_video("rjcma")
    stream = Stream(model)
    with pytest.raises(UsageError, match="Of 0 frames in memory the last 1 cannot be told"):
        stream.values()
    stream.add(x)
    stream.add(some(x, 0, 5))
    for frames in (6, 0, -1):
        with pytest.raises(UsageError, match="cannot be told: give more"):
            stream.values(frames)
    for frames in (stream.frames + 1, -1):
        with pytest.raises(UsageError, match="cannot be taken back"):
            stream.forget(frames)
    with pytest.raises(UsageError, match=r"takes visual, audio, text, not visual"):
        stream.add({"visual": x["visual"]})
    with pytest.raises(UsageError, match="The input has no frames"):
        stream.add(some(x, 3, 3))
    with pytest.raises(UsageError, match="reads every window in both directions"):
        Stream(build_model("rjca", {"visual": 12, "audio": 6}, window=WINDOW))


class Convolved(torch.nn.Module):
    """A block of one's own that begins anew in every window."""

    def __init__(self, widths, options):
        super().__init__()
        self.parts = torch.nn.ModuleDict({m: TCN(d, [d], 0.0) for m, d in widths.items()})

    def forward(self, x, valid):
        return {m: v + self.parts[m](v) for m, v in x.items()}


def test_convolutions_of_a_block_do_not_go_on_from_window_to_window(monkeypatch):
    spec = ModelSpec("Own", "here", Convolved, recursions={"released": 1, "paper": 1})
    monkeypatch.setitem(MODELS, "convolved", spec)
    model, x, mask = model_and_video("convolved")
    made, stream = whole(model, x, mask), Stream(model)
    for i in range(FRAMES):
        stream.add(some(x, i, i + 1), some(mask, i, i + 1))
        torch.testing.assert_close(stream.values(), made[i : i + 1], rtol=0, atol=1e-9)
    with torch.no_grad():
        last = WINDOW // 2
        part = ({m: v[None, :last] for m, v in rows.items()} for rows in (x, mask))
        torch.testing.assert_close(made[last - 1], model(*part)[0, -1], rtol=0, atol=1e-9)


def test_where_nothing_is_there_the_last_value_is_held():
    values = np.arange(12.0).reshape(6, 2)
    seen = np.array([False, True, False, False, True, False])
    assert hold(values, seen)[:, 0].tolist() == [2, 2, 2, 2, 8, 8]


# ---- runs


@pytest.fixture(scope="module")
def place(tmp_path_factory, undrawn):
    """A folder with a store, labels, and runs of two seeds, one of which says how sure it is."""
    place = tmp_path_factory.mktemp("stream")
    store, labels = make_data(place, train=3, validation=2)
    for seed in (0, 1):
        train(
            store,
            labels,
            place / f"run{seed}",
            small(epochs=1, seed=seed, **({"loss": "gaussian"} if seed else {})),
        )
    return place


@pytest.fixture(scope="module")
def run(place):
    return together([load_run(place / "run0"), load_run(place / "run1")])


def cut(video, frames: int):
    """The record of its first frames."""
    end = video.visual.time[frames - 1]
    parts = {
        m: dataclasses.replace(
            part,
            **{n: getattr(part, n)[rows] for n in names},
        )
        for m, part, rows, names in (
            ("visual", video.visual, slice(frames), ("embedding", "time", "valid", "box", "confidence")),
            ("audio", video.audio, slice(frames), ("embedding", "time")),
            (
                "text",
                video.text,
                video.text.start <= end,
                ("embedding", "start", "end", "word", "confidence"),
            ),
        )
    }
    return dataclasses.replace(video, frames=frames, **parts)


def test_a_run_streams_what_it_predicts_of_a_video_that_ends_there(run, tmp_path):
    video, _ = make_video("clip", 300, 5)
    store = FeatureStore(tmp_path / "store", create=True)
    store.write(video, provenance())
    made = run.predict(store, device="cpu", stream=True)["clip"]
    assert len(made.time) == 300
    for frames in (1, 2, 17, 32):  # within the first window
        part = FeatureStore(tmp_path / str(frames), create=True)
        part.write(cut(video, frames), provenance())
        said = run.predict(part, device="cpu")["clip"]
        if said.valid[-1]:
            np.testing.assert_allclose(made.values[frames - 1], said.values[-1], atol=1e-6)
            np.testing.assert_allclose(made.deviation[frames - 1], said.deviation[-1], atol=1e-6)
    part = FeatureStore(tmp_path / "later", create=True)  # nothing that comes later has a part in it
    part.write(cut(video, 270), provenance())
    np.testing.assert_allclose(
        run.predict(part, device="cpu", stream=True)["clip"].values, made.values[:270], atol=1e-6
    )


def test_rows_that_come_one_by_one_are_told_as_a_whole_store_is(run, tmp_path):
    video, _ = make_video("clip", 60, 6)
    store = FeatureStore(tmp_path / "store", create=True)
    store.write(video, provenance())
    made = run.predict(store, device="cpu", stream=True)["clip"]
    stream, held = run.stream("cpu"), []
    words = np.zeros((60, WIDTHS["text"]), np.float16)
    for start, end, row in zip(video.text.start, video.text.end, video.text.embedding, strict=True):
        words[(video.visual.time >= start) & (video.visual.time < end)] = row
    rows = {"visual": video.visual.embedding, "audio": video.audio.embedding, "text": words}
    for i in range(60):
        there = {m: made.present[m][i : i + 1] for m in rows}
        stream.add({m: x[i : i + 1] for m, x in rows.items()}, there)
        held.append(stream.values())
    np.testing.assert_allclose(np.concatenate([e.values for e in held]), made.values, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([e.deviation for e in held]), made.deviation, atol=1e-6)


def test_files_and_scores_of_a_stream(place, tmp_path):
    run = load_run(place / "run0")
    written = predict(run, place / "store", tmp_path / "out", figures=False, stream=True)["written"]
    assert len(written) == 5
    with pytest.raises(UsageError, match=r"made otherwise \(stream: True → False\)"):
        predict(run, place / "store", tmp_path / "out", figures=False)
    for ahead in ({"smooth": 1.0}, {"every": 0.5}):
        with pytest.raises(UsageError, match="take means over later frames"):
            predict(run, place / "store", tmp_path / "ahead", **ahead, stream=True)
    with pytest.raises(UsageError, match="takes the mean over later frames"):
        run.evaluate(place / "store", place / "labels", smooth="fit", stream=True)
    plain, streamed = (
        run.evaluate(place / "store", place / "labels", device="cpu", stream=stream)["ccc"]["mean"]
        for stream in (False, True)
    )
    assert plain != streamed
    assert abs(plain - streamed) < 0.3


def test_offsets_of_subjects_are_in_it(run):
    offsets = {"clip": [0.25, -0.25]}
    moved = dataclasses.replace(run, offsets=offsets, others=())
    video, rng = {}, np.random.default_rng(0)
    for m, width in WIDTHS.items():
        video[m] = rng.normal(size=(3, width)).astype(np.float16)
    said = []
    for name in ("clip", "other"):
        stream = moved.stream("cpu", name)
        stream.add(video)
        said.append(stream.values(3).values)
    expected = (said[1] + [0.25, -0.25]).clip(-1, 1)
    np.testing.assert_allclose(said[0], expected)


def test_nothing_later_has_a_part_at_another_frame_rate_but_what_half_a_step_holds(place, tmp_path):
    train(place / "store", place / "labels", tmp_path / "slow", small(epochs=1, fps=5.0, window=16, hop=8))
    run, (video, _) = load_run(tmp_path / "slow"), make_video("clip", 120, 9)
    made = []
    for frames in (120, 100):
        store = FeatureStore(tmp_path / str(frames), create=True)
        store.write(cut(video, frames), provenance())
        made.append(run.predict(store, device="cpu", stream=True)["clip"].values)
    ends = 100 - 5  # the last moment of the shorter one, whose features are those around it
    np.testing.assert_allclose(made[0][:ends], made[1][:ends], atol=1e-6)
    steps = np.flatnonzero(np.abs(np.diff(made[0][:, 0])) > 1e-9) + 1
    assert set(np.diff(steps)) == {5}  # held from one moment of the run's clock to the next


def test_runs_of_different_windows_stream_together(place, tmp_path):
    train(place / "store", place / "labels", tmp_path / "short", small(epochs=1, window=16, hop=8))
    run, rng = together([load_run(place / "run0"), load_run(tmp_path / "short")]), np.random.default_rng(0)
    rows = {m: rng.normal(size=(60, width)).astype(np.float16) for m, width in WIDTHS.items()}
    right, taken = run.stream("cpu"), run.stream("cpu")
    right.add(rows)
    taken.add({m: np.concatenate([x[:30], -x[30:59]]) for m, x in rows.items()})
    taken.forget(29)
    taken.add(some(rows, 30, 60))
    np.testing.assert_allclose(taken.values().values, right.values().values, atol=1e-6)


def test_rows_of_any_kind_are_taken_as_they_are_now(run):
    rng = np.random.default_rng(0)
    rows = {m: rng.normal(size=(6, width)) for m, width in WIDTHS.items()}
    there = {m: np.ones(6, bool) for m in WIDTHS}
    right = run.stream("cpu")
    right.add(rows, there)
    odd = run.stream("cpu")
    fleeting = {m: x.copy() for m, x in rows.items()}, {m: x.copy() for m, x in there.items()}
    odd.add(some(fleeting[0], 0, 2), some(fleeting[1], 0, 2))
    for part in fleeting:
        for buffer in part.values():
            buffer[:] = 0
    odd.add({m: np.flip(x[:1:-1], 0) for m, x in rows.items()}, {"text": None})
    np.testing.assert_allclose(odd.values().values, right.values().values, atol=1e-6)
    for wrong in ({"visual": rows["visual"][:, :1]}, rows["visual"], {"visual": rows["visual"][:, 0]}):
        with pytest.raises(UsageError):
            odd.add({**rows, **wrong} if isinstance(wrong, dict) else wrong)
    with pytest.raises(UsageError, match="A mask is a torch"):
        odd.add(rows, there["visual"])
    with pytest.raises(UsageError, match="mask of text"):
        odd.add(rows, {"text": there["text"][:2]})
