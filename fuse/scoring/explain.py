"""What attention and gates did, frame by frame: the size of every update and the gates' weights, beside the
prediction, on the video's own clock."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from affuse.fuse.data.windows import Windows
from affuse.fuse.models.model import FusionModel
from affuse.fuse.scoring.estimate import bridge
from affuse.fuse.scoring.predict import Prediction


def explained(model: FusionModel, windows: Windows, made: Prediction, batch: int, precision: str) -> pd.DataFrame:
    """One row per frame of the windows' one video, its own: time (seconds), the targets, what was there and valid as in
    its prediction, 0 or 1; then for every modality m

      norm_<m>                ‖X^0‖, the size of the features before attention
      update_<m>_<i>          ‖X^i − X^{i−1}‖, what pass i of the attention changed
      gate_<m>_<candidate>    the gate's weight of X^i, or for HGRJCA of the inner gate G_i; they sum to 1
      gate_<m>_G<i>_X<j>      HGRJCA: the weight of X^j in its inner gate G_i

    each joined where windows overlap as the prediction is (on the line between the moments of another clock), and NaN
    where the video has no m at that frame.
    """
    corpus = windows.corpus
    with torch.autocast(corpus.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        parts = [_flat(model.explain(b.inputs, mask=b.mask)) for b in windows.ordered(batch)]
    joined = {name: torch.cat([part[name] for part in parts]).float() for name in parts[0]}
    columns = {}
    for name, values in joined.items():
        modality = name.split("_")[1]
        (frames,) = windows.to_frames(values[..., None].cpu().numpy())
        if (seen := corpus.present[modality].cpu().numpy()).any():
            bridge(corpus.time, frames, seen)
        columns[name] = np.where(made.present[modality], corpus.on_own(0, frames)[:, 0], np.nan)
    return pd.concat([made.numbers, pd.DataFrame(columns)], axis=1)


def _flat(explanation: dict) -> dict[str, torch.Tensor]:
    """What `FusionModel.explain` gives of attention and gates, as columns (windows, L)."""
    columns = {f"norm_{m}": norm for m, norm in explanation["norms"].items()}
    for m, updates in explanation["updates"].items():
        columns |= {f"update_{m}_{i}": norm for i, norm in enumerate(updates.unbind(-1), 1)}
    for m, weights in explanation["gates"].items():
        # With one recursion GRJCA's X^{l−1} is X^0 once more: the same candidate, its weights together.
        for name, weight in zip(explanation["candidates"], weights.unbind(-1), strict=True):
            key = f"gate_{m}_{name}"
            columns[key] = columns[key] + weight if key in columns else weight
    for m, gates in explanation["inner_gates"].items():
        for i, weights in enumerate(gates, 1):
            columns |= {f"gate_{m}_G{i}_X{j}": weight for j, weight in enumerate(weights.unbind(-1))}
    return columns
