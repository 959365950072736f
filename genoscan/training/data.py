"""Training data, which is read in streams of consecutive windows.

Each stream starts at a random position and reads one of the two strands, which is also chosen at
random. For a causal model, the state at the end of each window is carried to the next window of the
stream, so the model is trained on contexts that are much longer than a window. After `walk` windows, all
streams restart at new random positions.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt32

from genoscan.errors import InputError
from genoscan.genome.alphabet import reverse_complement
from genoscan.genome.feature import Interval
from genoscan.genome.genome import Genome
from genoscan.genome.plan import merge
from genoscan.genome.region import Region
from genoscan.training.labels import LabelledHead, Labels


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
        MD5 checksum of the sequence in hexadecimal, as in the M5 tag of SAM headers.
    """

    name: str
    length: int
    m5: str


@dataclass(frozen=True)
class Piece:
    """Part of a sequence.

    Attributes
    ----------
    codes
        Base codes: 0 to 3 for A, C, G and T, and 4 for N.
    labels
        Labels of each base, keyed by the name of the task head; empty if the piece has no labels.
    """

    codes: UInt8[np.ndarray, " bases"]
    labels: Mapping[str, Labels] = field(default_factory=dict)

    def cut(self, start: int, stop: int) -> "Piece":
        """Return the bases from `start` (inclusive) to `stop` (exclusive), with their labels."""
        return Piece(self.codes[start:stop], {name: labels[start:stop] for name, labels in self.labels.items()})


@dataclass(frozen=True)
class Split:
    """Disjoint training and validation data.

    Attributes
    ----------
    training, validation
        Parts of the sequences that are used for training, and parts that are used for validation.
    sequences
        Sequences that contain training or validation data, in genome order.
    regions
        Regions to which the training data is restricted, as text; empty if whole sequences are used.
    held_out
        Fraction that is held out at the end of each region or sequence, or a tuple of the regions that
        are held out, as text.
    heads
        Task heads by name, with their labels.
    """

    training: list[Piece]
    validation: list[Piece]
    sequences: list[SequenceId]
    held_out: float | tuple[str, ...]
    regions: tuple[str, ...] = ()
    heads: Mapping[str, LabelledHead] = field(default_factory=dict)

    @property
    def n_training(self) -> int:
        """Number of training bases."""
        return sum(len(piece.codes) for piece in self.training)

    @property
    def n_validation(self) -> int:
        """Number of validation bases."""
        return sum(len(piece.codes) for piece in self.validation)


def split_genomes(
    genomes: Sequence[Genome],
    *,
    validation: float | Sequence[Region],
    regions: Sequence[Region] = (),
    heads: Mapping[str, LabelledHead] | None = None,
) -> Split:
    """Read genomes and divide them into training and validation data.

    Parameters
    ----------
    genomes
        Genomes to divide. No two sequences may have the same name.
    validation
        Either the fraction of each region to hold out at its end, between 0 and 1, or the regions to
        hold out.
    regions
        Regions to use. If there are none, all sequences are used in full. Overlapping regions are merged, here and
        in `validation`, so that no base is in both parts.
    heads
        Task heads by name, with labels of the sequences. None if there are no task heads.

    Returns
    -------
    Split
        Training and validation data.

    Raises
    ------
    InputError
        If the fraction is out of range, a region is outside the genomes, or a training region overlaps a held-out
        region.

    Notes
    -----
    Memory: 1 byte per base, plus 4 bytes per base for each task head.
    """
    heads = heads or {}
    if not isinstance(validation, Sequence) and not 0 < validation < 1:
        raise InputError(f"validation {validation}: expected a fraction between 0 and 1")
    sizes = {chrom: size for genome in genomes for chrom, size in genome.sizes.items()}
    regions = merge(regions, sizes, by_strand=False)
    if isinstance(validation, Sequence):
        validation = merge(validation, sizes, by_strand=False)
    training, held_out, sequences = [], [], []
    for genome in genomes:
        for chrom, size in genome.sizes.items():
            labels = {name: head.labels[chrom] for name, head in heads.items() if chrom in head.labels}
            whole = Piece(genome.fetch(chrom, 0, size), labels)
            chosen = [(r.start, r.end) for r in regions if r.chrom == chrom] if regions else [(0, size)]
            if isinstance(validation, Sequence):
                apart = [(r.start, r.end) for r in validation if r.chrom == chrom]
                training += [
                    whole.cut(*part) for span in chosen for part in _subtract(span, apart, strict=bool(regions))
                ]
                held_out += [whole.cut(*span) for span in apart]
            else:
                for start, end in chosen:
                    cut = start + round((end - start) * (1 - validation))
                    training.append(whole.cut(start, cut))
                    held_out.append(whole.cut(cut, end))
                apart = []
            if chosen or apart:
                sequences.append(SequenceId(chrom, size, genome.m5(chrom)))
    fraction = tuple(map(str, validation)) if isinstance(validation, Sequence) else validation
    # An empty sequence has no part, and a short one none that is held out.
    training, held_out = ([piece for piece in pieces if len(piece.codes)] for pieces in (training, held_out))
    return Split(training, held_out, sequences, fraction, tuple(map(str, regions)), heads)


