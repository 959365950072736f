"""Annotation files: formats told by content, exons, circular sequences, and rows that are left out."""

import gzip
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import CompoundLocation, SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genoscan.errors import InputError
from genoscan.export.page_features import gene_tracks
from genoscan.genome.annotation import read_annotation
from genoscan.genome.feature import Feature, Transcript
from genoscan.genome.region import Region

SIZES = {"chr1": 1_000, "chr2": 300, "a%20b": 50}

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

Row = tuple[str, int, int, str, str]


def read(path: Path, content: str | bytes, notes: list[str] | None = None) -> list[Feature]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_annotation(path, SIZES, (notes if notes is not None else []).append)


def brief(features: list[Feature]) -> list[Row]:
    return [(f.chrom, f.start, f.end, f.strand, f.name) for f in features]


def gff(*lines: str) -> str:
    """Return lines in which blanks between columns become tabs; attributes follow a bar."""
    return "".join("\t".join([*line.partition("|")[0].split(), *line.partition("|")[2:]]) + "\n" for line in lines)


GENE = gff("chr1 x gene 101 200 . + .|ID=g1;Name=abcA")
ABC = ("chr1", 100, 200, "+", "abcA")


@pytest.mark.parametrize(
    "content",
    [
        GENE,
        f"##gff-version 3\n{GENE}",
        f"## gff-version 3\n{GENE}",
        f"# made by x\n\n##gff-version 3\n{GENE}",
        f"\ufeff##gff-version 3\n{GENE}",
        f"\ufeff{GENE}",
        f"##gff-version 3\n{GENE}>chr1\nACGT\n",
        f"{GENE}##FASTA\n>chr1\nACGT\n",
        GENE.replace("\n", "\r\n"),
        GENE.rstrip("\n"),
        GENE.replace("\n", "  \t\n"),
        f"track name=x\n{GENE}",
        gzip.compress(GENE.encode(), mtime=0),
        GENE.encode().replace(b"g1", b"g\xff\xfe"),
        gff('chr1 x gene 101 200 . + .|gene_id "g1"; gene_name "abcA";'),
        f"#!genome-build GRCh38\n{gff('chr1 x gene 101 200 . + .|gene_id ' + chr(34) + 'abcA' + chr(34))}",
        gff("chr1 x gene 101 200 . + .|ID=g1; Name=abcA ; locus_tag=b01"),
        gff("chr1 x gene 101 200 . + .|ID=g1;Name=ab%63A"),
        gff('chr1 x gene 101 200 . + .|ID=g1;Name="abcA"'),
        gff("chr1 x gene 101 200 . + .|ID=g1;gene=abcA"),
        gff("chr1 x gene 101 200 . + .|ID=g1;locus_tag=abcA"),
        gff("chr1 x gene 101 200 . + .|name=abcA;id=g1"),
        gff("chr1 x gene 101 200 . + .|ID=g1;Note=a=b;Name=abcA"),
        gff("chr1 AUGUSTUS gene 101 200 0.9 + .|abcA"),
        gff("chr1 x pseudogene 101 200 . + .|Name=abcA"),
        gff("chr1 x CDS 101 200 . + 0|ID=c1;Name=abcA;locus_tag=b01"),
        gff("chr1 x CDS 101 200 . + 0|ID=c1;Name=a product;gene=abcA"),
        gff("chr1 x tRNA 101 200 . + .|ID=t1;Name=abcA"),
        gff("chr1 x region 1 1000 . + .|ID=chr1", "chr1 x repeat_region 101 200 . + .|Name=abcA"),
        "browser position chr1\ntrack name=x\nchr1\t100\t200\tabcA\t0\t+\n",
        "chr1 100 200 abcA 0 +",
        "chr1\t100\t200\tabcA\t7\t+\t100\t200\t0\n",
    ],
)
def test_the_content_tells_the_format(tmp_path: Path, content: str | bytes) -> None:
    notes: list[str] = []
    assert brief(read(tmp_path / "x.txt", content, notes)) == [ABC]
    assert not notes


def test_names_and_strands_that_are_missing(tmp_path: Path) -> None:
    text = gff(
        "chr1 x gene 1 9 . ? .|", "chr1 x gene 11 19 . . .|.", "chr1 x gene 21 29 . - .", "a%20b x gene 1 50 . + .|"
    )
    assert brief(read(tmp_path / "x", text)) == [
        ("chr1", 0, 9, ".", ""),
        ("chr1", 10, 19, ".", ""),
        ("chr1", 20, 29, "-", ""),
        ("a%20b", 0, 50, "+", ""),
    ]


