"""Tracks around variants: the scores of the bases near a variant, for the reference and for the alternate allele.

change -> window of each allele -> gradient -> scores at positions of the genome -> two bigWig files
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor

from genoscan.effects.edit_sums import Terms
from genoscan.effects.stretches import Stretch
from genoscan.effects.variant_job import VariantJob, own_stretch, stretch_terms
from genoscan.engine.methods import Progress, ignore
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.alphabet import N, reverse_complement
from genoscan.genome.region import Region
from genoscan.genome.variant import Change
from genoscan.gradient import stream_gradient
from genoscan.tracks.atomic import atomic_files, check_new_folder, partial_folder, resolve
from genoscan.tracks.provenance import provenance_path, write_provenance
from genoscan.tracks.record_schema import region_records
from genoscan.tracks.score import SCORES
from genoscan.tracks.vcf import vcf_index_paths
from genoscan.tracks.writer import open_tracks

FLANK = 100
"""Number of bases in a track on either side of the variant."""
TOP_TRACKS = 50
"""Default for the maximum number of variants with tracks."""

_SCORE = "centred"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_MAX_ALLELE = 20
_ALLELES = "ref", "alt"


class AlleleGradients(NamedTuple):
    """Gradients of the target for both alleles of a variant, at positions of the genome.

    Attributes
    ----------
    region
        Bases of the genome around the variant.
    codes
        Base codes of the reference and of the alternate allele; N at deleted bases.
    gradients
        Derivatives with respect to A, C, G and T on the forward strand; NaN at deleted bases.
    values
        Value of the target for each allele.
    """

    region: Region
    codes: UInt8[np.ndarray, "2 bases"]
    gradients: Float64[np.ndarray, "2 bases 4"]
    values: Float64[np.ndarray, " 2"]

    @property
    def scores(self) -> Float32[np.ndarray, "2 bases"]:
        """Score of each base; NaN at unknown and at deleted bases."""
        score = SCORES[_SCORE]
        return np.stack([score(g, c) for g, c in zip(self.gradients.astype(np.float32), self.codes, strict=True)])


def check_tracks(folder: Path, top: int, outputs: Sequence[Path], *, masked: bool) -> None:
    """Check that tracks can be computed for the given options, and written to the given folder.

    Raises
    ------
    InputError
        If the folder exists or is also an output, or the options exclude tracks.
    OutputError
        If the folder cannot be created.
    """
    if masked:
        raise InputError("--tracks: not defined with --masked: omit one of the two")
    if top < 1:
        raise InputError(f"--top-tracks {top}: expected at least 1")
    check_new_folder(folder)
    written = {resolve(file) for path in outputs for file in (path, provenance_path(path), *vcf_index_paths(path))}
    if resolve(folder) in written | {resolve(partial_folder(outputs[0]))}:
        raise InputError(f"{folder}: is also written by --output: name another folder")


def allele_gradients(job: VariantJob, number: int, *, progress: Progress = ignore) -> AlleleGradients | None:
    """Compute the gradient of the target around a variant, with and without the variant.

    Parameters
    ----------
    job
        Job, as returned by `prepare_variants`.
    number
        Index of the change in `job.changes`.
    progress
        Function called after each processed tile with the number of positions in that tile.

    Returns
    -------
    AlleleGradients or None
        Gradients at the bases of the genome that are in the window, up to `FLANK` bases on either side of the
        variant. None if there is no such base: an insertion, whose windows on the two strands do not overlap.

    Raises
    ------
    NonFiniteError
        If a derivative or the value of the target is not finite.

    Notes
    -----
    Each gradient equals that of whole-window autograd up to rounding. The window begins `context` bases before the
    variant and ends `reach` bases after it, for each allele; the target sums over the labels of the allele's own
    bases. Of n replaced bases and m new ones, the first new bases are placed at the replaced bases; m - n more have
    no position and are omitted, n - m fewer leave NaN. With both strands, the gradient is that of the mean of the two
    targets, at bases that are in both windows. Memory: that of the method of differentiation, plus 1 byte per base.
    """
    change = job.changes[number]
    stretches = [own_stretch(job, number, strand) for strand in job.options.strands]
    start = max(change.start - FLANK, *(stretch.region.start for stretch in stretches))
    end = min(change.stop + FLANK, *(stretch.region.end for stretch in stretches))
    if start >= end:
        return None
    region = Region(change.chrom, start, end)
    codes = np.full((2, len(region)), N, np.uint8)
    gradients = np.zeros((2, len(region), 4))
    values = np.zeros(2)
    for stretch in stretches:
        for allele, (read, terms) in enumerate(_windows(job, stretch)):
            at = np.arange(start, end) - stretch.region.start
            if allele:
                at = _places_in_copy(change, stretch.region, at)
            value, found, kept = _gradient(job, stretch.strand, read, terms, at, progress)
            gradients[allele] += found / len(stretches)
            values[allele] += value / len(stretches)
            codes[allele] = kept
    wrong = ~np.isfinite(gradients).all(-1) & (codes < N)
    if wrong.any() or not np.isfinite(values).all():
        raise NonFiniteError(
            f"{_described(change)}: the derivatives at {wrong.sum():,} bases around this variant, or the target, are "
            f"not finite; {job.model.advice_on_overflow}"
        )
    return AlleleGradients(region, codes, gradients, values)


def select_variants(job: VariantJob, delta: Float64[np.ndarray, " alleles"], top: int) -> list[int]:
    """Return the changes with the largest absolute effects, in genome order.

    Parameters
    ----------
    job
        Job whose alleles were scored.
    delta
        Effect of each allele; NaN where there is none.
    top
        Maximum number of changes.

    Returns
    -------
    list of int
        Indices of changes of the job; of two equal effects, the first in the genome is preferred.
    """
    sizes = {number: abs(d) for number, d in zip(job.numbers, delta.tolist(), strict=True) if number is not None}
    return sorted(sorted(sizes, key=lambda number: (-sizes[number], number))[:top])


def expected_positions(job: VariantJob, top: int) -> int:
    """Return the approximate number of positions that `write_variant_tracks` reports as progress."""
    total = 0
    for number in range(min(top, job.n_observed)):
        for strand in job.options.strands:
            length = len(own_stretch(job, number, strand).region)
            method = job.model.method.fit(job.model.stack, length, 1)
            total += 2 * round(length * method.cost(job.model.stack, length, 1).passes)
    return total


def write_variant_tracks(
    folder: Path, job: VariantJob, numbers: Sequence[int], record: Mapping[str, Any], *, progress: Progress = ignore
) -> None:
    """Write two bigWig files with provenance records for each of some variants.

    Parameters
    ----------
    folder
        Existing folder.
    job
        Job, as returned by `prepare_variants`.
    numbers
        Indices of changes of the job.
    record
        Record of the run.
    progress
        Function called after each processed tile with the number of positions in that tile.

    Raises
    ------
    NonFiniteError
        If a derivative is not finite.
    OutputError
        If a file cannot be written.
    """
    for number in numbers:
        change = job.changes[number]
        found = allele_gradients(job, number, progress=progress)
        if found is None:
            continue
        for name, scores, value in zip(_ALLELES, found.scores, found.values.tolist(), strict=True):
            path = folder / f"{track_stem(change, job.genome.sizes)}.{name}.bw"
            about = {
                "variant": {"chrom": change.chrom, "pos": change.start + 1, "ref": change.ref, "alt": change.alt},
                "allele": name,
                "score": _SCORE,
                "regions": region_records([found.region]),
                "scored_bases": int((~np.isnan(scores)).sum()),
                "target_values": [[value]],
                "windows": [str(own_stretch(job, number, s).region) for s in job.options.strands],
            }
            with atomic_files() as files:
                with open_tracks([path], job.genome.sizes, files) as track:
                    track.write(found.region, scores)
                write_provenance(path, {**record, **about}, files)


def track_stem(change: Change, names: Iterable[str] = ()) -> str:
    """Return the beginning of the file names of a variant, which is distinct for each variant of a genome.

    Parameters
    ----------
    change
        Normalised change.
    names
        Names of the sequences of the genome.

    Returns
    -------
    str
        At most 130 letters, digits and "._-", such as "chr1_1024_A_C" or "chr1_1024_-_ACG". The position is
        1-based. A checksum is appended if the sequence's name or an allele had to be changed or shortened, or
        if another sequence's name differs in upper and lower case only.
    """
    chrom, ref, alt = change.chrom, change.ref or "-", change.alt or "-"
    similar = sum(name.lower() == chrom.lower() for name in names) > 1
    plain = _PLAIN_NAME.fullmatch(chrom) and max(len(ref), len(alt)) <= _MAX_ALLELE and not similar
    if not _PLAIN_NAME.fullmatch(chrom):
        chrom = "_" + re.sub(r"[^A-Za-z0-9._-]", "_", chrom)[:59]
    stem = f"{chrom}_{change.start + 1}_{ref[:_MAX_ALLELE]}_{alt[:_MAX_ALLELE]}"
    if plain:
        return stem
    exact = f"{change.chrom}:{change.start}:{change.ref}>{change.alt}".encode("utf-8", "surrogateescape")
    return f"{stem}_{hashlib.sha256(exact).hexdigest()[:12]}"


def _described(change: Change) -> str:
    return f"{change.chrom}:{change.start + 1:,}:{change.ref[:_MAX_ALLELE]}>{change.alt[:_MAX_ALLELE]}"


def _windows(job: VariantJob, stretch: Stretch) -> list[tuple[UInt8[np.ndarray, " length"], Terms]]:
    """Return the bases that are read, in reading direction, and the terms of the target for each allele."""
    (edit,) = stretch.edits
    codes, terms = stretch.codes(job.genome), stretch_terms(job, stretch)
    copy = np.concatenate([codes[: edit.start], np.array(edit.codes, np.uint8), codes[edit.stop :]])
    return [(codes, terms), (copy, terms.edited(edit))]


def _places_in_copy(change: Change, window: Region, at: Int64[np.ndarray, " bases"]) -> Int64[np.ndarray, " bases"]:
    """Return the positions, in the edited copy of a window, of bases of the window; -1 for deleted bases."""
    first, n_old, n_new = change.start - window.start, len(change.ref), len(change.alt)
    deleted = (at >= first + n_new) & (at < first + n_old)
    moved = np.where(at >= first + n_old, at + n_new - n_old, at)
    return np.where(deleted, -1, moved)


def _gradient(
    job: VariantJob,
    strand: str,
    codes: UInt8[np.ndarray, " length"],
    terms: Terms,
    at: Int64[np.ndarray, " bases"],
    progress: Progress,
) -> tuple[float, Float64[np.ndarray, "bases 4"], UInt8[np.ndarray, " bases"]]:
    """Return the target, and the derivatives and base codes at forward-strand positions of a window.

    `codes` are in the reading direction. Where a position is -1, the derivatives are NaN, and the base is N.
    """
    known = at >= 0
    if not known.any() or not len(codes):
        return 0.0, np.full((len(at), 4), np.nan), np.full(len(at), N, np.uint8)
    read = at if strand == "+" else len(codes) - 1 - at
    wanted = slice(int(read[known].min()), int(read[known].max()) + 1)
    model, window = job.model, torch.from_numpy(codes)
    kept = np.zeros((wanted.stop - wanted.start, 4))

    def receive(_rows: slice, span: slice, tile: Tensor) -> None:
        start, stop = max(span.start, wanted.start), min(span.stop, wanted.stop)
        if start < stop:
            columns = tile[0, start - span.start : stop - span.start, list(model.config.base_columns)]
            kept[start - wanted.start : stop - wanted.start] = columns.double().cpu().numpy()

    (value,) = stream_gradient(model, window[None], terms.target(model, window), receive, progress=progress)
    forward = codes if strand == "+" else reverse_complement(codes)
    gradient = kept[np.where(known, read, wanted.start) - wanted.start]
    if strand == "-":
        gradient = gradient[:, ::-1]
    bases = np.where(known, forward[np.where(known, at, 0)], N).astype(np.uint8)
    return float(value), np.where(known[:, None], gradient, np.nan), bases
