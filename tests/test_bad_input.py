"""What cannot be used is said in one line, with exit 1 and nothing left behind."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pysam
import pytest
from commands import bases, elsewhere, genoscan, listing, tiny_model, write_fasta
from safetensors.numpy import load_file, save_file

CHR1 = bases(400, 1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with a genome and a model, and no other model with a name."""
    write_fasta(tmp_path / "g.fa", {"chr1": CHR1, "2": bases(230, 2)})
    tiny_model(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def refused(*arguments: object) -> str:
    """Run a command that must end in one line and exit 1, and leave no file; return the line."""
    before = listing(Path())
    done = genoscan(*arguments)
    assert done.code == 1, done
    assert done.out == ""
    assert done.err.startswith("genoscan: error: ")
    assert done.err.count("\n") == 1
    assert listing(Path()) == before
    return done.err


def attribute(*arguments: object, genome: str = "g.fa", model: str = "tiny") -> str:
    outputs = [] if "-o" in arguments else ["-o", "x.bw", "-o", "x.npz"]
    return refused("attribute", genome, "-m", model, "-t", 1, *outputs, *arguments)


def says(line: str, *parts: str) -> None:
    for part in parts:
        assert part in line, line


@pytest.mark.usefixtures("folder")
class TestRegions:
    @pytest.mark.parametrize(
        ("region", "parts"),
        [
            ("chr1:1-401", ["--region chr1:1-401", "401", "400 bases"]),
            ("chr1:401", ["--region chr1:401", "401", "400 bases"]),
            ("chr2", ['"chr2"', 'did you mean "2"?']),
            ("1:5-9", ['"1"', 'did you mean "chr1"?']),
            ("plasmid", ['"plasmid"', "the genome has chr1, 2"]),
            ("chr1:9-5", ["end 5", "start 9"]),
            ("chr1:0-5", ["start is 0", "expected 1 or more"]),
            ("chr1:a-b", ['"a-b"', "expected 5, 5-, -9 or 5-9"]),
        ],
    )
    def test_region(self, region: str, parts: list[str]) -> None:
        says(attribute("-r", region), region, *parts)

    @pytest.mark.parametrize(
        ("row", "parts"),
        [
            ("chr1\t90\t80", ["end 80 is not after start 90"]),
            ("chr1\t90\t90", ["end 90 is not after start 90"]),
            ("chr1\tninety\t99", ['start is "ninety"', "expected a whole number"]),
            ("chr1\t90\t9.5", ['end is "9.5"', "expected a whole number"]),
            ("chr1\t90\t401", ["end 401", "400 bases"]),
            ("1\t90\t99", ['did you mean "chr1"?']),
            ("chr1\t90", ["found 2 columns", "expected chromosome, start and end"]),
            ("chr1\t90\t99\tx\t0\tplus", ['"plus"', 'expected "+", "-" or "."']),
        ],
    )
    def test_bed_row(self, row: str, parts: list[str]) -> None:
        Path("r.bed").write_text(f"#name\nchr1\t1\t9\n{row}\n")
        says(attribute("--bed", "r.bed"), "r.bed:3", *parts)

    def test_overlap_across_strands(self) -> None:
        Path("r.bed").write_text("chr1\t10\t40\ta\t0\t+\nchr1\t30\t60\tb\t0\t-\n")
        line = attribute("--bed", "r.bed", "--strand", "bed")
        says(line, "r.bed:1", "r.bed:2", "expected one strand")

    @pytest.mark.parametrize(
        ("text", "name", "parts"),
        [
            ("chr1\t10\t40\tGATA1\nchr1\t50\t60\tGATA1\n", "GATA1", ["2 loci in g.bed", "chr1:11-40 (.), chr1:51-60"]),
            ("chr1\t10\t40\tGATA1\n", "GATA2", ["no gene in g.bed", "did you mean GATA1?"]),
            ("X\t10\t40\tGATA1\n", "GATA1", ["g.bed:1", 'no sequence is called "X"']),
            ("chr1\t410\t440\tGATA1\n", "GATA1", ["g.bed:1", "past the end of chr1"]),
            ("", "GATA1", ["g.bed: no features in it"]),
        ],
    )
    def test_gene(self, text: str, name: str, parts: list[str]) -> None:
        Path("g.bed").write_text(text)
        says(attribute("-r", name, "--annotation", "g.bed"), *parts)

    def test_gene_without_annotation(self) -> None:
        says(attribute("-r", "GATA1"), "--region GATA1", "the name of a gene requires --annotation")
        says(attribute("-r", "GATA1", "--annotation", "g.gff3"), "g.gff3: file not found")

    @pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
    def test_empty_bed(self, text: str) -> None:
        Path("r.bed").write_text(text)
        says(attribute("--bed", "r.bed"), "r.bed: no regions")

    def test_missing_bed(self) -> None:
        says(attribute("--bed", "r.bed"), "r.bed", "No such file")


@pytest.mark.usefixtures("folder")
class TestGenomes:
    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("", ["empty", "expected FASTA"]),
            (">chr1\n", ["no bases"]),
            (">a\nACGT\n>b\nACGT\n>a\nAC\n", ['two sequences are called "a"']),
            ("ACGT\n", ["begins with 'ACGT'", "expected FASTA"]),
            (">a\nACGT\nACGTACGT\nACG\n", ["differs in length"]),
            (">a\nACGUACGU\n", ['position 4 is "U"', "RNA"]),
        ],
    )
    def test_fasta(self, text: str, parts: list[str]) -> None:
        Path("bad.fa").write_text(text)
        says(attribute(genome="bad.fa"), "bad.fa", *parts)

    def test_protein(self) -> None:
        """Found in the second sequence, when nothing of the first is finished yet."""
        write_fasta(Path("bad.fa"), {"dna": CHR1, "protein": "ACGTMKLVE" * 9})
        line = attribute("-r", "dna:1-20", "-r", "protein:1-20", genome="bad.fa")
        says(line, "bad.fa: protein: position 7", '"L"', "this looks like protein")

    def test_missing(self) -> None:
        says(attribute(genome="none.fa"), "none.fa", "no such file")

    @pytest.mark.parametrize("kept", [30, 200, -28, -1])
    def test_truncated_bgzip(self, kept: int) -> None:
        pysam.tabix_compress("g.fa", "g.fa.gz")
        whole = Path("g.fa.gz").read_bytes()
        Path("cut.fa.gz").write_bytes(whole[:kept])
        says(attribute(genome="cut.fa.gz"), "cut.fa.gz", "cut off")

    def test_damaged_bgzip(self) -> None:
        pysam.tabix_compress("g.fa", "bad.fa.gz")
        damaged = bytearray(Path("bad.fa.gz").read_bytes())
        damaged[60:70] = bytes(10)
        Path("bad.fa.gz").write_bytes(damaged)
        says(attribute(genome="bad.fa.gz"), "bad.fa.gz", "damaged")


