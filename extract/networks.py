"""The networks of an extraction: where their weights are, what the store says of them, and the networks themselves."""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import version
from threading import Lock

import torch
from affuse.extract.faces import FaceDetector
from affuse.extract.settings import ExtractSettings
from affuse.extract.weights.locate import Located, locate
from affuse.extract.weights.table import LIBRARIES
from affuse.features.record import Backbone, Provenance, settings_hash

from affuse.device import pick_device
from affuse.errors import UsageError
from affuse.version import VERSION

VIDEOS = {"cpu": 1, "cuda": 8}  # on which one process works at once


def extraction_device(name: str) -> torch.device:
    """The device of that name. Raises UsageError for one that is absent, or that extraction does not know."""
    device = pick_device(name)
    if device.type not in VIDEOS:
        raise UsageError(f"Extraction runs on cpu or cuda, not on {device.type}: choose with --device.")
    return device


def locate_backbones(settings: ExtractSettings, weights_dir, allow_untrained: bool) -> dict[str, Located]:
    """Find the weights of every part. Only faces and sound may be untrained: words cannot be invented."""
    names = settings.backbones.model_dump()
    return {
        part: locate(
            names[part], weights_dir, allow_untrained=allow_untrained and part in ("visual", "audio")
        )
        for part in settings.parts
    }


def make_provenance(settings: ExtractSettings, located: dict[str, Located]) -> Provenance:
    """Settings and backbones as the store keeps them; known before any network is built."""
    speech = (
        "float32" if settings.precision == "float32" else "float16 on a GPU"
    )  # openai-whisper's own choice
    backbones = {
        part: Backbone(
            name=found.name,
            source=found.source,
            sha256=found.sha256,
            trained=found.trained,
            width=found.entry.width,
            precision=speech if part == "speech" else settings.precision,
            licence=found.entry.licence,
        )
        for part, found in located.items()
    }
    resolved = settings.model_dump(mode="json")
    versions = {"affuse": VERSION, **{name: version(name) for name in LIBRARIES}}
    return Provenance(resolved, settings_hash(resolved, backbones), backbones, versions)


class Networks:
    """The networks of every part, each built at its first use and kept.

    together: they serve several threads at once, whose rows fill batches of one shape.
    """

    def __init__(
        self, settings: ExtractSettings, located: dict[str, Located], device: torch.device, together: bool
    ):
        self.settings, self.located, self.device, self.together = settings, located, device, together
        self.dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
        self._loading = Lock()

    @cached_property
    def detector(self) -> FaceDetector:
        return FaceDetector(self.settings.detection, self.device)

    @cached_property
    def face_encoder(self):
        from affuse.extract.visual import FaceEncoder

        return FaceEncoder(self.located["visual"], self.device, self.dtype, self.together)

    @cached_property
    def sound_encoder(self):
        from affuse.extract.audio import SoundEncoder

        anchor = self.settings.audio_anchor
        return SoundEncoder(self.located["audio"], anchor, self.device, self.dtype, self.together)

    @cached_property
    def transcriber(self):
        from affuse.extract.speech import ChunkedTranscriber, Transcriber

        half = self.device.type == "cuda" and self.settings.precision == "bfloat16"
        given = (self.located["speech"], self.settings.language, self.device, half)
        if self.settings.transcription == "chunked":
            return ChunkedTranscriber(*given, self.together)
        return Transcriber(*given)

    @cached_property
    def word_encoder(self):
        from affuse.extract.text import WordEncoder

        return WordEncoder(self.located["text"], self.device, self.dtype)

    def load(self) -> None:
        """Build the networks of every part now, so that weights that do not fit stop a run before its first video.

        Raises AffuseError naming the file.
        """
        networks = {
            "visual": "face_encoder",
            "audio": "sound_encoder",
            "speech": "transcriber",
            "text": "word_encoder",
        }
        with self._loading:
            for part in self.settings.parts:
                getattr(self, networks[part])
            if "visual" in self.settings.parts and self.settings.faces == "detected":
                self.detector  # noqa: B018 (built here)
