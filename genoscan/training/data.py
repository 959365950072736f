"""Bases for training: streams that walk along real sequences, on both strands.

A stream starts at a random place, reads windows that follow one another, and hands its carry
from one to the next, so that the model trains on contexts much longer than a window.  After
`walk` windows every stream starts elsewhere.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import reverse_complement
from genoscan.genome.genome import Genome


@dataclass(frozen=True)
class SequenceId:
    """Identity of a sequence; `m5` is its checksum as in SAM headers."""

    name: str
    length: int
    m5: str


@dataclass(frozen=True)
class Split:
    """The last part of every sequence is held out for validation; nothing overlaps.

    sequences  the whole sequences that were split, in order
    fraction   of every sequence, how much is held out
    """

    training: list[UInt8[np.ndarray, " bases"]]
    validation: list[UInt8[np.ndarray, " bases"]]
    sequences: list[SequenceId]
    fraction: float

    @property
    def n_training(self) -> int:
        return sum(len(codes) for codes in self.training)

    @property
    def n_validation(self) -> int:
        return sum(len(codes) for codes in self.validation)


def split_genomes(genomes: Iterable[Genome], *, validation: float) -> Split:
    """Read whole genomes, 1 byte a base, and hold the last `validation` of each sequence out."""
    if not 0 < validation < 1:
        raise InputError(f"validation {validation}: a fraction between 0 and 1 is expected")
    training, held_out, sequences = [], [], []
    for genome in genomes:
        for chrom, size in genome.sizes.items():
            codes = genome.fetch(chrom, 0, size)
            cut = round(size * (1 - validation))
            training.append(codes[:cut])
            held_out.append(codes[cut:])
            sequences.append(SequenceId(chrom, size, genome.m5(chrom)))
    return Split(training, held_out, sequences, validation)


def walks(
    sequences: Sequence[UInt8[np.ndarray, " bases"]],
    *,
    window: int,
    walk: int,
    batch: int,
    seed: int,
    first: int = 0,
) -> Iterator[UInt8[np.ndarray, "batch bases"]]:
    """Yield stretches of walk x window + 1 bases, `batch` at a time, from walk number `first` on.

    Deterministic: walk number i depends on `seed` and i alone, which is what makes a resumed
    training the same as an unbroken one.
    """
    length = walk * window + 1
    starts = np.array([max(0, len(codes) - length + 1) for codes in sequences], np.int64)
    if not starts.any():
        raise InputError(
            f"no sequence holds a walk of {length:,} bases: give longer sequences, or a smaller "
            "--window or --walk"
        )
    ends = np.cumsum(starts)
    number = first
    while True:
        random = np.random.default_rng((seed, number))
        rows = []
        for place in random.integers(ends[-1], size=batch):
            which = int(np.searchsorted(ends, place, side="right"))
            start = int(place - (ends[which] - starts[which]))
            codes = sequences[which][start : start + length]
            rows.append(reverse_complement(codes) if random.random() < 0.5 else codes)
        yield np.stack(rows)
        number += 1
