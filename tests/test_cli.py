"""Every command from its arguments to its files, against whole-window autograd in plain torch."""

import itertools
import json
import math
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyBigWig
import pysam
import pytest
import torch
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from commands import CONTEXT, REACH, ROOT, bases, elsewhere, genoscan, tiny_model, write_fasta
from headed import write_headed
from laws import assert_near
from safetensors import SafetensorError
from torch import Tensor

from genoscan.model import load_model

CHR1, CHR2 = bases(400, 1), bases(230, 2)
GENOME = {"chr1": CHR1, "chr2": CHR2, "gaps": "N" * 90}
FLOAT32_FILES = 2e-7
"""What rounding to float32 leaves of a float64 result."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "genome.fa", GENOME)


@pytest.fixture
def attribute(model: Path, genome: Path, tmp_path: Path) -> Callable[..., str]:
    """Run attribute and expect it to succeed; return what it says on stderr."""

    def run(*arguments: object, on: Path = genome) -> str:
        done = genoscan("attribute", on, "-m", model, "-t", 1, *arguments)
        assert done.code == 0, done.err
        return done.err

    return run


# The truth: one window, plain torch, from the definitions of what is differentiated.

Value = Callable[[Tensor, int], Tensor]
"""From the logits of a window that begins at a position, the number that is differentiated."""


def likelihood(letters: str, start: int, end: int) -> Value:
    """Sum log p of the bases start..end; the logits before a base predict it."""

    def value(logits: Tensor, first: int) -> Tensor:
        log_p = torch.log_softmax(logits, -1)
        terms = [
            log_p[i - first - 1, "ACGT".index(letters[i])]
            for i in range(max(start, first + 1), min(end, first + len(logits)))
            if letters[i] in "ACGT"
        ]
        return torch.stack(terms).sum()

    return value


def logit(position: int, base: str, odds: bool) -> Value:
    def value(logits: Tensor, first: int) -> Tensor:
        row = logits[position - first - 1]
        others = [row[i] for i in range(4) if "ACGT"[i] != base]
        return row["ACGT".index(base)] - (sum(others) / 3 if odds else 0)

    return value


def gradient(model: Path, letters: str, first: int, last: int, value: Value) -> Tensor:
    """Differentiate a value of the window first..last by its input, a row a base."""
    loaded = load_model(model, dtype=torch.float64, kernels="reference")
    mean = [0.25] * 4
    rows = [[float(letter == base) for base in "ACGT"] if letter in "ACGT" else mean for letter in letters[first:last]]
    x = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    logits, _ = loaded.stack(x[None], loaded.stack.begin(1))
    (found,) = torch.autograd.grad(value(logits[0], first), x)
    return found


def mirrored(letters: str) -> str:
    return letters[::-1].translate(str.maketrans("ACGT", "TGCA"))


def truth(
    model: Path, letters: str, start: int, end: int, strand: str = "+", context: int = CONTEXT, reach: int = REACH
) -> Tensor:
    """Return the default target's derivative by the bases start..end."""
    if strand == "both":
        both = [truth(model, letters, start, end, one, context, reach) for one in "+-"]
        return sum(both) / 2
    size = len(letters)
    if strand == "-":
        turned = truth(model, mirrored(letters), size - end, size - start, "+", context, reach)
        return turned.flip(0, 1)
    first, last = max(0, start - context), min(size, end + reach)
    return gradient(model, letters, first, last, likelihood(letters, start, last))[start - first : end - first]


def score(kind: str, gradient: Tensor, letters: str) -> Tensor:
    scores = []
    for row, letter in zip(gradient, letters, strict=True):
        own = row["ACGT".index(letter)]
        scores.append(
            {
                "observed": lambda own=own, row=row: own,
                "centred": lambda own=own, row=row: own - row.mean(),
                "magnitude": lambda own=own, row=row: (row - row.mean()).norm(),
                "substitution": lambda own=own, row=row: max(row - own, key=abs),
            }[kind]()
        )
    return torch.stack(scores)


# Reading what was written, NaN where there is nothing.


def read_bigwig(path: Path, chrom: str) -> np.ndarray:
    with pyBigWig.open(str(path)) as file:
        return file.values(chrom, 0, len(GENOME[chrom]), numpy=True)


def parse_rows(rows: list[str], chrom: str, length: int) -> np.ndarray:
    values = np.full(length, np.nan, np.float32)
    for row in rows:
        name, start, end, value = row.split("\t")
        if name == chrom:
            values[int(start) : int(end)] = float(value)
    return values


def read_bedgraph(path: Path, chrom: str) -> np.ndarray:
    return parse_rows(path.read_text().splitlines(), chrom, len(GENOME[chrom]))


def read_indexed(path: Path, chrom: str) -> np.ndarray:
    with pysam.TabixFile(str(path)) as file:
        rows = list(file.fetch(chrom)) if chrom in file.contigs else []
    return parse_rows(rows, chrom, len(GENOME[chrom]))


def near(found: np.ndarray, true: Tensor, bar: float | None = None) -> None:
    assert_near(torch.from_numpy(np.array(found)), true, torch.float32, bar=bar)


