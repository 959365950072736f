"""Attributions of site predictions around annotated sites, around decoys, and from a model with random weights.

For each site, the target is the logit of its label at its base, and the score of a base is the derivative
along the observed letter minus the mean over the four letters (`centred`). Positions are relative to the
site, in the direction of its gene; position 0 is the labelled base. Decoys are bases that look like the
site and are none: ATG, GTG and TTG in the reading frame of bacterial genes, ATG within genes of plants, and GT and
AG dinucleotides within genes, on the same strand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Int64, UInt8

from benchmarks.genes.accuracy import LabelledRegion
from genoscan.engine.inputs import OneHot
from genoscan.engine.target import LogitSum
from genoscan.errors import InputError
from genoscan.genome.alphabet import encode, reverse_complement
from genoscan.gradient import gradient
from genoscan.model import Model
from genoscan.training.labels import MAX_LABELS

SHOWN = 60
"""Bases on each side of a site for which scores are kept."""
AROUND = 512
"""Bases that are read on each side of a site."""
BATCH = 8
N_SHUFFLES = 10_000
MUTATED, SATURATED_AROUND = 10, 128
"""Bases on each side of a site that are changed, and that are read, when changes are computed exactly."""


_START_CODONS = {"frames": ("ATG", "GTG", "TTG"), "genes": ("ATG",)}
"""Start codons of bacteria and of plants, by the head whose labels are classes of bases."""


class Sites(NamedTuple):
    """Positions of sites or decoys on one sequence.

    Attributes
    ----------
    positions
        Positions of the labelled bases.
    reverse
        Whether the gene is on the reverse strand.
    """

    positions: Int64[np.ndarray, " sites"]
    reverse: np.ndarray

    def choose(self, count: int) -> "Sites":
        """Return a random choice of at most `count` of the sites."""
        chosen = np.random.default_rng(4).permutation(len(self.positions))[:count]
        return Sites(self.positions[chosen], self.reverse[chosen])


class Scores(NamedTuple):
    """Bases around sites and derivatives, in the direction of the gene.

    Attributes
    ----------
    codes
        Base codes.
    columns
        Centred derivatives with respect to A, C, G and T.
    """

    codes: UInt8[np.ndarray, "sites positions"]
    columns: Float32[np.ndarray, "sites positions 4"]

    @property
    def scores(self) -> Float32[np.ndarray, "sites positions"]:
        """Centred scores: those of the observed bases; 0 at N."""
        known = np.minimum(self.codes, 3)[..., None].astype(np.int64)
        return np.where(self.codes < 4, np.take_along_axis(self.columns, known, 2)[..., 0], 0)


def annotated_sites(part: LabelledRegion, name: str, count: int, seed: int = 1) -> Sites:
    """Return random annotated sites, from both strands.

    Parameters
    ----------
    part
        Annotated region.
    name
        Name of the site without its strand.
    count
        Maximum number of sites.
    seed
        Seed of the random choice.
    """
    labels, names = part.labels("sites"), part.heads["sites"].config.labels
    found = [np.flatnonzero(labels >> np.uint32(names.index(name + strand)) & 1) for strand in "+-"]
    return _chosen(part, found, count, seed)


def decoys(part: LabelledRegion, name: str, count: int, seed: int = 2) -> Sites:
    """Return random bases within genes that look like a site and are none.

    Parameters
    ----------
    part
        Annotated region.
    name
        "start", "stop", "donor" or "acceptor".
    count
        Maximum number of decoys.
    seed
        Seed of the random choice.
    """
    codes, labels = part.codes(), part.labels("sites")
    names = part.heads["sites"].config.labels
    found = []
    for strand in "+-":
        read = reverse_complement(codes) if strand == "-" else codes
        if name == "start":
            at = np.concatenate([_occurrences(read, codon) for codon in _START_CODONS[_classes(part)]])
        elif name == "donor":
            at = _occurrences(read, "GT")
        elif name == "acceptor":
            at = _occurrences(read, "AG") + 1
        elif name == "stop":
            at = np.concatenate([_occurrences(read, codon) for codon in ("TAA", "TAG", "TGA")]) + 2
        else:
            raise InputError(f"decoys of {name}: expected start, stop, donor or acceptor")
        at = len(codes) - 1 - at if strand == "-" else at
        i = names.index(name + strand)
        site = (labels >> np.uint32(i) & 1) | (labels >> np.uint32(i + MAX_LABELS) & 1)
        found.append(np.sort(at[(site[at] == 0) & _within_gene(part, name, strand)[at]]))
    return _chosen(part, found, count, seed)


def _classes(part: LabelledRegion) -> str:
    """Return the name of the head whose labels are classes of bases."""
    return "frames" if "frames" in part.heads else "genes"


def _within_gene(part: LabelledRegion, name: str, strand: str) -> np.ndarray:
    """Return whether each base is in a gene on the strand; of models with frames, at the first base of a codon."""
    head = _classes(part)
    labels, names = part.labels(head), part.heads[head].config.labels
    wanted = [f"codon1{strand}"] if head == "frames" else [f"{kind}{strand}" for kind in ("UTR", "CDS", "intron")]
    inside = np.zeros(len(labels), bool)
    for label in wanted:
        inside |= (labels >> np.uint32(names.index(label)) & 1).astype(bool)
    return inside


def _occurrences(codes: np.ndarray, word: str) -> np.ndarray:
    wanted = encode(word.encode(), record=word, offset=0)
    length = len(codes) - len(wanted) + 1
    return np.flatnonzero(np.logical_and.reduce([codes[i : i + length] == base for i, base in enumerate(wanted)]))


def _chosen(part: LabelledRegion, found: Sequence[np.ndarray], count: int, seed: int) -> Sites:
    positions = np.concatenate(found)
    reverse = np.repeat([False, True], [len(one) for one in found])
    usable = np.flatnonzero((positions >= AROUND) & (positions < len(part.region) - AROUND))
    chosen = np.sort(np.random.default_rng(seed).permutation(usable)[:count])
    return Sites(positions[chosen], reverse[chosen])


def site_attributions(model: Model, part: LabelledRegion, name: str, sites: Sites) -> Scores:
    """Return the scores around sites for the logit of their label.

    Parameters
    ----------
    model
        Model with a head `sites`.
    part
        Region that contains the sites.
    name
        Name of the site without its strand.
    sites
        Sites or decoys.
    """
    model = model.with_head("sites")
    bases, made_codes, made_columns = part.codes(), [], []
    numbers = [model.config.heads["sites"].labels.index(name + strand) for strand in "+-"]
    for first in range(0, len(sites.positions), BATCH):
        positions, reverse = (values[first : first + BATCH] for values in sites)
        codes = np.stack([bases[at - AROUND : at + AROUND + 1] for at in positions])
        weights = torch.zeros(len(codes), len(model.config.heads["sites"].labels))
        weights[torch.arange(len(codes)), [numbers[int(r)] for r in reverse]] = 1
        at = torch.full((len(codes),), AROUND)
        found = gradient(model, torch.from_numpy(codes), LogitSum(at, at + 1, weights))
        shown = slice(AROUND - SHOWN, AROUND + SHOWN + 1)
        columns = model.by_base(found.gradient)[:, shown]
        columns = columns - columns.mean(2, keepdims=True)
        for row, one, turned in zip(codes[:, shown], columns, reverse, strict=True):
            made_codes.append(reverse_complement(row) if turned else row)
            made_columns.append(one[::-1, ::-1] if turned else one)
    return Scores(np.stack(made_codes), np.stack(made_columns))


@dataclass(frozen=True)
class Contrast:
    """Mean absolute score in a window of positions, at sites and at decoys.

    Attributes
    ----------
    sites, decoys
        Means.
    ratio
        `sites` over `decoys`.
    p
        (1 + number of shuffles of the labels with at least this ratio) / (1 + number of shuffles).
    """

    sites: float
    decoys: float
    ratio: float
    p: float


def contrast(sites: Scores, others: Scores, window: tuple[int, int], seed: int = 3) -> Contrast:
    """Compare the mean absolute score at positions first to last, inclusive, of sites and decoys."""
    at = slice(SHOWN + window[0], SHOWN + window[1] + 1)
    a, b = (np.abs(scores.scores[:, at]).mean(1) for scores in (sites, others))
    both, random = np.concatenate([a, b]), np.random.default_rng(seed)
    ratio, above = a.mean() / b.mean(), 0
    for _ in range(N_SHUFFLES):
        order = random.permutation(both)
        above += order[: len(a)].mean() / order[len(a) :].mean() >= ratio
    return Contrast(float(a.mean()), float(b.mean()), float(ratio), (1 + above) / (1 + N_SHUFFLES))


def summarise(found: Scores) -> dict[str, Any]:
    """Return the profile of scores: mean absolute, mean, and mean by letter, by position."""
    letters = {}
    for code, letter in enumerate("ACGT"):
        here = found.codes == code
        total = np.where(here, found.scores, 0).sum(0)
        letters[letter] = {"mean": total / np.maximum(1, here.sum(0)), "share": here.mean(0)}
    return {
        "positions": np.arange(-SHOWN, SHOWN + 1),
        "n": len(found.scores),
        "absolute": np.abs(found.scores).mean(0),
        "signed": found.scores.mean(0),
        "letters": letters,
    }


def saturation(model: Model, part: LabelledRegion, name: str, sites: Sites) -> dict[str, float]:
    """Return the rank correlation of first-order with exact changes of the logit.

    All single-base changes within 10 bases of each site are computed exactly, by forward passes.
    """
    model = model.with_head("sites")
    bases = part.codes()
    labels = model.config.heads["sites"].labels
    expected, exact = [], []
    for position, turned in zip(*sites, strict=True):
        number = labels.index(name + "+-"[int(turned)])
        centre = SATURATED_AROUND
        codes = bases[position - centre : position + centre + 1]
        weights = torch.zeros(1, len(labels))
        weights[0, number] = 1
        at = torch.tensor([centre])
        columns = model.by_base(gradient(model, torch.from_numpy(codes)[None], LogitSum(at, at + 1, weights)).gradient)[
            0
        ]
        changed, rows = [codes], []
        for i in range(centre - MUTATED, centre + MUTATED + 1):
            for base in range(4):
                if base != codes[i] and codes[i] < 4:
                    mutant = codes.copy()
                    mutant[i] = base
                    changed.append(mutant)
                    rows.append(columns[i, base] - columns[i, codes[i]])
        logits = _logits(model, np.stack(changed), centre, number)
        expected += rows
        exact += (logits[1:] - logits[0]).tolist()
    ranks = pd.DataFrame({"expected": expected, "exact": exact}).rank()
    spearman = float(ranks["expected"].corr(ranks["exact"]))
    return {"spearman": spearman, "changes": len(exact), "sites": len(sites.positions)}


def _logits(model: Model, codes: np.ndarray, at: int, number: int) -> np.ndarray:
    made = []
    for rows in np.array_split(codes, -(-len(codes) // 32)):
        for span, outputs in model.method.forward(model.stack, OneHot(torch.from_numpy(rows), model.table())):
            if span.start <= at < span.stop:
                made.append(outputs[:, at - span.start, number].double().cpu().numpy())
    return np.concatenate(made)
