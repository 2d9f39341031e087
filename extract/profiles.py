"""The profiles: which backbone plays each part, by name. Nothing is imported here, so that a command line is quick."""

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


def fetching(names: list[str], parts: dict[str, str]) -> str:
    """The one command that downloads these backbones: by the profile, where `parts` are those of one, else by name."""
    profile = next((name for name, own in PROFILES.items() if own == parts), None)
    return f"affuse download --profile {profile}" if profile else " ".join(["affuse download", *names])
