"""The profiles: which backbone plays each part, by name. Nothing heavy is imported, so that a command line is quick."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import click

from affuse.console import completing, set_option

PROFILES = {
    "paper": {
        "visual": "resnet50-ferplus",
        "audio": "vggish",
        "speech": "whisper-base.en",
        "text": "bert-base-uncased",
    },
    "offline": {
        "visual": "resnet50-imagenet-caffe",
        "audio": "vggish",
        "speech": "whisper-tiny.en",
        "text": "minilm-l6",
    },
}

EXTRACT_SET = set_option(lambda: import_module("affuse.extract.settings").ExtractSettings)


def fetching(names: list[str], parts: dict[str, str]) -> str:
    """The one command that downloads these backbones: by the profile, where `parts` are those of one, else by name."""
    profile = next((name for name, own in PROFILES.items() if own == parts), None)
    return f"affuse download --profile {profile}" if profile else " ".join(["affuse download", *names])


def profile_option(default: str | None) -> Callable:
    """--profile, wherever backbones are chosen."""
    return click.option(
        "--profile",
        default=default,
        show_default=default is not None,
        shell_complete=completing(lambda: PROFILES),
        help="Backbones: paper, or offline (from pip packages).",
    )
