"""Attention across modalities: three blocks, each one pass {m: (batch, time, d_m)} → the same shapes, and LFAN.

A block is made from the encoded widths and the model's options. It gets zeros at the frames that do not count, and
the model makes zeros of what it gives there.

JointCrossAttention   RJCMA: Praveen, Alam, "Recursive Joint Cross-Modal Attention for Multimodal Fusion in
                      Dimensional Emotion Recognition", CVPRW 2024 (arXiv 2403.13659), and its release; RCMA is that
                      release's first version. RJCA, DCA, GRJCA and HGRJCA have the same block
OnePassJointAttention JCA: Praveen et al., "A Joint Cross-Attention Model for Audio-Visual Fusion in Dimensional
                      Emotion Recognition", CVPRW 2022 (arXiv 2203.14779), and its release
CrossAttention        CA: Praveen, Granger, Cardinal, "Cross Attentional Audio-Visual Fusion for Dimensional Emotion
                      Recognition", FG 2021 (arXiv 2111.05222), and its release
LeaderFollower        LFAN: Zhang et al., "Continuous Emotion Recognition using Visual-audio-linguistic information",
                      CVPRW 2022 (arXiv 2203.13031), the ABAW3 release
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.fuse.models.layers import Dropout, Start, Valid, any_valid, default, frames, xavier, zero_invalid
from affuse.fuse.models.spec import Options

JCA_WIDTH = 32  # k, the inner width of JCA's H
HEADS, HEAD_WIDTH = 2, 16  # of LFAN
MODAL_WIDTH = HEADS * HEAD_WIDTH


@dataclass(frozen=True)
class Equations:
    """The terms in which release and paper differ. True is the released side."""

    biases: bool  # of W_j, W_c and W_h
    inner_tanh: bool  # H = ReLU(tanh(·)) rather than ReLU(·)
    rectified_update: bool  # X + Dropout(ReLU(H W_h)) rather than X + H W_h
    dropout: float  # on C and on the update


EQUATIONS = {
    "released": Equations(biases=True, inner_tanh=True, rectified_update=True, dropout=0.6),
    "paper": Equations(biases=False, inner_tanh=False, rectified_update=False, dropout=0.0),
}


class JointCrossAttention(nn.Module):
    """One recursion of joint cross-attention: every modality is correlated with a joint of several modalities, and
    the correlation decides how the modality is updated. No softmax, no layer norm.

    joint       'all': one J of all modalities; 'others': J_m of all but m.
    unused_fc   variants whose J' is the raw J and not FC(J). The FC exists, is counted and never trained, as RJCMA
                was released (there it is computed and thrown away; here only its weights are kept).
    start       of FC and W_j, W_c, W_h: torch's default in the releases of RCMA and RJCMA, Xavier in the others'.
    options.attention   'channel': C_m is d_m × d_J, W_j mixes time; 'frame': C_m is L × L, W_c and W_h mix time.

    Left out: the audio-guided attention over the 7 × 7 map of every clip that precedes the video's LSTM in the
    releases of RJCA and DCA. Cached features are one vector a frame: the map is gone, and there is nothing to choose
    from.
    """

    def __init__(
        self,
        widths: dict[str, int],
        options: Options,
        joint: str,
        unused_fc: tuple[str, ...] = (),
        start: Start = default,
    ):
        super().__init__()
        self.members = {m: [o for o in widths if joint == "all" or o != m] for m in widths}
        self.joint, self.use_fc = joint, options.variant not in unused_fc
        self.equations = equations = EQUATIONS[options.variant]
        self.dropout = Dropout(options.dropout["attention"])
        d_J = {m: sum(widths[o] for o in self.members[m]) for m in widths}
        fc = {"all": sum(widths.values())} if joint == "all" else d_J  # one FC per joint
        self.fc = nn.ModuleDict({joint: start(nn.Linear(d, d)) for joint, d in fc.items()})
        L, self.channel = options.window, options.attention == "channel"

        def layers(shape):
            return nn.ModuleDict({m: start(nn.Linear(*shape(m), bias=equations.biases)) for m in widths})

        self.W_j = layers(lambda m: (L, L) if self.channel else (widths[m], d_J[m]))
        self.W_c = layers(lambda m: (widths[m], widths[m]) if self.channel else (L, L))
        self.W_h = layers(lambda m: (d_J[m], widths[m]) if self.channel else (L, L))

    def forward(self, x: dict[str, Tensor], valid: Valid = None) -> dict[str, Tensor]:
        joints = self._joints(x, valid)
        step = self._channel if self.channel else self._frame
        updated = {}
        for m in x:
            update = step(m, x[m], joints[m], frames(valid, m))
            if self.equations.rectified_update:
                update = self.dropout(F.relu(update))
            updated[m] = x[m] + update
        return updated

    def _joints(self, x: dict[str, Tensor], valid: Valid) -> dict[str, Tensor]:
        """J'_m (batch, time, d_J) of every modality; zero where none of its members is valid."""

        def build(members, key):
            joint = torch.cat([x[o] for o in members], -1)  # J = [X_o ; …]
            if not self.use_fc:
                return joint
            return zero_invalid(self.fc[key](joint), any_valid(valid, members))  # J' = FC(J)

        if self.joint == "all":
            return dict.fromkeys(x, build(list(x), "all"))
        return {m: build(self.members[m], m) for m in x}

    def _channel(self, m: str, x: Tensor, joint: Tensor, valid: Tensor | None) -> Tensor:
        """Channel × channel: C = tanh(Xᵀ W_j J / √d_J), H = ReLU(X W_c C), update H W_h."""
        K = self.W_j[m](x.mT)  # (batch, d_m, time): W_j mixes time
        C = self.dropout(torch.tanh(K @ joint / math.sqrt(joint.shape[-1])))  # (batch, d_m, d_J)
        return self.W_h[m](self._hidden(self.W_c[m](x) @ C))  # (batch, time, d_J) → (batch, time, d_m)

    def _frame(self, m: str, x: Tensor, joint: Tensor, valid: Tensor | None) -> Tensor:
        """Frame × frame, X and J read feature-major: the same equations with W_c and W_h over time."""
        K = zero_invalid(self.W_j[m](x), valid)  # (batch, time, d_J); the bias must not revive a masked frame
        C = self.dropout(torch.tanh(K @ joint.mT / math.sqrt(joint.shape[-1])))  # (batch, time, time)
        return self.W_h[m](self._hidden(self.W_c[m](x.mT) @ C)).mT  # (batch, d_m, time) → (batch, time, d_m)

    def _hidden(self, product: Tensor) -> Tensor:
        return F.relu(torch.tanh(product) if self.equations.inner_tanh else product)


