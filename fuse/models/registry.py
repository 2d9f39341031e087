"""The family at a glance: one entry per model, and the entries differ in exactly what the papers differ in.

Read a column to compare the papers. A new variant is a new entry here, not a new file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from affuse.fuse.models.attention import PAPER, RELEASED, Equations
from affuse.fuse.models.heads import HeadSpec

VARIANTS = ("released", "paper")
ATTENTIONS = ("channel", "frame")
ENCODERS = ("tcn", "bilstm", "linear", "none")
GATES = ("dca", "grjca", "hgrjca", "none")

AUDIO_VISUAL = ("visual", "audio")
TRIMODAL = ("visual", "audio", "text")
STANDARD_WIDTHS = {
    "visual": 512,
    "audio": 128,
    "text": 768,
}  # IR-50, VGGish, BERT: parameters are counted at these

TCN_RCMA = {"visual": (512, 512, 512, 512), "audio": (128, 128, 128, 128), "text": (512, 512, 512, 512)}
TCN_RJCMA = {"visual": (512, 512, 256, 256), "audio": (128, 128, 128, 128), "text": (256, 256, 128, 128)}
TCN_LFAN = {"visual": (256, 256, 128, 128), "audio": (64, 64, 32, 32), "text": (256, 256, 128, 128)}
LSTM_512 = dict.fromkeys(TRIMODAL, (512,))
LINEAR_128 = dict.fromkeys(TRIMODAL, (128,))

HEAD_RJCMA = HeadSpec(hidden=256, norm=True, activation="leaky_relu", tanh=True)
HEAD_LINEAR = HeadSpec(tanh=True)
HEAD_RJCA = HeadSpec(hidden=128, activation="relu", dropout=0.6, per_target=True)
HEAD_JCA = HeadSpec(hidden=128, dropout=0.6)


@dataclass(frozen=True)
class ModelSpec:
    """What a model is. Fields given per variant are dictionaries released/paper."""

    title: str
    paper: str  # authors, year, venue
    block: str | None  # 'joint' | 'jca' | 'ca' | None
    standard: tuple[str, ...] = TRIMODAL  # modalities of the publication
    modalities: tuple[int, int] = (2, 3)  # fewest and most it can take
    joint: str | None = None  # 'all' | 'others'
    fc: dict[str, str] = field(default_factory=dict)  # 'used' | 'unused', per variant
    recursions: dict[str, int] = field(default_factory=dict)  # l, per variant
    gates: str | None = None  # 'dca' | 'grjca' | 'hgrjca'
    encoder: str = "tcn"
    channels: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: TCN_RJCMA
    )  # the last is the encoded width
    encoder_dropout: float = 0.1
    l2: str | None = (
        None  # frames scaled to unit length: 'features' as they come in, 'encoded' before the attention
    )
    fusion: str = "concat"  # 'concat' | 'bilstm' (a second one, over the concatenation) | 'leader'
    fusion_dropout: float = 0.0
    head: HeadSpec = HEAD_RJCMA

    @property
    def recursive(self) -> bool:
        return self.block == "joint"


def both(value) -> dict:
    return dict.fromkeys(VARIANTS, value)


EQUATIONS: dict[str, Equations] = {"released": RELEASED, "paper": PAPER}

MODELS: dict[str, ModelSpec] = {
    "rjcma": ModelSpec(
        title="Recursive Joint Cross-Modal Attention",
        paper="Praveen, Alam, 2024, CVPRW (ABAW6)",
        block="joint",
        joint="all",
        fc={"released": "unused", "paper": "used"},
        recursions={"released": 2, "paper": 3},
    ),
    "rcma": ModelSpec(
        title="Recursive Cross-Modal Attention",
        paper="Praveen, Alam, 2024, CVPRW (ABAW6), first release",
        block="joint",
        joint="others",
        fc=both("used"),
        recursions=both(2),
        channels=TCN_RCMA,
        head=HEAD_LINEAR,
    ),
    "grjca": ModelSpec(
        title="Gated Recursive Joint Cross-Attention",
        paper="Rajasekhar, Alam, Charton, 2025, CVPRW (ABAW8)",
        block="joint",
        standard=AUDIO_VISUAL,
        joint="all",
        fc=both("used"),
        recursions=both(2),
        gates="grjca",
        l2="encoded",
    ),
    "hgrjca": ModelSpec(
        title="Hierarchically Gated Recursive Joint Cross-Attention",
        paper="Rajasekhar, Alam, Charton, 2025, CVPRW (ABAW8)",
        block="joint",
        standard=AUDIO_VISUAL,
        joint="all",
        fc=both("used"),
        recursions=both(2),
        gates="hgrjca",
        l2="encoded",
    ),
    "dca": ModelSpec(
        title="Dynamic Cross-Attention",
        paper="Praveen, Alam, 2024, ICME",
        block="joint",
        standard=AUDIO_VISUAL,
        joint="all",
        fc=both("used"),
        recursions=both(2),
        gates="dca",
        encoder="bilstm",
        channels=LSTM_512,
        l2="features",
        fusion="bilstm",
        head=HEAD_RJCA,
    ),
    "rjca": ModelSpec(
        title="Recursive Joint Cross-Attention with LSTMs",
        paper="Praveen, Granger, Cardinal, 2023, ICASSP",
        block="joint",
        standard=AUDIO_VISUAL,
        joint="all",
        fc=both("used"),
        recursions=both(1),
        encoder="bilstm",
        channels=LSTM_512,
        l2="features",
        fusion="bilstm",
        head=HEAD_RJCA,
    ),
    "jca": ModelSpec(
        title="Joint Cross-Attention",
        paper="Praveen et al., 2022, CVPRW (ABAW3)",
        block="jca",
        standard=AUDIO_VISUAL,
        joint="all",
        encoder="linear",
        channels=LINEAR_128,
        head=HEAD_JCA,
    ),
    "ca": ModelSpec(
        title="Cross-Attention",
        paper="Praveen, Granger, Cardinal, 2021, FG",
        block="ca",
        standard=AUDIO_VISUAL,
        modalities=(2, 2),
        joint="others",
        encoder="none",
        l2="features",
        head=HEAD_JCA,  # the paper regresses clips, not frames; JCA's head is its successor per frame
    ),
    "lfan": ModelSpec(
        title="Leader–Follower Attention Network",
        paper="Zhang et al., 2022, CVPRW (ABAW3)",
        block=None,
        channels=TCN_LFAN,
        fusion="leader",
        fusion_dropout=0.1,
        head=HEAD_LINEAR,
    ),
    "concat": ModelSpec(title="Concatenation", paper="baseline", block=None),
    "unimodal": ModelSpec(
        title="One modality alone", paper="baseline", block=None, standard=("visual",), modalities=(1, 1)
    ),
}
