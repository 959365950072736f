"""No module imports itself, directly or through others; imports inside functions count."""

import ast
import re
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
from commands import ROOT


def test_no_import_cycles() -> None:
    graph = grimp.build_graph("genoscan")
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError with the modules of a cycle


def test_attribution_needs_no_library_for_tables_or_figures() -> None:
    """Their imports take half a second and 30 MB, of every command."""
    graph = grimp.build_graph("genoscan", include_external_packages=True)
    for module in ("pipeline", "prediction.tracks", "estimate", "record", "importer", "genome.genome"):
        for library in ("pandas", "plotly"):
            chain = graph.find_shortest_chain(f"genoscan.{module}", library)
            assert chain is None, " imports ".join(chain)


def test_only_command_lines_import_click() -> None:
    graph = grimp.build_graph("genoscan", "benchmarks", include_external_packages=True)
    users = graph.find_modules_that_directly_import("click")
    assert "genoscan.cli.attribute" in users
    assert {user for user in users if not user.startswith(("genoscan.cli", "benchmarks.cli"))} == set()


def test_contributing_lists_the_layers_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (checked,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    lines = (ROOT / "CONTRIBUTING.md").read_text().partition("`lint-imports` checks this")[2].splitlines()
    listed = [match[0].strip() for line in lines if (match := re.match(r" {4}\w+( \| \w+)*(?=  |$)", line))]
    assert listed == checked


def test_names_of_tests_do_not_depend_on_the_time() -> None:
    """Parameters become names, which must be equal in all processes of a run; a gzip header contains the time."""
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for decorator in getattr(node, "decorator_list", []):
                for call in ast.walk(decorator):
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == "gzip.compress":
                        assert "mtime" in {keyword.arg for keyword in call.keywords}, f"{path}:{call.lineno}"
