"""The measurements of the gene models: accuracy on held-out genomes, and profiles of attributions."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.genes.accuracy import (
    LabelledRegion,
    baseline_logits,
    class_accuracy,
    exon_f1,
    labelled_regions,
    predict,
    site_metrics,
    site_scores,
    without_regions,
    without_utr_introns,
)
from benchmarks.genes.data import TRAINING as TRAINING_BACTERIA
from benchmarks.genes.data import find_genes
from benchmarks.genes.figures import draw_curves, draw_profiles
from benchmarks.genes.homology import similar_genes
from benchmarks.genes.profiles import SHOWN, annotated_sites, contrast, decoys, saturation, site_attributions, summarise
from benchmarks.machine import commit, machine, versions
from genoscan.genome.annotation import read_annotation
from genoscan.layers.weights import build
from genoscan.model import Model
from genoscan.training.labels import MAX_LABELS

Report = Callable[[str], object]

TRAINING, TEST = "NC_003070.9:1-22,000,000", "NC_003070.9:25,000,001-30,427,671"
ARENOSA = "LR999452.1"
_N_SITES, _N_DECOYS, _N_SATURATED = 400, 1_200, 200


def arabidopsis(model: Model, data: Path, output: Path, report: Report) -> dict[str, Any]:
    """Measure accuracy and profiles on the test stretch of A. thaliana and on A. arenosa."""
    genome, annotation = data / "thaliana.fa", data / "thaliana.gff3"
    training = labelled_regions(genome, annotation, "genes", [TRAINING])
    sets = {
        "thaliana": (labelled_regions(genome, annotation, "genes", [TEST]), annotation),
        "arenosa": (
            [
                without_utr_introns(p)
                for p in labelled_regions(data / "arenosa.fa", data / "arenosa.gff3", "genes", [ARENOSA])
            ],
            data / "arenosa.gff3",
        ),
    }
    known = _genes(training[0], annotation)
    document = _document(model)
    curves: dict[str, Any] = {}
    for name, (parts, source) in sets.items():
        report(f"{name}: predicting {sum(len(part.region) for part in parts):,} bases")
        logits = [predict(model, part) for part in parts]
        found: dict[str, Any] = {
            "bases": sum(len(part.region) for part in parts),
            "class_accuracy": class_accuracy(parts, [one["genes"] for one in logits], "genes"),
            "exon_f1": exon_f1(parts, [one["genes"] for one in logits]),
        }
        baselines = {order: [baseline_logits(training, part, order) for part in parts] for order in (0, 1)}
        similar = similar_genes(
            (parts[0].genome, _genes(parts[0], source)), (training[0].genome, known), torch.get_num_threads()
        )
        found["genes_similar_to_training"] = len(similar)
        apart = [without_regions(part, similar) for part in parts]
        for site in ("donor", "acceptor", "start", "stop"):
            scores = site_scores(parts, [one["sites"] for one in logits], site)
            found[site] = site_metrics(scores) | {"left_out": _left_out(parts, site)}
            found[site]["weight_matrix"] = site_metrics(site_scores(parts, baselines[0], site))
            found[site]["markov"] = site_metrics(site_scores(parts, baselines[1], site))
            found[site]["without_similar_genes"] = site_metrics(
                site_scores(apart, [one["sites"] for one in logits], site)
            )
            curves[f"{name} {site}"] = {
                "model": scores,
                "Markov model": site_scores(parts, baselines[1], site),
                "weight matrix": site_scores(parts, baselines[0], site),
            }
            report(f"{name} {site}: AUPRC {found[site]['auprc']:.3f}")
        document["accuracy"][name] = found
    draw_curves(curves, output / "arabidopsis-genes.precision-recall")
    for name, window, against in (
        ("donor", (0, 5), None),
        ("acceptor", (-20, -4), (-60, -40)),
        ("start", (0, 2), None),
    ):
        for species, (parts, _) in sets.items():
            document["profiles"][f"{species} {name}"] = _profile(
                model, parts[0], name, window, output / f"arabidopsis-genes.{species}.{name}", report, against
            )
    return document


def bacteria(model: Model, data: Path, output: Path, report: Report) -> dict[str, Any]:
    """Measure accuracy and profiles on Chlamydia trachomatis and Streptococcus suis, absent from training."""
    document = _document(model)
    training = [
        part
        for name in TRAINING_BACTERIA
        for part in labelled_regions(data / f"{name}.fa", data / f"{name}.gff3", "frames", [])
    ]
    chlamydia = labelled_regions(data / "chlamydia.gb", data / "chlamydia.gb", "frames", [])
    suis = labelled_regions(data / "SC84.fa", data / "SC84.gff3", "frames", [])
    curves = {}
    for species, parts in (("chlamydia", chlamydia), ("streptococcus", suis)):
        logits = [predict(model, part) for part in parts]
        found: dict[str, Any] = {
            "bases": sum(len(part.region) for part in parts),
            "class_accuracy": class_accuracy(parts, [one["frames"] for one in logits], "frames"),
            "pyrodigal": _pyrodigal(parts),
        }
        baselines = {order: [baseline_logits(training, part, order) for part in parts] for order in (0, 1)}
        for site in ("start", "stop"):
            scores = site_scores(parts, [one["sites"] for one in logits], site)
            found[site] = site_metrics(scores)
            found[site]["weight_matrix"] = site_metrics(site_scores(parts, baselines[0], site))
            found[site]["markov"] = site_metrics(site_scores(parts, baselines[1], site))
            curves[f"{species} {site}"] = {
                "model": scores,
                "Markov model": site_scores(parts, baselines[1], site),
                "weight matrix": site_scores(parts, baselines[0], site),
            }
            report(f"{species} {site}: top-N precision {found[site]['top_n_precision']:.3f}")
        document["accuracy"][species] = found
    draw_curves(curves, output / "bacteria-genes.precision-recall")
    document["profiles"]["chlamydia start"] = _profile(
        model, chlamydia[0], "start", (-15, -5), output / "bacteria-genes.chlamydia.start", report, None
    )
    return document


EXPERIMENTS: Mapping[str, Callable[[Model, Path, Path, Report], dict[str, Any]]] = {
    "arabidopsis": arabidopsis,
    "bacteria": bacteria,
}


def _document(model: Model) -> dict[str, Any]:
    return {
        "model": model.name,
        "model_sha256": model.sha256,
        "commit": commit(),
        "machine": machine(str(model.device)),
        "versions": versions(),
        "accuracy": {},
        "profiles": {},
    }


def _genes(part: LabelledRegion, annotation: Path) -> list[Any]:
    genes = read_annotation(annotation, part.genome.sizes)
    region = part.region
    return [g for g in genes if g.chrom == region.chrom and g.start >= region.start and g.end <= region.end]


def _left_out(parts: Sequence[LabelledRegion], site: str) -> int:
    """Return the number of ambiguous sites, which are left out."""
    count = 0
    for part in parts:
        names = part.heads["sites"].config.labels
        for strand in "+-":
            count += int((part.labels("sites") >> np.uint32(names.index(site + strand) + MAX_LABELS) & 1).sum())
    return count


def _pyrodigal(parts: Sequence[LabelledRegion]) -> dict[str, float]:
    """Return the agreement of pyrodigal, which is trained on the test genome itself, with the annotation."""
    starts = stops = called = annotated = right = total = 0
    for part in parts:
        codes = part.codes()
        letters = "".join("ACGTN"[code] for code in codes)
        genes = [gene for gene in find_genes({part.region.chrom: letters}) if gene.complete]
        labels, names = part.labels("sites"), part.heads["sites"].config.labels
        bits = {name: np.uint32(1 << i) for i, name in enumerate(names)}
        frames, frame_names = part.labels("frames"), part.heads["frames"].config.labels
        predicted = np.zeros(len(codes), np.uint32)
        for gene in genes:
            first, last = (gene.start, gene.end - 1) if gene.strand == "+" else (gene.end - 1, gene.start)
            starts += int(labels[first] & bits[f"start{gene.strand}"] != 0)
            stops += int(labels[last] & bits[f"stop{gene.strand}"] != 0)
            step = 1 if gene.strand == "+" else -1
            for position in range(3):
                bit = np.uint32(1 << frame_names.index(f"codon{position + 1}{gene.strand}"))
                predicted[np.arange(first + step * position, last + step, 3 * step)] |= bit
        called += len(genes)
        annotated += int((labels & (bits["start+"] | bits["start-"]) != 0).sum())
        predicted[predicted == 0] = 1
        found = frames & np.uint32((1 << len(frame_names)) - 1)
        counted = (frames >> np.uint32(MAX_LABELS) == 0) | ((found & (found - np.uint32(1))) != 0)
        right += int((found[counted] & predicted[counted] != 0).sum())
        total += int(counted.sum())
    return {
        "genes": called,
        "start_precision": starts / called,
        "start_recall": starts / annotated,
        "stop_precision": stops / called,
        "class_accuracy": right / total,
    }


def _profile(
    model: Model,
    part: LabelledRegion,
    name: str,
    window: tuple[int, int],
    output: Path,
    report: Report,
    against: tuple[int, int] | None,
) -> dict[str, Any]:
    sites, others = annotated_sites(part, name, _N_SITES), decoys(part, name, _N_DECOYS)
    report(f"{output.name}: attributions of {len(sites.positions):,} sites and {len(others.positions):,} decoys")
    found, false = (site_attributions(model, part, name, one) for one in (sites, others))
    torch.manual_seed(0)
    fresh = replace(model, network=build(model.config).requires_grad_(False))
    random = site_attributions(fresh, part, name, sites)
    document: dict[str, Any] = {
        "window": window,
        "contrast": asdict(contrast(found, false, window)),
        "random_weights": asdict(contrast(random, site_attributions(fresh, part, name, others), window)),
        "sites": summarise(found),
        "decoys": summarise(false),
        "random": summarise(random),
        "saturation": saturation(model, part, name, type(sites)(*(one[:_N_SATURATED] for one in sites))),
    }
    if against is not None:
        document["against"] = {"window": against, **_within(found, window, against)}
    draw_profiles(name, document, output)
    return document


def _within(found: Any, window: tuple[int, int], against: tuple[int, int]) -> dict[str, float]:
    """Compare mean absolute scores in two windows of the same sites."""
    means = [float(np.abs(found.scores[:, SHOWN + a : SHOWN + b + 1]).mean()) for a, b in (window, against)]
    return {"inside": means[0], "outside": means[1], "ratio": means[0] / means[1]}


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write the results as JSON; arrays become lists of numbers with four digits."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [round(float(x), 4) for x in value]
        return float(value)

    path.write_text(json.dumps(document, indent=1, default=plain) + "\n")
