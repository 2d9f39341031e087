"""What decides the features: every setting here is part of a store's identity."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from affuse.config import Settings, nearest
from affuse.device import Precision
from affuse.extract.backbones import whole_name
from affuse.extract.faces import Detection
from affuse.extract.visual import CHOICES
from affuse.features.parts import MODALITIES


class Backbones(Settings):
    """The frozen networks, by the part they play."""

    visual: str
    """What embeds faces: one that `affuse doctor` lists, timm:…, hf:…, or a class of yours, file.py:Name. `visual` for
    short."""
    audio: str
    """What embeds sound: one that `affuse doctor` lists, hf:…, or file.py:Name. `audio` for short."""
    speech: str
    """The Whisper that hears the words; `affuse doctor` lists them. `speech` for short."""
    text: str
    """What embeds words: one that `affuse doctor` lists, hf:…, or file.py:Name. `text` for short."""

    @field_validator("*")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        return whole_name(info.field_name, name)


class ExtractSettings(Settings):
    """Settings of an extraction."""

    backbones: Backbones
    modalities: tuple[Literal["visual", "audio", "text"], ...] = Field(
        MODALITIES, min_length=1, examples=[["visual", "audio"]]
    )
    """What is taken from the videos."""
    detection: Detection = Detection()
    faces: Literal["detected", "given"] = "detected"
    """Where faces are from: detected in the videos, or given as crops, with --faces-dir."""
    views: tuple[str, ...] = Field(("centre",), json_schema_extra={"items": {"enum": [*CHOICES]}})
    """What is kept of each face: the centre, and what training is to draw from beside it: flip, the mirror image, and
    corners, four corner crops."""
    audio_anchor: Literal["start", "centre", "end"] = "start"
    """What of a 0.96 s patch of sound lies at its frame's time."""
    transcripts: Literal["whisper", "given"] = "whisper"
    """Where words are from: heard by Whisper, or given, with --transcripts."""
    transcription: Literal["sequential", "chunked"] = "sequential"
    """How Whisper hears: sequential, as openai-whisper does it, each window after the one before; chunked, many windows
    at once, each knowing nothing of the words before it."""
    language: str | None = None
    """For a multilingual Whisper the code or name of the language, as de or German; null to detect it."""
    precision: Precision | Literal["auto"] = "auto"
    """The numbers that faces, sound and words are embedded in. auto: bfloat16 where the hardware is much faster at
    it, decided where a store is begun."""

    @model_validator(mode="before")
    @classmethod
    def _backbones_by_part_alone(cls, given):
        """`visual` is short for `backbones.visual`, and so are the other parts."""
        if not isinstance(given, dict) or not isinstance(given.get("backbones", {}), dict):
            return given
        short = given.keys() & Backbones.model_fields.keys()
        backbones = given.get("backbones", {}) | {part: given[part] for part in short}
        return {key: given[key] for key in given.keys() - short} | {"backbones": backbones}

    @field_validator("views", mode="before")
    @classmethod
    def _views_in_one_text(cls, given):
        return [name.strip() for name in given.split(",")] if isinstance(given, str) else given

    @field_validator("views")
    @classmethod
    def _views_in_one_order(cls, named: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """The centre is always there, and equal choices are spelt alike."""
        for name in named:
            if name not in CHOICES:
                raise ValueError(f"unknown view {name!r}{nearest(name, CHOICES)}")
        views = tuple(name for name in CHOICES if name in {"centre", *named})
        if len(views) > 1 and "visual" not in info.data.get("modalities", MODALITIES):
            raise ValueError("these are views of faces, and visual is not among the modalities")
        return views

    @model_validator(mode="after")
    def _crops_are_of_one_person(self):
        if self.faces == "given" and self.detection.face != "main":
            raise ValueError(f"detection.face={self.detection.face} chooses among detected faces, and crops are given")
        return self

    @field_validator("modalities")
    @classmethod
    def _in_order(cls, modalities: tuple[str, ...]) -> tuple[str, ...]:
        """Each once and in one order, so that equal settings have equal hashes."""
        return tuple(m for m in MODALITIES if m in modalities)

    @field_validator("language", mode="before")
    @classmethod
    def _spoken(cls, language):
        """The code of a language that Whisper knows by code or name."""
        if language in (None, "en"):  # of the profiles, without Whisper, which is slow to import
            return language
        from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

        name = "no" if language is False else str(language).lower()  # YAML reads Norwegian as false
        if name not in LANGUAGES and name not in TO_LANGUAGE_CODE:
            raise ValueError(f"unknown language{nearest(name, [*LANGUAGES, *TO_LANGUAGE_CODE])}")
        return TO_LANGUAGE_CODE.get(name, name)

    @property
    def parts(self) -> list[str]:
        """The backbones that this extraction runs."""
        wanted = set(self.modalities)
        if "text" in wanted and self.transcripts == "whisper":
            wanted.add("speech")
        return [part for part in ("visual", "audio", "speech", "text") if part in wanted]
