"""Who is followed: boxes into tracks, tracks into people, and films of several people from end to end."""

from time import process_time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affuse.extract.faces import GRID, NOBODY, Detected
from affuse.extract.people import Layer, Track, group, largest, lasting, link, stacked
from affuse.extract.sight import Sight
from affuse.extract.videos import Job, everyone, find_jobs
from affuse.features.parts import Status
from builders_extract import seeded_extractor
from cast import LEFT, RIGHT, Part, film, scene

HERE = np.random.default_rng(0).integers(0, 255, GRID**2, np.uint8)  # how somebody looks
ELSE = HERE[::-1].copy()


def detected(*boxes, confidence=0.99):
    return Detected(np.array(boxes, float).reshape(-1, 4), np.full(len(boxes), confidence))


def linked(frames: list[Detected], time: np.ndarray, looks=None) -> list[Track]:
    return link(
        frames, time, looks or [np.stack([HERE] * len(f.boxes)) if len(f.boxes) else [] for f in frames]
    )


def frames_of(tracks: list[Track]) -> list[list[int]]:
    return sorted(track.frame.tolist() for track in tracks)


def track(first: int, last: int, side: float = 10, left: float = 0) -> Track:
    frame = np.arange(first, last + 1)
    box = np.tile(np.array([left, 0, left + side, side], np.float32), (len(frame), 1))
    return Track(frame, box, np.ones(len(frame), np.float32))


def beside(one: Track, other: Track) -> bool:
    return one.frame[0] <= other.frame[-1] and other.frame[0] <= one.frame[-1]


# ---- boxes into tracks


def test_two_people_are_two_tracks_and_a_gap_is_bridged():
    near, far = [0, 0, 40, 40], [100, 0, 120, 20]
    frames = [detected(near, far), detected(far, near), NOBODY, detected(far), detected(near, far)]
    assert frames_of(linked(frames, np.arange(5) * 0.1)) == [[0, 1, 3, 4], [0, 1, 4]]


def test_a_track_ends_when_unseen_for_long():
    box = [0, 0, 40, 40]
    assert len(linked([detected(box), detected(box)], np.array([0.0, 5.0]))) == 2


def test_a_track_ends_where_another_face_is_in_its_place():
    looks = [HERE[None], HERE[None], ELSE[None], ELSE[None]]
    found = linked([detected([0, 0, 40, 40])] * 4, np.arange(4) * 0.1, looks)
    assert frames_of(found) == [[0, 1], [2, 3]]
    darker = [(HERE * share).astype(np.uint8)[None] for share in (1, 0.7, 0.4, 0.7)]
    assert len(linked([detected([0, 0, 40, 40])] * 4, np.arange(4) * 0.1, darker)) == 1


def test_tracks_end_where_faces_meet_and_begin_anew_where_they_part():
    still = [100, 0, 140, 40]
    frames = [detected([100 + x, 0, 140 + x, 40], still) for x in (-60, -45, -30, -25, -30, -45, -60)]
    assert frames_of(linked(frames, np.arange(7) * 0.1)) == [
        [0, 1],
        [0, 1],
        [2, 3, 4],
        [2, 3, 4],
        [5, 6],
        [5, 6],
    ]


@given(
    st.lists(
        st.lists(st.tuples(*[st.floats(0, 100)] * 2, *[st.floats(1, 50)] * 2), max_size=3),
        min_size=1,
        max_size=12,
    )
)
def test_every_sighting_is_in_one_track_once(frames):
    frames = [detected(*[(x, y, x + w, y + h) for x, y, w, h in boxes]) for boxes in frames]
    tracks = linked(frames, np.arange(len(frames)) * 0.1)
    for index, faces in enumerate(frames):
        held = [t.box[t.frame == index][0] for t in tracks if index in t.frame]
        assert sorted(map(tuple, held)) == sorted(map(tuple, faces.boxes.astype(np.float32)))
    assert all((np.diff(t.frame) > 0).all() for t in tracks)


def test_a_face_seen_in_one_frame_of_many_starts_nobody():
    time = np.arange(100) / 25
    brief, long, few = track(3, 3), track(10, 21), track(10, 22)
    assert lasting([brief, long, few], time, 0.5) == [few]
    assert lasting([brief], time[:4], 0.5) == [brief]  # a quarter of what there is


