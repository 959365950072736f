"""Annotated shapes of the engine and the layers, checked at every call of some of their tests.

In all tests that would take a third of their time.
"""

import subprocess
import sys
from pathlib import Path

PACKAGES = "genoscan.engine,genoscan.layers,beartype.beartype"
CHOSEN = {
    "test_engine": "whole_window",
    "test_by_layer": "autograds",
    "test_layers": "float32 and split",
    "test_pd_ssm": "engines_derivatives or both_directions",
    "test_foreign": "logits",
}


def test_annotated_shapes_are_those_of_the_calls() -> None:
    options = ["-n", "0", "-q", "-p", "no:cacheprovider", f"--jaxtyping-packages={PACKAGES}"]
    chosen = " or ".join(f"({file} and ({tests}))" for file, tests in CHOSEN.items())
    files = [str(Path(__file__).with_name(f"{file}.py")) for file in CHOSEN]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-k", chosen, *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
