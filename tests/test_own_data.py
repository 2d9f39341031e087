"""The documented way with one's own data, as a new user would go it: two CSV files per video, three commands."""

import json

import numpy as np
from click.testing import CliRunner

import tiny
from affuse import commands as cli


def test_two_csv_files_per_video_end_in_a_trained_and_evaluated_model(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        time = np.arange(150) / 25
        valence = 0.5 * np.sin(time * (1 + i / 3) + i)
        features = np.column_stack([time, valence + 0.1 * rng.normal(size=150), rng.normal(size=(150, 3))])
        rows = [",".join(f"{value:.5f}" for value in row) for row in features]
        rows[40] = f"{time[40]:.5f},,,,"  # a frame without a face
        slow = [
            f"{t:.2f},{v:.4f},{-v:.4f}" for t, v in zip(time[::5], valence[::5], strict=True)
        ]  # labels of 5 Hz
        partition = "train" if i < 4 else "validation"
        for path, head, lines in (
            (tmp_path / "mine/visual" / f"clip{i}.csv", "time,f0,f1,f2,f3", rows),
            (tmp_path / "labels" / partition / f"clip{i}.csv", "time,valence,arousal", slow),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join([head, *lines]) + "\n")
    settings = {
        **tiny.SMALL,
        "channels": {"visual": [8, 8]},
        "epochs": 15,
        "learning_rate": 5e-3,
        "warmup_epochs": 1,
    }
    (tmp_path / "small.yaml").write_text(json.dumps(settings))

    def affuse(*arguments):
        result = CliRunner().invoke(cli.main, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    store, labels, run = tmp_path / "store", tmp_path / "labels", tmp_path / "run"
    assert "6 written, 0 kept, 0 failed.\n  visual: 4 columns, f0, f1, f2, f3" in affuse(
        "features", "import", store, "--from", tmp_path / "mine"
    )
    assert "clip3: 150 frames" in affuse("features", "info", store)
    affuse("fuse", "train", "--features", store, "--labels", labels, "--out", run, "--config", tmp_path / "small.yaml",
           "--model", "unimodal", "--set", "modalities=[visual]")  # fmt: skip
    found = json.loads(
        affuse("fuse", "evaluate", "--run", run, "--features", store, "--labels", labels, "--json")
    )
    assert found["frames"] == 2 * 30  # at the labels' own rate
    assert found["ccc"]["mean"] > 0.5
    assert found["interval"]["ccc"]["mean"][0] < found["ccc"]["mean"]
