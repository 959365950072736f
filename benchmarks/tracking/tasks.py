"""Sequences labelled with the state of a finite automaton.

Definitions as in PD-SSM's experiments (Terzić et al., NeurIPS 2025, after Delétang et al., ICLR
2023), tokens and labels counted from 0.  The label in the word problem of a permutation group is
the product of all permutations so far.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Int64

from benchmarks.learning import UNKNOWN, Labels, Tokens

Sample = Callable[[np.random.Generator, int, int], tuple[Tokens, Labels]]


@dataclass(frozen=True)
class Task:
    """A task: numbers of tokens and labels, and (generator, number, length) -> sequences of both."""

    n_tokens: int
    n_labels: int
    sample: Sample

    @property
    def chance(self) -> float:
        """Return the accuracy of guessing."""
        return 1 / self.n_labels


def _last(tokens: Tokens, answers: Int64[np.ndarray, " sequences"]) -> tuple[Tokens, Labels]:
    labels = np.full(tokens.shape, UNKNOWN)
    labels[:, -1] = answers
    return tokens, labels


def _parity(random: np.random.Generator, n: int, length: int) -> tuple[Tokens, Labels]:
    tokens = random.integers(2, size=(n, length))
    return _last(tokens, tokens.sum(1) % 2)


def _even_pairs(random: np.random.Generator, n: int, length: int) -> tuple[Tokens, Labels]:
    """Is the number of changes even?  Equivalently: are first and last token equal?"""
    tokens = random.integers(2, size=(n, length))
    return _last(tokens, (tokens[:, 0] == tokens[:, -1]).astype(np.int64))


def _cycle_navigation(random: np.random.Generator, n: int, length: int) -> tuple[Tokens, Labels]:
    """Stay, step on or step back on a ring of five: where does it end?"""
    tokens = random.integers(3, size=(n, length))
    return _last(tokens, np.array([0, 1, -1])[tokens].sum(1) % 5)


def _arithmetic(random: np.random.Generator, n: int, length: int) -> tuple[Tokens, Labels]:
    """Digits 0 to 4, then +, - and x between them, and "=" last: the value modulo 5.

    Products bind first.  The length is rounded up to an even one.
    """
    n_digits = -(-length // 2)
    digits = random.integers(5, size=(n, n_digits))
    signs = random.integers(3, size=(n, n_digits - 1))
    tokens = np.full((n, 2 * n_digits), 8)
    tokens[:, 0::2], tokens[:, 1:-1:2] = digits, 5 + signs
    total, term = np.zeros(n, np.int64), digits[:, 0].copy()
    for i in range(n_digits - 1):
        product = signs[:, i] == 2
        total = np.where(product, total, (total + term) % 5)
        sign = np.where(signs[:, i] == 1, -1, 1)
        term = np.where(product, term * digits[:, i + 1], sign * digits[:, i + 1]) % 5
    return _last(tokens, (total + term) % 5)


def _word_problem(
    elements: list[tuple[int, ...]], generators: list[tuple[int, ...]], probabilities: Sequence[float] | None = None
) -> Sample:
    """Return the task of multiplying generators, uniform by default: the product after each of them."""
    index = {element: i for i, element in enumerate(elements)}
    table = np.array([[index[tuple(g[x] for x in e)] for g in generators] for e in elements])
    start = index[tuple(range(len(elements[0])))]

    def sample(random: np.random.Generator, n: int, length: int) -> tuple[Tokens, Labels]:
        if probabilities is None:
            tokens = random.integers(len(generators), size=(n, length))
        else:
            tokens = random.choice(len(generators), size=(n, length), p=probabilities)
        labels, state = np.empty_like(tokens), np.full(n, start)
        for t in range(length):
            state = table[state, tokens[:, t]]
            labels[:, t] = state
        return tokens, labels

    return sample


def _even(permutation: tuple[int, ...]) -> bool:
    pairs = [(a, b) for i, a in enumerate(permutation) for b in permutation[i + 1 :]]
    return sum(a > b for a, b in pairs) % 2 == 0


_S5 = list(permutations(range(5)))
_A5 = [element for element in _S5 if _even(element)]
_S3 = list(permutations(range(3)))
_NOTHING, *_SWAPS = (0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0)
_RING, _TRIPLE, _SWAP = (1, 2, 3, 4, 0), (1, 2, 0, 3, 4), (1, 0, 2, 3, 4)

TASKS = {
    "parity": Task(2, 2, _parity),
    "even-pairs": Task(2, 2, _even_pairs),
    "cycle-navigation": Task(3, 5, _cycle_navigation),
    "modular-arithmetic": Task(9, 5, _arithmetic),
    # Two generators each: a ring of five, and a ring of three or a swap.
    "A5": Task(2, 60, _word_problem(_A5, [_RING, _TRIPLE])),
    "S5": Task(2, 120, _word_problem(_S5, [_RING, _SWAP])),
    # Three events among blanks: each swaps two of three things, so that only their order determines the state.
    "events": Task(4, 6, _word_problem(_S3, [_NOTHING, *_SWAPS], [0.75, *[0.25 / 3] * 3])),
}
