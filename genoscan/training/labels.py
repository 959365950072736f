"""Labels of bases for the training of per-base heads, derived from the genes or intervals in an annotation.

There are three labelling schemes:

    genes       Two heads. `genes` has one class per base: intergenic, or UTR, CDS or intron on the
                forward or reverse strand. `sites` has labels for donors, acceptors, starts and stops
                on each strand. Each gene is represented by its transcript with the longest CDS.
    frames      Two heads, for genomes without introns. `frames` has one class per base: the position
                of the base in a codon on the forward or reverse strand, or none. `sites` has labels
                for starts and stops on each strand.
    intervals   One head. `intervals` has one label per feature name or, if all features have a strand,
                one label per feature name and strand.

Each site is labelled at a single base: the first base of an intron (donor), the last base of an intron
(acceptor), the first base of a CDS (start) or the last base of a CDS (stop), in the direction of
transcription. Bases at which the annotation is ambiguous are ignored in training. These are the bases
that belong to several classes of the same rank (CDS ranks above UTR, and UTR above intron), the sites of
transcripts other than the one that represents the gene and, in the scheme `genes`, unlabelled bases
of genes that have no CDS or no strand.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from jaxtyping import UInt32

from genoscan.errors import InputError
from genoscan.genome.feature import Feature, Interval, Transcript
from genoscan.genome.files import excerpt
from genoscan.layers.heads import LETTERS, HeadConfig, is_label

MAX_LABELS: Final = 16
"""Maximum number of labels of a head, because a 32-bit integer stores two bits per label (see `Labels`)."""

_OPPOSITE = {"+": "-", "-": "+"}

Labels = UInt32[np.ndarray, " bases"]
"""Bits for each base: bit i is set if label i is present, and bit i + 16 is set if label i is ignored."""


def ignored(labels: int) -> int:
    """Convert the bits of labels that are present to the bits that mark these labels as ignored."""
    return labels << MAX_LABELS


@dataclass(frozen=True)
class LabelledHead:
    """Task head, with the labels of each sequence.

    Attributes
    ----------
    config
        Configuration of the head.
    labels
        Labels of each base, keyed by sequence name.
    """

    config: HeadConfig
    labels: Mapping[str, Labels]

    def reverse_complement(self, labels: Labels) -> Labels:
        """Convert the labels of a sequence to the labels of its reverse complement."""
        turned = np.zeros_like(labels)
        for i, other in enumerate(self.config.complements):
            for shift in (0, MAX_LABELS):
                turned |= (labels >> (i + shift) & 1) << np.uint32(other + shift)
        return turned[::-1]


def _by_strand(names: Iterable[str]) -> tuple[str, ...]:
    names = list(names)
    return tuple(name + strand for strand in "+-" for name in names)


def _head(common: Sequence[str], stranded: Sequence[str], link: Literal["softmax", "sigmoid"]) -> HeadConfig:
    labels = (*common, *_by_strand(stranded))
    complement = [
        labels.index(name[:-1] + _OPPOSITE[name[-1]] if i >= len(common) else name) for i, name in enumerate(labels)
    ]
    return HeadConfig(kind="per_base", labels=labels, complement=tuple(complement), link=link)


class _Marks:
    """Labels of one sequence for one head, to which features are added one by one."""

    def __init__(self, config: HeadConfig, size: int) -> None:
        self.labels = np.zeros(size, np.uint32)
        self._bits = {name: np.uint32(1 << i) for i, name in enumerate(config.labels)}

    def add(self, name: str, start: int, end: int) -> None:
        self.labels[max(start, 0) : max(end, 0)] |= self._bits[name]

    def ignore(self, name: str, start: int, end: int) -> None:
        self.labels[max(start, 0) : max(end, 0)] |= self._bits[name] << np.uint32(MAX_LABELS)


def _introns(transcript: Transcript) -> list[Interval]:
    return [(a, b) for (_, a), (b, _) in pairwise(transcript.exons) if a < b]


def coding_parts(transcript: Transcript) -> list[Interval]:
    """Return the coding parts of the exons of a transcript, in ascending order."""
    if transcript.coding is None:
        return []
    low, high = transcript.coding
    return [(max(a, low), min(b, high)) for a, b in transcript.exons if a < high and low < b]


def _coding_bases(transcript: Transcript) -> int:
    return sum(end - start for start, end in coding_parts(transcript))


def _sites(transcript: Transcript, strand: str, *, introns: bool) -> Iterator[tuple[str, int]]:
    """Yield the name and position of each site of a transcript.

    Donors and acceptors are included only if `introns` is true.
    """
    if introns:
        for start, end in _introns(transcript):
            yield "donor", start if strand == "+" else end - 1
            yield "acceptor", end - 1 if strand == "+" else start
    if transcript.coding is not None:
        low, high = transcript.coding
        yield "start", low if strand == "+" else high - 1
        yield "stop", high - 1 if strand == "+" else low


def longest_coding(gene: Feature) -> Transcript | None:
    """Return the transcript with the longest CDS, or None if no transcript of the gene has a CDS."""
    coding = [transcript for transcript in gene.transcripts if _coding_bases(transcript)]
    return max(coding, key=_coding_bases, default=None)


def _mark_sites(marks: _Marks, gene: Feature, chosen: Transcript | None, *, introns: bool) -> None:
    for transcript in gene.transcripts:
        for name, at in _sites(transcript, gene.strand, introns=introns):
            unsure = transcript is not chosen or (transcript.partial and name in ("start", "stop"))
            (marks.ignore if unsure else marks.add)(name + gene.strand, at, at + 1)


GENES: Final = _head(["intergenic"], ["UTR", "CDS", "intron"], "softmax")
GENE_SITES: Final = _head([], ["donor", "acceptor", "start", "stop"], "sigmoid")
FRAMES: Final = _head(["none"], ["codon1", "codon2", "codon3"], "softmax")
FRAME_SITES: Final = _head([], ["start", "stop"], "sigmoid")


def _label_genes(genes: Sequence[Feature], size: int) -> dict[str, Labels]:
    classes, sites = _Marks(GENES, size), _Marks(GENE_SITES, size)
    unknown = np.zeros(size, bool)
    for gene in genes:
        chosen = longest_coding(gene)
        _mark_sites(sites, gene, chosen, introns=True)
        if chosen is None:
            unknown[gene.start : gene.end] = True
            continue
        for start, end in chosen.exons:
            classes.add(f"UTR{gene.strand}", start, end)
        for start, end in coding_parts(chosen):
            classes.add(f"CDS{gene.strand}", start, end)
        for start, end in _introns(chosen):
            classes.add(f"intron{gene.strand}", start, end)
    labels = _one_class(classes.labels, GENES, ("CDS", "UTR", "intron"))
    labels[unknown & (labels == 1)] |= _ignore_all(GENES)
    return {"genes": labels, "sites": _settled(sites.labels)}


def _label_frames(genes: Sequence[Feature], size: int) -> dict[str, Labels]:
    classes, sites = _Marks(FRAMES, size), _Marks(FRAME_SITES, size)
    unknown = np.zeros(size, bool)
    for gene in genes:
        chosen = longest_coding(gene)
        _mark_sites(sites, gene, chosen, introns=False)
        if chosen is None:
            continue  # genes of RNA are not coding
        if chosen.partial:
            for start, end in coding_parts(chosen):
                unknown[start:end] = True
            continue
        before = 0
        for start, end in coding_parts(chosen)[:: 1 if gene.strand == "+" else -1]:
            for position in range(3):
                bit = np.uint32(1 << FRAMES.labels.index(f"codon{position + 1}{gene.strand}"))
                first = (position - before) % 3
                if gene.strand == "+":
                    classes.labels[start + first : end : 3] |= bit
                else:
                    classes.labels[start:end][::-1][first::3] |= bit
            before += end - start
    labels = _one_class(classes.labels, FRAMES, ("codon",))
    labels[unknown & (labels == 1)] |= _ignore_all(FRAMES)
    return {"frames": labels, "sites": _settled(sites.labels)}


def _one_class(labels: Labels, config: HeadConfig, ranks: Sequence[str]) -> Labels:
    """Return one class per base: the class of the highest rank or, if there is none, the first class.

    `ranks` contains prefixes of class names, in descending order of rank. A base that has several classes
    of the highest rank is ignored.
    """
    found = np.zeros_like(labels)
    for rank in ranks:
        mask = np.uint32(sum(1 << i for i, name in enumerate(config.labels) if name.startswith(rank)))
        found = np.where(found == 0, labels & mask, found)
    several = (found & (found - np.uint32(1))) != 0
    found[found == 0] = 1
    found[several] |= _ignore_all(config)
    return found


def _ignore_all(config: HeadConfig) -> np.uint32:
    return np.uint32(ignored((1 << len(config.labels)) - 1))


def _settled(sites: Labels) -> Labels:
    """Clear the ignored bits of all labels that are present at the same base, and return the labels."""
    return sites & ~((sites & np.uint32((1 << MAX_LABELS) - 1)) << np.uint32(MAX_LABELS))


_SCHEMES: Final[Mapping[str, tuple[dict[str, HeadConfig], Callable[[Sequence[Feature], int], dict[str, Labels]]]]] = {
    "genes": ({"genes": GENES, "sites": GENE_SITES}, _label_genes),
    "frames": ({"frames": FRAMES, "sites": FRAME_SITES}, _label_frames),
}

SCHEMES: Final = (*_SCHEMES, "intervals")


def label_bases(scheme: str, features: Sequence[Feature], sizes: Mapping[str, int]) -> dict[str, LabelledHead]:
    """Label every base of the annotated sequences.

    Parameters
    ----------
    scheme
        Name of the labelling scheme, one of `SCHEMES`.
    features
        Features within the sequences, as returned by `read_annotation`.
    sizes
        Length of each sequence, in bases. Sequences without features are also labelled.

    Returns
    -------
    dict
        Heads by name, with the labels of every sequence.

    Raises
    ------
    InputError
        If there is no feature of the kind that the scheme requires, or a head would have more than
        `MAX_LABELS` labels.

    Notes
    -----
    Memory: 4 bytes per base for each head.
    """
    # Of a gene without a strand, only the position is known.
    features = [one if one.strand in _OPPOSITE else replace(one, transcripts=()) for one in features]
    by_chrom: dict[str, list[Feature]] = {chrom: [] for chrom in sizes}
    for feature in features:
        by_chrom[feature.chrom].append(feature)
    if scheme == "intervals":
        config = _interval_head(features)
        return {
            "intervals": LabelledHead(config, {c: _label_intervals(f, sizes[c], config) for c, f in by_chrom.items()})
        }
    heads, label = _SCHEMES[scheme]
    if not any(longest_coding(feature) for feature in features):
        raise InputError(f"no gene has a CDS, which --head {scheme} requires")
    labels = {chrom: label(found, sizes[chrom]) for chrom, found in by_chrom.items()}
    return {
        name: LabelledHead(config, {c: found[name] for c, found in labels.items()}) for name, config in heads.items()
    }


def _interval_head(features: Sequence[Feature]) -> HeadConfig:
    names = sorted({feature.name or "region" for feature in features})
    for name in names:
        if not is_label(name):
            raise InputError(f'feature "{excerpt(name)}": expected a name of {LETTERS} only, which becomes a label')
    stranded = bool(features) and all(feature.strand in _OPPOSITE for feature in features)
    n_labels = len(names) * (2 if stranded else 1)
    if not 1 <= n_labels <= MAX_LABELS:
        raise InputError(
            f"found {len(names):,} names of features, which are {n_labels:,} labels, expected 1 to {MAX_LABELS}; "
            "keep the features of interest, and give those of one kind the same name"
        )
    if not stranded and (signs := [name for name in names if name.endswith(("+", "-"))]):
        raise InputError(
            f'feature "{signs[0]}": ends in {signs[0][-1]}, which marks strands, but not all features have one'
        )
    return _head([], names, "sigmoid") if stranded else _head(names, [], "sigmoid")


def _label_intervals(features: Sequence[Feature], size: int, config: HeadConfig) -> Labels:
    marks = _Marks(config, size)
    for feature in features:
        name = feature.name or "region"
        stranded = name + feature.strand
        marks.add(stranded if stranded in config.labels else name, feature.start, feature.end)
    return marks.labels
