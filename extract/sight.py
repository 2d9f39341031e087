"""What is seen in one video: faces looked for in every frame, followed, embedded, and told apart.

Frames are decoded twice, once small for the boxes and once for the crops: what is kept in memory in between is a box
per face and frame, whatever the video's length and size. On 2 CPU cores the second time is 1 % of the work at 720p, 3 %
at 1080p; keeping frames until their boxes are known took 0.7 GiB there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from affuse.extract.crops import Face, cut_squares, read_crop, resize
from affuse.extract.gpu import upload
from affuse.extract.lanes import Lanes
from affuse.extract.media import Picture, read_frames, read_pictures
from affuse.extract.networks import Networks
from affuse.extract.nvdec import decoded_there
from affuse.extract.people import Layer, Track, find_tracks, group, largest, lasting, stacked
from affuse.extract.settings import ExtractSettings
from affuse.extract.videos import Job
from affuse.extract.visual import cut_view, sides, stored_views

DETECTION_CHUNK = 33  # scaled frames looked through at once; one more than a multiple of usual steps


@dataclass
class Sight:
    """The faces of one video on their way to embeddings of `width`; the methods stand in the order of that way.
    damage: what could not be read of the pictures."""

    job: Job
    settings: ExtractSettings
    networks: Networks
    width: int
    lanes: Lanes
    damage: list[str] = field(default_factory=list)

    def look(self) -> tuple[np.ndarray, list[Track]]:
        """The time of every frame (T,), seconds, and the tracks of faces that may be followed."""
        wanted = "visual" in self.settings.modalities
        if wanted and not self.job.crops:
            detector, detection = self.networks.detector, self.settings.detection
            scaled = {"chunk": DETECTION_CHUNK, "short_side": detection.short_side}
            frames = self.lanes.reading("decode", read_frames(self.pictures(self.damage), **scaled))
            return find_tracks(self.lanes.ordered("detect", detector.watch, frames), detection.face)
        pictures = self.lanes.reading("decode", read_pictures(self.job.path, self.damage))  # of which none is looked at
        time = np.array([picture.time for picture in pictures])
        given = self.job.given_crops(len(time)) if wanted else []
        return time, [Track.of_crops(given)] if len(given) else []

    def people(self, time: np.ndarray, tracks: list[Track]) -> list[Layer]:
        """A layer of each person who is followed.

        Of one person, the tracks that may be the same person's are embedded, and where these turn out to be others',
        the tracks beside them.
        """
        detection, starting = self.settings.detection, lasting(tracks, time, self.settings.detection.least)
        if self.job.crops or detection.face == "largest":
            tracks = tracks if self.job.crops else largest(starting)
            return [layer for layer in self.embed([tracks], len(time)) if layer.embedded.any()] if tracks else []
        most = None if detection.face == "all" else 1
        hung: dict[Track, Layer] = {}
        people: list[list[Track]] = []
        while starting and (wanted := stacked([t for t in tracks if t not in hung], people[0] if people else (), most)):
            for chosen, layer in zip(wanted, self.embed(wanted, len(time)), strict=True):
                hung.update(dict.fromkeys(chosen, layer))
            seen = [track for track, layer in hung.items() if layer.embedded[track.frame].any()]  # all, in a whole file
            people = group(seen, lambda track: hung[track].sample(track), starting, detection.likeness)
        return [self._gathered(person, hung) for person in people[:most]]

    def _gathered(self, person: list[Track], hung: dict[Track, Layer]) -> Layer:
        """The tracks of a person in one layer; theirs, without what else is in it, where nobody else is asked for."""
        layer = hung[person[0]]
        if self.settings.detection.face != "all" and all(hung[track] is layer for track in person):
            layer.keep(person)
            return layer
        gathered = self.layer(len(layer.embedded))
        for track in person:
            gathered.take(hung[track], track)
        return gathered

    def layer(self, frames: int) -> Layer:
        """One without a face."""
        return Layer(frames, self.width, stored_views(self.settings.views))

    def embed(self, wanted: list[list[Track]], frames: int) -> list[Layer]:
        """The tracks of each list, which are never there at the same time, in a layer with their embeddings."""
        layers = [self.layer(frames) for _ in wanted]
        for layer, tracks in zip(layers, wanted, strict=True):
            layer.hang(*tracks)
        portions = _portions(self.lanes.reading("crop", self.squares(layers)), self.networks.face_encoder.portion)
        for places, made in self.lanes.ordered("visual", self.encode, portions):
            for layer in layers:
                of_layer = [i for i, (own, _) in enumerate(places) if own is layer]
                if of_layer:
                    layer.put([places[i][1] for i in of_layer], {view: rows[of_layer] for view, rows in made.items()})
        return layers

    def squares(self, layers: list[Layer]) -> Iterator[Face]:
        """The faces of all layers; a given crop that cannot be read counts as no face."""
        if self.job.crops:
            (layer,) = layers
            given = ((i, read_crop(self.job.crop(i), self.damage)) for i in np.flatnonzero(layer.confidence))
            return ((layer, index, picture) for index, picture in given if picture is not None)
        return cut_squares(self.pictures(), layers, self.settings.detection.margin)

    def pictures(self, damage: list[str] | None = None) -> Iterator[Picture]:
        """The video's, decoded on the device where that can be."""
        return decoded_there(self.job.path, self.networks.device, damage)

    def encode(self, portion: list[Face]) -> tuple[list[tuple[Layer, int]], dict[str, np.ndarray]]:
        """Layer and frame of each face, and {view: embeddings (n, D) float16}."""
        encoder, chosen = self.networks.face_encoder, self.settings.views
        given = [upload(square, encoder.device) for _, _, square in portion]
        wanted = sides(chosen, encoder)
        squares = {side: torch.stack([resize(face, side) for face in given]) for side in wanted}
        made = {"centre": encoder(squares[encoder.size])}
        made |= {view: encoder(cut_view(view, squares, encoder)) for view in stored_views(chosen)}
        return [(layer, index) for layer, index, _ in portion], made


def _portions(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while portion := list(islice(items, size)):
        yield portion
