"""People: faces linked over time into tracks, and tracks into people.

    Sightings ─ find_tracks ─ tracks ─ Layer, with embeddings ─ group ─ people

A track is one face followed from frame to frame by where it is. It ends where the picture in its place is another
one, as at a scene cut, where it meets another face, and where it is not seen for long. Beyond that, where a face is
does not say whose it is: tracks are one person's only if their embeddings are alike, and if they are not there at the
same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from affuse.extract.faces import Detected, Sightings, overlap

MEMORY = 1.0  # s a track may go unseen before it ends
LINK = 0.3  # intersection over union that makes two boxes of neighbouring frames one face
SAME = 0.5  # correlation of neighbouring pictures of one face
MEET = 0.1  # intersection over union at which two faces of one frame may be taken for each other
SHORTEST = 0.2  # of the video: a track as long as this may always start a person
SAMPLES = 64  # faces of a track that are compared
OWN_SHARE = 0.1  # of a person's own faces may be less like the person than another track is


@dataclass(eq=False)
class Track:
    """One face followed: frame (n,) int64, rising; box (n, 4) float32, left, top, right, bottom in square pixels of
    that frame, NaN where crops are given; confidence (n,) float32."""

    frame: np.ndarray
    box: np.ndarray
    confidence: np.ndarray

    @classmethod
    def of_crops(cls, frame: np.ndarray) -> Track:
        """The faces given for these frames."""
        return cls(frame, np.full((len(frame), 4), np.nan, np.float32), np.ones(len(frame), np.float32))

    @property
    def prominence(self) -> float:
        """Summed side length: long and near beats brief and far."""
        return float(np.sqrt(np.prod(self.box[:, 2:] - self.box[:, :2], axis=1).clip(0)).sum())

    @property
    def centre(self) -> float:
        return float((self.box[:, 0] + self.box[:, 2]).mean() / 2)

    @property
    def span(self) -> slice:
        """From its first to its last frame."""
        return slice(self.frame[0], self.frame[-1] + 1)


@dataclass
class _Live:
    """A track that goes on: its last sighting's time and patch, and whether it lies on another face."""

    met: bool
    time: float = 0.0
    patch: np.ndarray | None = None
    frame: list[int] = field(default_factory=list)
    box: list[np.ndarray] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)

    def add(self, index: int, time: float, patch: np.ndarray, box: np.ndarray, confidence: float) -> None:
        self.time, self.patch = time, patch
        self.frame.append(index)
        self.box.append(box)
        self.confidence.append(confidence)