class OnePassJointAttention(nn.Module):
    """JCA, through H of width k = 32; W_jm (L × L), W_m (L × k) and W_hm (k × L) run over time. No biases.

    It is `models/cam.py` of github.com/praveena2j/JointCrossAttentional-AV-Fusion. Left out of the releases:

      - the raw video that is concatenated with the attended, by mistake, before the head: as printed, and as the
        file's own next version has it, both attended modalities are;
      - what github.com/praveena2j/Joint-Cross-Attention-for-Audio-Visual-Fusion trains: its main.py takes the module
        of that name from `orig_cam.py`, which is RJCA, beside this one;
      - a head for each target, in the second repository (the first trains a run for each): valence and arousal share
        one here, as in all models of the family but RJCA and DCA.
    """

    def __init__(self, widths: dict[str, int], options: Options):
        super().__init__()
        L, k, d_J = options.window, JCA_WIDTH, sum(widths.values())
        for name, shape in {"W_j": (L, L), "W_m": (L, k), "W_c": (d_J, k), "W_h": (k, L)}.items():
            self.add_module(name, nn.ModuleDict({m: nn.Linear(*shape, bias=False) for m in widths}))

    def forward(self, x: dict[str, Tensor], valid: Valid = None) -> dict[str, Tensor]:
        J = torch.cat(list(x.values()), -1)  # [X_v ; X_a], zero wherever its members are
        updated = {}
        for m, X in x.items():
            C = torch.tanh(X.mT @ self.W_j[m](J.mT).mT / math.sqrt(J.shape[-1]))  # (batch, d_m, d_J)
            H = F.relu(self.W_m[m](X.mT) + self.W_c[m](C))  # (batch, d_m, k)
            updated[m] = X + self.W_h[m](H).mT  # (batch, time, d_m)
        return updated


