"""The presets: how each paper's release trains, by where it was read; ours are the defaults of `TrainSettings`."""

# github.com/praveena2j/RJCMA, and github.com/sucv/ABAW3, whose trainer it takes. The dropouts (block 0.6, TCNs 0.1) are
# the model's own. There a restart also unfreezes a part of the backbones, which are frozen here.
RELEASED = {
    "size": "published",
    "modality_dropout": 0.0,
    "loss": "ccc",
    "gaps": "close",
    "normalisation": "text",
    "shuffle": "once",
    "optimiser": "adam",
    "learning_rate": 1e-5,
    "weight_decay": 1e-3,
    "batch": 12,
    "epochs": 100,
    "warmup": "sawtooth",
    "warmup_epochs": 5,
    "decay": 1.0,
    "plateau_factor": 0.1,
    "plateau_patience": 5,
    "min_learning_rate": 1e-8,
    "restarts": 2,
    "reload_best": True,
    "stop_patience": 50,
}
# The releases that see a video as clips, 8 to 16 of them a window. What they do not have is off.
OF_CLIPS = {
    **RELEASED,
    "gaps": "mask",
    "normalisation": "none",
    "shuffle": "epoch",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "warmup_epochs": 0,
    "decay": 0.8,
    "decay_start": 5,
    "decay_every": 2,
    "plateau_factor": 1.0,
    "min_learning_rate": 0.0,
    "restarts": 0,
    "reload_best": False,
    "stop_patience": 0,
}
PRESETS: dict[str, dict] = {
    "affuse": {},  # for one's own data, of some dozens of videos: the defaults of `TrainSettings`
    "released": RELEASED,
    # The text of the RCMA paper. Of gaps, normalisation, order and restarts it says nothing: those are ours.
    "rcma": {
        **RELEASED,
        "gaps": "mask",
        "normalisation": "channels",
        "shuffle": "epoch",
        "learning_rate": 1e-4,
        "weight_decay": 5e-4,
        "dropout": {"attention": 0.5, "head": 0.8},
        "warmup": "linear",
        "min_learning_rate": 0.0,
        "restarts": 0,
        "reload_best": False,
        "stop_patience": 0,
    },
    # GRJCA and HGRJCA: the released schedule at ten times the rate.
    "grjca": {**RELEASED, "learning_rate": 1e-4},
    # github.com/sucv/ABAW3 as it was for the LFAN paper (2022). There no warm-up follows a restart, and the audio
    # embeddings are scaled as those of text are.
    "lfan": {
        **RELEASED,
        "batch": 8,
        "warmup": "stairs",
        "warmup_epochs": 10,
        "min_learning_rate": 1e-7,
        "stop_patience": 20,
    },
    # github.com/praveena2j/JointCrossAttentional-AV-Fusion
    "jca": {**OF_CLIPS, "batch": 96, "epochs": 30},
    # github.com/praveena2j/Joint-Cross-Attention-for-Audio-Visual-Fusion, which trains RJCA's module. There the first
    # six epochs are at 1e-4.
    "rjca": {**OF_CLIPS, "shuffle": "once", "batch": 64, "epochs": 50},
    # github.com/praveena2j/Dynamic-CrossAttention. There the first six epochs are at 3e-4, and every epoch ends after
    # its sixth batch, as if for debugging.
    "dca": {**OF_CLIPS, "shuffle": "once", "optimiser": "adamw", "weight_decay": 1e-5, "batch": 64, "epochs": 100},
    # github.com/praveena2j/Cross-Attentional-AV-Fusion
    "ca": {**OF_CLIPS, "learning_rate": 1e-4, "decay_start": 15, "batch": 16, "epochs": 60},
}