def link(detected: list[Detected], time: np.ndarray, patches: list[np.ndarray]) -> list[Track]:
    """Link boxes of consecutive frames into tracks, best overlap first; each box joins exactly one track. No track goes
    on with a face that looks otherwise, nor from lying on another face to lying alone, or the other way."""
    tracks: list[_Live] = []
    live: list[_Live] = []
    for index, faces in enumerate(detected):
        live = [t for t in live if time[index] - t.time <= MEMORY]
        met = (overlap(faces.boxes, faces.boxes) - np.eye(len(faces.boxes)) > MEET).any(axis=1)
        unlinked = set(range(len(faces.boxes)))
        if live and unlinked:
            score = overlap(np.array([t.box[-1] for t in live]), faces.boxes)
            order = np.argsort(-score, axis=None, kind="stable")
            for t, f in zip(*np.unravel_index(order, score.shape), strict=True):
                if score[t, f] < LINK:
                    break
                free = f in unlinked and live[t].frame[-1] != index
                if free and live[t].met != met[f]:
                    live[t].time = -np.inf  # it ends here
                elif free and correlation(live[t].patch, patches[index][f]) >= SAME:
                    live[t].add(index, time[index], patches[index][f], faces.boxes[f], faces.confidence[f])
                    unlinked.discard(f)
        for f in sorted(unlinked):
            track = _Live(met[f])
            track.add(index, time[index], patches[index][f], faces.boxes[f], faces.confidence[f])
            tracks.append(track)
            live.append(track)
    return [Track(np.array(t.frame), np.array(t.box, np.float32), np.array(t.confidence, np.float32)) for t in tracks]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of two patches, −1 to 1; 1 where neither has any contrast."""
    a, b = (patch.astype(np.float64) - patch.mean() for patch in (one, other))
    spread = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / spread) if spread else 1.0


def find_tracks(sightings: Iterable[Sightings], face: str) -> tuple[np.ndarray, list[Track]]:
    """The time of every frame (T,), seconds, and the tracks of those whom the setting `face` lets be followed.

    Where the size of frames changes midway, faces are linked in pixels of the first scaled frame, and each box is then
    scaled to its own frame.
    """
    sightings = list(sightings)
    if not sightings:
        return np.zeros(0), []
    first = sightings[0].scaled
    faces = [found.scaled(first / part.scaled) for part in sightings for found in part.faces]
    patches = [patch for part in sightings for patch in part.patches]
    time, size = (np.concatenate([getattr(part, name) for part in sightings]) for name in ("time", "size"))
    tracks = link(faces, time, patches)
    if face in ("left", "right"):
        tracks = [t for t in tracks if (t.centre < first[0] / 2) == (face == "left")]
    for track in tracks:
        track.box *= np.tile(size[track.frame] / first, 2).astype(np.float32)
    return time, tracks


def lasting(tracks: Iterable[Track], time: np.ndarray, least: float) -> list[Track]:
    """The tracks that may start a person: of at least `least` seconds, or of a fifth of the video."""
    step = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
    return [t for t in tracks if len(t.frame) * step >= least or len(t.frame) >= SHORTEST * len(time)]


def largest(tracks: Iterable[Track]) -> list[Track]:
    """One track of the largest face in each frame."""
    tracks = list(tracks)
    if not tracks:
        return []
    frame, box, confidence = (
        np.concatenate([getattr(t, name) for t in tracks]) for name in ("frame", "box", "confidence")
    )
    area = np.prod(box[:, 2:] - box[:, :2], axis=1)
    order = np.lexsort((-area, frame))
    first = order[np.unique(frame[order], return_index=True)[1]]
    return [Track(frame[first], box[first], confidence[first])]


def stacked(tracks: Iterable[Track], others: Iterable[Track] = (), most: int | None = None) -> list[list[Track]]:
    """The tracks in lists, at most so many, each of tracks that are never there at the same time as another of the list
    or as one of `others`. The most prominent comes first."""
    rest = sorted(tracks, key=lambda t: -t.prominence)
    lists: list[list[Track]] = []
    while len(lists) != most:
        taken, chosen, left = np.zeros(1 + max((t.frame[-1] for t in (*rest, *others)), default=0), bool), [], []
        for other in others:
            taken[other.span] = True
        for track in rest:
            if taken[track.span].any():
                left.append(track)
            else:
                taken[track.span] = True
                chosen.append(track)
        if not chosen:
            break
        lists.append(chosen)
        rest = left
    return lists


class Layer:
    """Faces of a whole video, at most one a frame: box (T, 4) and confidence (T,) as in a track, NaN and 0 where there
    is none; rows {view: (T, D) float16} their embeddings, and embedded (T,) bool where they are made."""

    def __init__(self, frames: int, width: int, views: Iterable[str] = ()):
        self.box = np.full((frames, 4), np.nan, np.float32)
        self.confidence = np.zeros(frames, np.float32)
        self.rows = {view: np.zeros((frames, width), np.float16) for view in ("centre", *views)}
        self.embedded = np.zeros(frames, bool)

    def hang(self, *tracks: Track) -> None:
        for track in tracks:
            self.box[track.frame], self.confidence[track.frame] = track.box, track.confidence

    def put(self, frame: list[int], made: dict[str, np.ndarray]) -> None:
        """The embeddings of these frames' faces, by view."""
        self.embedded[frame] = True
        for view, rows in made.items():
            self.rows[view][frame] = rows

    def sample(self, track: Track) -> np.ndarray:
        """Embeddings of faces of the track, evenly spaced, each of length one: (n, D) float32."""
        made = track.frame[self.embedded[track.frame]]
        return _unit(self.rows["centre"][made[:: -(-len(made) // SAMPLES) or 1]].astype(np.float32))

    def take(self, other: Layer, track: Track) -> None:
        """The track from another layer."""
        self.hang(track)
        self.embedded[track.frame] = other.embedded[track.frame]
        for view, rows in other.rows.items():
            self.rows[view][track.frame] = rows[track.frame]

    def keep(self, tracks: Iterable[Track]) -> None:
        """Forget all but these tracks."""
        gone = np.ones(len(self.confidence), bool)
        for track in tracks:
            gone[track.frame] = False
        made = gone & self.embedded  # alone: rows that nothing was written to take no memory yet
        self.box[gone], self.confidence[gone], self.embedded[gone] = np.nan, 0, False
        for rows in self.rows.values():
            rows[made] = 0


@dataclass
class _Person:
    """Tracks of one person, and where they are, (frames,) bool; total, of the unit vectors that stand for them; spread,
    that of the first."""

    tracks: list[Track]
    there: np.ndarray
    total: np.ndarray
    spread: float


def group(
    tracks: Iterable[Track], faces: Callable[[Track], np.ndarray], starting: Iterable[Track], likeness: float
) -> list[list[Track]]:
    """The tracks of each person, the most prominent person first, by what `faces` gives of each: embeddings (n, D).

    The most prominent track starts the first person. Each further one, by prominence, joins the person whom it is most
    like of those who are not there beside it, or starts one, if it is among `starting`. Alike are two whose mean
    embeddings have a cosine of at least `likeness`, or no less than a tenth of the faces of one of them have with
    their own mean: embeddings of expressions differ within a person too.
    """
    people: list[_Person] = []
    rest, may_start = sorted(tracks, key=lambda t: -t.prominence), set(starting)
    frames = max((track.span.stop for track in rest), default=0)
    for track in rest:
        own = faces(track)
        centre = _unit(own.mean(axis=0))
        spread = float(np.quantile(own @ centre, OWN_SHARE))
        others = [person for person in people if not person.there[track.span].any()]
        margins = [_unit(p.total) @ centre - min(likeness, p.spread, spread) for p in others]
        if margins and max(margins) >= 0:
            joined = others[int(np.argmax(margins))]
            joined.tracks.append(track)
            joined.total += centre
        elif track in may_start:
            joined = _Person([track], np.zeros(frames, bool), centre.copy(), spread)
            people.append(joined)
        else:
            continue
        joined.there[track.span] = True
    people.sort(key=lambda person: -sum(track.prominence for track in person.tracks))
    return [person.tracks for person in people]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
