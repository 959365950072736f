"""Accuracy of the gene models on held-out genomes, against annotation and baselines.

Every base of the test regions is predicted. For sites, both strands are pooled, and sites about which
the annotation is ambiguous are left out: those of other transcripts than the one with the longest CDS.
The baselines are a position weight matrix and a first-order Markov model of the 20 bases on each side,
counted on the training regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32

from genoscan.engine.inputs import OneHot
from genoscan.genome.alphabet import reverse_complement
from genoscan.genome.genome import Genome, open_genome
from genoscan.genome.region import Region, parse_region
from genoscan.layers.heads import HeadConfig
from genoscan.model import Model
from genoscan.training.labels import MAX_LABELS, LabelledHead
from genoscan.training.metrics import average_precision, best_f1, top_n_precision
from genoscan.training.setup import read_labels
from genoscan.training.site_models import SiteModel, site_model

PIECE, CONTEXT = 1 << 15, 3072
"""Bases predicted at a time, and bases of context on each side."""


@dataclass(frozen=True)
class LabelledRegion:
    """A region with its labels.

    Attributes
    ----------
    genome, region
        Bases.
    heads
        Labels of the whole sequence, by head.
    """

    genome: Genome
    region: Region
    heads: dict[str, LabelledHead]

    def codes(self) -> np.ndarray:
        """Return the base codes."""
        return self.genome.fetch(self.region.chrom, self.region.start, self.region.end)

    def labels(self, head: str) -> np.ndarray:
        """Return the labels of a head."""
        return self.heads[head].labels[self.region.chrom][self.region.start : self.region.end]


def labelled_regions(genome: Path, annotation: Path, scheme: str, regions: Sequence[str]) -> list[LabelledRegion]:
    """Return regions of an annotated genome; all of its annotated sequences if no region is given."""
    opened = open_genome(genome)
    heads = read_labels([annotation], scheme, [opened])
    chosen = [parse_region(text, opened.sizes) for text in regions]
    if not regions:
        labelled = next(iter(heads.values())).labels
        chosen = [Region(chrom, 0, size) for chrom, size in opened.sizes.items() if chrom in labelled]
    return [LabelledRegion(opened, region, heads) for region in chosen]


def predict(
    model: Model, part: LabelledRegion, *, both_strands: bool = False
) -> dict[str, Float32[np.ndarray, "bases labels"]]:
    """Return the predictions of all heads at every base of a region, read in pieces with context.

    Parameters
    ----------
    model
        Model with task heads.
    part
        Region to predict.
    both_strands
        Whether the probabilities of both strands are averaged, as `genoscan predict --strand both` does.
        If not, the logits of the forward strand are returned.
    """
    forward = _predict_strand(model, part, reverse=False)
    if not both_strands:
        return forward
    reverse = _predict_strand(model, part, reverse=True)
    return {
        name: (_probabilities(forward[name], head) + _probabilities(reverse[name], head)) / 2
        for name, head in model.config.heads.items()
    }


def _probabilities(logits: np.ndarray, head: HeadConfig) -> np.ndarray:
    rows = torch.from_numpy(logits)
    found: np.ndarray = (torch.softmax(rows, -1) if head.link == "softmax" else torch.sigmoid(rows)).numpy()
    return found


def _predict_strand(
    model: Model, part: LabelledRegion, *, reverse: bool
) -> dict[str, Float32[np.ndarray, "bases labels"]]:
    """Return the logits by one strand, in the order of the forward strand and with its labels."""
    region, size = part.region, part.genome.sizes[part.region.chrom]
    config, table = model.config, model.table()
    made = {name: np.empty((len(region), len(head.labels)), np.float32) for name, head in config.heads.items()}
    for start in range(region.start, region.end, PIECE):
        end = min(start + PIECE, region.end)
        first, last = max(0, start - CONTEXT), min(size, end + CONTEXT)
        codes = part.genome.fetch(region.chrom, first, last)
        read = torch.from_numpy(reverse_complement(codes) if reverse else codes)[None]
        tiles = [
            outputs[0].float().cpu().numpy() for _, outputs in model.method.forward(model.network, OneHot(read, table))
        ]
        rows = np.concatenate(tiles)[::-1] if reverse else np.concatenate(tiles)
        at = slice(start - region.start, end - region.start)
        for name, head in config.heads.items():
            columns = np.arange(*config.output_columns[name].indices(rows.shape[1]))
            if reverse and head.complement is not None:
                columns = columns[list(head.complement)]
            made[name][at] = rows[start - first : end - first, columns]
    return made


class SiteScores(NamedTuple):
    """Scores of both strands for one kind of site, and whether each is a site."""

    scores: Float32[np.ndarray, " bases"]
    truth: Bool[np.ndarray, " bases"]


def site_scores(parts: Sequence[LabelledRegion], logits: Sequence[np.ndarray], name: str) -> SiteScores:
    """Pool the logits of NAME+ and NAME- over regions, without ignored bases.

    Parameters
    ----------
    parts
        Regions.
    logits
        Logits of the head `sites` in each region.
    name
        Name of the site without its strand.
    """
    scores, truth = [], []
    for part, values in zip(parts, logits, strict=True):
        labels = part.labels("sites")
        names = part.heads["sites"].config.labels
        for strand in "+-":
            i = names.index(name + strand)
            counted = labels >> np.uint32(i + MAX_LABELS) & 1 == 0
            scores.append(values[counted, i])
            truth.append((labels[counted] >> np.uint32(i) & 1).astype(bool))
    return SiteScores(np.concatenate(scores), np.concatenate(truth))


def baseline_models(training: Sequence[LabelledRegion], order: int) -> list[SiteModel]:
    """Return a site model for every label of the head `sites`, estimated from training regions."""
    codes, labels = [part.codes() for part in training], [part.labels("sites") for part in training]
    models = []
    for i, name in enumerate(training[0].heads["sites"].config.labels):
        sites = [np.flatnonzero(found >> np.uint32(i) & 1) for found in labels]
        models.append(site_model(list(zip(codes, sites, strict=True)), order=order, reverse=name.endswith("-")))
    return models


def baseline_logits(models: Sequence[SiteModel], part: LabelledRegion) -> np.ndarray:
    """Return the log-odds of every site model at the bases of a region."""
    codes = part.codes()
    return np.stack([model.scores(codes) for model in models], 1)


def site_metrics(found: SiteScores) -> dict[str, Any]:
    """Return the metrics of one kind of site."""
    return {
        "sites": int(found.truth.sum()),
        "bases": len(found.truth),
        "auprc": average_precision(found.scores, found.truth),
        "top_n_precision": top_n_precision(found.scores, found.truth),
        "f1": best_f1(found.scores, found.truth)[0],
    }


def class_accuracy(parts: Sequence[LabelledRegion], logits: Sequence[np.ndarray], head: str) -> float:
    """Return the share of bases in a right class; where genes overlap, any of their classes is right."""
    right = total = 0
    for part, values in zip(parts, logits, strict=True):
        labels = part.labels(head)
        n_labels = len(part.heads[head].config.labels)
        found = labels & np.uint32((1 << n_labels) - 1)
        several = (found & (found - np.uint32(1))) != 0
        counted = (labels >> np.uint32(MAX_LABELS) == 0) | several
        best = values.argmax(1).astype(np.uint32)
        right += int((found[counted] >> best[counted] & 1).sum())
        total += int(counted.sum())
    return right / total


def exon_f1(parts: Sequence[LabelledRegion], logits: Sequence[np.ndarray]) -> float:
    """Return the F1 score of coding exons with both ends exactly right.

    A predicted exon is a run of bases whose most probable class is CDS on one strand; an annotated one is a
    run of bases labelled CDS on that strand.
    """
    hits = called = annotated = 0
    for part, values in zip(parts, logits, strict=True):
        labels, names = part.labels("genes"), part.heads["genes"].config.labels
        best = values.argmax(1)
        for strand in "+-":
            i = names.index(f"CDS{strand}")
            found, truth = (set(_runs(mask)) for mask in (best == i, (labels >> np.uint32(i) & 1).astype(bool)))
            hits, called, annotated = hits + len(found & truth), called + len(found), annotated + len(truth)
    return 2 * hits / (called + annotated)


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def without_utr_introns(part: LabelledRegion) -> LabelledRegion:
    """Return the region with donors and acceptors beside untranslated exons ignored."""
    sites, genes = part.heads["sites"], part.heads["genes"]
    chrom = part.region.chrom
    labels, classes = sites.labels[chrom].copy(), genes.labels[chrom]
    for name, strand in product(("donor", "acceptor"), "+-"):
        i = sites.config.labels.index(name + strand)
        at = np.flatnonzero(labels >> np.uint32(i) & 1)
        exon = at - 1 if (name == "donor") == (strand == "+") else at + 1
        utr = np.uint32(1 << genes.config.labels.index(f"UTR{strand}"))
        beside = at[classes[np.clip(exon, 0, len(classes) - 1)] & utr != 0]
        labels[beside] |= np.uint32(1 << (i + MAX_LABELS))
    heads = part.heads | {"sites": replace(sites, labels={**sites.labels, chrom: labels})}
    return replace(part, heads=heads)


def without_regions(part: LabelledRegion, regions: Sequence[Region]) -> LabelledRegion:
    """Return the region with all labels ignored in some other regions."""
    heads = {}
    for name, head in part.heads.items():
        labels = head.labels[part.region.chrom].copy()
        everything = np.uint32(((1 << len(head.config.labels)) - 1) << MAX_LABELS)
        for region in regions:
            if region.chrom == part.region.chrom:
                labels[region.start : region.end] |= everything
        heads[name] = replace(head, labels={**head.labels, part.region.chrom: labels})
    return replace(part, heads=heads)
