"""Mutated input files for every reader: each ends in a result or in a GenoscanError, soon, and leaves nothing.

A row of `READERS` names a reader, its files and which of them is mutated. To fuzz a new reader, add a row.
`python -m tests.fuzz NAME SEED COUNT` runs one in a process of its own, which may die.
"""

import json
import random
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from genoscan.errors import GenoscanError
from genoscan.genome.region import Region
from genoscan.tracks import provenance, record_schema

SIZES = {"c1": 3000, "c2": 2000}
TIME_LIMIT = 10.0
"""Seconds that reading one small file may take."""

_SEQUENCES = {name: "".join(random.Random(name).choices("ACGTN", (9, 9, 9, 9, 1), k=n)) for name, n in SIZES.items()}
_WORDS = (
    *(b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\n\n", b"\t", b" ", b"-", b"+", b"NaN", b"1e999", b"-1"),
    *(b"0", b"99999999999999999999", b"1" * 5000, b"null", b"true", b"[]", b"{}", b"[" * 20_000, b'{"a":' * 20_000),
    *(b'"', b"'", b"<b>", b"\\ud800", b"..", b"/", b">", b"@", b"#", b"//", b"LOCUS", b"join(", b")", b"\x80" * 300),
    b"\x1f\x8b",
)
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", "x", "a:b c", "\ud800", "c1:0-0", "{", "-"),
    *([], [1], [None], {}, {"a": 1}, "x" * 5000, [[[[]]]], ["c1:11-500"] * 3),
)


class Reader(NamedTuple):
    """Files in a folder, the one to mutate, and how they are read."""

    files: dict[str, bytes]
    mutated: str
    read: Callable[[Path], object]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Change a file in one to four places."""
    with suppress(ValueError, RecursionError):
        if rng.random() < 0.5 and content[:1] == b"{":
            return _mutate_json(content, rng)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(min(len(changed), rng.choice((64, 400, len(changed) or 1))) or 1)
        if rng.random() < 0.2:  # near the end
            at = max(0, len(changed) - 1 - at)
        size = rng.choice((1, 1, 2, 4, 8, 40))
        kind = rng.randrange(9)
        if kind == 0 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at : at + size] = bytes(rng.choice((0, 1, 127, 255)) for _ in range(size))
        elif kind == 2:
            changed[at : at + size] = rng.randbytes(size)
        elif kind == 3:
            del changed[at : at + size]
        elif kind == 4:
            changed[at:at] = changed[at : at + size * 9]
        elif kind == 5:
            del changed[at:]
        elif kind == 6:
            changed[at:at] = rng.choice(_WORDS)
        elif kind == 7 and (numbers := list(re.finditer(rb"-?\d+", bytes(changed[:20_000])))):
            number = rng.choice(numbers)
            changed[slice(*number.span())] = rng.choice(_WORDS)
        elif kind == 8:
            lines = bytes(changed).splitlines(keepends=True)
            rng.shuffle(lines)
            changed = bytearray(b"".join(lines))
    return bytes(changed)


def _mutate_json(content: bytes, rng: random.Random) -> bytes:
    document = json.loads(content)
    places = list(_places(document))
    for _ in range(rng.choice((1, 1, 2))):
        holder, key = rng.choice(places)
        with suppress(KeyError, IndexError):
            if rng.random() < 0.3:
                del holder[key]
            else:
                holder[key] = rng.choice(_VALUES)
    return json.dumps(document).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def fuzz(name: str, seed: int, count: int) -> list[str]:
    """Return one line for each mutated file at which a reader fails other than by a GenoscanError."""
    reader, rng, failures = readers()[name], random.Random(f"{name} {seed}"), []
    with tempfile.TemporaryDirectory() as root:
        for number in range(count):
            folder = Path(root) / str(number)
            folder.mkdir()
            content = mutate(reader.files[reader.mutated], rng)
            for file, original in reader.files.items():
                (folder / file).parent.mkdir(exist_ok=True)
                (folder / file).write_bytes(content if file == reader.mutated else original)
            try:
                with _time_limit():
                    reader.read(folder)
            except GenoscanError as error:
                if "\n" in str(error):
                    failures.append(f"{name} {seed} {number}: more than one line: {error!r}")
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(last.filename).name}:{last.lineno}"
                failures.append(f"{name} {seed} {number}: {type(error).__name__}: {str(error)[:100]!r} at {where}")
            left = {path for path in folder.rglob("*") if path.is_file()} - {folder / file for file in reader.files}
            # An index of a FASTA file may be written beside it.
            if left := {path for path in left if path.suffix not in (".fai", ".gzi")}:
                failures.append(f"{name} {seed} {number}: left {sorted(map(str, left))}")
            for path in folder.rglob("*"):
                if path.is_file():
                    path.unlink()
    return failures


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"longer than {TIME_LIMIT:g} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# ---- files


def _fasta() -> bytes:
    records = (f">{name} a comment\n" + re.sub("(.{60})", r"\1\n", text) + "\n" for name, text in _SEQUENCES.items())
    return "".join(records).encode()


_WINDOW_ERROR = {"genome": "g.fa", "target": "log-likelihood", "regions": 4, "bases": 128, "context": 99, "reach": 99}


def _record() -> bytes:
    record = {
        "format": provenance.FORMAT,
        "model": "tiny",
        "command": ["genoscan", "attribute"],
        "target": "log-likelihood",
        "score": "centred",
        "strand": "+",
        "shard": "1/2",
        "scored_bases": 691,
        "seconds": 1.5,
        "target_values": [[-8.5], [None]],
        "sequences": [{"name": name, "length": n, "m5": _m5(name)} for name, n in SIZES.items()],
        "regions": [*record_schema.region_records([Region("c1", 10, 500, "g:1 b", "+")]), "c2:100-300"],
        "read_bases": 900,
        "context_share": 0.25,
        "window_error": _WINDOW_ERROR | {"median": 0.125, "worst": 0.25, "bound": "at least"},
        "newer": {"kept": [1, 2, {"a": None}]},
    }
    return json.dumps(record).encode()


def _m5(name: str) -> str:
    import hashlib

    return hashlib.md5(_SEQUENCES[name].encode()).hexdigest()


def _written(name: str, write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _scores(path: Path) -> None:
    from genoscan.tracks.writer import open_track

    rng = np.random.default_rng(1)
    with open_track(path, SIZES) as track:
        track.write(Region("c1", 10, 500), rng.standard_normal(490).astype(np.float32))
        sparse = np.full(700, np.nan, np.float32)
        sparse[::7] = rng.standard_normal(100)
        track.write(Region("c2", 99, 799), sparse)


def _columns(path: Path) -> None:
    from genoscan.tracks.columns import write_columns

    regions = [Region("c1", 10, 500, name="g:1 b"), Region("c2", 99, 300, name="-", strand="-")]
    rng = np.random.default_rng(1)
    gradient = rng.standard_normal((691, 4)).astype(np.float32)
    write_columns(path, gradient=gradient, codes=rng.integers(0, 5, 691).astype(np.uint8), regions=regions)


def _bgzip(path: Path) -> None:
    import pysam

    with pysam.BGZFile(str(path), "wb") as file:
        file.write(_fasta())


def _model(folder: Path) -> dict[str, bytes]:
    import torch
    from toys import tiny_config, tiny_stack

    from genoscan.layers.config import ModelConfig
    from genoscan.layers.weights import save_model

    rows = [{"context": c, "reach": r, "median": 0.125, "worst": 0.25} for c in (16, 64) for r in (16, 64)]
    measured = {"seed": 1, "errors": rows, "distant": [{"distance": 64, "median": 0.125, "worst": 0.25}]}
    config = tiny_config().model_dump() | {"window_errors": _WINDOW_ERROR | measured}
    save_model(folder, ModelConfig.model_validate(config), tiny_stack(dtype=torch.float32), "# tiny\n")
    return {f"model/{file.name}": file.read_bytes() for file in folder.iterdir()}


def _bidirectional_model(folder: Path) -> dict[str, bytes]:
    import torch
    from toys import mixed_config, mixed_stack

    from genoscan.layers.weights import save_model

    two_way = {"rcps": True, "tied": False}
    stack = mixed_stack(two_way=two_way, dtype=torch.float32)
    save_model(folder, mixed_config(two_way=two_way), stack, "# mixed\n")
    return {f"model/{file.name}": file.read_bytes() for file in folder.iterdir()}


def _bcf(path: Path) -> None:
    import pysam

    header = pysam.VariantHeader()
    for line in _VCF.decode().splitlines():
        if line.startswith("##"):
            header.add_line(line)
    with pysam.VariantFile(str(path), "wb", header=header) as file:
        for start, alleles in [(0, ("A", "C", "T")), (98, ("ACGT", "A")), (1999, ("G", "T"))]:
            file.write(file.new_record("c1", start, alleles=alleles, id="v", info={"DP": 5}))


_VCF = (
    b"##fileformat=VCFv4.2\n##contig=<ID=c1,length=3000>\n##contig=<ID=2>\n"
    b'##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth; of, reads">\n'
    b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    b"c1\t1\trs1;rs2\tA\tC,<DEL>,*\t.\tPASS\tDP=5\nc1\t99\t.\tACGT\tA\t9.5\t.\t.\n2\t5\t.\tN\tG[c1:5[\t.\t.\tDP=1;X\n"
)
_VARIANTS = b"pos\tchrom\tref\talt\tid\n1\tc1\tA\tC,G\tv1\n99\t2\t-\tACGT\t.\n3000\tc1\tACG\t\t\n"
_BED = b"track name=x\n# a\nc1\t10\t500\tone two\t0\t+\nc1 600 700\nc2\t99\t300\tg:1\t5\t-\t1\t2\n"
_GFF = (
    b"##gff-version 3\n##sequence-region c1 1 3000\nc1\tx\tgene\t11\t500\t.\t+\t.\tID=g1;Name=a%20b\n"
    b"c1\tx\tmRNA\t11\t500\t.\t+\t.\tID=m1;Parent=g1\nc2\tx\tgene\t100\t300\t.\t-\t.\tlocus_tag=b\n##FASTA\n>c1\nACGT\n"
)
_WORKFLOW = (
    b'{"genome": "g.fa", "shards": 2, "threads": 1, "device": "cpu", "runs": {"a": {"regions": "x.bed", "clip": true}},'
    b' "variants": {"b": {"file": "x.vcf", "context": 9}}, "mutations": {"c": {"regions": "x.bed", "target": "t"}}}'
)
_GENBANK = (
    b"LOCUS       c1          60 bp    DNA     linear   BCT 01-JAN-2020\n"
    b"DEFINITION  .\nACCESSION   c1\nVERSION     c1.1\n"
    b"FEATURES             Location/Qualifiers\n     source          1..60\n     gene            complement(11..40)\n"
    b'                     /gene="abc"\n     CDS             join(1..5,9..12)\n                     /locus_tag="d"\n'
    b"ORIGIN\n"
    b"        1 acgtacgtac gtacgtnacg tacgtacgta cgtacgtacg tacgtacgta cgtacgtacg\n//\n"
)


# ---- readers


def _read_genome(path: Path) -> None:
    from genoscan.genome.genome import open_genome

    genome = open_genome(path)
    for chrom, size in list(genome.sizes.items())[:20]:
        genome.fetch(chrom, 0, min(size, 10_000))
        genome.m5(chrom)


def _read_bed(folder: Path) -> None:
    from genoscan.genome.bed import read_bed

    read_bed(folder / "x.bed", None)
    read_bed(folder / "x.bed", SIZES)


def _read_variants(folder: Path) -> None:
    from genoscan.effects.variant_output import write_scores
    from genoscan.genome.genome import open_genome
    from genoscan.genome.variant_files import read_variants
    from genoscan.tracks.atomic import atomic_files

    genome = open_genome(folder / "g.fa")
    table = read_variants(folder / "variants", genome)
    status, scores = [allele.status for allele in table.alleles], {"delta": np.ones(len(table.alleles))}
    outputs = [folder / name for name in ("o.vcf.gz", "o.vcf", "o.tsv")]
    with atomic_files() as files:
        write_scores(outputs, table, scores, status, genome, files, {})
    for path in folder.glob("o.*"):
        path.unlink()


def _read_annotation(path: Path) -> None:
    from genoscan.genome.annotation import read_annotation

    read_annotation(path, SIZES)


def _read_gene(path: Path) -> None:
    from genoscan.genome.gene_names import parse_regions

    parse_regions(["a b"], SIZES, path)


def _read_genbank(folder: Path) -> None:
    _read_annotation(folder / "x.gb")
    _read_genome(folder / "x.gb")


def _read_bedgraph(path: Path) -> None:
    from genoscan.tracks.reader import read_bedgraph, sequence_names

    sequence_names(path)
    for _ in read_bedgraph(path, SIZES):
        pass
    _summarize(path)


def _read_bigwig(folder: Path) -> None:
    from genoscan.tracks.reader import BigWig

    with BigWig(folder / "x.bw") as track:
        for chrom, size in track.sizes.items():
            track.scores(chrom, 0, min(size, 1 << 20))
            track.scores(chrom, size // 2, size // 2 + (size > 1))
    _summarize(folder / "x.bw")


def _read_columns(folder: Path) -> None:
    from genoscan.export.handoff import write_sites

    out = folder / "out.tsv"
    write_sites(out, folder / "x.npz", score="centred", top=9)
    out.unlink()
    _summarize(folder / "x.npz")


def _summarize(path: Path) -> None:
    from genoscan.tracks.region_table import summarize_regions
    from genoscan.tracks.tables import table_text

    table_text(summarize_regions(path, [Region("c1", 10, 500), Region("c2", 1990, 2500), Region("c3", 0, 1)]))


def _read_record(folder: Path) -> None:
    from genoscan.export.report import _settings
    from genoscan.export.track_file import load_track
    from genoscan.genome.genome import open_genome
    from genoscan.merge import _check_same, _Shard

    genome = open_genome(folder / "g.fa")
    track = load_track(folder / "x.bw", genome)
    track.description.encode()
    for line in _settings(track):
        "".join(line).encode()
    provenance.write_provenance(folder / "x.bw", track.record)
    shard = _Shard(folder / "x.bw", track.record, provenance.scored_regions(folder / "x.bw", track.record, genome))
    if track.record.get("shard"):
        _check_same(shard, shard)


def _read_overview(folder: Path) -> None:
    from genoscan.export.overview import write_overview
    from genoscan.genome.genome import open_genome

    page = folder / "index.html"
    write_overview(page, open_genome(folder / "g.fa"), [folder / "x.bw", folder / "x.npz"], title="x")
    page.unlink()


def _read_workflow_config(folder: Path) -> None:
    from genoscan.workflow import read_config

    config = read_config(folder / "config.json")
    for entry in (*config.runs.values(), *config.variants.values(), *config.mutations.values()):
        " ".join([*entry.options, *config.files]).encode()


def _read_model(folder: Path) -> None:
    from genoscan.genome.memory import SequenceGenome
    from genoscan.job import Options, prepare
    from genoscan.model import load_model
    from genoscan.window_error.expected import describe_expected_error, describe_windows
    from genoscan.window_error.files import window_section

    model = load_model(folder / "model")
    if model.config.window_errors is not None:
        window_section(model.config.window_errors, model.config).encode()
        genome = SequenceGenome({"c1": np.zeros(3000, np.uint8)})
        job = prepare(genome, model, [Region("c1", 900, 1000)], Options(context=90, reach=90))
        f"{describe_windows(job)} {describe_expected_error(job, 'm', 'g.fa')}".encode()


def _read_state(folder: Path) -> None:
    from genoscan.training.state import read_state

    read_state(folder)


def _resume(folder: Path) -> None:
    from genoscan.tracks.store import open_store

    with suppress(_StoppedError), open_store(folder / "x.bw", [Region("c1", 0, 9)], {"a": [1]}, columns=False) as store:
        store.journal.entries.get(0)
        raise _StoppedError


class _StoppedError(Exception):
    """Keeps the files of an unfinished run."""


@cache
def readers() -> dict[str, Reader]:
    """Return all readers by name."""
    fasta, bigwig, columns = _fasta(), _written("x.bw", _scores), _written("x.npz", _columns)
    record = {
        "g.fa": fasta,
        "g.fa.fai": b"c1\t3000\t14\t60\t61\nc2\t2000\t3078\t60\t61\n",
        "x.bw": bigwig,
        "x.npz": columns,
    }
    with tempfile.TemporaryDirectory() as folder:
        model = _model(Path(folder))
        bidirectional = _bidirectional_model(Path(folder))
    state = {"settings": {"a": 1}, "step": 5, "seconds": 1.0, "rows": [{"loss": 1.0}], "tensors": "step-5.safetensors"}
    unfinished = {
        "settings.json": b'{"a": [1]}',
        "done": b'{"batch": 0, "values": [1.5]}\n{"batch": 1, "values": [NaN]}\n',
        "scores": bytes(36),
        "codes": bytes(9),
    }
    partial = {f"x.bw.partial/{name}": content for name, content in unfinished.items()}
    return {
        "fasta": Reader({"x.fa": fasta}, "x.fa", lambda folder: _read_genome(folder / "x.fa")),
        "bgzip": Reader(
            {"x.fa.gz": _written("x.gz", _bgzip)}, "x.fa.gz", lambda folder: _read_genome(folder / "x.fa.gz")
        ),
        "fai": Reader({"g.fa": fasta, "g.fa.fai": record["g.fa.fai"]}, "g.fa.fai", lambda f: _read_genome(f / "g.fa")),
        "gzi": Reader(
            {"x.fa.gz": _written("x.gz", _bgzip), "x.fa.gz.gzi": bytes(8), "x.fa.gz.fai": record["g.fa.fai"]},
            "x.fa.gz.gzi",
            lambda folder: _read_genome(folder / "x.fa.gz"),
        ),
        "bed": Reader({"x.bed": _BED}, "x.bed", _read_bed),
        "vcf": Reader({"g.fa": fasta, "variants": _VCF}, "variants", _read_variants),
        "bcf": Reader({"g.fa": fasta, "variants": _written("x.bcf", _bcf)}, "variants", _read_variants),
        "variants": Reader({"g.fa": fasta, "variants": _VARIANTS}, "variants", _read_variants),
        "gff3": Reader({"x.gff3": _GFF}, "x.gff3", lambda folder: _read_annotation(folder / "x.gff3")),
        "gene": Reader({"x.gff3": _GFF}, "x.gff3", lambda folder: _read_gene(folder / "x.gff3")),
        "genbank": Reader({"x.gb": _GENBANK}, "x.gb", _read_genbank),
        "bedgraph": Reader({"x.bg": _written("x.bg", _scores)}, "x.bg", lambda folder: _read_bedgraph(folder / "x.bg")),
        "bedgraph.gz": Reader(
            {"x.bg.gz": _written("x.bg.gz", _scores)}, "x.bg.gz", lambda folder: _read_bedgraph(folder / "x.bg.gz")
        ),
        "bigwig": Reader({"x.bw": bigwig}, "x.bw", _read_bigwig),
        "npz": Reader({"x.npz": columns, "x.npz.json": _record()}, "x.npz", _read_columns),
        "record": Reader({**record, "x.bw.json": _record()}, "x.bw.json", _read_record),
        "overview": Reader({**record, "x.bw.json": _record(), "x.npz.json": _record()}, "x.npz.json", _read_overview),
        "workflow": Reader({"config.json": _WORKFLOW}, "config.json", _read_workflow_config),
        "config": Reader(model, "model/config.json", _read_model),
        "bidirectional config": Reader(bidirectional, "model/config.json", _read_model),
        "safetensors": Reader(model, "model/model.safetensors", _read_model),
        "state": Reader({"state.json": json.dumps(state).encode()}, "state.json", _read_state),
        "settings": Reader(partial, "x.bw.partial/settings.json", _resume),
        "journal": Reader(partial, "x.bw.partial/done", _resume),
    }


if __name__ == "__main__":
    for failure in fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])):
        print(failure)
