"""What is documented exists, and what exists is documented."""

import doctest
import gzip
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from commands import PROGRAMS, ROOT, commands_in, elsewhere, genoscan

import genoscan as package

README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "benchmarks/README.md",
    ROOT / "workflows/README.md",
]


def walk(command: click.Command, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and of every group of commands."""
    yield names
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found, (*names, name))


COMMANDS = [words for program, group in PROGRAMS.items() for words in walk(group, program)]


def find(words: tuple[str, ...]) -> click.Command:
    """Return the command that words such as genoscan, track, merge name."""
    program = next(program for program in PROGRAMS if words[: len(program)] == program)
    command: click.Command = PROGRAMS[program]
    for name in words[len(program) :]:
        assert isinstance(command, click.Group), words
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"no command {' '.join(words)}"
        command = found
    return command


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_and_option_has_help(names: tuple[str, ...]) -> None:
    command = find(names)
    assert command.help
    first = command.help.splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= 88
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{names}: {parameter.opts} has no help"


def test_a_short_option_means_the_same_everywhere() -> None:
    meanings: dict[str, str] = {}
    for names in COMMANDS:
        for parameter in find(names).params:
            if isinstance(parameter, click.Option):
                long = next(opt for opt in parameter.opts if opt.startswith("--"))
                for opt in parameter.opts:
                    assert meanings.setdefault(opt, long) == long, f"{names}: {opt}"


@pytest.mark.parametrize("names", [n for n in COMMANDS if n[:-1] in PROGRAMS], ids=" ".join)
def test_readme_mentions_every_command(names: tuple[str, ...]) -> None:
    readme = README if names[0] == "genoscan" else (ROOT / "benchmarks/README.md").read_text()
    assert " ".join(names) in readme


@pytest.mark.parametrize("words", [words for page in PAGES for words in commands_in(page.read_text())], ids=" ".join)
def test_commands_parse(words: list[str]) -> None:
    """Every word is a command, an argument or an option that exists."""
    n_names = 3 if words[0] == "python" else 1
    while isinstance(find(tuple(words[:n_names])), click.Group):
        n_names += 1
    find(tuple(words[:n_names])).make_context(" ".join(words[:n_names]), words[n_names:])


def test_answers_print_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command in docs/faq.md prints the lines below it first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "chloroplast.fa.gz").write_bytes(gzip.compress((ROOT / "data/chloroplast.fa").read_bytes()))
    columns = "#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"
    row = "NC_000932.1", "54958", ".", "C", "G", ".", ".", "."
    (tmp_path / "calls.vcf").write_text("\n".join(["##fileformat=VCFv4.2", "\t".join(columns), "\t".join(row), ""]))
    coding = "--target", "genes:CDS+", "--context", 0, "--reach", 0, "-o", "coding.bw"
    assert (
        genoscan("attribute", "data/arabidopsis.fa", "-r", "Chr1_part:1-9", "-m", "arabidopsis-genes", *coding).code
        == 0
    )
    blocks = re.findall(r"```console\n\$ genoscan (.*)\n([^`]*)```", (ROOT / "docs/faq.md").read_text())
    assert len(blocks) > 9
    found = {command: genoscan(*shlex.split(command)).err for command, _ in blocks}
    assert {command: found[command] for command, printed in blocks if not found[command].startswith(printed)} == {}


def test_readme_lists_folders_that_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        if not link.startswith(("docs/", "models/")):
            assert (ROOT / link).exists(), link


def test_public_names() -> None:
    assert package.__all__ == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    assert all(hasattr(package, name) for name in package.__all__)
    assert not hasattr(package, "nothing")


def test_import_is_light() -> None:
    asks = """
import sys, json
import genoscan, genoscan.cli
print(json.dumps(sorted({"torch", "numpy", "numba", "pandas"} & set(sys.modules))))
sys.exit(0)
"""
    done = elsewhere(before=asks)
    assert done.code == 0, done.err
    assert json.loads(done.out) == []


WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "genoscan").rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_of_docstrings(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted and not found.failed
