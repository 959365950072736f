"""Functions that locate, copy and run the Snakemake workflow distributed with genoscan."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from genoscan.errors import InputError
from genoscan.tracks.atomic import atomic_directory, check_new_folder, os_errors


def snakefile() -> Path:
    """Return the path of the Snakefile, which is in the installed package or in the source checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_workflows"
    return (installed if installed.is_dir() else package.parent / "workflows") / "Snakefile"


def copy_workflow(folder: Path) -> None:
    """Copy the workflow to a new folder.

    Raises
    ------
    InputError
        If the folder already exists.
    OutputError
        If the folder cannot be written.
    """
    check_new_folder(folder)
    with os_errors(folder), atomic_directory(folder) as made:
        # Files of earlier runs are not part of the workflow.
        left = shutil.ignore_patterns(".snakemake", "results", "logs", "benchmarks")
        shutil.copytree(snakefile().parent, made, ignore=left)


def run_workflow(arguments: Sequence[str]) -> int:
    """Run the workflow in the current folder; return Snakemake's exit status.

    Parameters
    ----------
    arguments
        Command-line arguments passed to Snakemake.

    Returns
    -------
    int
        Exit status of Snakemake.

    Raises
    ------
    InputError
        If Snakemake is not installed.
    """
    if importlib.util.find_spec("snakemake") is None:
        raise InputError("genoscan workflow run: Snakemake is not installed: pip install snakemake")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile()), *arguments]
    return subprocess.run(command, check=False).returncode
