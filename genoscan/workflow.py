"""The Snakemake workflow that comes along: where it is, a copy of it, a run of it."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from genoscan.errors import InputError
from genoscan.tracks.atomic import atomic_directory, os_errors


def snakefile() -> Path:
    """Return the Snakefile of this installation, or of the checkout that it is."""
    package = Path(__file__).resolve().parent
    installed = package / "_workflows"
    return (installed if installed.is_dir() else package.parent / "workflows") / "Snakefile"


def copy_workflow(folder: Path) -> None:
    """Copy the workflow to a folder that is not there yet.

    Raises
    ------
    InputError
        If it is there.
    OutputError
        If it cannot be written.
    """
    if folder.exists():
        raise InputError(f"{folder}: is there already: name a folder that is not")
    with os_errors(folder), atomic_directory(folder) as made:
        # What a run has left there is not the workflow.
        left = shutil.ignore_patterns(".snakemake", "results", "logs", "benchmarks")
        shutil.copytree(snakefile().parent, made, ignore=left)


def run_workflow(arguments: Sequence[str]) -> int:
    """Run Snakemake on the workflow, in this folder, with its own arguments; return its status.

    Raises
    ------
    InputError
        If there is no Snakemake.
    """
    if importlib.util.find_spec("snakemake") is None:
        raise InputError("genoscan workflow run: Snakemake is not here: pip install snakemake")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile()), *arguments]
    return subprocess.run(command, check=False).returncode
