"""Regions by the names of genes: which names are found, and what is said about all others."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import bases, genoscan, tiny_model, write_fasta
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import genoscan as package
from genoscan.errors import InputError
from genoscan.genome import gene_names
from genoscan.genome.gene_names import parse_regions
from genoscan.genome.region import Region, UnknownSequenceError

SIZES = {"chr1": 1_000, "chr2": 300}


def gff(*lines: str) -> str:
    """Return lines in which blanks between columns become tabs; attributes follow a bar."""
    return "".join("\t".join([*line.partition("|")[0].split(), *line.partition("|")[2:]]) + "\n" for line in lines)


GENES = gff(
    "chr1 x gene 101 200 . - .|ID=gene:G1.5;Name=GATA1;gene_id=G1.5;locus_tag=b0001",
    "chr1 x mRNA 111 200 . - .|ID=transcript:T1;Parent=gene:G1.5;Name=GATA1-201",
    "chr1 x exon 111 140 . - .|ID=e1;Parent=transcript:T1",
    "chr1 x exon 161 200 . - .|ID=e2;Parent=transcript:T1",
    "chr1 x gene 301 400 . + .|ID=G2;Name=GATA10",
    "chr1 x gene 501 600 . + .|ID=G3;Name=PAR",
    "chr2 x gene 1 50 . - .|ID=G4;Name=PAR",
    "chrX x gene 1 50 . + .|ID=G5;Name=ELSEWHERE",
    "chr2 x gene 291 320 . + .|ID=G6;Name=PAST",
    "chr2 x gene 301 320 . + .|ID=G7;Name=BEYOND",
    "chr1 x gene 701 800 . + .|ID=G8;Name=chr2",
    "chr1 x gene 801 810 . + .|ID=G9;Name=a%2Cb",
)
GTF = "".join(
    f'chr1\tx\t{kind}\t{start}\t{end}\t.\t-\t.\tgene_id "G1"; transcript_id "{transcript}"; gene_name "GATA1";\n'
    for transcript, first in (("T1", 101), ("T2", 121))
    for kind, start, end in (("exon", first, 150), ("exon", 171, 200))
)
_ORIGIN = "".join(f"{start:9} {'acgtacgtac ' * 6}\n" for start in range(1, 961, 60)) + f"{961:9} {'acgtacgtac ' * 4}\n"
GENBANK = (
    "LOCUS       chr1 1000 bp DNA linear UNK 01-JAN-1980\nFEATURES             Location/Qualifiers\n"
    '     gene            complement(101..200)\n                     /gene="GATA1"\n'
    '                     /locus_tag="b0001"\nORIGIN\n' + _ORIGIN + "//\n"
)
GATA1 = Region("chr1", 100, 200, strand="-")


def complaint(name: str, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        parse_regions([name], SIZES, path)
    return str(caught.value)


@pytest.fixture
def genes(tmp_path: Path) -> Path:
    (tmp_path / "genes.gff3").write_text(GENES)
    return tmp_path / "genes.gff3"


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (GENES, ["GATA1", "gene:G1.5", "G1.5", "b0001"]),
        (gzip.compress(GENES.encode(), mtime=0), ["GATA1"]),
        (GTF, ["GATA1", "G1"]),  # two transcripts that overlap, without the row of a gene, are one locus
        (GENBANK, ["GATA1", "b0001"]),
        ("chr1\t100\t150\tGATA1\t0\t-\nchr1\t140\t200\tGATA1\t0\t-\nchr1\t300\t400\tGATA10\t0\t-\n", ["GATA1"]),
        ("chr1 100 200 GATA1 0 -\n", ["GATA1"]),
    ],
    ids=["GFF3", "gzip", "GTF", "GenBank", "BED", "blanks"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_gene_by_each_of_its_names(tmp_path: Path, content: str | bytes, names: list[str]) -> None:
    path = tmp_path / "genes"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in names:
        (region,) = parse_regions([name], SIZES, path)
        assert (region, region.name, region.source) == (GATA1, name, f"--region {name}")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("GATA1-201", Region("chr1", 110, 200, strand="-")),
        ("a,b", Region("chr1", 800, 810, strand="+")),
        ("PAST", Region("chr2", 290, 300, strand="+")),
        ("chr1:5-9", Region("chr1", 4, 9)),
    ],
)
def test_transcripts_escapes_and_coordinates(genes: Path, name: str, found: Region) -> None:
    assert parse_regions([name], SIZES, genes) == [found]


def test_a_gene_past_the_end_is_marked_as_trimmed(genes: Path) -> None:
    assert [region.clipped for region in parse_regions(["PAST", "GATA1"], SIZES, genes)] == [True, False]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("gata1", ['--region gata1: no sequence is called "gata1"', 'is called "gata1"; did you mean GATA1?']),
        ("G1", ["did you mean G1.5"]),
        ("GATA11", ['no gene in {} is called "GATA11"; did you mean', "GATA1", "GATA10"]),
        ("nothing-like-it", ['no gene in {} is called "nothing-like-it"']),
        ("PAR", ['2 loci in {} are called "PAR": chr1:501-600 (+), chr2:1-50 (-); give the coordinates of one']),
        ("ELSEWHERE", ['--region ELSEWHERE: {}:8: no sequence is called "chrX"; did you mean "chr2"?']),
        ("BEYOND", ["--region BEYOND: {}:10: the first base, 301, lies past the end of chr2"]),
        ("GATA1:1-50", ['"GATA1" is a gene in {}: give its name without coordinates']),
        ("chr1:1-5000", ["end 5,000 is past the end of chr1"]),
    ],
)
def test_names_that_give_no_region(genes: Path, name: str, parts: list[str]) -> None:
    line = complaint(name, genes)
    assert "\n" not in line
    for part in parts:
        assert part.format(genes) in line


def test_many_loci_are_counted(tmp_path: Path) -> None:
    rows = [f"chr1\t{start}\t{start + 5}\tAlu\n" for start in range(0, 900, 10)]
    (tmp_path / "a.bed").write_text("".join(rows))
    assert "90 loci in" in complaint("Alu", tmp_path / "a.bed")
    assert "chr1:41-45 (.) and 85 more; give" in complaint("Alu", tmp_path / "a.bed")


def test_a_malformed_row_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.gff3").write_text(GENES + gff("chr1 x gene 200 100 . + .|Name=WRONG"))
    assert "a.gff3:13: found 200 to 100, expected 1-based start <= end" in complaint("WRONG", tmp_path / "a.gff3")


def test_a_gene_over_the_origin_is_two_loci(tmp_path: Path) -> None:
    circle = gff("chr1 x region 1 1000 . + .|ID=chr1;Is_circular=true", "chr1 x gene 951 1050 . + .|ID=g;Name=dnaA")
    (tmp_path / "a.gff3").write_text(circle)
    assert 'are called "dnaA": chr1:1-50 (+), chr1:951-1,000 (+)' in complaint("dnaA", tmp_path / "a.gff3")


def test_bases_after_the_features_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.gff3").write_text(GENES + "##FASTA\n>chr1\nACGT GATA2\n")
    assert 'is called "GATA2"; did you mean' in complaint("GATA2", tmp_path / "a.gff3")


def test_percent_signs(tmp_path: Path) -> None:
    (tmp_path / "a.gtf").write_text(gff('chr1 x gene 5 9 . + .|gene_id "a%20b";'))
    assert parse_regions(["a%20b"], SIZES, tmp_path / "a.gtf") == [Region("chr1", 4, 9, strand="+")]


def test_a_sequence_wins(genes: Path) -> None:
    notes: list[str] = []
    assert parse_regions(["chr2", "chr1"], SIZES, genes, notify=notes.append) == [
        Region("chr2", 0, 300),
        Region("chr1", 0, 1_000),
    ]
    assert notes == [f"--region chr2: the sequence of this name is used, not the gene at chr1:701-800 in {genes}"]


def test_coordinates_need_no_annotation(tmp_path: Path) -> None:
    assert parse_regions(["chr1:5-9"], SIZES, tmp_path / "missing") == [Region("chr1", 4, 9)]
    with pytest.raises(InputError, match="file not found, expected BED, GFF3, GTF or GenBank"):
        parse_regions(["GATA1"], SIZES, tmp_path / "missing")
    with pytest.raises(UnknownSequenceError):
        parse_regions(["GATA1"], SIZES)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("aAbc"), st.integers(1, 90), st.integers(1, 30)), min_size=1, max_size=8))
def test_reading_a_few_lines_finds_what_reading_all_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, int, int]]
) -> None:
    path = tmp_path / "x.gff3"
    lines = [f"chr1 x gene {start} {start + n} . + .|ID=g{i};Name={name}" for i, (name, start, n) in enumerate(rows)]
    path.write_text(gff(*lines))

    def outcome(name: str) -> object:
        try:
            return parse_regions([name], SIZES, path)
        except InputError as problem:
            return str(problem)

    names = [*"aAbc", "g0", "g"]
    few = [outcome(name) for name in names]
    with monkeypatch.context() as patch:
        patch.setattr(gene_names, "_mentions", lambda _line, _names: True)
        assert [outcome(name) for name in names] == few


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("genes")
    write_fasta(folder / "g.fa", {"chr1": bases(600, 1), "chr2": bases(300, 2)})
    (folder / "genes.gff3").write_text(GENES)
    tiny_model(folder / "tiny")
    return folder


def test_the_name_is_kept(folder: Path, tmp_path: Path) -> None:
    common = folder / "g.fa", "-m", folder / "tiny"
    named = "-r", "GATA1", "-r", "chr1:301-320", "--annotation", folder / "genes.gff3"
    for command, output, record in (
        ("attribute", "a.bw", "a.bw.json"),
        ("attribute", "a.npz", "a.npz.json"),
        ("predict", "p.bw", "p.entropy.bw.json"),
        ("mutate", "m.tsv", "m.tsv.json"),
    ):
        done = genoscan(command, *common, *named, "-o", tmp_path / output)
        assert done.code == 0, done.err
        regions = json.loads((tmp_path / record).read_text())["regions"]
        assert [(r["start"], r["end"], r["name"], r["strand"]) for r in regions] == [
            (100, 200, "GATA1", "-"),
            (300, 320, "", "."),
        ]
    coordinates = "-r", "chr1:101-200", "-r", "chr1:301-320"
    assert genoscan("attribute", *common, *coordinates, "-o", tmp_path / "b.bw").code == 0
    assert (tmp_path / "a.bw").read_bytes() == (tmp_path / "b.bw").read_bytes()


def test_strand_bed_is_that_of_the_gene(folder: Path, tmp_path: Path) -> None:
    common = "attribute", folder / "g.fa", "-m", folder / "tiny"
    named = "-r", "GATA1", "-a", folder / "genes.gff3", "--strand", "bed"
    assert genoscan(*common, *named, "-o", tmp_path / "a.bw").code == 0
    assert genoscan(*common, "-r", "chr1:101-200", "--strand", "-", "-o", tmp_path / "b.bw").code == 0
    assert (tmp_path / "a.bw").read_bytes() == (tmp_path / "b.bw").read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        lambda folder, tmp: ("plan", folder / "g.fa", "-m", folder / "tiny", "-o", tmp / "x.bw"),
        lambda folder, tmp: ("verify", folder / "g.fa", "-m", folder / "tiny"),
        lambda folder, tmp: ("dependency", folder / "g.fa", "-m", folder / "tiny", "-o", tmp / "x.npz"),
        lambda folder, tmp: (
            "response",
            folder / "g.fa",
            "-m",
            folder / "tiny",
            "--at",
            "chr1:150",
            "-o",
            tmp / "x.bw",
        ),
        lambda folder, tmp: ("export", "html", folder / "x.bw", "-g", folder / "g.fa", "-o", tmp / "x.html"),
    ],
    ids=["plan", "verify", "dependency", "response", "export"],
)
def test_other_commands(folder: Path, tmp_path: Path, command: Callable[[Path, Path], tuple[object, ...]]) -> None:
    arguments = command(folder, tmp_path)
    if not (folder / "x.bw").exists():
        done = genoscan("attribute", folder / "g.fa", "-m", folder / "tiny", "-r", "chr1", "-o", folder / "x.bw")
        assert done.code == 0, done.err
    done = genoscan(*arguments, "-r", "gata1", "-a", folder / "genes.gff3")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "--region gata1" in done.err
    assert "did you mean GATA1?" in done.err
    done = genoscan(*arguments, "-r", "GATA1", "-a", folder / "genes.gff3")
    assert done.code == 0, done.err
    assert "without effect" not in done.err


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    common = "attribute", folder / "g.fa", "-m", folder / "tiny", "-o", tmp_path / "x.bw"
    done = genoscan(*common, "-r", "GATA1")
    assert done.code == 1
    assert done.err.endswith("the genome has chr1, chr2; the name of a gene requires --annotation\n")
    done = genoscan(*common, "-r", "chr1:5-9", "-a", folder / "genes.gff3")
    assert done.code == 0
    assert "without effect: --annotation (no region is given by the name of a gene)" in done.err


def test_python(folder: Path, tmp_path: Path) -> None:
    regions, annotation = ["GATA1", Region("chr2", 0, 9), "chr1:301-310"], folder / "genes.gff3"
    record = package.attribute_regions(
        folder / "g.fa", tmp_path / "x.bw", regions=regions, annotation=annotation, model=folder / "tiny"
    )
    assert [region["name"] for region in record["regions"]] == ["GATA1", "", ""]
    with pytest.raises(InputError, match=r"^region GATA2: no sequence"):
        package.attribute_regions(
            folder / "g.fa", tmp_path / "x.bw", regions=["GATA2"], annotation=annotation, model=folder / "tiny"
        )