GENE_MODEL = gff(
    "chr1 x gene 101 200 . - .|ID=g;Name=abcA",
    "chr1 x mRNA 101 200 . - .|ID=t;Parent=g;Name=NM_1",
    "chr1 x exon 101 120 . - .|Parent=t",
    "chr1 x exon 151 170 . - .|Parent=t",
    "chr1 x exon 191 200 . - .|Parent=t",
    "chr1 x CDS 111 120 . - 0|ID=c;Parent=t",
    "chr1 x CDS 151 170 . - 0|ID=c;Parent=t",
)
GTF_MODEL = gff(
    'chr1 x gene 101 200 . - .|gene_id "g"; gene_name "abcA";',
    *(
        f'chr1 x {part} . - .|gene_id "g"; transcript_id "t"; exon_number 1; note "a;b"; gene_name "abcA";'
        for part in (
            "transcript 101 200",
            "exon 191 200",
            "exon 151 170",
            "CDS 151 170",
            "exon 101 120",
            "CDS 114 120",
            "stop_codon 111 113",
        )
    ),
)
BED_MODEL = "chr1\t100\t200\tabcA\t0\t-\t110\t170\t0,0,0\t3\t20,20,10,\t0,50,90,\n"
EXONS = ((100, 120), (150, 170), (190, 200))


def without(text: str, *kinds: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if line.split("\t")[2] not in kinds)


@pytest.mark.parametrize(
    "content",
    [
        GENE_MODEL,
        "".join(reversed(GENE_MODEL.splitlines(keepends=True))),
        GTF_MODEL,
        without(GTF_MODEL, "gene"),
        without(GTF_MODEL, "transcript"),
        without(GTF_MODEL, "gene", "transcript"),
        without(GENE_MODEL, "gene").replace("NM_1", "abcA"),
        BED_MODEL,
    ],
)
def test_exons_are_read_and_drawn(tmp_path: Path, content: str) -> None:
    (gene,) = read(tmp_path / "x", content)
    assert brief([gene]) == [("chr1", 100, 200, "-", "abcA")]
    assert gene.transcripts == (Transcript(100, 200, EXONS, (110, 170)),)
    assert [gene.is_intron(at) for at in (100, 119, 120, 149, 150, 199)] == [False, False, True, True, False, False]
    (track,) = gene_tracks([gene], [Region("chr1", 0, 1_000)], {})
    assert track["features"] == [
        {
            "chr": "chr1",
            "start": 100,
            "end": 200,
            "name": "abcA",
            "strand": "-",
            "exons": [
                {"start": 100, "end": 120, "cdStart": 110, "cdEnd": 120},
                {"start": 150, "end": 170},
                {"start": 190, "end": 200, "utr": True},
            ],
        }
    ]


def test_each_transcript_is_drawn(tmp_path: Path) -> None:
    text = gff(
        "chr1 x gene 1 100 . + .|ID=g;Name=n",
        "chr1 x mRNA 1 100 . + .|ID=t1;Parent=g",
        "chr1 x mRNA 51 100 . + .|ID=t2;Parent=g",
        "chr1 x exon 1 10 . + .|Parent=t1",
        "chr1 x exon 61 100 . + .|Parent=t1,t2",
    )
    (gene,) = read(tmp_path / "x", text)
    assert gene.transcripts == (Transcript(0, 100, ((0, 10), (60, 100)), None), Transcript(50, 100, ((60, 100),), None))
    (track,) = gene_tracks([gene], [Region("chr1", 0, 1_000)], {})
    assert [(f["start"], f["end"], f["name"]) for f in track["features"]] == [(0, 100, "n"), (50, 100, "n")]


