"""The measurements of the gene models: accuracy on held-out genomes, and profiles of attributions."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from benchmarks.genes.accuracy import (
    LabelledRegion,
    SiteScores,
    baseline_logits,
    baseline_models,
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
from benchmarks.genes.motifs import find_motifs
from benchmarks.genes.profiles import SHOWN, annotated_sites, contrast, decoys, saturation, site_attributions, summarise
from benchmarks.machine import circumstances
from benchmarks.run import write_text
from genoscan.genome.annotation import read_annotation
from genoscan.layers.weights import build
from genoscan.model import Model
from genoscan.training.labels import MAX_LABELS
from genoscan.training.site_models import SiteModel

Report = Callable[[str], object]
Results: TypeAlias = Iterator[tuple[str, Any]]
"""Names and results, each of which is written when it is there."""

TRAINING, TEST = "NC_003070.9:1-22,000,000", "NC_003070.9:25,000,001-30,427,671"
ARENOSA = "LR999452.1"
_N_SITES, _N_DECOYS, _N_RANDOM, _N_SATURATED, _N_MOTIFS = 300, 1_000, 300, 200, 800


def arabidopsis_accuracy(model: Model, data: Path, output: Path, report: Report) -> Results:
    """Measure accuracy on the test stretch of A. thaliana and on A. arenosa."""
    (training,) = labelled_regions(data / "thaliana.fa", data / "thaliana.gff3", "genes", [TRAINING])
    known = _genes(training, data / "thaliana.gff3")
    baselines = _baselines([training])
    curves: dict[str, Any] = {}
    for name, part in _arabidopsis_tests(data).items():
        report(f"{name}: predicting {len(part.region):,} bases")
        logits = predict(model, part)
        found: dict[str, Any] = {
            "strand": "+",
            "bases": len(part.region),
            "class_accuracy": class_accuracy([part], [logits["genes"]], "genes"),
            "exon_f1": exon_f1([part], [logits["genes"]]),
        }
        similar = similar_genes(
            (part.genome, _genes(part, data / f"{name}.gff3")), (training.genome, known), torch.get_num_threads()
        )
        found["genes_similar_to_training"] = len(similar)
        apart = without_regions(part, similar)
        sites = [logits["sites"]]
        for site, scores in _scored_sites(("donor", "acceptor", "start", "stop"), [part], sites, baselines):
            found[site] = _metrics_by_model(scores) | {"left_out": _left_out([part], site)}
            found[site]["without_similar_genes"] = site_metrics(site_scores([apart], sites, site))
            curves[f"{name} {site}"] = scores
            report(f"{name} {site}: AUPRC {found[site]['auprc']:.3f}")
        yield name, found
    draw_curves(curves, output / "arabidopsis-genes.precision-recall", report)


def arabidopsis_profiles(model: Model, data: Path, output: Path, report: Report) -> Results:
    """Measure mean attributions around sites of A. thaliana and A. arenosa."""
    for species, part in _arabidopsis_tests(data).items():
        for name, window, against in (
            ("donor", (0, 5), None),
            ("acceptor", (-20, -4), (-60, -40)),
            ("start", (0, 2), None),
            ("stop", (-2, 0), None),
        ):
            picture = output / f"arabidopsis-genes.{species}.{name}"
            yield f"{species} {name}", _profile(model, part, name, window, picture, report, against)


def _arabidopsis_tests(data: Path) -> dict[str, LabelledRegion]:
    (thaliana,) = labelled_regions(data / "thaliana.fa", data / "thaliana.gff3", "genes", [TEST])
    (arenosa,) = labelled_regions(data / "arenosa.fa", data / "arenosa.gff3", "genes", [ARENOSA])
    return {"thaliana": thaliana, "arenosa": without_utr_introns(arenosa)}


def bacteria_accuracy(model: Model, data: Path, output: Path, report: Report) -> Results:
    """Measure accuracy on Chlamydia trachomatis and Streptococcus suis, absent from training."""
    training = [
        part
        for name in TRAINING_BACTERIA
        for part in labelled_regions(data / f"{name}.fa", data / f"{name}.gff3", "frames", [])
    ]
    suis = labelled_regions(data / "SC84.fa", data / "SC84.gff3", "frames", [])
    baselines = _baselines(training)
    curves = {}
    for species, parts in (("chlamydia", _chlamydia(data)), ("streptococcus", suis)):
        logits = [predict(model, part, both_strands=True) for part in parts]
        found: dict[str, Any] = {
            "strand": "both",
            "bases": sum(len(part.region) for part in parts),
            "class_accuracy": class_accuracy(parts, [one["frames"] for one in logits], "frames"),
            "pyrodigal": _pyrodigal(parts),
        }
        sites = [one["sites"] for one in logits]
        for site, scores in _scored_sites(("start", "stop"), parts, sites, baselines):
            found[site] = _metrics_by_model(scores)
            curves[f"{species} {site}"] = scores
            report(f"{species} {site}: top-N precision {found[site]['top_n_precision']:.3f}")
        yield species, found
    draw_curves(curves, output / "bacteria-genes.precision-recall", report)


def bacteria_profiles(model: Model, data: Path, output: Path, report: Report) -> Results:
    """Measure mean attributions and motifs around starts of C. trachomatis, behind Shine-Dalgarno boxes."""
    (part,) = _chlamydia(data)
    picture = output / "bacteria-genes.chlamydia.start"
    yield "chlamydia start", _profile(model, part, "start", (-15, -5), picture, report, (-60, -31))
    report("motifs around starts")
    found = site_attributions(model, part, "start", annotated_sites(part, "start", _N_MOTIFS))
    yield "chlamydia start motifs", find_motifs(found)


def _chlamydia(data: Path) -> list[LabelledRegion]:
    return labelled_regions(data / "chlamydia.gb", data / "chlamydia.gb", "frames", [])


EXPERIMENTS: Mapping[str, Mapping[str, Callable[[Model, Path, Path, Report], Results]]] = {
    "arabidopsis": {"accuracy": arabidopsis_accuracy, "profiles": arabidopsis_profiles},
    "bacteria": {"accuracy": bacteria_accuracy, "profiles": bacteria_profiles},
}
"""The parts of the measurement of each model."""


def measure(name: str, parts: Sequence[str], model: Model, data: Path, output: Path, report: Report) -> Path:
    """Measure parts of an experiment, and write each result when it is known. All other results in the file are kept.

    Parameters
    ----------
    name
        Name of an experiment.
    parts
        Names of its parts.
    model
        Model to measure.
    data
        Folder with genomes and annotations.
    output
        Folder for the results and figures.
    report
        Function called with progress messages.

    Returns
    -------
    Path
        JSON file with the results.
    """
    path = output / f"{name}-genes.json"
    document: dict[str, Any] = {"model": model.name, "model_sha256": model.sha256}
    if path.exists() and (before := json.loads(path.read_text()))["model_sha256"] == model.sha256:
        document = before
    measured = circumstances(str(model.device))
    for part in parts:
        own = document.setdefault(part, {"results": {}, "measured": {}})
        for key, found in EXPERIMENTS[name][part](model, data, output, report):
            own["results"][key], own["measured"][key] = found, measured
            write(document, path)
    return path


def _baselines(training: Sequence[LabelledRegion]) -> dict[str, list[SiteModel]]:
    return {"Markov model": baseline_models(training, 1), "weight matrix": baseline_models(training, 0)}


def _scored_sites(
    names: Sequence[str],
    parts: Sequence[LabelledRegion],
    logits: Sequence[np.ndarray],
    baselines: Mapping[str, Sequence[SiteModel]],
) -> Iterator[tuple[str, dict[str, SiteScores]]]:
    """Yield the name of each kind of site, and its scores by the model and by the baselines."""
    by_model = {"model": logits} | {
        name: [baseline_logits(models, part) for part in parts] for name, models in baselines.items()
    }
    for site in names:
        yield site, {name: site_scores(parts, values, site) for name, values in by_model.items()}


def _metrics_by_model(scores: Mapping[str, SiteScores]) -> dict[str, Any]:
    return site_metrics(scores["model"]) | {
        "weight_matrix": site_metrics(scores["weight matrix"]),
        "markov": site_metrics(scores["Markov model"]),
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
    fresh = replace(model, network=build(model.config, device=str(model.device)).requires_grad_(False))
    random, random_false = (site_attributions(fresh, part, name, one.choose(_N_RANDOM)) for one in (sites, others))
    document: dict[str, Any] = {
        "window": window,
        "contrast": asdict(contrast(found, false, window)),
        "random_weights": asdict(contrast(random, random_false, window)),
        "sites": summarise(found),
        "decoys": summarise(false),
        "random": summarise(random),
        "saturation": saturation(model, part, name, sites.choose(_N_SATURATED)),
    }
    document["signed"] = {kind: _mean(document[kind], "signed", window) for kind in ("sites", "decoys")}
    if against is not None:
        document["against"] = {"window": against} | {
            kind: _mean(document[kind], "absolute", window) / _mean(document[kind], "absolute", against)
            for kind in ("sites", "decoys")
        }
    draw_profiles(name, document, output, report)
    return document


def _mean(summary: Mapping[str, Any], which: str, window: tuple[int, int]) -> float:
    """Return the mean score at the positions of a window, which includes both ends."""
    return float(np.mean(summary[which][SHOWN + window[0] : SHOWN + window[1] + 1]))


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write the results as JSON in one line; arrays become lists of numbers with four digits."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [round(float(x), 4) for x in value]
        return float(value)

    write_text(path, json.dumps(document, default=plain) + "\n")
