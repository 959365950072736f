"""What tracks are said to be: unit and sign of each kind of track, the same in pages and docs."""

import re
from typing import Any

import numpy as np
import pytest
from commands import ROOT

from genoscan.tracks.description import describe, target_unit
from genoscan.tracks.score import SCORES

DOCUMENTED = (ROOT / "docs" / "track-lines.md").read_text()
AT = {"chrom": "chr1", "start": 9, "end": 10}
BASELINE = {"attribution": {"name": "integrated-gradients"}, "score": "observed"}

OTHERS: dict[str, dict[str, Any]] = {
    "probability": {"prediction": "genes.CDS+", "logits": False},
    "logit": {"prediction": "genes.CDS+", "logits": True},
    "log-likelihood": {"prediction": "log-likelihood"},
    "entropy": {"prediction": "entropy"},
    "base": {"prediction": "A"},
    "logit of a base": {"prediction": "A", "logits": True},
    "mean": {"mutagenesis": "mean", "target": "log-likelihood"},
    "strongest": {"mutagenesis": "strongest", "target": "log-likelihood"},
    "response": {"response": {"at": AT, "base": "C", "of": "log-p", "finite": False}},
    "logits": {"response": {"at": AT, "base": None, "of": "logits", "finite": False}},
    "sensitivity": {"response": {"at": AT, "base": "C", "of": "sensitivity", "finite": False}},
    "dependency": {"dependency": {"map": "log-odds"}},
    "margin": {"track": "margin", "target": "log-likelihood", "score": "centred"},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_docs_list_the_lines_of_pages(kind: str) -> None:
    line = describe({"model": "m", **OTHERS[kind]}).line
    rows = [row.rsplit("|", 2)[1].strip() for row in re.findall(r"^\| `.*\|$", DOCUMENTED, re.MULTILINE)]
    assert any(line.endswith(row) for row in rows), line


@pytest.mark.parametrize("score", SCORES)
def test_docs_list_units_and_signs_of_scores(score: str) -> None:
    measure = describe({"model": "m", "target": "log-likelihood", "score": score}).measure
    row = next(row for row in DOCUMENTED.splitlines() if row.startswith(f"| `{score}`"))
    assert row.endswith(f"| {measure.unit} | {measure.sign} |")


@pytest.mark.parametrize(
    ("target", "unit"),
    [
        ("log-likelihood", "nats"),
        ("log-likelihood:chr1:5-9", "nats"),
        ("logit:chr1:5:A", "logits"),
        ("log-odds:chr1:5:A", "logits"),
        ("genes:CDS+@chr1:5-9", "logits"),
    ],
)
def test_the_unit_follows_the_target(target: str, unit: str) -> None:
    assert target_unit(target) == unit
    record = {"model": "m", "target": target, "score": "centred"}
    line = describe(record).line
    assert line.startswith(f"model m; target {target}; score centred, in {unit}, first order")
    shares = describe(record | BASELINE).measure.unit
    assert shares == f"{unit}, as shares of the difference from the baseline"


def test_signs_are_those_of_the_scores() -> None:
    """The target rises with the observed base, A: what is said to be positive is positive, and the reverse."""
    gradient, codes = np.array([[1, 0, 0, -1]], np.float32), np.zeros(1, np.uint8)
    for score, function in SCORES.items():
        sign = describe({"model": "m", "target": "log-likelihood", "score": score}).measure.sign
        (value,) = function(gradient, codes)
        if "substitution with the largest effect raises" in sign:
            assert value < 0
        else:
            assert value > 0
            assert ("never negative" in sign) == (function(-gradient, codes)[0] > 0)


def test_contrasts_strands_and_alleles_are_named() -> None:
    variant = {"chrom": "chr1", "pos": 5, "ref": "A", "alt": "C"}
    record = {"model": "m", "target": "genes:CDS+", "score": "centred"}
    assert "target genes:CDS+ less intron+;" in describe(record | {"contrast": "intron+"}).line
    assert "less the strongest other label" in describe(record | {"contrast": "strongest"}).line
    assert "target genes:CDS+; reverse strand; score" in describe(record | {"strand": "-"}).line
    assert "target genes:CDS+; score" in describe(record | {"strand": "+"}).line
    assert "alt allele of chr1:5 A>C" in describe(record | {"variant": variant, "allele": "alt"}).line