def test_genes_and_what_belongs_to_none(tmp_path: Path) -> None:
    text = gff(
        "chr1 x region 1 1000 . + .|ID=chr1",
        "chr1 x gene 101 200 . + .|ID=g1;Name=a",
        "chr1 x CDS 101 200 . + 0|ID=c1;Parent=g1;Name=NP_1",
        "chr1 x CDS 110 190 . + 0|ID=c2",
        "chr1 x CDS 301 360 . - 0|ID=c3;gene=b",
        "chr1 x tRNA 401 470 . + .|ID=t;product=x;locus_tag=c",
        "chr1 x exon 401 470 . + .|Parent=t",
        "chr1 x cDNA_match 1 900 . + .|ID=m",
    )
    a, b = (Transcript(*span, (span,), span) for span in ((100, 200), (300, 360)))
    assert [(f.name, f.transcripts) for f in read(tmp_path / "x", text)] == [("a", (a,)), ("b", (b,)), ("c", ())]


CIRCLE = gff("chr2 x region 1 300 . + .|ID=chr2;Is_circular=true")


def test_a_gene_over_the_origin(tmp_path: Path) -> None:
    genes = gff(
        "chr2 x gene 290 312 . + .|ID=g;Name=dnaA", "chr2 x gene 305 310 . - .|Name=r", "chr2 x gene 50 70 . - .|Name=s"
    )
    notes: list[str] = []
    assert brief(read(tmp_path / "x", CIRCLE + genes, notes)) == [
        ("chr2", 289, 300, "+", "dnaA"),
        ("chr2", 0, 12, "+", "dnaA"),
        ("chr2", 4, 10, "-", "r"),
        ("chr2", 49, 70, "-", "s"),
    ]
    assert not notes
    assert brief(read(tmp_path / "x", genes, notes)) == [("chr2", 289, 300, "+", "dnaA"), ("chr2", 49, 70, "-", "s")]
    (note,) = notes
    assert note.endswith(
        ": 1 feature skipped past the end of the sequence; 1 feature trimmed at the end of the sequence"
    )