@pytest.mark.usefixtures("folder")
class TestOutputs:
    @pytest.mark.parametrize(
        ("outputs", "parts"),
        [
            (["none/x.bw"], ["none/x.bw", "there is no folder"]),
            (["tiny.bw"], ["tiny.bw", "it is a folder"]),
            (["g.fa/x.bw"], ["g.fa/x.bw", "no folder"]),
            (["x.wig"], ['suffix ".wig"', "expected one of .bw"]),
            (["x"], ['suffix ""', "expected one of .bw"]),
            (["x.bw", "none/x.npz"], ["none/x.npz"]),
            (["x.bw", "./x.bw"], ["x.bw", "given twice"]),
            (["x.npz", "y.bw", "x.npz"], ["x.npz", "given twice"]),
        ],
        ids=" ".join,
    )
    @pytest.mark.parametrize("command", ["attribute", "plan", "response"])
    def test_output(self, command: str, outputs: list[str], parts: list[str]) -> None:
        Path("tiny.bw").mkdir()
        more = ["--at", "chr1:9"] if command == "response" else ["-r", "chr1:9-20"]
        each = [word for path in outputs for word in ("-o", path)]
        says(refused(command, "g.fa", "-m", "tiny", *each, *more), *parts)

    @pytest.mark.parametrize("more", [["-r", "chr1:1-9"], ["--bed", "g.bg"]])
    def test_an_input_is_not_written_over(self, more: list[str]) -> None:
        shutil.copy("g.fa", "g.bg")
        genome = "g.fa" if "--bed" in more else "g.bg"
        says(attribute(*more, "-o", "x.bw", "-o", "./g.bg", genome=genome), "g.bg", "read from")

    def test_no_permission(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Asked of the system, whose answer root does not get."""
        monkeypatch.setattr(os, "access", lambda _path, _mode: False)
        says(attribute("-o", "x.bw"), "x.bw", "no permission")

    @pytest.mark.parametrize("step", ["OUT.partial", "track", "provenance"])
    def test_disk_full(self, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        """If it happens before a batch is finished, nothing stays; later, only the batches do."""
        from genoscan.tracks import bigwig

        before = listing(Path())

        def full(*_given: object, **_options: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        if step == "OUT.partial":
            monkeypatch.setattr(os, "posix_fallocate", full)
            says(attribute("-r", "chr1:1-50"), "x.bw.partial", "the disk is full")
            return
        if step == "track":
            monkeypatch.setattr(bigwig.BigWigWriter, "finish", full)
        else:
            write = Path.write_text
            monkeypatch.setattr(
                Path,
                "write_text",
                lambda path, *given, **options: full() if path.suffix == ".part" else write(path, *given, **options),
            )
        done = genoscan("attribute", "g.fa", "-m", "tiny", "-t", 1, "-r", "chr1:1-50", "-o", "x.bw")
        assert done.code == 1
        says(done.err, "x.bw", "the disk is full")
        assert done.err.count("\n") == 1
        assert listing(Path()) == before | {"x.bw.partial"}

    def test_a_limit_of_the_system(self, folder: Path) -> None:
        """`ulimit -f`: 4 kB hold the scores of 400 bases, and not their text."""
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"
        ask = ["attribute", "g.fa", "-m", "tiny", "-t", 1, "-r", "chr1", "-o", "x.bedgraph"]
        before = listing(folder)
        done = elsewhere(*ask, before=limit.format(500), cwd=folder)
        assert (done.code, done.out) == (1, "")
        says(done.err, "x.bedgraph.partial: cannot be written", "ulimit -f")
        assert done.err.count("\n") == 1
        assert listing(folder) == before
        done = elsewhere(*ask, before=limit.format(4000), cwd=folder)
        assert (done.code, done.out) == (1, "")
        says(done.err, "x.bedgraph: cannot be written", "ulimit -f")
        assert done.err.count("\n") == 1
        assert listing(folder) == before | {"x.bedgraph.partial"}
        assert genoscan(*ask).code == 0
        assert listing(folder) == before | {"x.bedgraph", "x.bedgraph.json"}


@pytest.mark.usefixtures("folder")
class TestOptions:
    @pytest.mark.parametrize(
        ("option", "value", "expected"),
        [
            ("--tile", "0", "expected at least 1"),
            ("--slots", "0", "expected at least 1"),
            ("--batch", "0", "expected at least 1"),
            ("--threads", "0", "expected at least 1"),
            ("--tile", "-5", "expected at least 1"),
            ("--context", "-1", "expected 0 bases or more"),
            ("--reach", "-1", "expected 0 bases or more"),
            ("--score", "best", "expected one of centred, observed, magnitude, substitution"),
            ("--strand", "plus", "expected +, -, both, bed or separate"),
            ("--dtype", "float16", "expected float32 or float64"),
            ("--device", "gpu", "expected auto, cpu, cuda or cuda:N"),
            ("--device", "cuda:99", "CUDA devices"),
            ("--device", "cuda:²", "expected auto, cpu, cuda or cuda:N"),
            ("--model", "none", "by name or as a folder"),
        ],
    )
    @pytest.mark.parametrize("command", ["attribute", "plan"])
    def test_value(self, command: str, option: str, value: str, expected: str) -> None:
        threads = [] if option == "--threads" else ["-t", "1"]
        line = refused(command, "g.fa", "-m", "tiny", *threads, "-o", "x.bw", option, value)
        says(line, option.replace("--model", "no model"), value, expected)

    @pytest.mark.parametrize(
        ("target", "parts"),
        [
            ("likelihood", ["expected log-likelihood[:REGION], logit:CHROM:POS:BASE"]),
            ("log-likelihood:", ["expected log-likelihood[:REGION]"]),
            ("log-likelihood:chr9:1-5", ["chr9"]),
            ("log-likelihood:chr1:1-1", ["nothing predicts that base"]),
            ("log-likelihood:2:1-50", ["expected it on chr1"]),
            ("logit:chr1:300", ["expected log-likelihood[:REGION], logit:CHROM:POS:BASE"]),
            ("logit:chr1:300:N", ["base N", "expected A, C, G or T"]),
            ("logit:chr1:401:A", ["401", "400 bases"]),
            ("logit:chr1:0:A", ["start is 0"]),
            ("logit:1:300:A", ['did you mean "chr1"?']),
            ("logit:chr1:100:A", ["wholly after the target"]),
            ("logit:chr1:50:A", ["wholly after the target"]),
            ("logit:2:100:A", ["expected it on chr1"]),
        ],
    )
    def test_target(self, target: str, parts: list[str]) -> None:
        """Also what could only give a track of zeros."""
        says(attribute("-r", "chr1:100-150", "--target", target), *parts)

    @pytest.mark.parametrize(("strand", "position"), [("+", 1), ("-", 400), ("both", 1), ("both", 400), ("bed", 1)])
    @pytest.mark.parametrize("kind", ["logit", "log-odds"])
    def test_a_base_that_nothing_predicts(self, kind: str, strand: str, position: int) -> None:
        target = f"{kind}:chr1:{position}:C"
        line = attribute("-r", "chr1", "--strand", strand, "--target", target)
        says(line, f"--target {target}: nothing predicts that base", "the first on strand")

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["--at", "chr1:401"], ["401", "400 bases"]),
            (["--at", "chr1"], ["400 bases, expected one"]),
            (["--at", "1:5"], ['did you mean "chr1"?']),
            (["--at", "chr1:50:A"], ["--at chr1:50:A: expected a position", "quote the variant, 'chr1:1,024:A>C'"]),
            (["--at", "chr1:50", "--base", "N"], ["--base N", "expected A, C, G or T"]),
            (["--at", "chr1:50", "--base", CHR1[49]], ["is the observed base at chr1:50"]),
            (["--at", "chr1:50", "-r", "chr1:10-50"], ["nothing of chr1:10-50 comes after it"]),
            (["--at", "chr1:50", "-r", "2:60-90"], ["nothing of 2:60-90 is on chr1"]),
            (["--at", "chr1:400"], ["--at chr1:400-400", "comes after it as strand + is read"]),
            (["--at", "chr1:1", "--strand", "-"], ["comes after it as strand - is read"]),
            (["--at", "chr1:50", "--strand", "both"], ["--strand both", "+ or -"]),
            (["--at", "chr1:50", "--of", "p"], ["--of p", "expected log-p, logits or sensitivity"]),
            (["--at", "chr1:50", "--tile", "0"], ["--tile 0", "at least 1"]),
            (["--at", "chr1:50", "--tile", "0", "--finite"], ["--tile 0", "at least 1"]),
            (["--at", "chr1:50", "--context", "-1"], ["--context -1", "0 bases or more"]),
            (["--at", "chr1:50", "-o", "x.npz"], ["x.npz", "no four columns"]),
        ],
    )
    def test_response(self, arguments: list[str], parts: list[str]) -> None:
        outputs = [] if "-o" in arguments else ["-o", "x.bw"]
        says(refused("response", "g.fa", "-m", "tiny", "-t", 1, *outputs, *arguments), *parts)

    def test_response_of_an_n(self) -> None:
        write_fasta(Path("n.fa"), {"chr1": "ACGTN" * 9})
        line = refused("response", "n.fa", "-m", "tiny", "--at", "chr1:5", "-o", "x.bw")
        says(line, "--at chr1:5", "an N")

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["-r", "chr1", "--tile", "0"], ["--tile 0"]),
            (["-r", "chr1", "--slots", "0"], ["--slots 0"]),
            (["-r", "chr1:401"], ["--region chr1:401", "400 bases"]),
            (["-r", "chr1:5-8"], ["--region chr1:5-8", "too few"]),
        ],
    )
    def test_verify(self, arguments: list[str], parts: list[str]) -> None:
        says(refused("verify", "g.fa", "-m", "tiny", "-t", 1, *arguments), *parts)

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["--width", "0"], ["--width 0"]),
            (["--layers", "0"], ["--layers 0"]),
            (["--states", "-3"], ["--states -3"]),
            (["--steps", "0"], ["--steps 0"]),
            (["--window", "0"], ["--window 0"]),
            (["--rate", "nan"], ["--rate nan"]),
            (["--validation", "1.5"], ["1.5", "between 0 and 1"]),
            (["--validation", "0.0001"], ["--validation 0.0001", "leaves 0 A, C, G and T"]),
            (["--window", "4096"], ["32,769 bases", "smaller --window or --walk"]),
            (["--dtype", "float64"], ["--dtype float64"]),
            (["--walk", "0"], ["--walk 0"]),
            (["--seed", "-1"], ["--seed -1"]),
            (["--site-weight", "0"], ["--site-weight 0"]),
            (["--test", "none.fa"], ["none.fa", "no such file"]),
            (["--test", "g.fa"], ["--test g.fa", "chr1 is in the training data"]),
            (["--test", "n.fa"], ["--test n.fa", "has 0 A, C, G and T"]),
            (["--test", "c.fa", "--test", "more/c.fa"], ["--test more/c.fa", "expected different names"]),
            (["--validation", "chr1:1-1"], ["--validation chr1:1-1", "leaves 1 A, C, G and T"]),
            (["-o", "none/m"], ["none/m", "there is no folder"]),
            (["-o", "tiny"], ["tiny", "already exists"]),
        ],
        ids=" ".join,
    )
    def test_train(self, arguments: list[str], parts: list[str]) -> None:
        Path("more").mkdir()
        write_fasta(Path("n.fa"), {"unknown": "N" * 90})
        for folder in (Path(), Path("more")):
            write_fasta(folder / "c.fa", {"one": bases(200, len(folder.name))})
        outputs = [] if "-o" in arguments else ["-o", "made"]
        line = refused("train", "g.fa", "-t", 1, "--width", 16, *outputs, *arguments)
        says(line, *parts)


class TestModels:
    @pytest.fixture
    def spoil(self, folder: Path) -> Callable[[Callable[[bytes], bytes]], str]:
        def run(change: Callable[[bytes], bytes], name: str = "model.safetensors") -> str:
            file = folder / "tiny" / name
            file.write_bytes(change(file.read_bytes()))
            return attribute()

        return run

    @pytest.mark.parametrize("kept", [0, 4, 8, 500, -1, -4096])
    def test_truncated_weights(self, spoil: Callable[..., str], kept: int) -> None:
        says(spoil(lambda whole: whole[:kept]), "model.safetensors", "not a complete safetensors file")

    def test_tampered_weights(self, folder: Path) -> None:
        """Whatever is changed in the header, the model is refused or is what config.json says."""
        file = folder / "tiny" / "model.safetensors"
        whole = file.read_bytes()
        size = int.from_bytes(whole[:8], "little")
        random = np.random.default_rng(1)
        from genoscan.errors import ModelError
        from genoscan.model import load_model

        refusals = 0
        for place in random.choice(8 + size, 150, replace=False):
            spoiled = bytearray(whole)
            spoiled[place] ^= int(random.integers(1, 256))
            file.write_bytes(spoiled)
            try:
                load_model(file.parent)
            except ModelError:
                refusals += 1
        assert refusals > 100

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            (lambda t: t.pop("layers.0.A_log"), ['"layers.0.A_log" is missing']),
            (lambda t: t.update(spare=t["head.weight"]), ['"spare" is not part of the model']),
            (
                lambda t: t.update({"head.weight": t["head.weight"][:3]}),
                ['"head.weight" has shape (3, 16)', "config.json implies (4, 16)"],
            ),
            (
                lambda t: t.update({"head.weight": t["head.weight"] * np.float32(np.nan)}),
                ['"head.weight"', "not finite"],
            ),
            (lambda t: t.update({"head.weight": t["head.weight"].astype(np.int32)}), ['"head.weight"', "int32"]),
        ],
        ids=["missing", "spare", "shape", "nan", "integers"],
    )
    def test_tensors(self, folder: Path, change: Callable[..., object], parts: list[str]) -> None:
        file = folder / "tiny" / "model.safetensors"
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)
        says(attribute(), "tiny", *parts)

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            ({"d_model": 32}, ["has shape", "config.json implies"]),
            ({"d_model": 0}, ["config.json", "d_model"]),
            ({"d_model": None}, ["config.json", "d_model"]),
            ({"layers": []}, ["config.json", "at least one"]),
            ({"format": "other/1"}, ["config.json", "format"]),
            ({"colour": "blue"}, ["config.json", "colour"]),
            ({"reach": -1}, ["config.json", "reach"]),
            ({"complement": [0, 1]}, ["config.json", "complement"]),
            ({"layers": [{"kind": "lstm"}]}, ["config.json", "layers.0"]),
        ],
        ids=str,
    )
    def test_config(self, folder: Path, change: dict[str, object], parts: list[str]) -> None:
        file = folder / "tiny" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        says(attribute(), "tiny", *parts)

    @pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe{}", b"null"])
    def test_config_that_is_none(self, spoil: Callable[..., str], text: bytes) -> None:
        says(spoil(lambda _whole: text, "config.json"), "tiny/config.json")

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_missing_file(self, folder: Path, name: str) -> None:
        (folder / "tiny" / name).unlink()
        says(attribute(), "tiny", name)

    def test_a_file_for_a_folder(self, folder: Path) -> None:
        says(attribute(model="g.fa"), 'no model "g.fa"')

    def test_an_unknown_name(self, folder: Path) -> None:
        shutil.copytree("tiny", folder / "data" / "genoscan" / "models" / "yeast")
        says(attribute(model="yeats"), 'no model "yeats"', 'did you mean "yeast"?')
        says(refused("models", "show", "yeats"), 'did you mean "yeast"?')
