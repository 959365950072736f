"""The stories of the probe: who holds what after swaps, and which box contains what after moves.

A story tells who holds or where is what, then N events, and ends with a statement of which one word
is predicted, the thing or the box.  In stories for training there are more such statements between
the events.  Words are tokens, as common words are in large language models.

    Ann has the book. Bob has the lamp. Eve has the ring. Bob swaps with Eve. Ann swaps with Eve.
    Eve has the book.

    The key is in the red box. The coin is in the blue box. The key is moved from the red box to the
    white box. The coin is in the blue box.

Swaps have to be composed: those of two people are a parity, those of three the permutations of S3.
For the moves, the last one of a thing is enough.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from benchmarks.learning import UNKNOWN, Labels, Tokens

_PEOPLE = "Ann", "Bob", "Eve"
_HELD = "book", "lamp", "ring"
_MOVED = "key", "coin", "pen"
_BOXES = "red", "blue", "green", "white"

_WORD = re.compile(r"\w+|\.")
_OTHERS = [".", "The", "has", "swaps", "with", "is", "in", "the", "moved", "from", "to", "box"]

NUMBERS = {word: i for i, word in enumerate([*_OTHERS, *_PEOPLE, *_HELD, *_MOVED, *_BOXES], 1)}
"""Numbers of all words, from 1."""


class Sentence(NamedTuple):
    """A sentence in three parts, of which the second is the word to be predicted, if there is one."""

    before: str
    word: str = ""
    after: str = ""


class World(Protocol):
    """What a story is about."""

    def facts(self) -> list[str]:
        """Return sentences that tell everything."""

    def event(self) -> str:
        """Return a random event, which changes the world."""

    def statement(self) -> Sentence:
        """Return a true statement about someone or something random."""


class Swaps:
    """People who hold a thing each; two of them swap."""

    def __init__(self, random: np.random.Generator, n_people: int) -> None:
        self._random = random
        self._holds = random.permutation(n_people)

    def _told(self, person: int) -> Sentence:
        return Sentence(f"{_PEOPLE[person]} has the ", _HELD[self._holds[person]], ".")

    def facts(self) -> list[str]:
        """Return who holds what."""
        return ["".join(self._told(person)) for person in range(len(self._holds))]

    def event(self) -> str:
        """Swap the things of two people."""
        pair = self._random.permutation(len(self._holds))[:2]
        self._holds[pair] = self._holds[pair[::-1]]
        return "{} swaps with {}.".format(*(_PEOPLE[person] for person in pair))

    def statement(self) -> Sentence:
        """Return what a random person holds."""
        return self._told(int(self._random.integers(len(self._holds))))


class Moves:
    """Things in boxes, of which one is moved to another box."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._where = random.integers(len(_BOXES), size=len(_MOVED))

    def _told(self, thing: int) -> Sentence:
        return Sentence(f"The {_MOVED[thing]} is in the ", _BOXES[self._where[thing]], " box.")

    def facts(self) -> list[str]:
        """Return in which boxes the things are."""
        return ["".join(self._told(thing)) for thing in range(len(_MOVED))]

    def event(self) -> str:
        """Move a thing."""
        thing, before = self._random.integers(len(_MOVED)), self._where.copy()
        self._where[thing] = (before[thing] + self._random.integers(1, len(_BOXES))) % len(_BOXES)
        boxes = _BOXES[before[thing]], _BOXES[self._where[thing]]
        return "The {} is moved from the {} box to the {} box.".format(_MOVED[thing], *boxes)

    def statement(self) -> Sentence:
        """Return in which box a random thing is."""
        return self._told(int(self._random.integers(len(_MOVED))))


@dataclass(frozen=True)
class Task:
    """A kind of story.

    answers  number of answers that are equally likely without reading the story
    """

    world: Callable[[np.random.Generator], World]
    answers: int


TASKS = {
    "swaps-of-two": Task(partial(Swaps, n_people=2), 2),
    "swaps-of-three": Task(partial(Swaps, n_people=3), 3),
    "moves": Task(Moves, len(_BOXES)),
}


def story(task: Task, random: np.random.Generator, n_events: int, statements: float = 0.0) -> Iterator[Sentence]:
    """Yield the sentences of a story.

    Parameters
    ----------
    statements
        Mean number of statements before each event, besides the one at the end.
    """
    world = task.world(random)
    yield from map(Sentence, world.facts())
    for _ in range(n_events):
        for _ in range(random.poisson(statements)):
            yield world.statement()
        yield Sentence(world.event())
    yield world.statement()


def encode(stories: Sequence[Sequence[Sentence]]) -> tuple[Tokens, Labels]:
    """Return stories as numbers of words, and at each word the next one, if it is to be predicted.

    Shorter stories are followed by token 0.
    """
    tokens: list[list[int]] = []
    labels: list[list[int]] = []
    for sentences in stories:
        tokens.append([])
        labels.append([])
        for sentence in sentences:
            before, word, after = ([NUMBERS[found] for found in _WORD.findall(part)] for part in sentence)
            tokens[-1] += before + word + after
            labels[-1] += [UNKNOWN] * len(before + word + after)
            if word:
                labels[-1][-len(word + after) - 1] = word[0]
    return _padded(tokens, 0), _padded(labels, UNKNOWN)


def _padded(rows: Sequence[Sequence[int]], fill: int) -> np.ndarray:
    found = np.full((len(rows), max(map(len, rows))), fill)
    for i, row in enumerate(rows):
        found[i, : len(row)] = row
    return found
