"""Training data: streams of consecutive windows from both strands of the sequences.

Each stream starts at a random position, and its carry is passed from one window to the next, so
that the model is trained on contexts much longer than a window. After `walk` windows, all streams
restart at new random positions.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from jaxtyping import UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import reverse_complement
from genoscan.genome.genome import Genome


@dataclass(frozen=True)
class SequenceId:
    """Name, length and checksum that identify a sequence.

    Attributes
    ----------
    name
        Name of the sequence.
    length
        Number of bases.
    m5
        MD5 checksum, as in the M5 tag of SAM headers, in hexadecimal.
    """

    name: str
    length: int
    m5: str


@dataclass(frozen=True)
class Split:
    """Disjoint training and validation data: the end of each sequence is held out for validation.

    Attributes
    ----------
    training, validation
        Base codes, one array per sequence.
    sequences
        Sequences that were split, in order.
    fraction
        Fraction of each sequence that is held out.
    """

    training: list[UInt8[np.ndarray, " bases"]]
    validation: list[UInt8[np.ndarray, " bases"]]
    sequences: list[SequenceId]
    fraction: float

    @property
    def n_training(self) -> int:
        """Number of training bases."""
        return sum(len(codes) for codes in self.training)

    @property
    def n_validation(self) -> int:
        """Number of validation bases."""
        return sum(len(codes) for codes in self.validation)


def split_genomes(genomes: Iterable[Genome], *, validation: float) -> Split:
    """Read genomes and hold out the end of each sequence for validation.

    Parameters
    ----------
    genomes
        Genomes, all sequences of which are used.
    validation
        Fraction of each sequence that is held out, between 0 and 1.

    Returns
    -------
    Split
        Training and validation data.

    Raises
    ------
    InputError
        If the fraction is out of range.

    Notes
    -----
    Memory: 1 byte per base.
    """
    if not 0 < validation < 1:
        raise InputError(f"validation {validation}: expected a fraction between 0 and 1")
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
    sequences: Sequence[UInt8[np.ndarray, " bases"]], *, window: int, walk: int, batch: int, seed: int, first: int = 0
) -> Iterator[UInt8[np.ndarray, "batch bases"]]:
    """Yield random stretches of the sequences indefinitely.

    Parameters
    ----------
    sequences
        Base codes, one array per sequence.
    window
        Number of bases per window.
    walk
        Number of windows per stretch.
    batch
        Number of stretches per item.
    seed
        Seed for the random generator.
    first
        Index of the first item; nonzero to resume.

    Yields
    ------
    array of shape (batch, walk x window + 1)
        Base codes; each row is a stretch of a random strand.

    Raises
    ------
    InputError
        If all sequences are shorter than a stretch.

    Notes
    -----
    Deterministic: the random numbers of item i depend only on `seed` and i, so a resumed run
    yields the same items as an uninterrupted one.
    """
    length = walk * window + 1
    starts = np.array([max(0, len(codes) - length + 1) for codes in sequences], np.int64)
    if not starts.any():
        raise InputError(
            f"no sequence contains a walk of {length:,} bases: give longer sequences, or a smaller --window or --walk"
        )
    ends = np.cumsum(starts)
    for number in count(first):
        random = np.random.default_rng((seed, number))
        rows = []
        for position in random.integers(ends[-1], size=batch):
            which = int(np.searchsorted(ends, position, side="right"))
            start = int(position - (ends[which] - starts[which]))
            codes = sequences[which][start : start + length]
            rows.append(reverse_complement(codes) if random.random() < 0.5 else codes)
        yield np.stack(rows)