class TestAttribute:
    @pytest.mark.parametrize("strand", ["+", "-", "both", "bed"])
    def test_every_file_holds_the_exact_derivative(
        self, attribute: Callable[..., str], model: Path, tmp_path: Path, strand: str
    ) -> None:
        bed = tmp_path / "regions.bed"
        bed.write_text("chr1\t100\t190\tone\t0\t+\nchr1\t200\t310\ttwo\t0\t-\nchr2\t150\t230\tthree\t0\t.\n")
        names = ["x.bw", "x.bedGraph", "x.bedgraph.gz", "x.npz"]
        outputs = itertools.chain(*(("-o", tmp_path / name) for name in names))
        attribute("--bed", bed, "--strand", strand, "--tile", 37, "--apart", *outputs)
        regions = [("chr1", 100, 190, "+"), ("chr1", 200, 310, "-"), ("chr2", 150, 230, ".")]
        archive = np.load(tmp_path / "x.npz")
        expected = {chrom: torch.full((len(GENOME[chrom]),), math.nan) for chrom in GENOME}
        for i, (chrom, start, end, own) in enumerate(regions):
            letters = GENOME[chrom]
            direction = own.replace(".", "+") if strand == "bed" else strand
            true = truth(model, letters, start, end, direction)
            first = archive["offset"][i]
            near(archive["gradient"][first : first + end - start], true)
            codes = archive["codes"][first : first + end - start]
            assert "".join("ACGT"[code] for code in codes) == letters[start:end]
            expected[chrom][start:end] = score("centred", true, letters[start:end])
        assert archive["chrom"].tolist() == ["chr1", "chr1", "chr2"]
        assert archive["name"].tolist() == ["one", "two", "three"]
        assert archive["strand"].tolist() == ["+", "-", "."]
        assert archive["start"].tolist() == [100, 200, 150]
        assert archive["end"].tolist() == [190, 310, 230]
        readers = [read_bigwig, read_bedgraph, read_indexed]
        for name, read in zip(names, readers, strict=False):
            for chrom, true in expected.items():
                found = read(tmp_path / name, chrom)
                known = ~np.isnan(found)
                assert np.array_equal(known, ~true.isnan().numpy())
                if known.any():
                    near(found[known], true[known])

    @pytest.mark.parametrize("kind", ["centred", "observed", "magnitude", "substitution"])
    @pytest.mark.parametrize("strand", ["-", "both"])
    def test_scores(self, attribute: Callable[..., str], model: Path, tmp_path: Path, kind: str, strand: str) -> None:
        path = tmp_path / "x.bw"
        attribute("-r", "chr1:120-220", "--score", kind, "--strand", strand, "--dtype", "float64", "-o", path)
        true = score(kind, truth(model, CHR1, 119, 220, strand), CHR1[119:220])
        near(read_bigwig(path, "chr1")[119:220], true, FLOAT32_FILES)

    @pytest.mark.parametrize("strand", ["+", "-"])
    @pytest.mark.parametrize("kind", ["logit", "log-odds"])
    @pytest.mark.parametrize("base", ["A", "g"])
    def test_a_logit_far_off(
        self, attribute: Callable[..., str], model: Path, tmp_path: Path, strand: str, kind: str, base: str
    ) -> None:
        """The target lies past the reach, and the window grows to hold it."""
        position = 300 if strand == "+" else 60  # 1-based
        path = tmp_path / "x.npz"
        attribute(
            "-r",
            "chr1:150-200",
            "--strand",
            strand,
            "--dtype",
            "float64",
            "--tile",
            50,
            "--target",
            f"{kind}:chr1:{position}:{base}",
            "-o",
            path,
        )
        letters, start, end, at, read = CHR1, 149, 200, position - 1, base.upper()
        if strand == "-":
            letters, start, end = mirrored(CHR1), 400 - 200, 400 - 149
            at, read = 400 - 1 - at, mirrored(read)
        value = logit(at, read, odds=kind == "log-odds")
        true = gradient(model, letters, start - CONTEXT, at + 1, value)[CONTEXT:][: end - start]
        true = true if strand == "+" else true.flip(0, 1)
        assert true.abs().max() > 0
        near(np.load(path)["gradient"], true, FLOAT32_FILES)
        with torch.no_grad():
            told = json.loads((tmp_path / "x.npz.json").read_text())["target_values"]
        loaded = load_model(model, dtype=torch.float64, kernels="reference").stack
        window = letters[start - CONTEXT : at + 1]
        x = torch.eye(4, dtype=torch.float64)[["ACGT".index(letter) for letter in window]]
        row = loaded(x[None], loaded.begin(1))[0][0]
        assert told[0][0] == pytest.approx(float(value(row, start - CONTEXT)), rel=1e-9)

    @pytest.mark.parametrize("strand", ["+", "-"])
    @pytest.mark.parametrize("stretch", [(221, 260), (180, 205), (101, 150)], ids=["after", "overlapping", "inside"])
    def test_likelihood_of_a_stretch(
        self, attribute: Callable[..., str], model: Path, tmp_path: Path, strand: str, stretch: tuple[int, int]
    ) -> None:
        first, last = stretch
        start, end, letters = 100, 200, CHR1
        if strand == "-":  # the same figure, seen in a mirror
            start, end, letters = 200, 300, mirrored(CHR1)
            first, last = 401 - last, 401 - first
        path = tmp_path / "x.npz"
        attribute(
            "-r",
            f"chr1:{start + 1}-{end}",
            "--strand",
            strand,
            "--dtype",
            "float64",
            "--target",
            f"log-likelihood:chr1:{first}-{last}",
            "-o",
            path,
        )
        value = likelihood(letters, stretch[0] - 1, stretch[1])
        window = gradient(model, letters, 100 - CONTEXT, max(200, stretch[1]), value)
        true = window[CONTEXT:][:100]
        near(np.load(path)["gradient"], true if strand == "+" else true.flip(0, 1), FLOAT32_FILES)
        # Nothing past the target can matter to it, so nothing is read there.
        assert json.loads((tmp_path / "x.npz.json").read_text())["reach"] == 0

    def test_both_strands_of_a_target(self, attribute: Callable[..., str], model: Path, tmp_path: Path) -> None:
        """The mean of the logit that predicts the base, and of its complement's from the right."""
        path = tmp_path / "x.npz"
        attribute(
            "-r", "chr1:150-250", "--strand", "both", "--target", "logit:chr1:200:C", "--dtype", "float64", "-o", path
        )
        plus = gradient(model, CHR1, 149 - CONTEXT, 282, logit(199, "C", False))
        letters = mirrored(CHR1)
        minus = gradient(model, letters, 150 - CONTEXT, 283, logit(200, "G", False))
        true = plus[CONTEXT:][:101] + minus[CONTEXT:][:101].flip(0, 1)
        near(np.load(path)["gradient"], true / 2, FLOAT32_FILES)

    def test_one_base_matters_to_what_follows_it(
        self, attribute: Callable[..., str], model: Path, tmp_path: Path
    ) -> None:
        attribute("-r", "chr1:200-200", "-o", tmp_path / "x.bw")
        [found] = read_bigwig(tmp_path / "x.bw", "chr1")[199:200]
        assert found == pytest.approx(float(score("centred", truth(model, CHR1, 199, 200), CHR1[199])[0]), rel=1e-5)
        assert abs(found) > 1e-3

    def test_a_region_up_to_the_last_base(self, attribute: Callable[..., str], model: Path, tmp_path: Path) -> None:
        """Nothing follows the last base: its derivative is zero, to the bit."""
        attribute("-r", "chr2:180-", "-o", tmp_path / "x.npz")
        found = np.load(tmp_path / "x.npz")["gradient"]
        near(found, truth(model, CHR2, 179, 230))
        assert not found[-1].any()
        assert np.abs(found[:-1]).max(1).min() > 0

    @pytest.mark.parametrize(("context", "reach"), [(0, 0), (10, 5), (0, 1000), (1000, 0)])
    def test_context_and_reach(
        self, attribute: Callable[..., str], model: Path, tmp_path: Path, context: int, reach: int
    ) -> None:
        path = tmp_path / "x.npz"
        attribute("-r", "chr1:150-200", "--context", context, "--reach", reach, "-o", path)
        near(np.load(path)["gradient"], truth(model, CHR1, 149, 200, "+", context, reach))
        record = json.loads((tmp_path / "x.npz.json").read_text())
        assert (record["context"], record["reach"]) == (context, reach)

    def test_whole_sequences_shorter_than_a_tile(
        self, attribute: Callable[..., str], model: Path, tmp_path: Path
    ) -> None:
        """Without a region every sequence is one window; N are gaps."""
        attribute("-o", tmp_path / "x.bw")
        for chrom in ("chr1", "chr2"):
            true = score("centred", truth(model, GENOME[chrom], 0, 999), GENOME[chrom])
            near(read_bigwig(tmp_path / "x.bw", chrom), true)
        assert np.isnan(read_bigwig(tmp_path / "x.bw", "gaps")).all()

    def test_only_n(self, attribute: Callable[..., str], tmp_path: Path) -> None:
        outputs = [tmp_path / name for name in ("x.bw", "x.bedgraph", "x.bedgraph.gz", "x.npz")]
        said = attribute("-r", "gaps", *itertools.chain(*(("-o", path) for path in outputs)))
        assert said.count("\n") == 1
        assert "no base of the regions has a score (90 bases, N or masked)" in said
        assert np.isnan(read_bigwig(outputs[0], "gaps")).all()
        assert outputs[1].read_text() == ""
        assert np.isnan(read_indexed(outputs[2], "gaps")).all()
        assert np.load(outputs[3])["codes"].tolist() == [4] * 90

    def test_uncertain_bases_are_gaps(self, attribute: Callable[..., str], model: Path, tmp_path: Path) -> None:
        """The model reads them as the mean of A, C, G and T; their neighbours depend on it."""
        letters = CHR1[:120] + "NNRY" + CHR1[124:150] + "N" + CHR1[151:]
        path = write_fasta(tmp_path / "uncertain.fa", {"chr1": letters})
        attribute("-r", "chr1:101-200", "-o", tmp_path / "x.bw", "-o", tmp_path / "x.npz", on=path)
        known = [i for i in range(100, 200) if letters[i] in "ACGT"]
        true = truth(model, letters, 100, 200)
        columns = np.load(tmp_path / "x.npz")["gradient"]
        at = np.array(known) - 100
        near(columns[at], true[at])
        assert np.isnan(np.delete(columns, at, 0)).all()
        found = read_bigwig(tmp_path / "x.bw", "chr1")
        assert np.flatnonzero(~np.isnan(found)).tolist() == known
        rows = torch.stack([true[i - 100] for i in known])
        near(found[known], score("centred", rows, "".join(letters[i] for i in known)))

    def test_the_same_genome_otherwise_written(
        self, attribute: Callable[..., str], genome: Path, tmp_path: Path
    ) -> None:
        """Lower case, CRLF, bgzip, GenBank: the same track, of the same sequences."""
        lower = write_fasta(tmp_path / "lower.fa", {name: text.lower() for name, text in GENOME.items()})
        crlf = write_fasta(tmp_path / "crlf.fa", GENOME, end="\r\n")
        packed = tmp_path / "packed.fa.gz"
        pysam.tabix_compress(str(genome), str(packed))
        genbank = tmp_path / "genome.gb"
        records = [
            SeqRecord(Seq(text), name, name, annotations={"molecule_type": "DNA"}) for name, text in GENOME.items()
        ]
        SeqIO.write(records, genbank, "genbank")
        found = []
        for path in (genome, lower, crlf, packed, genbank):
            track = tmp_path / f"{path.name}.bedgraph"
            attribute("-r", "chr1:180-260", "-o", track, on=path)
            record = json.loads(Path(f"{track}.json").read_text())
            found.append((track.read_bytes(), record["sequences"]))
        assert all(one == found[0] for one in found)

    def test_many_regions_are_the_same_as_one_by_one(self, attribute: Callable[..., str], tmp_path: Path) -> None:
        regions = [("chr1", start, start + 23) for start in range(70, 330, 26)]
        regions += [("chr2", start, start + 23) for start in range(0, 200, 50)]
        bed = tmp_path / "peaks.bed"
        bed.write_text("".join(f"{c}\t{s}\t{e}\tname\t7\t.\t1\t2\n" for c, s, e in regions))
        attribute("--bed", bed, "--batch", 5, "--apart", "-o", tmp_path / "all.npz")
        together = np.load(tmp_path / "all.npz")["gradient"]
        for i, (chrom, start, end) in enumerate(regions):
            attribute("-r", f"{chrom}:{start + 1}-{end}", "-o", tmp_path / "one.npz")
            alone = np.load(tmp_path / "one.npz")["gradient"]
            near(together[23 * i :][:23], torch.from_numpy(alone), 1e-6)

    @pytest.mark.parametrize("strand", ["+", "-", "both"])
    def test_regions_near_each_other_share_a_window(
        self, attribute: Callable[..., str], model: Path, genome: Path, tmp_path: Path, strand: str
    ) -> None:
        """The scores are those of one region from the first to the last base; --memory and shards change no bit."""
        regions = [(100, 120), (130, 175), (175, 190)]
        bed = tmp_path / "near.bed"
        bed.write_text("".join(f"chr1\t{start}\t{end}\n" for start, end in regions) + "chr2\t20\t60\n")
        attribute("--bed", bed, "--strand", strand, "--tile", 37, "-o", tmp_path / "x.npz", "-o", tmp_path / "x.bw")
        whole = truth(model, GENOME["chr1"], 100, 190, strand)
        archive = np.load(tmp_path / "x.npz")
        expected = [whole[start - 100 : end - 100] for start, end in regions]
        near(archive["gradient"], torch.cat([*expected, truth(model, GENOME["chr2"], 20, 60, strand)]))
        record = json.loads((tmp_path / "x.bw.json").read_text())
        assert [len(values) for values in record["target_values"]] == [1, 1]
        assert np.isnan(read_bigwig(tmp_path / "x.bw", "chr1")[120:130]).all()
        more = ["--bed", bed, "--strand", strand, "--tile", 37, "--memory", "1GB"]
        shards = [tmp_path / f"{i}.npz" for i in (1, 2)]
        for i, shard in enumerate(shards, 1):
            attribute(*more, "--shard", f"{i}/2", "-o", shard)
        done = genoscan("track", "merge", *shards, "-g", genome, "-o", tmp_path / "merged.bw")
        assert done.code == 0, done.err
        for chrom in GENOME:
            merged, single = (read_bigwig(tmp_path / name, chrom) for name in ("merged.bw", "x.bw"))
            assert np.array_equal(merged, single, equal_nan=True)

    def test_overlapping_regions_merge(self, attribute: Callable[..., str], tmp_path: Path) -> None:
        bed = tmp_path / "peaks.bed"
        bed.write_text("chr1\t140\t180\tb\nchr1\t100\t150\ta\nchr1\t180\t200\tc\nchr2\t10\t20\td\n")
        said = attribute("--bed", bed, "-o", tmp_path / "x.npz")
        assert "4 regions merged to 3 that do not overlap" in said
        archive = np.load(tmp_path / "x.npz")
        assert archive["name"].tolist() == ["a,b", "c", "d"]
        assert archive["start"].tolist() == [100, 180, 10]
        assert archive["end"].tolist() == [180, 200, 20]

    def test_clip(self, attribute: Callable[..., str], tmp_path: Path) -> None:
        said = attribute("-r", "chr2:200-300", "-r", "chr1:1-10", "--clip", "-o", tmp_path / "x.npz")
        assert "1 of 2 regions trimmed" in said
        assert np.load(tmp_path / "x.npz")["end"].tolist() == [10, 230]

    def test_provenance(self, attribute: Callable[..., str], model: Path, tmp_path: Path) -> None:
        path = tmp_path / "x.bw"
        said = attribute("-r", "chr1:101-200", "--tile", 50, "--slots", 2, "-o", path)
        assert re.fullmatch(r"100 bases in [\d.]+ s \([\d,]+ bases/s\)\n49% of the bases read are context\n", said)
        record = json.loads((tmp_path / "x.bw.json").read_text())
        assert record["format"] == "genoscan-track/1"
        assert record["model"] == "tiny"
        loaded = load_model(model)
        assert record["weights"] == loaded.weights_sha256
        assert record["model_sha256"] == loaded.sha256
        assert [s["name"] for s in record["sequences"]] == ["chr1"]
        assert record["regions"] == [{"chrom": "chr1", "start": 100, "end": 200, "name": "", "strand": "."}]
        settings = {
            "target": "log-likelihood",
            "score": "centred",
            "strand": "+",
            "tile": 50,
            "method": "Adjoint(tile=50, slots=2)",
            "context": CONTEXT,
            "reach": REACH,
            "dtype": "float32",
            "device": "cpu",
            "threads": 1,
        }
        assert {name: record[name] for name in settings} == settings
        assert record["command"][:2] == ["genoscan", "attribute"]
        assert not (tmp_path / "x.bw.partial").exists()

    def test_a_real_gene(self, attribute: Callable[..., str], model: Path, tmp_path: Path) -> None:
        """300 bases of rbcL, on the forward strand of the chloroplast in data/."""
        fasta = ROOT / "data" / "chloroplast.fa"
        lines = fasta.read_text().splitlines()
        letters = "".join(lines[1:])[54_000:56_000]
        path = tmp_path / "x.npz"
        attribute("-r", "NC_000932.1:54,958-55,257", "--tile", 64, "--slots", 2, "-o", path, on=fasta)
        near(np.load(path)["gradient"], truth(model, letters, 957, 1257))