def _subtract(span: Interval, apart: Sequence[Interval], *, strict: bool) -> Iterator[Interval]:
    """Yield the parts of a span that lie outside the sorted, disjoint intervals in `apart`.

    If `strict` is true, an `InputError` is raised if an interval overlaps the span.
    """
    start, end = span
    for first, last in apart:
        if first < end and start < last:
            if strict:
                raise InputError(
                    f"bases {max(start, first) + 1:,} to {min(end, last):,} are in a region for training and in one "
                    "for validation, expected different bases"
                )
            if start < first:
                yield start, first
            start = max(start, last)
    if start < end:
        yield start, end


class Stretch(NamedTuple):
    """Part of a piece that is read on one strand.

    Attributes
    ----------
    piece
        Index of the piece.
    start
        Position of the leftmost base in the piece, on the forward strand.
    reverse
        Whether the reverse complement is read.
    """

    piece: int
    start: int
    reverse: bool


def stretches(lengths: Sequence[int], *, length: int, batch: int, seed: int, first: int = 0) -> Iterator[list[Stretch]]:
    """Yield batches of random stretches indefinitely; each stretch lies within a single piece.

    Parameters
    ----------
    lengths
        Lengths of the pieces, in bases.
    length
        Number of bases per stretch.
    batch
        Number of stretches per batch.
    seed
        Seed for the random number generator.
    first
        Index of the first batch to yield; nonzero if a training run is resumed.

    Yields
    ------
    list of Stretch
        Stretches, each on a random strand. All possible start positions are equally likely.

    Raises
    ------
    InputError
        If every piece is shorter than a stretch.

    Notes
    -----
    The random numbers for batch `i` depend only on `seed` and `i`. A resumed run therefore receives the
    same batches as an uninterrupted run.
    """
    starts = np.array([max(0, n - length + 1) for n in lengths], np.int64)
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
            rows.append(Stretch(which, start, bool(random.random() < 0.5)))
        yield rows


def read_stretches(
    split: Split, rows: Sequence[Stretch], length: int
) -> tuple[UInt8[np.ndarray, "batch bases"], dict[str, UInt32[np.ndarray, "batch bases"]]]:
    """Return the base codes and labels of stretches of the training data, in the reading direction.

    Each stretch has `length` bases. The labels are keyed by the name of the task head.
    """
    codes, labels = [], defaultdict(list)
    for row in rows:
        piece = split.training[row.piece].cut(row.start, row.start + length)
        codes.append(reverse_complement(piece.codes) if row.reverse else piece.codes)
        for name, found in piece.labels.items():
            labels[name].append(split.heads[name].reverse_complement(found) if row.reverse else found)
    return np.stack(codes), {name: np.stack(found) for name, found in labels.items()}
