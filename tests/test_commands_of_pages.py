"""The commands of README and of the pages run, in the order of each page, on small files of the names used there."""

import re
import shutil
from itertools import pairwise
from pathlib import Path

import pyBigWig
import pytest
from Bio.bgzf import BgzfWriter
from commands import ROOT, genoscan, write_fasta
from test_docs import commands_in

LENGTH = 120_000
# Commands that need a network, a server, a GPU, another program or hours.
LEFT_OUT = re.compile(
    r"genoscan (serve|train|models import|workflow)|--device cuda|--steps auto|hg38|caduceus|\$|-m (model|classifier)"
)
PAGES = (
    "README.md",
    "docs/first-steps.md",
    "docs/regions.md",
    "docs/computed.md",
    "docs/exactness.md",
    "docs/peaks.md",
    "docs/variants.md",
    "docs/mutagenesis.md",
    "docs/genes.md",
    "docs/averages.md",
    "docs/cluster.md",
    "docs/pages.md",
    "docs/region-tables.md",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the pages name: chr.fa, peaks.bed, calls.vcf.gz and so on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "predicted").mkdir()
    shutil.copytree(ROOT / "models/arabidopsis-genes", tmp_path / "my-model")
    lines = (ROOT / "data/chloroplast.fa").read_text().splitlines()[1:]
    letters = bytearray("".join(lines)[:LENGTH].encode())
    for position, base in ((1_024, b"A"), (2_000, b"G"), (2_001, b"T"), (10_500, b"C")):
        letters[position - 1 : position] = base
    write_fasta(tmp_path / "chr.fa", {"chr1": letters.decode()})
    (tmp_path / "peaks.bed").write_text(
        "".join(f"chr1\t{at}\t{at + 500}\tpeak{at}\t0\t+\n" for at in range(5_000, 17_000, 2_000))
    )
    genes = (ROOT / "data/arabidopsis.gff3").read_text()
    (tmp_path / "genes.gff3").write_text(genes.replace("Chr1_part", "chr1").replace("DIN9", "GATA1"))
    (tmp_path / "exons.bed").write_text("Chr1_part\t12323\t12683\tDIN9\t0\t+\nChr1_part\t13213\t13381\tDIN9\t0\t+\n")
    columns = "#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"
    header = "##fileformat=VCFv4.2\n" + "\t".join(columns) + "\n"
    with BgzfWriter(str(tmp_path / "calls.vcf.gz")) as file:
        file.write((header + "chr1\t10500\t.\tC\tT\t.\t.\t.\n").encode())
    (example,) = re.findall(r"(?ms)^(NC_000932.1 .*?)```", (ROOT / "docs/variants.md").read_text())
    (tmp_path / "calls.vcf").write_text(header + re.sub(r" {2,}", "\t", example))
    (tmp_path / "other.bedgraph").write_text("chr1\t5000\t5100\t0.5\n")
    for name in ("phylop.bw", "atac.bw"):
        with pyBigWig.open(str(tmp_path / name), "w") as track:
            track.addHeader([("Chr1_part", 40_000)])
            track.addEntries("Chr1_part", 12_000, values=[0.25, 0.5, 1.0], span=100, step=100)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_run(page: str, folder: Path) -> None:
    commands = [words[1:] for words in commands_in((ROOT / page).read_text()) if words[0] == "genoscan"]
    commands = [words for words in commands if not LEFT_OUT.search(" ".join(["genoscan", *words]))]
    assert commands
    for words in commands:
        done = genoscan(*words)
        assert done.code == 0, (" ".join(words), done.err)
        for option, value in pairwise(words):
            if option == "-o" and words[0] != "plan":  # for some options, P.bw stands for P.plus.bw and so on
                assert any(folder.glob(f"{Path(value).stem}*")), (words, value)
