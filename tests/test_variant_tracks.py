"""Tracks around variants: whole-window autograd of plain torch on both alleles, and files of a whole run or none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import bases, genoscan, listing, tiny_model, write_fasta
from headed import write_headed
from test_variants import CHROM, CONTEXT, REACH, SIZE, changes, edges_of, loaded, sequences, table
from toys import tiny_config, tiny_stack

from genoscan.effects.variant_job import VariantOptions, prepare_variants
from genoscan.effects.variant_tracks import FLANK, allele_gradients, select_variants, track_stem
from genoscan.errors import NonFiniteError
from genoscan.genome.alphabet import decode, encode, reverse_complement
from genoscan.genome.genome import open_genome
from genoscan.genome.memory import SequenceGenome
from genoscan.genome.variant import Change
from genoscan.layers.weights import save_model
from genoscan.model import Model, load_model
from genoscan.tracks.provenance import read_provenance
from genoscan.tracks.reader import BigWig

SLOW = "mamba, symbols mixed up", "PS fused"


def expected(
    genome: SequenceGenome, model: Model, logits: Any, change: Change, strand: str, allele: int, **target: Any
) -> dict[int, np.ndarray]:
    """Return the four derivatives at each base of the genome that is left, from one window in plain torch."""
    left, right = target.get("edges") or edges_of(change, strand, model.bidirectional)
    codes = genome.fetch(CHROM, 0, SIZE)
    middle = np.arange(change.start, change.stop)
    new = codes[middle] if not allele else encode(change.alt.encode(), record="", offset=0)
    at = [*range(left, change.start), *(list(middle) + [-1] * len(new))[: len(new)], *range(change.stop, right)]
    read = np.concatenate([codes[left : change.start], new, codes[change.stop : right]])
    # New bases are labels where the replaced bases begin; inserted ones between two bases.
    own = [change.start if change.ref else change.start - 0.5] * len(new) if allele else list(middle)
    labels = [*range(left, change.start), *own, *range(change.stop, right)]
    if strand == "-":
        read, at, labels = reverse_complement(read), at[::-1], labels[::-1]
    x = model.table()[torch.from_numpy(read.copy()).long()].double().requires_grad_()
    outputs = logits(x)
    offset, total = model.config.label_offset, torch.zeros((), dtype=torch.float64)
    first, last = target.get("region", (-1, 2 * SIZE))
    for i in range(offset, len(read)):
        if not first <= labels[i] < last:
            continue
        if "weights" in target:
            total = total + outputs[i - offset] @ target["weights"][strand]
        elif read[i] < 4:
            total = total + torch.log_softmax(outputs[i - offset], -1)[model.config.base_columns[int(read[i])]]
    (found,) = torch.autograd.grad(total, x)
    columns = found[:, list(model.config.base_columns)].numpy()
    columns = columns[:, ::-1] if strand == "-" else columns
    return {place: columns[i] for i, place in enumerate(at) if place >= 0}


def check(genome: SequenceGenome, model: Model, logits: Any, change: Change, strand: str, **options: Any) -> None:
    target = {name: options.pop(name) for name in ("region", "weights", "edges") if name in options}
    settings = VariantOptions(strand=strand, context=CONTEXT, reach=REACH, **options)
    job = prepare_variants(genome, model, table(change), settings)
    found = allele_gradients(job, 0)
    assert found is not None
    strands = "+-" if strand == "both" else strand
    for allele in (0, 1):
        truth = [expected(genome, model, logits, change, s, allele, **target) for s in strands]
        lost = set(range(change.start + len(change.alt), change.stop)) if allele else set()
        shown = [p for p in range(SIZE) if all(p in one or p in lost for one in truth)]
        shown = [p for p in shown if change.start - FLANK <= p < change.stop + FLANK]
        edges = [edges_of(change, s, model.bidirectional) for s in strands] if "edges" not in target else []
        shown = [p for p in shown if all(a <= p < b for a, b in edges)]
        assert (found.region.start, found.region.end) == (shown[0], shown[-1] + 1)
        for i, place in enumerate(shown):
            if place in lost:
                assert found.codes[allele, i] == 4
                assert np.isnan(found.gradients[allele, i]).all()
                continue
            want = np.mean([one[place] for one in truth], 0)
            np.testing.assert_allclose(found.gradients[allele, i], want, rtol=1e-10, atol=1e-11)
            if allele and change.start <= place < change.stop:
                assert "ACGT"[found.codes[allele, i]] == change.alt[place - change.start]
            else:
                assert found.codes[allele, i] == genome.fetch(CHROM, place, place + 1)[0]
        assert (np.isnan(found.scores[allele]) == (found.codes[allele] == 4)).all()


@pytest.mark.slow
@pytest.mark.parametrize("strand", ["+", "-", "both"])
def test_gradients_of_every_change(tmp_path: Path, strand: str) -> None:
    model, logits = loaded(tmp_path, "mamba")
    for change in changes(sequences(), count=2):
        check(sequences(), model, logits, change, strand)


@pytest.mark.parametrize("strand", ["+", "-", "both"])
@pytest.mark.parametrize("kind", ["mamba", "Ph", *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)])
def test_gradients_of_both_alleles_are_those_of_whole_windows(tmp_path: Path, kind: str, strand: str) -> None:
    model, logits = loaded(tmp_path, kind)
    genome = sequences()
    for change in changes(genome, count=1)[:: 3 if kind == "mamba" else 7]:
        check(genome, model, logits, change, strand)


@pytest.mark.parametrize("kind", ["mamba", "Ph"])
def test_targets_at_fixed_places(tmp_path: Path, kind: str) -> None:
    """Labels move with the bases that are inserted or deleted before them or between them."""
    model, logits = loaded(tmp_path, kind)
    genome = sequences(0)
    for start, n_ref, alt in [
        (170, 1, ""),
        (170, 0, "ACG"),
        (185, 0, "AC"),
        (185, 4, "T"),
        (176, 8, "CA"),
        (180, 0, "G"),
    ]:
        ref = decode(genome.fetch(CHROM, start, start + n_ref)).decode()
        edges = (start - CONTEXT, 200) if not model.bidirectional else (min(start, 180) - CONTEXT, 200 + REACH)
        check(
            genome, model, logits, Change(CHROM, start, ref, alt), "+",
            target="log-likelihood:chr1:181-200", region=(180, 200), edges=edges,
        )  # fmt: skip


@pytest.mark.parametrize("kind", ["bidirectional", pytest.param("rcps", marks=pytest.mark.slow)])
@pytest.mark.parametrize("strand", ["+", "-"])
def test_labels_of_task_heads(tmp_path: Path, kind: str, strand: str) -> None:
    folder = write_headed(tmp_path / "model", kind)
    model = load_model(folder, dtype=torch.float64, tile=32)
    plain = load_model(folder, dtype=torch.float64, kernels="reference").with_head("sites")
    genome = sequences()
    weights = {"+": torch.tensor([-1.0, 1.0, 0.0]).double(), "-": torch.tensor([-1.0, 0.0, 1.0]).double()}
    for change in changes(genome, count=1)[::7]:
        check(
            genome, model, lambda x: plain.whole(x[None])[0], change, strand,
            target="sites:site+", contrast="none", weights=weights,
        )  # fmt: skip


def test_the_strongest_are_selected(tmp_path: Path) -> None:
    model, _ = loaded(tmp_path, "mamba")
    genome = sequences(0)
    found = sorted(changes(genome), key=lambda change: (change.start, change.ref, change.alt))
    job = prepare_variants(genome, model, table(*found, *found[:2]), VariantOptions(context=9, reach=9))
    delta = np.array([float((-1) ** i * i) for i in range(len(found))])
    delta = np.append(delta, delta[:2])
    assert select_variants(job, delta, 3) == list(range(len(found)))[-3:]
    assert select_variants(job, delta, 1_000) == list(range(len(found)))


def test_names_are_safe_bounded_and_distinct() -> None:
    names = ["chr1", "CHR1", "a/../b", "a/..:b", "-x", ".hidden", "é" * 300, "x" * 300, "x" * 299, "a_b", "plain"]
    found = [Change(name, 5, "A", "C") for name in names]
    found += [Change("plain", 5, "A", alt) for alt in ("", "A" * 20, "A" * 21, "A" * 22)] + [
        Change("plain", 5, "", "A")
    ]
    stems = [track_stem(change, names) for change in found]
    assert stems[names.index("plain")] == "plain_6_A_C"
    assert "plain_6_-_A" in stems
    assert len({stem.lower() for stem in stems}) == len(stems)
    for stem in stems:
        assert len(stem) < 140
        assert stem[0] not in "-."
        assert set(stem) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert "/" not in stem


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_fasta(tmp_path / "g.fa", {"chr1": bases(600, 1), "chr2": bases(200, 2)})
    tiny_model(tmp_path / "tiny")
    genome = open_genome(tmp_path / "g.fa")
    rows = ["chrom\tpos\tref\talt"]
    for chrom, at, n in [("chr1", 300, 1), ("chr1", 301, 4), ("chr2", 1, 1), ("chr2", 200, 1)]:
        ref = decode(genome.fetch(chrom, at - 1, at - 1 + n)).decode()
        rows.append(f"{chrom}\t{at}\t{ref}\t{'ACGT'['ACGT'.index(ref[0]) - 1]}")
    (tmp_path / "calls.tsv").write_text("\n".join([*rows, "chr1\t5\tA\t<DEL>", ""]))
    return tmp_path


RUN = "variants", "g.fa", "calls.tsv", "-m", "tiny", "-t", 1, "-o", "o.tsv"


def test_files_of_a_run(folder: Path) -> None:
    done = genoscan(*RUN, "--tracks", "o", "--strand", "both")
    assert (done.code, done.out) == (0, "o.tsv\no\n"), done.err
    tracks = sorted(listing(folder / "o"))
    assert len(tracks) == 4 * 2 * 2
    for name in tracks:
        if name.endswith(".bw"):
            record = read_provenance(folder / "o" / name, required=["model", "sequences", "regions", "variant"])
            assert record["allele"] == name.split(".")[-2]
            assert record["variant"]["chrom"] == name.split("_")[0]
            (region,) = record["regions"]
            assert region["end"] - region["start"] <= 2 * FLANK + 4
            with BigWig(folder / "o" / name) as track:
                scores = track.scores(region["chrom"], region["start"], region["end"])
            assert (~np.isnan(scores)).sum() == record["scored_bases"] > 30
    deletion = next(name for name in tracks if "_301_" in name and name.endswith("alt.bw"))
    with BigWig(folder / "o" / deletion) as track:
        scores = track.scores("chr1", 299, 306)
    assert np.isnan(scores).sum() == 3
    shown = genoscan("export", "html", folder / "o" / deletion, "-g", "g.fa", "-o", "p.html")
    assert shown.code == 0, shown.err


def test_at_most_n_variants(folder: Path) -> None:
    assert genoscan(*RUN, "--tracks", "o", "--top-tracks", 1).code == 0
    rows = [line.split("\t") for line in (folder / "o.tsv").read_text().splitlines()]
    deltas = {row[1]: abs(float(row[6])) for row in rows[1:] if row[6] != "."}
    strongest = max(deltas, key=lambda pos: deltas[pos])
    assert {name.split("_")[1] for name in listing(folder / "o")} <= {strongest, str(int(strongest) + 1)}
    assert len(listing(folder / "o")) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tracks", "tiny"), "tiny: already exists"),
        (("--tracks", "o.tsv"), "o.tsv: is also written by --output"),
        (("--tracks", "o.tsv.json"), "o.tsv.json: is also written by --output"),
        (("--tracks", "none/o"), "create it first"),
        (("--tracks", "o", "--top-tracks", "0"), "--top-tracks 0: expected at least 1"),
    ],
)
def test_what_is_refused(folder: Path, words: tuple[str, ...], said: str) -> None:
    before = listing(folder)
    done = genoscan(*RUN, *words)
    assert done.code == 1
    assert said in done.err
    assert listing(folder) == before


def test_the_number_without_tracks_is_without_effect(folder: Path) -> None:
    assert "without effect: --top-tracks" in genoscan(*RUN, "--top-tracks", 3).err


def test_all_files_or_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in the middle of the tracks leaves no file, keeps the scores, and the next run is complete."""
    calls = []

    def failing(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise NonFiniteError("chr1: a test")
        return allele_gradients(*arguments, **options)

    before = listing(folder)
    with monkeypatch.context() as patch:
        patch.setattr("genoscan.effects.variant_tracks.allele_gradients", failing)
        assert genoscan(*RUN, "--tracks", "o").code == 1
    assert listing(folder) - before <= {"o.tsv.partial"}
    assert genoscan(*RUN, "--tracks", "o").code == 0
    assert listing(folder) - before == {"o", "o.tsv", "o.tsv.json"}
    assert genoscan(*RUN, "--tracks", "other").code == 0
    for name in listing(folder / "o"):
        if name.endswith(".bw"):
            assert (folder / "o" / name).read_bytes() == (folder / "other" / name).read_bytes()
        else:
            records = [json.loads((folder / made / name).read_text()) for made in ("o", "other")]
            assert records[0]["target_values"] == records[1]["target_values"]


def test_derivatives_that_are_not_finite_are_an_error(folder: Path) -> None:
    stack = tiny_stack(dtype=torch.float32)
    save_model(folder / "finite", tiny_config(), stack, "")
    model = load_model(folder / "finite")
    genome = open_genome(folder / "g.fa")
    change = Change("chr1", 300, "", "A")
    job = prepare_variants(genome, model, table(change), VariantOptions(context=9, reach=9))
    with torch.no_grad():
        next(model.network.parameters()).fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="chr1:301:>A: the derivatives"):
        allele_gradients(job, 0)