class TestResponse:
    @staticmethod
    def outputs(model: Path, letters: str, rows: Mapping[int, Tensor]) -> Tensor:
        """Return the logits over a sequence with some of its input rows changed."""
        loaded = load_model(model, dtype=torch.float64, kernels="reference").stack
        x = torch.eye(4, dtype=torch.float64)[["ACGT".index(letter) for letter in letters]]
        for position, row in rows.items():
            x[position] = row
        return loaded(x[None], loaded.begin(1))[0][0]

    @classmethod
    def change(cls, model: Path, letters: str, at: int, base: str, of: str, *, finite: bool) -> Tensor:
        """Return the change of log p of every base after `at`, or the length of the logits'."""
        old, new = (torch.eye(4, dtype=torch.float64)["ACGT".index(b)] for b in (letters[at], base))
        step = 1.0 if finite else 1e-5
        ends = (old, new) if finite else (old - step * (new - old), old + step * (new - old))
        low, high = (cls.outputs(model, letters, {at: row}) for row in ends)
        if of == "logits":
            return ((high - low) / (step if finite else 2 * step)).norm(dim=-1)[at:-1]
        columns = torch.tensor(["ACGT".index(letter) for letter in letters[1:]])
        low, high = (torch.log_softmax(part[:-1], -1) for part in (low, high))
        change = (high - low).gather(-1, columns[:, None])[:, 0]
        return change[at:] / (step if finite else 2 * step)

    def respond(self, model: Path, genome: Path, out: Path, *arguments: object) -> np.ndarray:
        done = genoscan(
            "response", genome, "-m", model, "-t", 1, "--dtype", "float64", "--tile", 30, "-o", out, *arguments
        )
        assert done.code == 0, done.err
        return read_bigwig(out, "chr1")

    @pytest.mark.parametrize("finite", [False, True])
    @pytest.mark.parametrize("of", ["log-p", "logits"])
    @pytest.mark.parametrize("strand", ["+", "-"])
    def test_what_a_base_does(
        self, model: Path, genome: Path, tmp_path: Path, strand: str, of: str, finite: bool
    ) -> None:
        region = "chr1:191-260" if strand == "+" else "chr1:141-210"
        base = next(b for b in "ACGT" if b != CHR1[200])
        found = self.respond(
            model,
            genome,
            tmp_path / "x.bw",
            "--at",
            "chr1:201",
            "--base",
            base,
            "-r",
            region,
            "--strand",
            strand,
            "--of",
            of,
            *["--finite"] * finite,
        )
        inside = ~np.isnan(found)
        if strand == "+":
            assert np.flatnonzero(inside).tolist() == list(range(190, 260))
            assert not found[190:200].any()  # to the bit, before the base
            window, after = CHR1[200 - CONTEXT : 260], found[201:260]
        else:
            assert np.flatnonzero(inside).tolist() == list(range(140, 210))
            assert not found[201:210].any()
            window, after = mirrored(CHR1[140 : 201 + CONTEXT]), found[140:200][::-1]
            base = mirrored(base)
        true = self.change(model, window, CONTEXT, base, of, finite=finite)
        near(after, true, 1e-6)
        own = 0.0
        if of == "log-p":
            before = torch.log_softmax(self.outputs(model, window, {})[CONTEXT - 1], -1)
            own = float(before["ACGT".index(base)] - before["ACGT".index(window[CONTEXT])])
        assert found[200] == pytest.approx(own, rel=1e-6)

    def test_the_strongest_of_three(self, model: Path, genome: Path, tmp_path: Path) -> None:
        """Without a region: from the base as far as the model reaches."""
        found = self.respond(model, genome, tmp_path / "x.bw", "--at", "chr1:201")
        assert np.flatnonzero(~np.isnan(found)).tolist() == list(range(200, 201 + REACH))
        window = CHR1[200 - CONTEXT : 201 + REACH]
        others = [b for b in "ACGT" if b != CHR1[200]]
        changes = torch.stack([self.change(model, window, CONTEXT, b, "log-p", finite=False) for b in others])
        true = changes.gather(0, changes.abs().argmax(0)[None])[0]
        near(found[201 : 201 + REACH], true, 1e-6)

    def test_a_region_wholly_after_the_base(self, model: Path, genome: Path, tmp_path: Path) -> None:
        whole = self.respond(model, genome, tmp_path / "a.bw", "--at", "chr1:101", "-r", "chr1:101-160")
        part = self.respond(model, genome, tmp_path / "b.bw", "--at", "chr1:101", "-r", "chr1:131-160")
        assert np.array_equal(part[130:160], whole[130:160])

    def test_the_adjoint_says_the_same(
        self, model: Path, genome: Path, attribute: Callable[..., str], tmp_path: Path
    ) -> None:
        """What a base does to all that follows adds up to its derivative of the likelihood."""
        base = next(b for b in "ACGT" if b != CHR1[200])
        found = self.respond(
            model, genome, tmp_path / "x.bw", "--at", "chr1:201", "--base", base, "-r", "chr1:201-300", "--context", 200
        )
        attribute("-r", "chr1:1-300", "--context", 0, "--reach", 0, "--dtype", "float64", "-o", tmp_path / "x.npz")
        row = np.load(tmp_path / "x.npz")["gradient"][200]
        expected = row["ACGT".index(base)] - row["ACGT".index(CHR1[200])]
        assert np.nansum(np.delete(found, 200).astype(float)) == pytest.approx(float(expected), rel=1e-5)

    def test_provenance(self, model: Path, genome: Path, tmp_path: Path) -> None:
        self.respond(model, genome, tmp_path / "x.bw", "--at", "chr1:201", "--finite")
        record = json.loads((tmp_path / "x.bw.json").read_text())
        at = record["response"].pop("at")
        assert (at["chrom"], at["start"], at["end"]) == ("chr1", 200, 201)
        found = record["response"]
        settings = {key: found.pop(key) for key in ("base", "of", "finite", "strand")}
        assert settings == {"base": None, "of": "log-p", "finite": True, "strand": "+"}
        assert found.keys() == {"total", "own", "strongest"}
        assert (record["window"]["start"], record["window"]["end"]) == (200 - CONTEXT, 201 + REACH)


