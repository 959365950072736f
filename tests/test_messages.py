"""Options without effect, filters that leave nothing and unsuitable files are reported."""

import contextlib
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from Bio.bgzf import BgzfWriter
from commands import bases, genoscan, listing, tiny_model, write_fasta
from headed import write_headed
from hypothesis import given, settings
from hypothesis import strategies as st

from genoscan.cli.inputs import _warn_about_strands
from genoscan.errors import InputError
from genoscan.genome import files
from genoscan.genome.bed import read_bed
from genoscan.genome.region import Region
from genoscan.tracks.reader import read_bedgraph

SIZES = {"chr1": 600}
EMAIL = "--email", "a@b.org"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genome, a model and its columns on all of chr1."""
    folder = tmp_path_factory.mktemp("messages")
    write_fasta(folder / "g.fa", {"chr1": bases(600, 1), "n": "N" * 50})
    tiny_model(folder / "tiny")
    for name in ("x.npz", "x.bw"):
        command = "attribute", folder / "g.fa", "-m", folder / "tiny", "-r", "chr1", "-o", folder / name
        assert genoscan(*command).code == 0
    return folder


def attribute(folder: Path, *arguments: object) -> tuple[int, str]:
    done = genoscan("attribute", folder / "g.fa", "-m", folder / "tiny", *arguments)
    return done.code, done.err


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--memory", "1GB"], []),
        (["--memory", "1GB", "--spill", "."], ["--spill"]),
        (["--target", "logit:chr1:300:A", "--reach", "9"], ["--reach"]),
        (["--slots", "8", "--reach", "9", "--score", "observed", "--clip"], []),
    ],
)
def test_options_without_effect(folder: Path, tmp_path: Path, arguments: list[str], options: list[str]) -> None:
    code, err = attribute(folder, "-r", "chr1:200-300", "-o", tmp_path / "x.bw", *arguments)
    assert code == 0
    lines = [line for line in err.splitlines() if line.startswith("without effect:")]
    assert len(lines) == bool(options)
    assert [option for option in ("--memory", "--spill", "--slots", "--reach", "--score") if option in err] == options


@pytest.mark.parametrize("region", ["", "@chr1:230-230"])
def test_the_reach_of_a_causal_head_has_no_effect(folder: Path, tmp_path: Path, region: str) -> None:
    run = "attribute", folder / "g.fa", "-m", write_headed(tmp_path / "m", "causal"), "-r", "chr1:200-300"
    done = genoscan(*run, "--target", f"sites:site+{region}", "--reach", 50, "-o", tmp_path / "x.bw")
    assert done.code == 0, done.err
    assert "without effect: --reach (the model is causal" in done.err
    assert json.loads((tmp_path / "x.bw.json").read_text())["reach"] == 0


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["predict", "g.fa", "-m", "tiny", "-o", "OUT/p.bw", "--spill", "OUT", "--threshold", "0.9"], 2),
        (["predict", "g.fa", "-m", "tiny", "-o", "OUT/p.bw", "--memory", "1GB"], 1),
        (["mutate", "g.fa", "-m", "tiny", "-r", "chr1:1-9", "-o", "OUT/m.tsv", "--convention", "centred"], 1),
        (["mutate", "g.fa", "-m", "tiny", "-r", "chr1:1-9", "-o", "OUT/m.npz", "--convention", "centred"], 0),
        (["mutate", "g.fa", "-m", "tiny", "-r", "chr1:1-9", "-o", "OUT/m.tsv", "--spill", "OUT"], 1),
        (["mutate", "g.fa", "-m", "tiny", "-r", "chr1:1-9", "-o", "OUT/m.tsv", "--memory", "1GB"], 1),
        (["variants", "g.fa", "v.vcf", "-m", "tiny", "-o", "OUT/v.tsv", "--memory", "1GB"], 1),
        (["variants", "g.fa", "v.vcf", "-m", "tiny", "-o", "OUT/v.tsv", "--seed", "3", "--spill", "OUT"], 2),
        (["variants", "g.fa", "v.vcf", "-m", "tiny", "-o", "OUT/v.tsv", "--seed", "3", "--background", "2"], 0),
        (["export", "hub", "x.bw", "-g", "g.fa", "-o", "OUT/h", "--assembly", "hg38", "-r", "chr1:1-9", *EMAIL], 1),
    ],
)
def test_options_without_effect_in_other_commands(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], options: int
) -> None:
    monkeypatch.chdir(folder)
    header = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    ref = bases(600, 1)[99]
    Path("v.vcf").write_text(f"{header}chr1\t100\t.\t{ref}\t{'ACGT'.replace(ref, '')[0]}\t.\t.\t.\n")
    done = genoscan(*(text.replace("OUT", str(tmp_path)) for text in arguments))
    assert done.code == 0, done.err
    lines = [line for line in done.err.splitlines() if line.startswith("without effect:")]
    assert sum(line.count(" (") for line in lines) == options


def test_a_score_is_recorded_with_the_four_derivatives(folder: Path, tmp_path: Path) -> None:
    """track merge, track summarize and export sites compute this score from an archive."""
    several = "-r", "chr1:1-9", "--score", "observed", "-o", tmp_path / "x.npz"
    assert "without effect" not in attribute(folder, *several)[1]
    assert json.loads((tmp_path / "x.npz.json").read_text())["score"] == "observed"


def test_shards_state_their_regions(folder: Path, tmp_path: Path) -> None:
    regions = "-r", "chr1:1-9", "-r", "chr1:200-230", "--context", 0, "--reach", 0, "-o", tmp_path / "x.npz"
    _, err = attribute(folder, *regions, "--shard", "2/2")
    assert "shard 2/2: 1 of 2 regions" in err and "merged" not in err


def test_genome_without_effect_on_a_bigwig(folder: Path, tmp_path: Path) -> None:
    command = "track", "convert", folder / "x.bw", "-o", tmp_path / "x.bedgraph"
    assert "without effect" not in genoscan(*command).err
    assert "without effect: --genome" in genoscan(*command, "-g", folder / "g.fa").err


@pytest.mark.parametrize("row", ["chr1\t1\t9", "chr1\t1\t9\ta\t-", "chr1\t1\t9\ta\t0\t."])
def test_strand_bed_without_strands(folder: Path, tmp_path: Path, row: str) -> None:
    bed = tmp_path / "a.bed"
    bed.write_text(f"{row}\n")
    code, err = attribute(folder, "-R", bed, "--strand", "bed", "-o", tmp_path / "x.bw")
    assert code == 0
    assert f"{bed}: --strand bed: no region has a strand" in err
    assert (
        "no region has a strand" in attribute(folder, "-r", "chr1:1-9", "--strand", "bed", "-o", tmp_path / "x.bw")[1]
    )


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from("+-."), min_size=1, max_size=9))
def test_regions_without_strand_are_counted(strands: list[str]) -> None:
    regions = [Region("chr1", 10 * i, 10 * i + 5, strand=strand) for i, strand in enumerate(strands)]
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        _warn_about_strands(regions, None)
    absent = strands.count(".")
    found = "no region has" if absent == len(strands) else f"{absent} of {len(strands)} regions have no strand"
    assert (found in err.getvalue()) == bool(absent)
    assert err.getvalue().count("\n") == bool(absent)


def modisco(folder: Path, output: Path, rows: list[tuple[int, int]], width: int) -> tuple[int, str]:
    bed = output.with_suffix(".bed")
    bed.write_text("".join(f"chr1\t{start}\t{end}\n" for start, end in rows))
    done = genoscan("export", "modisco", folder / "x.npz", "-R", bed, "--width", width, "-o", output)
    return done.code, done.err


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 597), min_size=1, max_size=6), st.integers(1, 300))
def test_modisco_leaves_out_rows_near_an_edge(folder: Path, starts: list[int], width: int) -> None:
    output = folder / f"cut{len(listing(folder))}"
    code, err = modisco(folder, output, [(start, start + 3) for start in starts], width)
    firsts = [start + 1 - width // 2 for start in starts]
    inside = [first >= 0 and first + width <= 600 for first in firsts]
    assert code == (0 if any(inside) else 1)
    bed = output.with_suffix(".bed")
    assert all((f"{bed}:{i}" in err) <= (not kept) for i, kept in enumerate(inside, 1))
    if not any(inside):
        assert f"{bed}:1: " in err
        assert not output.exists()
        return
    assert (f"{inside.count(False)} of {len(starts)} rows left out" in err) == (not all(inside))
    kept = [first for first, whole in zip(firsts, inside, strict=True) if whole]
    written = (output / "cut.narrowPeak").read_text().splitlines()
    assert [int(line.split("\t")[1]) for line in written] == kept
    assert len(np.load(output / "ohe.npz")["arr_0"]) == len(kept)


def test_modisco_is_zero_at_unknown_bases(tmp_path: Path) -> None:
    letters = bases(200, 3)
    write_fasta(tmp_path / "g.fa", {"c": letters[:90] + "NNR" + letters[93:]})
    tiny_model(tmp_path / "tiny")
    assert attribute(tmp_path, "-o", tmp_path / "x.npz")[0] == 0
    (tmp_path / "a.bed").write_text("c\t80\t110\n")
    command = "export", "modisco", tmp_path / "x.npz", "-R", tmp_path / "a.bed", "--width", 100, "-o", tmp_path / "m"
    assert genoscan(*command).code == 0
    scores, sequences = np.load(tmp_path / "m/attr.npz")["arr_0"], np.load(tmp_path / "m/ohe.npz")["arr_0"]
    unknown = sequences.sum(1) == 0
    assert unknown.sum() == 3
    assert (scores.transpose(0, 2, 1)[unknown] == 0).all()
    assert np.abs(scores).max() < 1e3


def test_tables_and_tracks_without_rows(folder: Path, tmp_path: Path) -> None:
    for name in ("n.npz", "n.bw"):
        assert "no base of the regions has a score" in attribute(folder, "-r", "n", "-o", tmp_path / name)[1]
    sites = genoscan("export", "sites", tmp_path / "n.npz", "-o", tmp_path / "n.tsv")
    assert (sites.code, sites.err) == (0, f"no base of {tmp_path / 'n.npz'} has a score: the table has no rows\n")
    converted = genoscan("track", "convert", tmp_path / "n.bw", "-o", tmp_path / "n.bedgraph")
    assert (converted.code, converted.err) == (0, "no base has a score: the track is valid but empty\n")
    compared = genoscan("track", "compare", tmp_path / "n.bw", folder / "x.bw")
    assert (compared.code, compared.err) == (0, "no base has a score in both tracks\n")
    assert "\nin both 0 bases, Pearson -, Spearman -\n" in compared.out


def test_clip_is_suggested_only_where_it_exists(folder: Path, tmp_path: Path) -> None:
    assert "--clip" in attribute(folder, "-r", "chr1:5-700", "-o", tmp_path / "x.bw")[1]
    bed = tmp_path / "a.bed"
    bed.write_text("chr1\t5\t700\n")
    assert "--clip" in attribute(folder, "-R", bed, "-o", tmp_path / "x.bw")[1]
    genome = ["-g", folder / "g.fa", "-o", tmp_path / "x.html"]
    for command in (
        ["verify", folder / "g.fa", "-r", "chr1:5-700"],
        ["response", folder / "g.fa", "--at", "chr1:5", "-r", "chr1:5-700", "-o", tmp_path / "x.bw"],
        ["export", "html", folder / "x.bw", "-r", "chr1:5-700", *genome],
        ["export", "modisco", folder / "x.npz", "-R", bed, "-o", tmp_path / "m"],
    ):
        done = genoscan(*command)
        assert done.code == 1
        assert "is past the end of chr1" in done.err
        assert "--clip" not in done.err


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("header", ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"])
def test_a_vcf_is_not_a_bed(tmp_path: Path, header: str, packed: bool) -> None:
    text = f"{header}\nchr1\t5\trs1\tA\tC\t.\t.\t.\n".encode()
    (tmp_path / "a").write_bytes(gzip.compress(text) if packed else text)
    with pytest.raises(InputError, match=r"a:1: is a VCF, expected BED; genoscan variants computes"):
        read_bed(tmp_path / "a", SIZES)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("before", [b"", b"chr1\t1\t2\t3\n"])
def test_long_lines_are_not_read(tmp_path: Path, packed: bool, before: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MAX_LINE", 1 << 12)
    path = tmp_path / "a"
    with BgzfWriter(str(path)) if packed else path.open("wb") as file:
        file.write(before + b"chr1\t1\t2\t" + bytes(48) * 10_000)
    line = 1 + before.count(b"\n")
    for read in (lambda: read_bed(path, SIZES), lambda: list(read_bedgraph(path, SIZES))):
        with pytest.raises(InputError, match=rf"a:{line}: found a line of more than 4,096 characters"):
            read()


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.text("ab\t é", max_size=12), max_size=6), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_lines_are_those_of_a_text_stream(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, last: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines"
    path.write_bytes((end.join(lines) + end * last).encode())
    with files.open_text(path) as bounded, path.open(encoding="utf-8-sig") as plain:
        assert list(bounded) == list(plain)
