"""Conversion of strings, base codes, one-hot arrays and regions of files to regions of a genome."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyfaidx
import torch
from Bio.Seq import Seq
from jaxtyping import UInt8

from genoscan.errors import InputError
from genoscan.genome.alphabet import N, encode
from genoscan.genome.genome import Genome, open_genome
from genoscan.genome.memory import SequenceGenome
from genoscan.genome.region import Region, check_bounds, parse_region

_NAME = "sequence"
_GENOMES = str, Path, Genome, pyfaidx.Fasta
_EXPECTED = (
    "expected a string of bases, codes or a one-hot array (numpy or torch), a (genome file, "
    "region) pair, or a list of these"
)


@dataclass(frozen=True)
class Located:
    """A sequence, represented as a region of a genome.

    Attributes
    ----------
    genome, region
        Genome, and region of it.
    is_pair
        Whether genome and region were given as a pair. If False, the genome contains the sequence alone, in
        memory, and the region is the whole sequence.
    """

    genome: Genome
    region: Region
    is_pair: bool


def locate(sequence: Any, *, axes: str = "LC", name: str = _NAME) -> Located:
    """Convert one sequence to a region of a genome.

    Parameters
    ----------
    sequence
        One of the following: a string of bases; a Biopython or pyfaidx sequence; an array of base codes
        (0 to 3 for A, C, G and T, and 4 for N); a one-hot NumPy array or torch tensor, in which N is a
        row of zeros; or a pair of a genome and a region. The genome is a path, an open genome or a
        `pyfaidx.Fasta`. The region is a string such as "chr1:1,001-2,000" or a `Region`.
    axes
        Order of the axes of a one-hot array: "LC" for (length, 4) or "CL" for (4, length).
    name
        Name to assign to a sequence in memory.

    Returns
    -------
    Located
        The genome, in memory or in a file, and the region of the genome.

    Raises
    ------
    InputError
        If the type of `sequence` is not supported, or the sequence is empty or contains an invalid
        letter, code or row.
    """
    if isinstance(sequence, tuple) and len(sequence) == 2:
        return _in_file(*sequence)
    if isinstance(sequence, str):
        codes = encode(sequence.encode("ascii", "replace"), record=name, offset=0)
    elif isinstance(sequence, np.ndarray | torch.Tensor):
        codes = _from_array(sequence, axes)
    elif isinstance(sequence, Seq | pyfaidx.Sequence):
        codes = encode(str(sequence).encode("ascii", "replace"), record=name, offset=0)
    else:
        raise InputError(f"found {type(sequence).__name__}, {_EXPECTED}")
    if not len(codes):
        raise InputError(f"{name}: is empty, expected at least 1 base")
    return Located(SequenceGenome({name: codes}), Region(name, 0, len(codes)), is_pair=False)


def locate_all(sequences: Any, *, axes: str = "LC") -> tuple[list[Located], bool]:
    """Convert one or more sequences to regions of genomes.

    The second result is True if the sequences were given as a list or as a batch of one-hot arrays.
    """
    many = isinstance(sequences, list)
    if isinstance(sequences, np.ndarray | torch.Tensor) and sequences.ndim == 3:
        many, sequences = True, list(sequences)
    if not many:
        return [locate(sequences, axes=axes)], False
    if not sequences:
        raise InputError(f"found an empty list, {_EXPECTED}")
    return [locate(sequence, axes=axes, name=f"{_NAME}_{i}") for i, sequence in enumerate(sequences, start=1)], True


def as_genome(genome: Any) -> Genome:
    """Open a genome, unless it is open already.

    Parameters
    ----------
    genome
        Path of a FASTA (plain or bgzip) or GenBank file, an open genome or a `pyfaidx.Fasta`.

    Returns
    -------
    Genome
        The open genome.

    Raises
    ------
    InputError
        If `genome` is something else, or cannot be read.
    """
    if isinstance(genome, pyfaidx.Fasta):
        genome = genome.filename
    if isinstance(genome, str | Path):
        return open_genome(genome)
    if not isinstance(genome, Genome):
        raise InputError(f"genome is {type(genome).__name__}: expected a path or an open genome")
    return genome


def named_target(target: str, name: str) -> str:
    """Insert the name of a sequence into a target that specifies a position without naming a sequence.

    Examples
    --------
    >>> named_target("logit:7:A", "sequence")
    'logit:sequence:7:A'
    >>> named_target("sites:donor+@7-7", "sequence")
    'sites:donor+@sequence:7-7'
    >>> named_target("log-likelihood", "sequence")
    'log-likelihood'
    """
    label, at, span = target.partition("@")
    if at and re.fullmatch(r"[\d,]+(-[\d,]*)?", span):
        return f"{label}@{name}:{span}"
    kind, _, place = target.partition(":")
    alone = {"logit": r"[\d,]+:\w", "log-odds": r"[\d,]+:\w", "log-likelihood": r"[\d,]+(-[\d,]*)?"}
    if kind in alone and re.fullmatch(alone[kind], place):
        return f"{kind}:{name}:{place}"
    return target


def _in_file(genome: Any, region: Any) -> Located:
    if not isinstance(genome, _GENOMES):
        raise InputError(f"found a pair that begins with {type(genome).__name__}, {_EXPECTED}")
    genome = as_genome(genome)
    if isinstance(region, str):
        region = parse_region(region, genome.sizes, option="region")
    if not isinstance(region, Region):
        raise InputError(f"found a pair that ends with {type(region).__name__}, {_EXPECTED}")
    return Located(genome, check_bounds(region, genome.sizes, clip=False), is_pair=True)


def _from_array(array: Any, axes: str) -> UInt8[np.ndarray, " bases"]:
    """Return the base codes of an array that contains either base codes or one-hot vectors."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().numpy()
    if array.ndim == 1 and array.dtype.kind in "iu":
        if array.size and not 0 <= array.min() <= array.max() <= N:
            raise InputError(f"codes from {array.min()} to {array.max()}, expected 0 to {N}")
        return array.astype(np.uint8)
    if axes not in ("LC", "CL"):
        raise InputError(f'axes "{axes}": expected "LC", (length, 4), or "CL", (4, length)')
    rows = array.T if axes == "CL" else array
    if rows.ndim != 2 or rows.shape[1] != len("ACGT"):
        raise InputError(f'an array of shape {array.shape}: expected codes, (length, 4), or with axes="CL" (4, length)')
    if not (np.isin(rows, (0, 1)).all() and (rows.sum(1) <= 1).all()):
        at = int((~np.isin(rows, (0, 1)).all(1) | (rows.sum(1) > 1)).argmax())
        raise InputError(f"row {at:,} is {rows[at].tolist()}, expected one 1, or zeros for N")
    return np.where(rows.any(1), rows.argmax(1), N).astype(np.uint8)


def in_one_genome(located: Sequence[Located]) -> Genome:
    """Return a genome that contains the sequences of one job, as divided by `group`."""
    if len(located) == 1:
        return located[0].genome
    regions = ((one.genome, one.region) for one in located)
    return SequenceGenome({r.chrom: genome.fetch(r.chrom, r.start, r.end) for genome, r in regions})


def group(located: Sequence[Located], target: str) -> Iterable[list[int]]:
    """Yield the indices of the sequences in each job, one list per job.

    Sequences without a genome share one job, in which their names are unique, unless the target specifies a
    position. A position refers to a single sequence, so a separate job is then used for each sequence. A separate
    job is always used for each pair of a genome and a region.
    """
    shared = [i for i, one in enumerate(located) if not one.is_pair and named_target(target, "s") == target]
    if shared:
        yield shared
    yield from ([i] for i in sorted(set(range(len(located))) - set(shared)))
