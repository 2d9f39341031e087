"""How features were made: what the hash of settings knows, and how two differ."""

from __future__ import annotations

import dataclasses
import json

from affuse.features import Backbone, Provenance
from affuse.features.record import how_they_differ, settings_hash
from builders import provenance


def test_the_hash_knows_what_decides_the_features_and_nothing_else():
    made = provenance()
    visual = made.backbones["visual"]

    def hash_with(**changes) -> str:
        return settings_hash(
            made.settings, {**made.backbones, "visual": dataclasses.replace(visual, **changes)}
        )

    same = {hash_with(source="/elsewhere/visual.pth"), hash_with(licence="MIT"), made.settings_hash}
    assert len(same) == 1
    assert settings_hash(dict(reversed(made.settings.items())), made.backbones) in same
    others = {
        hash_with(name="other"),
        hash_with(sha256="0" * 64),
        hash_with(trained=False),
        hash_with(width=7),
        hash_with(precision="bfloat16"),
        settings_hash({**made.settings, "audio_anchor": "end"}, made.backbones),
        settings_hash(made.settings, {}),
    }
    assert len(others - same) == 7
    assert made.settings_hash == "ed8a807d89c8bec10b72d170631d9d8891e6d344417c1190529de7f258decf15"


def test_how_settings_differ_is_told_by_dotted_key():
    old = provenance(
        settings={"detection": {"every": 1, "face": "largest"}, "backbones": {"visual": "visual-net"}}
    )
    visual = Backbone("resnet50-imagenet", "", "", False, 2048)
    text = dataclasses.replace(old.backbones["text"], precision="bfloat16")
    backbones = {"visual": visual, "audio": old.backbones["audio"], "text": text}
    new = provenance(
        settings={
            "detection": {"every": 5, "face": "largest"},
            "backbones": {"visual": "resnet50-imagenet"},
            "language": "de",
        },
        backbones=backbones,
    )
    assert how_they_differ(old, new) == [
        "speech backbone: speech-net → none",
        "text backbone text-net: precision float32 → bfloat16",
        "visual backbone: visual-net → resnet50-imagenet",
        "settings.detection.every: 1 → 5",
        "settings.language: not set → de",
    ]
    assert how_they_differ(old, old) == []


def test_provenance_comes_back_from_json():
    made = provenance()
    assert Provenance.from_dict(json.loads(json.dumps(made.as_dict()))) == made
