"""The networks of an extraction: where their weights are, what the store says of them, and the networks themselves."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from threading import Lock
from typing import get_args

import torch

from affuse.device import Precision, pick_device, pick_precision
from affuse.errors import AffuseError, UsageError
from affuse.extract.backbones import locate_backbone, public_name
from affuse.extract.faces import FaceDetector
from affuse.extract.profiles import fetching
from affuse.extract.settings import ExtractSettings
from affuse.extract.strangers import Stranger
from affuse.extract.text import WordEncoder
from affuse.extract.visual import FaceEncoder
from affuse.extract.weights.locate import Located, MissingError, weights_folder
from affuse.extract.weights.table import BACKBONES, LIBRARIES
from affuse.features.record import Backbone, Provenance, settings_hash
from affuse.features.store import FeatureStore
from affuse.plugins import said
from affuse.version import VERSION

log = logging.getLogger("affuse")

ENCODERS = {"visual": "face_encoder", "audio": "sound_encoder", "speech": "transcriber", "text": "word_encoder"}
VIDEOS = {"cpu": 1, "cuda": 8}  # on which one process works at once


def extraction_device(name: str) -> torch.device:
    """The device of that name, not opened yet. Raises UsageError for one that is absent, or that extraction does not
    know."""
    device = pick_device(name, opened=False)
    if device.type not in VIDEOS:
        raise UsageError(f"Extraction runs on cpu or cuda, not on {device.type}: choose with --device.")
    return device


def decided(settings: ExtractSettings, device: torch.device, store: FeatureStore | None = None) -> ExtractSettings:
    """The settings with their precision decided: "auto" is that of the store, once anything is in it, so that whoever
    goes on with it keeps to it, on whatever machine; else what suits `device`."""
    begun = kept_precision(store) if store and settings.precision == "auto" else None
    return settings.model_copy(update={"precision": begun or pick_precision(settings.precision, device)})


def kept_precision(store: FeatureStore) -> Precision | None:
    """That of most videos in the store, of those that say one; None where none does."""
    found = (made.settings.get("precision") for made in store.provenances())
    return next((precision for precision in found if precision in get_args(Precision)), None)


def locate_backbones(settings: ExtractSettings, weights_dir, allow_untrained: bool) -> dict[str, Located]:
    """Find the weights of every part. Only faces and sound may be untrained: words cannot be invented.

    Raises MissingError naming all that cannot be had."""
    located, missing = {}, {}
    for part in settings.parts:
        untrained = allow_untrained and part in ("visual", "audio")
        try:
            found = locate_backbone(part, getattr(settings.backbones, part), weights_dir, untrained)
        except MissingError as error:
            missing |= error.missing
            continue
        if not (found.entry.width or part == "speech"):  # what a stranger makes is known once it is built
            width = build(part, found, settings, torch.device("cpu"), torch.float32).width
            found = replace(found, entry=replace(found.entry, width=width))
        located[part] = found
        log.debug("%s: %s, from %s", part, found.name, found.path or found.source)
    if missing:
        command = fetching(list(missing), settings.backbones.model_dump())
        raise MissingError(missing, weights_folder(weights_dir), command)
    return located


def make_provenance(settings: ExtractSettings, located: dict[str, Located]) -> Provenance:
    """Settings and backbones as the store keeps them; known before any network is built."""
    backbones = {
        part: Backbone(
            name=found.name,
            source=found.source,
            sha256=found.sha256,
            trained=found.trained,
            width=found.entry.width,
            precision="float32" if part == "speech" else settings.precision,  # words are the same under either
            licence=found.entry.licence,
        )
        for part, found in located.items()
    }
    resolved = settings.model_dump(mode="json")
    resolved["backbones"] = {part: public_name(name) for part, name in resolved["backbones"].items()}
    versions = {"affuse": VERSION, **{name: version(name) for name in LIBRARIES}}
    return Provenance(resolved, settings_hash(resolved, backbones), backbones, versions)


class Networks:
    """The networks of every part, each built at its first use and kept.

    together: they serve several threads at once, whose rows fill batches of one shape.
    """

    def __init__(self, settings: ExtractSettings, located: dict[str, Located], device: torch.device, together: bool):
        self.settings, self.located, self.device, self.together = settings, located, device, together
        self.dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
        self._loading = Lock()

    detector = cached_property(lambda self: FaceDetector(self.settings.detection, self.device))
    face_encoder = cached_property(lambda self: self._built("visual"))
    sound_encoder = cached_property(lambda self: self._built("audio"))
    transcriber = cached_property(lambda self: self._built("speech"))
    word_encoder = cached_property(lambda self: self._built("text"))

    def _built(self, part: str):
        return build(part, self.located[part], self.settings, self.device, self.dtype, self.together)

    def load(self) -> None:
        """Build the networks of every part now, so that weights that do not fit stop a run before its first video.

        Raises AffuseError naming the file.
        """
        with self._loading:
            for part in self.settings.parts:
                getattr(self, ENCODERS[part])
            if "visual" in self.settings.parts and self.settings.faces == "detected":
                self.detector  # noqa: B018 (built here)


def build(part: str, located: Located, settings: ExtractSettings, device, dtype, together: bool = False):
    """The encoder of one part, ready to be called. Raises AffuseError where it cannot be made of what was found."""
    try:
        if part == "visual":
            return FaceEncoder(located, device, dtype, together)
        if part == "speech":
            from affuse.extract.speech import ChunkedTranscriber, Transcriber

            given = (located, settings.language, device)
            chunked = settings.transcription == "chunked"
            return ChunkedTranscriber(*given, together) if chunked else Transcriber(*given)
        from affuse.extract.audio import ANCHORS, FramedSound, SoundEncoder

        if located.encoder:
            return Stranger(located, device, dtype, ANCHORS[settings.audio_anchor])
        if part == "text":
            return WordEncoder(located, device, dtype)
        if located.name in BACKBONES:
            return SoundEncoder(located, settings.audio_anchor, device, dtype, together)
        return FramedSound(located, settings.audio_anchor, device, dtype)
    except AffuseError:
        raise
    except Exception as error:  # a stranger's may be anything
        if located.name in BACKBONES and not isinstance(error, OSError | ValueError):
            raise
        raise AffuseError(f"Backbone {located.name!r} does not serve for {part}: {said(error)}.") from None
