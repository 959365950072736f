"""The notebooks run, and print what is stored in them."""

import re

import nbformat
import pytest
from commands import ROOT

from docs.notebooks.execute import FOLDER, execute

NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
LARGEST = 500_000
"""Bytes of a notebook with its pictures."""

_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the text that the cells print and return, figures apart."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.get("text") or output.get("data", {}).get("text/plain") for output in outputs]
    return [text for text in texts if text is not None]


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text)]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_outputs(name: str) -> None:
    path = FOLDER / name
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < LARGEST
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run docs/notebooks/execute.py"
    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"execute_result", "display_data", "stream"}
    assert all(output.get("name") != "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert str(ROOT) not in path.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", "".join(cell.source for cell in notebook.cells)):
        assert (FOLDER / link).exists(), link


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_run_prints_what_is_stored(name: str) -> None:
    stored = printed(nbformat.read(FOLDER / name, as_version=4))
    found = printed(execute(FOLDER / name, figures="json"))
    assert len(found) == len(stored)
    for one, other in zip(found, stored, strict=True):
        assert _NUMBER.sub("#", one).split() == _NUMBER.sub("#", other).split()
        # Printed with 2 or 3 decimals; compilers and processors round differently.
        assert numbers(one) == pytest.approx(numbers(other), rel=1e-2, abs=2e-3)