def test_rows_that_are_left_out_are_counted_in_one_line(tmp_path: Path) -> None:
    notes: list[str] = []
    bad = "chr1\tx\tgene\n" + gff(
        "chr1 x gene 9 5 . + .|", "chr1 x gene 1 " + "9" * 5_000 + " . + .|", "chr1 x gene 0 5 . + .|"
    )
    text = GENE + bad + gff("chr7 x gene 1 9 . + .|", "chr8 x gene 1 9 . + .|", f"chr1 x gene 999 {2**40} . + .|Name=t")
    path = tmp_path / "x.gff3"
    assert brief(read(path, text, notes)) == [ABC, ("chr1", 998, 1_000, "+", "t")]
    assert notes == [
        f'{path}: 2 features skipped on sequences that the genome lacks, such as "chr7"; '
        f"1 feature trimmed at the end of the sequence; 4 malformed rows skipped, the first at "
        f"{path}:2: found 3 columns separated by tabs, expected 9 as in GFF3"
    ]
    notes.clear()
    bed = "chr1\t5\t9\tn\nchr1\t9\t9\nchr9\t1\t2\nchr1\t5\nchr2\t290\t301\tm\nchr2\t300\t301\n"
    assert brief(read(path, bed, notes)) == [("chr1", 5, 9, ".", "n"), ("chr2", 290, 300, ".", "m")]
    assert len(notes) == 1 and "2 malformed rows skipped" in notes[0] and "\n" not in notes[0]
    notes.clear()
    assert read(path, gff("chr9 x gene 1 9 . + .|"), notes) == []
    assert notes[0].endswith("no feature is left to show")
    assert read(path, "##gff-version 3\n", notes) == []
    assert notes[1] == f"{path}: no feature is left to show"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gff("chr1 x gene 1 " + "9" * 5_000 + " . + .|").join(["##gff-version 3\n", ""]), ":2: found 1 to 999"),
        ("##gff-version 3\nchr1\tx\n", ":2: found 2 columns separated by tabs, expected 9"),
        ("", ": no features in it"),
        ("# nothing\n\n", ": no features in it"),
        (GENE.replace("\t", " "), ":1: found 'chr1 x gene 101 200 . + . ID=g1;Name=abc...', expected BED, GFF3, GTF"),
        ("\0\1\2", ":1: found "),
        ("chr1\t9\t5\n", ":1: end 5 is not after start 9"),
    ],
)
def test_files_that_are_no_annotation(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read(tmp_path / "x", content)
    assert str(raised.value).startswith(f"{tmp_path / 'x'}{message}")
    assert len(str(raised.value)) < len(str(tmp_path)) + 200


# Any features, in each format


@st.composite
def intervals(draw: st.DrawFn, limit: int) -> tuple[tuple[int, int], ...]:
    """Draw disjoint intervals in ascending order."""
    cuts = sorted(draw(st.sets(st.integers(0, limit), min_size=2, max_size=8)))
    return tuple(zip(cuts[: len(cuts) // 2 * 2 : 2], cuts[1::2], strict=True))


@st.composite
def feature_sets(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw the fields of features; the type checks of `Feature` use random numbers, which strategies may not."""
    found = []
    names = st.text("abcXYZ019_.-()'", min_size=1, max_size=8).filter(lambda name: name.strip("."))
    for number in range(draw(st.integers(1, 4))):
        chrom = draw(st.sampled_from(["chr1", "chr2"]))
        exons = draw(intervals(SIZES[chrom]))
        start, end = exons[0][0], exons[-1][1]
        inside = [at for a, b in exons for at in (a, b - 1)]
        first, last = sorted((draw(st.sampled_from(inside)), draw(st.sampled_from(inside))))
        models = (Transcript(start, end, exons, (first, last + 1)),)
        name, strand = f"{draw(names)}{number}", draw(st.sampled_from("+-"))
        found.append(
            {"chrom": chrom, "start": start, "end": end, "name": name, "strand": strand, "transcripts": models}
        )
    return found


def parts(feature: Feature) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the exons and the coding intervals."""
    (transcript,) = feature.transcripts
    assert transcript.coding is not None
    low, high = transcript.coding
    return list(transcript.exons), [(max(a, low), min(b, high)) for a, b in transcript.exons if a < high and low < b]


def as_gff(features: list[Feature], attributes: Callable[[str, int, str], str], transcript: str) -> str:
    lines = []
    for i, f in enumerate(features):
        exons, coding = parts(f)
        whole = [(f.start, f.end)]
        for kind, found in (("gene", whole), (transcript, whole), ("exon", exons), ("CDS", coding)):
            lines += [
                f"{f.chrom}\tx\t{kind}\t{a + 1}\t{b}\t.\t{f.strand}\t.\t{attributes(kind, i, f.name)}" for a, b in found
            ]
    return "\n".join(lines)


def as_gff3(features: list[Feature]) -> str:
    def attributes(kind: str, i: int, name: str) -> str:
        return {"gene": f"ID=g{i};Name={name}", "mRNA": f"ID=t{i};Parent=g{i};Name=NM"}.get(kind, f"Parent=t{i}")

    return as_gff(features, attributes, "mRNA")


def as_gtf(features: list[Feature]) -> str:
    def attributes(kind: str, i: int, name: str) -> str:
        transcript = "" if kind == "gene" else f'transcript_id "{i}"; '
        return f'gene_id "{i}"; {transcript}gene_name "{name}";'

    return as_gff(features, attributes, "transcript")


def as_bed(features: list[Feature]) -> str:
    lines = []
    for f in features:
        exons, coding = parts(f)
        low, high = coding[0][0], coding[-1][1]
        sizes, starts = (",".join(map(str, v)) for v in ([b - a for a, b in exons], [a - f.start for a, _ in exons]))
        lines.append(
            f"{f.chrom}\t{f.start}\t{f.end}\t{f.name}\t0\t{f.strand}\t{low}\t{high}\t0\t{len(exons)}\t{sizes}\t{starts}"
        )
    return "\n".join(lines)


@quick
@given(feature_sets(), st.sampled_from([as_gff3, as_gtf, as_bed]), st.sampled_from(["\n", "\r\n"]))
def test_features_are_read_as_they_were_written(
    tmp_path: Path, drawn: list[dict[str, Any]], write: Callable[[list[Feature]], str], end: str
) -> None:
    features = [Feature(**fields) for fields in drawn]
    notes: list[str] = []
    found = read(tmp_path / "x", write(features).replace("\n", end), notes)
    assert brief(found) == brief(features)
    assert [f.transcripts for f in found] == [f.transcripts for f in features]
    assert not notes


@quick
@given(feature_sets())
def test_genbank_features_are_read_as_they_were_written(tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    features = [Feature(**fields) for fields in drawn]
    records = []
    for chrom in ("chr1", "chr2"):
        record = SeqRecord(Seq("A" * SIZES[chrom]), id=chrom, name=chrom, annotations={"molecule_type": "DNA"})
        for f in features:
            if f.chrom == chrom:
                strand = 1 if f.strand == "+" else -1
                exons: list[Any] = [SimpleLocation(a, b, strand) for a, b in parts(f)[0]][::strand]
                location = CompoundLocation(exons) if len(exons) > 1 else exons[0]
                record.features.append(SeqFeature(location, "CDS", qualifiers={"gene": [f.name]}))
        records.append(record)
    SeqIO.write(records, tmp_path / "x", "genbank")
    found = read_annotation(tmp_path / "x", SIZES)
    expected = [f for chrom in ("chr1", "chr2") for f in features if f.chrom == chrom]
    assert brief(found) == brief(expected)
    for f, before in zip(found, expected, strict=True):
        exons = parts(before)[0]
        adjacent = all(b == c for (_, b), (c, _) in pairwise(exons))
        assert f.transcripts == (Transcript(f.start, f.end, tuple(exons), (f.start, f.end)),) or adjacent


SEEDS = [text.encode() for text in (f"##gff-version 3\n{GENE_MODEL}", CIRCLE + GENE, GTF_MODEL, BED_MODEL)]
RECORD = b"""LOCUS       chr2                     300 bp    DNA     circular BCT 01-JAN-2000
VERSION     chr2
FEATURES             Location/Qualifiers
     CDS             complement(join(290..300,1..9,<12..>20))
                     /gene="abc"
ORIGIN
        1 %b
//
""" % b" ".join([b"acgtacgtac"] * 30)


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Draw a file of which a few parts are replaced."""
    content = draw(st.sampled_from(seeds))
    odd = [
        b"",
        b"\t",
        b"\n",
        b"\r",
        b"=",
        b";",
        b'"',
        b"%",
        b"9" * 25,
        b"-1",
        b"0",
        b"\xff",
        b"\0",
        b">",
        b"..",
        b"join(",
    ]
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(content))), draw(st.integers(0, 12))
        content = content[:at] + draw(st.sampled_from(odd) | st.binary(max_size=6)) + content[at + length :]
    return content


@settings(quick, max_examples=120)
@given(damaged([*SEEDS, RECORD]) | st.binary(max_size=60))
def test_any_bytes_are_features_or_one_line(tmp_path: Path, content: bytes) -> None:
    notes: list[str] = []
    try:
        found = read(tmp_path / "x", content, notes)
    except InputError as problem:
        notes.append(str(problem))
    else:
        for f in found:
            assert 0 <= f.start < f.end <= SIZES[f.chrom]
            for t in f.transcripts:
                ends = [t.start, *(at for exon in t.exons for at in exon), t.end]
                assert f.start <= t.start and t.end <= f.end and ends == sorted(ends)
    assert len(notes) <= 1
    for note in notes:
        assert note.startswith(f"{tmp_path / 'x'}:") and "\n" not in note and len(note) < len(str(tmp_path)) * 2 + 500


# GenBank


def test_genbank_parts(tmp_path: Path) -> None:
    assert brief(read(tmp_path / "x", RECORD)) == [("chr2", 289, 300, "-", "abc"), ("chr2", 0, 20, "-", "abc")][::-1]


def test_genbank_with_title_lines(tmp_path: Path) -> None:
    titled = b"GBTEST.SEQ   Genetic Sequence\n\n" + RECORD.replace(b"join(290..300,1..9,<12..>20)", b"5..320")
    notes: list[str] = []
    assert brief(read(tmp_path / "x", titled, notes)) == [("chr2", 4, 300, "-", "abc")]
    assert notes == [f"{tmp_path / 'x'}: 1 feature trimmed at the end of the sequence"]


def test_genbank_genes_and_what_belongs_to_none(tmp_path: Path) -> None:
    features = b"".join(
        b'     %-15s %s\n                     /locus_tag="%b"\n' % row
        for row in (
            (b"gene", b"1..90", b"a"),
            (b"CDS", b"1..90", b"a"),
            (b"tRNA", b"100..170", b"b"),
            (b"misc_feature", b"200..210", b"c"),
        )
    )
    before, _, after = RECORD.partition(b"     CDS")
    record = before + features + after[after.index(b"ORIGIN") :]
    assert [f.name for f in read(tmp_path / "x", record)] == ["a", "b"]
