"""The Python interface to variants, mutations and dependency maps: the same numbers as the command line's."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import bases, tiny_model, write_fasta
from commands import genoscan as command

import genoscan
from genoscan.errors import InputError

LETTERS = f"{bases(140, 1)}NN{bases(58, 2)}"
REGION = "chr1:61-90"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> genoscan.Model:
    return genoscan.load_model(tiny_model(tmp_path_factory.mktemp("models") / "tiny"), tile=32)


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    return write_fasta(tmp_path / "g.fa", {"chr1": LETTERS, "chr2": bases(90, 3)})


def test_results_are_short_in_notebooks(tiny: genoscan.Model, fasta: Path) -> None:
    """One line with sizes, and a table of at most ten rows."""
    alleles = [f"chr1:{at}:{LETTERS[at - 1]}>{other(LETTERS[at - 1])}" for at in range(1, 13)]
    scores = genoscan.score_variants(fasta, [*alleles, "chr9:5:A>C"], tiny)
    assert repr(scores) == "VariantScores(13 alleles, 12 scored; log-likelihood; model tiny)"
    assert (len(scores), scores._repr_html_().count("<tr>")) == (13, 10)

    effects = genoscan.mutate((fasta, "chr1:136-145"), tiny)
    largest = effects.to_dataframe().effect.abs().max()
    told = f"MutationEffects(chr1:136-145, 10 bases, 24 substitutions; largest effect {largest:.3g})"
    assert (repr(effects), len(effects)) == (told, 10)
    rows = effects._repr_html_().split("<tr>")
    assert (len(rows), f"{largest:.6f}" in rows[1].replace("-", "")) == (11, True)

    found = genoscan.map_dependencies((fasta, REGION), tiny, band=5)
    assert re.fullmatch(
        r"DependencyMap\(chr1:61-90, 30 mutated and 30 read bases at most 5 bases away; largest value [\d.]+\)",
        repr(found),
    )
    (row, column, _), *_ = found.strongest(1)
    assert f"<td>{row + 1}</td>\n      <td>{column + 1}</td>" in found._repr_html_().split("<tr>")[1]

    shown = repr(genoscan.response(LETTERS, tiny, at=60, base=other(LETTERS[59])))
    assert re.fullmatch(
        r"Response\(sequence:1-200, 200 bases; total of \w \S+; largest effect \S+ at sequence:\d+-\d+\)", shown
    )


def run(*arguments: Any, tiny: genoscan.Model) -> None:
    done = command(*arguments, "-m", tiny.path, "--tile", 32)
    assert done.code == 0, done.err


def other(base: str) -> str:
    return "ACGT"["ACGT".index(base) - 1]


@pytest.mark.parametrize("form", ["file", "list", "table", "open genome"])
def test_variants_are_those_of_the_command_line(tiny: genoscan.Model, fasta: Path, tmp_path: Path, form: str) -> None:
    rows = [("chr1", at, LETTERS[at - 1], other(LETTERS[at - 1])) for at in (30, 20, 100)]
    rows += [("chr1", 50, LETTERS[49:52], LETTERS[49]), ("chr1", 141, "N", "A"), ("chr9", 5, "A", "C")]
    path = tmp_path / "v.tsv"
    lines = ["\t".join(map(str, (*row, f"v{i}"))) for i, row in enumerate(rows)]
    path.write_text("\n".join(["chrom\tpos\tref\talt\tid", *lines, ""]))
    run("variants", fasta, path, "-o", tmp_path / "o.tsv", "--first-order", tiny=tiny)
    given: Any = path
    if form == "list":
        given = [f"{chrom}:{pos:,}:{ref}>{alt}" for chrom, pos, ref, alt in rows]
    elif form == "table":
        given = pd.DataFrame(rows, columns=["chrom", "pos", "ref", "alt"]).assign(
            id=[f"v{i}" for i in range(len(rows))]
        )
    genome = genoscan.open_genome(fasta) if form == "open genome" else fasta
    found = genoscan.score_variants(genome, given, tiny, first_order=True).to_dataframe()
    written = pd.read_csv(tmp_path / "o.tsv", sep="\t", na_values=".", keep_default_na=False)
    assert list(found) == list(written)
    for name in ("delta", "own", "downstream", "jsd", "first", "largest_at"):
        assert np.allclose(found[name].astype(float), written[name].astype(float), rtol=1e-8, equal_nan=True), name
    for name in ("chrom", "pos", "ref", "alt", "status", *(() if form == "list" else ("id",))):
        assert found[name].tolist() == written[name].tolist()
    assert found["status"].tolist()[:4] == ["ok"] * 4 and "ok" not in found["status"].tolist()[4:]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["chr1:5"], "expected CHROM:POS:REF>ALT"),
        ([("chr1", 5, "A", "C")], r"variant \('chr1', 5, 'A', 'C'\): expected a text such as chr1:1,024:A>C"),
        (iter(["chr1:5:A>C"]), "found list_iterator, expected a path, a list of texts or a DataFrame"),
        (pd.DataFrame({"chrom": ["chr1"], "pos": [5], "ref": ["A"]}), "no column alt"),
        (pd.DataFrame({"chrom": ["chr1"], "pos": [5.5], "ref": ["A"], "alt": ["C"]}), "expected an integer"),
        (pd.DataFrame({"chrom": ["chr1"], "pos": [5], "ref": ["A"], "alt": [np.nan]}), "two texts"),
    ],
)
def test_wrong_variants_are_named(tiny: genoscan.Model, fasta: Path, given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        genoscan.score_variants(fasta, given, tiny)


def test_inference_mode_makes_no_difference(tiny: genoscan.Model, fasta: Path) -> None:
    at, new = 30, other(LETTERS[29])
    variant = f"chr1:{at}:{LETTERS[at - 1]}>{new}"

    def results() -> list[np.ndarray]:
        return [
            genoscan.attribute(LETTERS[:60], tiny, target="logit:50:A").gradient,
            genoscan.response(LETTERS[:60], tiny, at=at, base=new, of="sensitivity").values,
            genoscan.mutate(LETTERS[:40], tiny, tolerance=0.1).raw,
            genoscan.score_variants(fasta, [variant], tiny).to_dataframe().delta.to_numpy(),
        ]

    expected = results()
    with torch.inference_mode():
        for found, value in zip(results(), expected, strict=True):
            assert np.array_equal(found, value, equal_nan=True)


def test_a_genome_of_another_type_is_named(tiny: genoscan.Model) -> None:
    with pytest.raises(InputError, match="genome is int"):
        genoscan.score_variants(5, ["chr1:5:A>C"], tiny)


def test_mutations_are_those_of_the_command_line(tiny: genoscan.Model, fasta: Path, tmp_path: Path) -> None:
    run("mutate", fasta, "-r", REGION, "-o", tmp_path / "m.npz", "-o", tmp_path / "m.tsv", "--screen", 20, tiny=tiny)
    found = genoscan.mutate((fasta, REGION), tiny, screen=20)
    with np.load(tmp_path / "m.npz") as written:
        assert np.array_equal(found.raw, written["effects"]), list(written)
    table, written = found.to_dataframe(), pd.read_csv(tmp_path / "m.tsv", sep="\t")
    assert list(table) == list(written)
    assert table["exact"].sum() == 20
    for name in ("chrom", "pos", "ref", "alt", "exact"):
        assert table[name].tolist() == written[name].tolist()
    assert np.allclose(table["effect"], written["effect"], rtol=1e-8)


def test_mutations_of_a_string_have_targets_without_a_name(tiny: genoscan.Model) -> None:
    letters = LETTERS[:40] + "N" + LETTERS[40:60]
    found = genoscan.mutate(letters, tiny, target="logit:50:A")
    assert np.isnan(found.raw[40]).all() and np.isfinite(np.delete(found.raw, 40, 0)).all()
    assert len(found.to_dataframe()) == 3 * 60
    for at, new in ((10, "A"), (30, "G")):
        copy = letters[:at] + new + letters[at + 1 :]
        logits = [genoscan.predict(one, tiny)[49, 0] for one in (letters, copy)]
        assert found.raw[at, "ACGT".index(new)] == pytest.approx(float(logits[1] - logits[0]), abs=1e-5)


def test_dependency_maps_are_those_of_the_command_line(tiny: genoscan.Model, fasta: Path, tmp_path: Path) -> None:
    run("dependency", fasta, "-r", REGION, "--symmetrise", "max", "-o", tmp_path / "d.npz", tiny=tiny)
    found = genoscan.map_dependencies((fasta, REGION), tiny, symmetrise="max")
    with np.load(tmp_path / "d.npz") as written:
        assert np.array_equal(found.dense(), written["map"], equal_nan=True)
