"""The demo's sentences: a small lexicon on the plane of valence and arousal, and templates around it.

The coordinates are our own rough placing of common English words, not a published norm: the demo needs words
that carry a known value, and words that a small speech recogniser knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# (valence, arousal) of a cell → its adjectives and its nouns.
LEXICON: dict[tuple[float, float], tuple[str, str]] = {
    (0.9, 0.9): ("amazing fantastic exciting thrilling incredible", "party victory celebration adventure festival"),
    (0.9, 0.0): ("happy beautiful lovely wonderful friendly", "birthday present friend family dinner"),
    (0.9, -0.9): ("peaceful gentle relaxing calm comfortable", "holiday garden sunset vacation beach"),
    (0.0, 0.9): ("sudden surprising urgent busy noisy", "race traffic engine crowd alarm"),
    (0.0, 0.0): ("ordinary normal usual average regular", "table office number building paper"),
    (0.0, -0.9): ("slow sleepy quiet silent steady", "evening river library pillow museum"),
    (-0.9, 0.9): ("terrifying violent furious horrible dangerous", "attack explosion disaster murder fight"),
    (-0.9, 0.0): ("terrible ugly awful nasty unfair", "mistake problem argument accident insult"),
    (-0.9, -0.9): ("sad lonely hopeless depressing miserable", "funeral hospital prison failure illness"),
}
TEMPLATES = (
    "What a {adjective} {noun}.",
    "The {noun} was {adjective} and {adjective}.",
    "I remember the {adjective} {noun}.",
    "It was a {adjective} and {adjective} {noun}.",
    "We saw the {adjective} {noun}.",
    "This {noun} is {adjective}.",
)
SPREAD = 0.4  # how far, on the plane, a chosen word may typically lie from what is meant


@dataclass(frozen=True)
class Lexicon:
    """Words of one kind with their coordinates (n, 2): valence, arousal."""

    words: tuple[str, ...]
    place: np.ndarray

    def choose(self, meant: np.ndarray, generator: np.random.Generator, used: set[int]) -> int:
        """The index of a word near `meant` (2,), not in `used`: its odds are a Gaussian of the distance."""
        odds = np.exp(-np.square(self.place - meant).sum(axis=1) / (2 * SPREAD**2)) + 1e-9
        odds[list(used)] = 0
        return int(generator.choice(len(odds), p=odds / odds.sum()))


def _lexicon(kind: int) -> Lexicon:
    pairs = [(word, place) for place, kinds in LEXICON.items() for word in kinds[kind].split()]
    return Lexicon(tuple(word for word, _ in pairs), np.array([place for _, place in pairs]))


ADJECTIVES, NOUNS = _lexicon(0), _lexicon(1)


def write_sentence(meant: np.ndarray, generator: np.random.Generator) -> tuple[str, np.ndarray]:
    """A sentence, and its place (2,): the mean valence and arousal of the words chosen near `meant` (2,)."""
    sentence, places = str(generator.choice(TEMPLATES)), []
    for slot, lexicon in (("{adjective}", ADJECTIVES), ("{noun}", NOUNS)):
        used: set[int] = set()
        while slot in sentence:
            word = lexicon.choose(meant, generator, used)
            used.add(word)
            places.append(lexicon.place[word])
            sentence = sentence.replace(slot, lexicon.words[word], 1)
    for vowel in "aeiou":
        sentence = sentence.replace(f" a {vowel}", f" an {vowel}")
    return sentence, np.mean(places, axis=0)