def test_plan_writes_nothing(model: Path, genome: Path, tmp_path: Path) -> None:
    done = genoscan(
        "plan",
        genome,
        "-m",
        model,
        "-t",
        1,
        "-r",
        "chr1:101-200",
        "-r",
        "chr2",
        "--tile",
        50,
        "--slots",
        2,
        "-o",
        tmp_path / "x.bw",
    )
    assert (done.code, done.err) == (0, "")
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in done.out.splitlines())
    assert rows["regions"] == "2 (330 bases to score)"
    assert rows["windows"].startswith("2 in 2 batches, 426 bases read (context 64, reach 32)")
    assert rows["longest window"] == "230 bases, 5 tiles of 50"
    assert rows["context"] == "23% of the bases read are not scored"
    process, total = (float(rows[name].split(" MB")[0].replace(",", "")) for name in ("process memory", "total memory"))
    assert 50 < process <= total
    assert set(rows) >= {"recomputation", "engine memory", "disk until done", "time"}
    assert not list(tmp_path.iterdir())


class TestVerify:
    def test_passes(self, model: Path, genome: Path) -> None:
        done = genoscan("verify", genome, "-m", model, "-t", 1, "-r", "chr1", "--tile", 64)
        assert done.code == 0, done.out + done.err
        assert done.out.count(" ok") == 7
        assert "400 bp" in done.out

    def test_unknown_bases(self, model: Path, tmp_path: Path) -> None:
        """Where a part of the files would have no score, the checks do not begin."""
        write_fasta(tmp_path / "n.fa", {"some": "N" * 100 + bases(412, 1), "first": "N" * 192 + bases(320, 1)})
        done = genoscan("verify", tmp_path / "n.fa", "-m", model, "-t", 1, "-r", "some", "--tile", 64)
        assert done.code == 0, done.out + done.err
        done = genoscan("verify", tmp_path / "n.fa", "-m", model, "-t", 1, "-r", "first")
        assert (done.code, done.out) == (1, "")
        assert "--region first: 0 A, C, G and T in first:65-192, too few for the checks" in done.err

    def test_models_that_label_windows_only(self, genome: Path, tmp_path: Path) -> None:
        heads = {"mean": {"kind": "pooled", "labels": ["a"], "link": "sigmoid", "pool": "mean"}}
        folder = write_headed(tmp_path / "m", "causal", heads=heads, language_model=False)
        done = genoscan("verify", genome, "-m", folder, "-t", 1, "-r", "chr1", "--tile", 64)
        assert done.code == 0, done.out + done.err
        assert "files" not in done.out

    def test_a_broken_limit_ends_in_1(self, model: Path, genome: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from genoscan.verification import sweeps as verification

        exact = verification._gradient
        monkeypatch.setattr(verification, "_gradient", lambda *given: exact(*given) * (1 + 1e-4))
        done = genoscan("verify", genome, "-m", model, "-t", 1, "-r", "chr1:1-100")
        assert done.code == 1
        assert "FAILED" in done.out
        assert "a check exceeded its limit" in done.err.splitlines()[-1]

    def test_a_wrong_float32_kernel_fails(self, model: Path, genome: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from genoscan.ops import cpu_scan

        genuine = cpu_scan._vjp_group

        def negated(inputs, *given, **options):  # type: ignore[no-untyped-def]
            bars = genuine(inputs, *given, **options)
            return bars._replace(u=-bars.u) if bars.u.dtype == torch.float32 else bars

        monkeypatch.setattr(cpu_scan, "_vjp_group", negated)
        done = genoscan("verify", genome, "-m", model, "-t", 1, "-r", "chr1:1-100")
        assert done.code == 1
        failed = [line for line in done.out.splitlines() if "FAILED" in line]
        assert [line.split("  ")[0] for line in failed] == ["adjoint, float32"]


class TestModels:
    @pytest.fixture(autouse=True)
    def shelf(self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the tiny model among those that have a name."""
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        (tmp_path / "genoscan").mkdir()
        (tmp_path / "genoscan" / "models").symlink_to(model.parent)

    def test_list(self) -> None:
        done = genoscan("models", "list")
        assert (done.code, done.err) == (0, "")
        assert "tiny\t2 layers, width 16\tnothing\n" in done.out

    def test_show(self, model: Path) -> None:
        done = genoscan("models", "show", "tiny")
        assert (done.code, done.err) == (0, "")
        assert load_model(model).sha256 in done.out
        assert "mamba, mamba" in done.out
        assert "Untrained." in done.out

    def test_a_name_is_as_good_as_a_folder(self, genome: Path, tmp_path: Path) -> None:
        done = genoscan("attribute", genome, "-m", "tiny", "-t", 1, "-r", "chr1:1-9", "-o", tmp_path / "x.bw")
        assert done.code == 0

    def test_a_near_name_is_suggested(self) -> None:
        done = genoscan("models", "show", "tinny")
        assert done.code == 1
        assert 'did you mean "tiny"?' in done.err


class TestTrain:
    @staticmethod
    def asked(genome: Path, out: Path, *more: object) -> list[object]:
        return [
            "train",
            genome,
            "-o",
            out,
            "-t",
            1,
            "--width",
            16,
            "--layers",
            1,
            "--states",
            4,
            "--steps",
            8,
            "--window",
            16,
            "--walk",
            2,
            "--batch",
            2,
            "--validation",
            0.3,
            *more,
        ]

    def train(self, genome: Path, out: Path, *more: object) -> str:
        done = genoscan(*self.asked(genome, out, *more))
        assert done.code == 0, done.err
        assert done.out.startswith("On validation data, the model (")
        assert done.out.endswith(f".\n{out}\n")
        assert done.out.splitlines()[0] in (out / "README.md").read_text().replace("\n", " ")
        return done.err

    @pytest.fixture(autouse=True)
    def frequent_reports(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from genoscan.training import train

        monkeypatch.setattr(train, "TrainOptions", partial(train.TrainOptions, report_every=2))

    def test_makes_a_model_that_attribute_takes(
        self, genome: Path, attribute: Callable[..., str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = write_fasta(tmp_path_factory.mktemp("other") / "other.fa", {"other": bases(300, 7), "empty": ""})
        self.train(genome, tmp_path / "made", "--test", other, "--trained-on", "random bases")
        assert "| other.fa |" in (tmp_path / "made" / "README.md").read_text()
        assert json.loads((tmp_path / "made" / "config.json").read_text())["trained_on"] == "random bases"
        assert {path.name for path in (tmp_path / "made").iterdir()} == {
            "README.md",
            "config.json",
            "model.safetensors",
            "training.html",
            "training.tsv",
        }
        assert {path.name for path in tmp_path.iterdir()} == {"made"}
        validation = json.loads((tmp_path / "made" / "config.json").read_text())["validation"]
        row = f"| {validation['bits']:.4f} | "  # not bold, because 8 steps make no better model
        (line,) = [line for line in (tmp_path / "made" / "README.md").read_text().splitlines() if row in line]
        assert line.startswith("| validation data |")
        assert line.endswith(f"| {validation['composition']:.4f} |")
        attribute("-m", tmp_path / "made", "-r", "chr1:1-50", "-o", tmp_path / "x.bw")
        assert np.abs(read_bigwig(tmp_path / "x.bw", "chr1")[:50]).max() > 0

    def test_interrupted_and_resumed_is_the_same(
        self, genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from genoscan.training import train

        self.train(genome, tmp_path / "unbroken")
        save, saved = train.save, []

        def interrupted(*given: object) -> None:
            save(*given)
            saved.append(given)
            if len(saved) == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(train, "save", interrupted)
            done = genoscan(*self.asked(genome, tmp_path / "made"))
        assert done.code == 130
        assert f"the last checkpoint is kept in {tmp_path / 'made.partial'}; the same command continues" in done.err
        assert {path.name for path in tmp_path.iterdir()} == {"unbroken", "made.partial"}
        said = self.train(genome, tmp_path / "made")
        assert re.findall(r"^step (\d).* bases, ", said, re.MULTILINE) == ["6", "8"]
        name = "model.safetensors"
        assert (tmp_path / "made" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
        assert {path.name for path in tmp_path.iterdir()} == {"unbroken", "made"}

    def interrupt_at_the_end(self, genome: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from genoscan.training import finish

        def interrupted(*_given: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(finish, "write_card", interrupted)
            assert genoscan(*self.asked(genome, made)).code == 130

    def test_other_data_are_not_resumed_on(self, genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.interrupt_at_the_end(genome, tmp_path / "made", monkeypatch)
        letters = genome.read_text()
        place = letters.rindex("A", 0, len(letters) // 2)
        other = tmp_path / "other" / genome.name
        other.parent.mkdir()
        other.write_text(f"{letters[:place]}C{letters[place + 1 :]}")
        for path, validation, more, differing in [
            (other, 0.3, (), "sequences.0.m5 (GENOME) was"),
            (genome, 0.31, (), "validation (--validation) was 0.3, is now 0.31"),
            (genome, 0.3, ("-t", 2), "threads (--threads) was 1, is now 2"),
            (genome, 0.3, ("--rate", 0.1), "options.rate (--rate) was 0.004, is now 0.1"),
            (genome, 0.3, ("--width", 32), "config.d_model (--width) was 16, is now 32"),
            (genome, 0.3, ("--layers", 2), "config.layers (--layers): there were 1, there are now 2"),
        ]:
            asked = self.asked(path, tmp_path / "made", *more)
            asked[asked.index("--validation") + 1] = validation
            done = genoscan(*asked)
            assert (done.code, done.err.count("\n")) == (1, 1)
            assert "made.partial: contains a training run with other settings: " in done.err
            assert differing in done.err

    def test_the_folder_appears_whole(self, genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Interrupted at the very end, nothing of it is there, and no step is lost."""
        self.interrupt_at_the_end(genome, tmp_path / "made", monkeypatch)
        assert {path.name for path in tmp_path.iterdir()} == {"made.partial"}
        assert "step" not in self.train(genome, tmp_path / "made")
        assert {path.name for path in tmp_path.iterdir()} == {"made"}

    def test_a_full_disk(self, genome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from genoscan.training import state

        def full(*_given: object) -> None:
            raise SafetensorError("I/O error: No space left on device (os error 28)")

        monkeypatch.setattr(state, "save_file", full)
        done = genoscan(*self.asked(genome, tmp_path / "made"))
        assert (done.code, done.out) == (1, "")
        assert "made.partial: I/O error: No space left" in done.err.splitlines()[-1]


def test_help_is_quick_and_imports_no_torch() -> None:
    """All of them in one process, whose own time counts."""
    asks = """
import sys, time
from genoscan.cli import cli
import click
def walk(command, names):
    yield names
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from walk(command.get_command(click.Context(command), name), [*names, name])
for names in list(walk(cli, [])):
    started = time.process_time()
    cli.main([*names, "--help"], standalone_mode=False)
    took = time.process_time() - started
    assert took < 0.5, (names, took)
heavy = {"torch", "numba", "numpy", "pandas", "pyfaidx"} & set(sys.modules)
assert not heavy, heavy
assert time.process_time() < 1, time.process_time()
sys.exit(0)
"""
    done = elsewhere(before=asks)
    assert done.code == 0, done.err
    assert done.out.count("Usage:") == 38


def test_exit_codes_of_a_real_process(tmp_path: Path) -> None:
    done = elsewhere("attribute", "nothing.fa", "-o", tmp_path / "x.bw")
    assert done.code == 1
    assert done.err == "genoscan: error: nothing.fa: no such file, expected a file\n"
    assert elsewhere("--version").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["attribute"],
        ["attribute", "g.fa"],
        ["attribute", "g.fa", "-o"],
        ["atribute"],
        ["attribute", "g.fa", "-o", "x.bw", "--colour"],
        ["plan", "g.fa", "-o", "x.bw", "--tile", "x"],
        ["verify", "g.fa"],
        ["response", "g.fa", "-o", "x.bw"],
        ["train", "-o", "m"],
    ],
    ids=" ".join,
)
def test_usage_errors_end_in_2(arguments: list[str]) -> None:
    done = genoscan(*arguments)
    assert done.code == 2
    assert re.search("^(Usage|Error): ", done.err, re.MULTILINE)


def test_golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command in golden/README.md still makes the track that lies there."""
    kept = ROOT / "tests" / "golden"
    shutil.copytree(kept, tmp_path / "golden")
    monkeypatch.chdir(tmp_path / "golden")
    expected = Path("sensitivity.bedGraph").read_text().splitlines()
    Path("sensitivity.bedGraph").unlink()
    [line] = re.findall(r"^ +genoscan (.*)", Path("README.md").read_text(), re.MULTILINE)
    assert genoscan(*shlex.split(line)).code == 0
    found = Path("sensitivity.bedGraph").read_text().splitlines()
    places, values = zip(*(row.rsplit("\t", 1) for row in found), strict=True)
    true_places, true_values = zip(*(row.rsplit("\t", 1) for row in expected), strict=True)
    assert places == true_places
    near(np.array(values, float), torch.tensor([float(value) for value in true_values]).double())