def test_the_largest_face_of_each_frame():
    (found,) = largest([track(0, 5, side=10), track(3, 8, side=20, left=100)])
    np.testing.assert_array_equal(found.frame, np.arange(9))
    np.testing.assert_array_equal(found.box[:, 0] == 100, np.arange(9) >= 3)
    assert largest([]) == []


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10), st.integers(1, 50)), max_size=12))
def test_no_list_has_two_who_are_there_together(spans):
    tracks = [track(first, first + more, side) for first, more, side in spans]
    lists = stacked(tracks)
    assert sorted(map(id, (t for chosen in lists for t in chosen))) == sorted(map(id, tracks))
    for chosen in lists:
        assert not any(beside(a, b) for a in chosen for b in chosen if a is not b)
    if tracks:
        (first, *_), *_ = lists
        assert first.prominence == max(t.prominence for t in tracks)
        assert all(not beside(t, first) for chosen in stacked(tracks, [first]) for t in chosen)


# ---- tracks into people


def faces(direction: int, count: int = 20, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    rows = np.eye(8)[direction] + np.random.default_rng(seed).normal(0, noise / np.sqrt(8), (count, 8))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def grouped(given: dict[Track, np.ndarray], starting=None) -> list[list[Track]]:
    return group(given, given.__getitem__, given if starting is None else starting, likeness=0.9)


def test_those_who_look_alike_one_after_the_other_are_one_person():
    a, other, again = track(0, 50), track(60, 90), track(100, 120)
    people = grouped({a: faces(0), other: faces(1), again: faces(0, seed=1)})
    assert people == [[a, again], [other]]


def test_those_who_are_there_together_are_two_however_alike():
    a, twin = track(0, 50), track(40, 90, side=9)
    assert len(grouped({a: faces(0), twin: faces(0)})) == 2


def test_a_short_track_joins_whom_it_is_like_and_starts_nobody():
    a, short, stranger = track(0, 50), track(60, 62), track(70, 72)
    people = grouped({a: faces(0), short: faces(0), stranger: faces(1)}, [a])
    assert people == [[a, short]]


def test_who_varies_much_is_still_one_person():
    """Embeddings of expressions: a person's own faces are no more alike than 0.7, and so is the track after a cut."""
    varied = faces(0, 60, noise=1.2)
    a, later = track(0, 50), track(60, 90)
    own = np.quantile(varied @ (varied.mean(0) / np.linalg.norm(varied.mean(0))), 0.1)
    assert own < 0.8
    smile = np.eye(8)[0] * 0.85 + np.eye(8)[1] * np.sqrt(1 - 0.85**2)
    assert grouped({a: varied, later: np.tile(smile, (20, 1))}) == [[a, later]]
    assert grouped({a: faces(0), later: np.tile(smile, (20, 1))}) == [[a], [later]]


def test_thousands_of_short_tracks_are_told_apart_in_seconds():
    """As a crowd gives them, five people at a time."""
    shown = {track(n, n + 4, left=20 * (n % 5)): faces(n % 8, 5, seed=n) for n in range(6000)}
    begin = process_time()
    people = grouped(shown)
    assert process_time() - begin < 10
    assert (sum(map(len, people)), len(people)) == (6000, 8)


def test_people_come_by_prominence():
    small, a, again = track(0, 100, side=8, left=50), track(0, 40), track(60, 100, side=11)
    assert grouped({small: faces(1), a: faces(0), again: faces(0)}) == [[again, a], [small]]


def test_a_layer_forgets_all_but_one_persons_tracks():
    layer, mine, other = Layer(10, 3, ["flip"]), track(0, 3), track(5, 8)
    layer.hang(mine, other)
    layer.put([0, 1, 2, 3, 5, 6, 7, 8], {view: np.ones((8, 3)) for view in ("centre", "flip")})
    layer.keep([mine])
    np.testing.assert_array_equal(layer.embedded, np.arange(10) < 4)
    for rows in (*layer.rows.values(), np.nan_to_num(layer.box), layer.confidence[:, None]):
        np.testing.assert_array_equal(rows.any(axis=1)[4:], False)


def test_where_nobody_is_followed_for_long_no_face_is_embedded(tmp_path):
    job, settings = Job("a", "a.mp4", tmp_path / "a.mp4"), seeded_extractor(detection={"least": 100}).settings
    brief = [track(first, first + 9) for first in range(0, 100, 20)]
    assert Sight(job, settings, None, 3, None).people(np.arange(100) / 25, brief) == []


# ---- films

BEN = Part("ben", 160, 160, 80)
POSTER = Part("cid", 50, 50, 60, 20)
FALSE = Part("cid", 50, 50, 60)


@pytest.fixture(scope="module")
def extractors() -> dict:
    """The tests' own backbone, a grid of colours, tells these faces apart as a trained one would."""
    return {
        face: seeded_extractor(
            backbones={
                "visual": "tests/own_backbone.py:Grid",
                "audio": "vggish",
                "speech": "whisper-tiny.en",
                "text": "minilm-l6",
            },
            detection={"face": face, "likeness": 0.97},
            **({} if face == "all" else {"modalities": ("visual",)}),
        )
        for face in ("main", "left", "right", "all")
    }


def seen(extractors, path, face: str) -> list[list]:
    """Of each record, in which frames the face is where: a letter for the left or the right half, or a dot."""
    (job,) = find_jobs(path)
    records = extractors[face](*everyone([job]) if face == "all" else [job])
    return [
        "".join(
            "." if not there else "lr"[int(box[[0, 2]].mean() > 160)]
            for there, box in zip(r.visual.valid, r.visual.box, strict=True)
        )
        for r in records
    ]


def about(told: str, *runs: tuple[str, int]) -> bool:
    """Whether that is what was seen, but for a frame at each change."""
    wanted = "".join(letter * count for letter, count in runs)
    return len(told) == len(wanted) and sum(a != b for a, b in zip(told, wanted, strict=True)) <= len(runs)


def test_two_people_one_after_the_other_are_not_one(tmp_path, extractors):
    path = film(tmp_path / "a.mp4", scene(3, LEFT), scene(2, BEN))
    assert about(*seen(extractors, path, "main"), ("l", 30), (".", 20))
    first, second = seen(extractors, path, "all")
    assert about(first, ("l", 30), (".", 20))
    assert second[:29] == "." * 29
    assert "." not in second[31:]


def test_people_side_by_side(tmp_path, extractors):
    path = film(tmp_path / "a.mp4", scene(2, LEFT, RIGHT))
    assert seen(extractors, path, "main") == seen(extractors, path, "left") == ["l" * 20]
    assert seen(extractors, path, "right") == ["r" * 20]
    assert seen(extractors, path, "all") == ["l" * 20, "r" * 20]


def test_people_who_cross_stay_themselves(tmp_path, extractors):
    path = film(tmp_path / "a.mp4", scene(4, Part("ann", 60, 260, 110), Part("ben", 260, 60, 110)))
    for told in (*seen(extractors, path, "main"), *seen(extractors, path, "all")):
        begin, end = told.strip(".")[0], told.strip(".")[-1]
        assert {begin, end} == {"l", "r"}
        assert (
            told.count(begin + end) + told.count(end + begin) <= 1
        )  # over the middle once, if it is seen there
    assert len(seen(extractors, path, "all")) == 2


def test_who_leaves_and_returns_is_the_same(tmp_path, extractors):
    path = film(tmp_path / "a.mp4", scene(2, LEFT, RIGHT), scene(1.5, RIGHT), scene(2, LEFT, RIGHT))
    one, other = sorted(seen(extractors, path, "all"))
    assert about(one, ("l", 20), (".", 15), ("l", 20))
    assert other == "r" * 55


def test_a_poster_is_not_the_person_who_has_left(tmp_path, extractors):
    person = Part("ann", 200, 200, 140)
    path = film(tmp_path / "a.mp4", scene(4, person, POSTER), scene(2, POSTER))
    assert about(*seen(extractors, path, "main"), ("r", 40), (".", 20))
    one, poster = seen(extractors, path, "all")
    assert about(one, ("r", 40), (".", 20))
    assert poster == "l" * 60


def test_a_false_face_in_one_frame_is_nobody(tmp_path, extractors):
    path = film(tmp_path / "a.mp4", scene(1), scene(0.1, FALSE), scene(1), scene(3, Part("ann", 220, 220)))
    for face in ("main", "all"):
        assert about(*seen(extractors, path, face), (".", 21), ("r", 30))
    nobody = film(tmp_path / "b.mp4", scene(1), scene(0.1, FALSE), scene(2))
    assert seen(extractors, nobody, "all") == ["." * 31]


def test_everyone_has_a_record_with_the_sound_of_all(tmp_path, extractors):
    path = film(tmp_path / "a.mp4", scene(1, LEFT, RIGHT))
    one, other = extractors["all"](*everyone(find_jobs(path)))
    assert (one.id, other.id, one.people, other.people) == ("a#1", "a#2", 2, 2)
    assert one.source == other.source
    np.testing.assert_array_equal(one.audio.embedding, other.audio.embedding)
    assert (one.visual.embedding != other.visual.embedding).any(axis=1).all()
    (nobody,) = extractors["all"](*everyone(find_jobs(film(tmp_path / "b.mp4", scene(1)))))
    assert (nobody.id, nobody.people, nobody.visual.status) == ("b#1", 1, Status.NO_FACE)