class CrossAttention(nn.Module):
    """CA: each of two modalities attends over its own frames, weighted by its correlation with the other. As printed:
    the release leaves out the residual and the tanh, adds the two, and predicts one value for a whole clip.

    The first modality takes the part of X_v, the second of X_a. A masked frame has weight zero, so that nothing
    attends to it.
    """

    def __init__(self, widths: dict[str, int], options: Options):
        super().__init__()
        self.first, self.second = widths
        self.W = nn.Parameter(torch.empty(widths[self.second], widths[self.first]))
        nn.init.xavier_normal_(self.W)

    def forward(self, x: dict[str, Tensor], valid: Valid = None) -> dict[str, Tensor]:
        Z = x[self.second] @ self.W @ x[self.first].mT  # X_aᵀ W X_v, (batch, time of a, time of v)
        return {
            self.first: self._attend(x[self.first], Z.mT, frames(valid, self.first)),
            self.second: self._attend(x[self.second], Z, frames(valid, self.second)),
        }

    @staticmethod
    def _attend(X: Tensor, Z: Tensor, valid: Tensor | None) -> Tensor:
        """tanh(X + X A), A the softmax of Z down every column, that is over the frames of X itself."""
        if valid is not None:
            Z = Z.masked_fill(~valid[..., None], torch.finfo(Z.dtype).min)  # finite: no frame valid is no NaN
        A = zero_invalid(torch.softmax(Z, 1), valid)
        return torch.tanh(X + A.mT @ X)


class LeaderFollower(nn.Module):
    """{m: (batch, time, d_m)} → (batch, time, d_leader + 32·M); the leader is the first modality.

    A missing modality is no key for the others and gives no value of its own.
    """

    def __init__(self, widths: dict[str, int], dropout: float):
        super().__init__()
        followers = MODAL_WIDTH * len(widths)
        self.qkv = nn.ModuleDict({m: xavier(nn.Linear(d, 3 * MODAL_WIDTH)) for m, d in widths.items()})
        self.project = xavier(nn.Linear(followers, followers))
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(followers)
        self.leader = next(iter(widths))
        self.width = widths[self.leader] + followers

    def forward(self, x: dict[str, Tensor], valid: Valid = None) -> Tensor:
        batch, time = x[self.leader].shape[:2]
        qkv = [self.qkv[m](x[m]).view(batch, time, HEADS, 1, 3 * HEAD_WIDTH) for m in x]
        q, k, v = torch.cat(qkv, 3).chunk(3, -1)  # each (batch, time, heads, modalities, 16)
        scores = q @ k.mT / math.sqrt(HEAD_WIDTH)
        if valid is None:
            attended = torch.softmax(scores, -1) @ v + v
        else:
            present = torch.stack([valid[m] for m in x], -1)[:, :, None]  # (batch, time, 1, modalities)
            scores = scores.masked_fill(~present[..., None, :], torch.finfo(scores.dtype).min)
            attended = (torch.softmax(scores, -1) @ v + v).masked_fill(~present[..., None], 0)
        followers = self.norm(self.dropout(self.project(attended.flatten(2))))
        leader = zero_invalid(x[self.leader], frames(valid, self.leader))
        return torch.cat([leader, followers], -1)
