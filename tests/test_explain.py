"""Attention made visible: columns against windows explained one by one, the prediction of `predict`, gaps, refusals."""

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import tiny
from affuse import commands as cli
from affuse import fuse
from affuse.errors import UsageError
from affuse.features import align

VIDEO = "set/v1"  # 40 frames and more: several windows


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("data"), 3, 2, frames=45, without=("text",))


@pytest.fixture(scope="module")
def explained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    fuse.train(*data, folder / "run", tiny.small(model="hgrjca", epochs=1, warmup_epochs=0))
    result = fuse.explain(folder / "run", data[0], folder / "out", ["t0", VIDEO])
    tables = {video: pd.read_csv(made["csv"]) for video, made in result["written"].items()}
    return folder / "run", result, tables


def slowly(run, video):
    """Every window alone through `model.explain`; each frame's values of every window that covers it."""
    length, hop, frames = run.settings.window, run.settings.hop, video.frames
    aligned = align(video, video.visual.time, run.settings.modalities, tiny.WIDTHS)
    starts = sorted({*range(0, frames - length + 1, hop), frames - length})
    covering = {}
    for start in starts:
        part, inputs, mask = slice(start, start + length), {}, {}
        for m, (embedding, valid) in aligned.items():
            x = torch.from_numpy(embedding[part].astype(np.float32))
            inputs[m] = ((x - run.normalisation.mean[m]) / run.normalisation.std[m])[None]
            mask[m] = torch.from_numpy(valid[part])[None]
        found = run.model.explain(inputs, mask)
        for m in aligned:
            columns = {f"norm_{m}": found["norms"][m][0]}
            columns |= {f"update_{m}_{i + 1}": found["updates"][m][0, :, i] for i in range(2)}
            columns |= {f"gate_{m}_G{i + 1}": found["gates"][m][0, :, i] for i in range(2)}
            columns |= {
                f"gate_{m}_G{i + 1}_X{j}": found["inner_gates"][m][i][0, :, j]
                for i in range(2)
                for j in range(i + 2)
            }
            for name, values in columns.items():
                for t, value in enumerate(values.tolist()):
                    covering.setdefault(name, [[] for _ in range(frames)])[start + t].append(value)
    return covering, {m: valid for m, (_, valid) in aligned.items()}


def test_columns_are_the_mean_over_the_windows_that_cover_a_frame(explained, data):
    path, _, tables = explained
    table, run = tables[VIDEO], fuse.load_run(path)
    covering, present = slowly(run, data[0][VIDEO])
    assert len(table) > 64  # more than two windows
    assert set(table) == {"time", "valence", "arousal", "face", "sound", "words", "valid", *covering}
    for m, name in (("visual", "face"), ("audio", "sound"), ("text", "words")):
        assert table[name].tolist() == present[m].astype(int).tolist()
    for name, values in covering.items():
        there = present[name.split("_")[1]]
        expected = np.where(there, [np.mean(v) for v in values], np.nan)
        np.testing.assert_allclose(table[name], expected, atol=2e-6, rtol=1e-5)
    assert table["update_visual_1"].isna().any()  # frames without a face
    assert table.filter(like="update_").max().min() > 0.01


def test_weights_sum_to_one_and_the_prediction_is_that_of_predict(explained, data, tmp_path):
    path, _, tables = explained
    table = tables[VIDEO]
    for gate in (["G1", "G2"], ["G1_X0", "G1_X1"], ["G2_X0", "G2_X1", "G2_X2"]):
        total = table[[f"gate_audio_{name}" for name in gate]].sum(axis=1)
        np.testing.assert_allclose(total, 1, atol=1e-5)
    fuse.predict(path, data[0], tmp_path, [VIDEO], figures=False)
    predicted = pd.read_csv(tmp_path / "set%2Fv1.csv")
    np.testing.assert_allclose(table[predicted.columns], predicted, atol=2e-6)


def test_a_missing_modality_is_empty_and_the_figure_is_drawn(explained):
    _, result, tables = explained
    assert tables["t0"].filter(like="_text_").isna().all(axis=None)
    assert tables["t0"]["update_audio_1"].notna().all()
    for made in result["written"].values():
        figure = np.asarray(Image.open(made["figure"]).convert("RGB"))
        assert len(np.unique(figure.reshape(-1, 3), axis=0)) > 50


def test_equal_candidates_are_one_column(data, tmp_path):
    settings = tiny.small(model="grjca", recursions=1, epochs=1, modalities=["visual", "audio"])
    fuse.train(*data, tmp_path / "run", settings)
    result = fuse.explain(tmp_path / "run", data[0], tmp_path / "out", [VIDEO])
    table = pd.read_csv(result["written"][VIDEO]["csv"])
    assert list(table.filter(like="gate_audio")) == ["gate_audio_X0", "gate_audio_X1"]  # X^{l−1} is X^0
    np.testing.assert_allclose(table.filter(like="gate_audio").sum(axis=1), 1, atol=1e-5)


def test_a_model_without_attention_is_refused(data, tmp_path):
    fuse.train(*data, tmp_path / "run", tiny.small(recursions=0, epochs=1))
    command = [
        "fuse",
        "explain",
        "--run",
        tmp_path / "run",
        "--features",
        data[0].path,
        "--out",
        tmp_path / "out",
    ]
    answer = CliRunner().invoke(cli.main, list(map(str, command)))
    assert answer.exit_code == 2
    assert "'rjcma' with 0 recursions, has no joint or cross-attention" in answer.stderr
    assert not (tmp_path / "out").exists()


def test_from_the_command_line(explained, data, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'set/v1'"):
        fuse.explain(explained[0], data[0], tmp_path, ["set/v11"])
    command = [
        "fuse",
        "explain",
        "--run",
        explained[0],
        "--features",
        data[0].path,
        "--out",
        tmp_path,
        "--device",
        "cpu",
    ]
    answer = CliRunner().invoke(cli.main, list(map(str, command)))
    assert answer.exit_code == 0, answer.output
    assert f"{VIDEO}: " in answer.stdout
    assert len(list(tmp_path.glob("*.csv"))) == len(list(tmp_path.glob("*.png"))) == len(data[0].ids)
