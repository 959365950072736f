"""README's commands run, in README's order, on small inputs."""

import itertools
import re
import shutil
from pathlib import Path

import pyBigWig
import pysam
import pytest
from commands import ROOT, bases, commands_in, genoscan, tiny_model, write_fasta
from headed import write_headed

from genoscan.layers import catalogue

README = (ROOT / "README.md").read_text()
COMMANDS = commands_in(re.sub(r"`(genoscan [^`\n]* -o [^`\n]*)`", r"\n```bash\n\1\n```\n", README))
"""Commands in blocks, and those in lines that write a file."""
SKIPPED = {
    "genoscan models import kuleshov-group/caduceus": "needs a network; tests/test_foreign_files.py has such files",
    "genoscan serve": "runs until it is stopped; tests/test_serve.py",
    "genoscan workflow run": "takes a minute, and the user's configuration; tests/test_workflow.py runs it",
}
"""Beginnings of the commands that are not run, and reasons."""
SMALLER = {
    "train": ["--steps", "2", "--width", "8", "--layers", "1", "--window", "64", "--batch", "2"],
    "verify": ["--region", "chr1:1-2,048"],
    "models measure": ["--regions", "1", "--longest", "512"],
}
"""Options that are added to commands that would take minutes; the last of two regions counts."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that README's commands read; small models have the names of those that it uses."""
    letters = bases(110_500, 1)
    letters = letters[:10_499] + "C" + letters[10_500:]
    write_fasta(tmp_path / "chr.fa", {"chr1": letters})
    for number, name in enumerate(("genome", "genome1", "genome2", "genome3")):
        write_fasta(tmp_path / f"{name}.fa", {f"chr{number or 1}": bases(6_000, number)})
    (tmp_path / "peaks.bed").write_text("chr1\t2000\t2200\tpeak1\nchr1\t3000\t3300\tpeak2\n")
    rows = [("gene", "ID=g;Name=GATA1"), ("mRNA", "ID=t;Parent=g"), ("exon", "Parent=t"), ("CDS", "ID=c;Parent=t")]
    lines = [f"chr1\tx\t{kind}\t2101\t2400\t.\t+\t{'0' if kind == 'CDS' else '.'}\t{about}\n" for kind, about in rows]
    (tmp_path / "genes.gff3").write_text("##gff-version 3\n" + "".join(lines))
    with pyBigWig.open(str(tmp_path / "phylop.bw"), "w") as track:
        track.addHeader([("chr1", len(letters))])
        track.addEntries("chr1", 1_990, values=[0.5] * 2_000, span=1, step=1)
    header = "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (tmp_path / "calls.vcf").write_text(f"{header}chr1\t10500\t.\tC\tT\t.\t.\t.\n")
    pysam.tabix_index(str(tmp_path / "calls.vcf"), preset="vcf")
    (tmp_path / "data").symlink_to(ROOT / "data")
    tiny_model(tmp_path / "models" / "bacteria")
    head = {"kind": "per_base", "link": "sigmoid", "complement": [1, 0]}
    for name, label in (("arabidopsis-genes", "CDS"), ("my-model", "donor")):
        labels = {"genes" if label == "CDS" else "sites": head | {"labels": [f"{label}+", f"{label}-"]}}
        write_headed(tmp_path / "models" / name, "bidirectional", heads=labels)
    monkeypatch.setattr(catalogue, "model_search_path", lambda: [tmp_path / "models"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outputs(words: list[str]) -> list[str]:
    return [value for option, value in itertools.pairwise(words) if option in ("-o", "--output")]


@pytest.mark.slow
def test_readme_commands_run(folder: Path) -> None:
    found = [words for words in COMMANDS if not " ".join(words).startswith(tuple(SKIPPED))]
    assert len(found) > 18
    for words in found:
        if words[1] == "train":  # instead of the commands before it
            shutil.rmtree("my-model", ignore_errors=True)
        smaller = SMALLER.get(words[1], []) + SMALLER.get(" ".join(words[1:3]), [])
        done = genoscan(*words[1:], *smaller)
        assert done.code == 0, (words, done.err)
        for name in outputs(words):
            stem, _, suffix = name.rpartition(".")
            assert Path(name).exists() or list(folder.glob(f"{stem}.*.{suffix}")), words


@pytest.mark.slow
def test_the_first_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the model that it names, it prints what README says that it prints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    done = genoscan(*COMMANDS[0][1:])
    stated = re.search(r"```\n([^`]* bases in [^`]*)```", README)
    assert stated
    assert without_times(done.err + done.out) == without_times(stated[1])


def without_times(text: str) -> str:
    return re.sub(r"[\d.,]+ (s|bases/s)\b", "#", text)


def test_skipped_commands_are_in_readme() -> None:
    commands = [" ".join(words) for words in COMMANDS]
    for beginning, reason in SKIPPED.items():
        assert reason
        assert any(command.startswith(beginning) for command in commands), beginning
