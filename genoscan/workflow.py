"""Functions that locate, copy and run the Snakemake workflow distributed with genoscan, and read its configuration."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from genoscan.errors import InputError, note_unfinished
from genoscan.json_input import first_problem, parse_json
from genoscan.tracks.atomic import atomic_directory, check_new_folder, os_errors

_EXAMPLE = re.compile(r"\.\./data/(\S+)")
"""Example data in the configuration, as seen from the folder of the workflow in a checkout."""


def snakefile() -> Path:
    """Return the path of the Snakefile."""
    return _shipped("workflows") / "Snakefile"


def _shipped(folder: str) -> Path:
    """Return a folder that is distributed with genoscan, in the installed package or in the source checkout."""
    package = Path(__file__).resolve().parent
    installed = package / f"_{folder}"
    return installed if installed.is_dir() else package.parent / folder


def copy_workflow(folder: Path) -> None:
    """Copy the workflow to a new folder, with the data of its example.

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
        config, data = made / "config" / "config.yaml", made / "data"
        text = config.read_text()
        data.mkdir()
        for name in _EXAMPLE.findall(text):
            shutil.copy(_shipped("data") / name, data)
        config.write_text(_EXAMPLE.sub(r"data/\1", text))


def run_workflow(arguments: Sequence[str]) -> int:
    """Run the workflow in the current folder; return Snakemake's exit status. Logs of failed jobs are printed.

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
    options = ["--snakefile", str(snakefile()), "--show-failed-logs"]
    command = [sys.executable, "-m", "snakemake", *options, *arguments]
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # Programs inherit SIG_IGN, but no handlers: Snakemake ends at SIGINT, also if genoscan ignores Ctrl-C.
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
    # The jobs run this genoscan, also if its environment is not activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    # In a separate process group, so that Ctrl-C in a terminal does not interrupt Snakemake directly, and again while
    # it shuts down. A group in the background cannot read from the terminal.
    environment = os.environ | {"PATH": path}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, env=environment)
    try:
        return _wait(process)
    except BaseException as error:
        # Snakemake waits for its jobs, which SIGINT ends, too; both remove their locks and temporary files.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait()
        note_unfinished(error, "finished files are kept")
        raise


def _wait(process: "subprocess.Popen[bytes]") -> int:
    """Return the exit status of a process, whose group Ctrl-Z suspends together with genoscan."""

    def suspend(_number: int, _frame: FrameType | None) -> None:
        os.killpg(process.pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.killpg(process.pid, signal.SIGCONT)

    before = signal.signal(signal.SIGTSTP, suspend)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGTSTP, before)


class _Entry(BaseModel):
    """Entry of a configuration. All keys without a meaning here are options of the command, without dashes."""

    model_config = ConfigDict(strict=True, extra="allow")

    @property
    def options(self) -> list[str]:
        """Options for the command line; a key that is true is a flag."""
        given = (self.model_extra or {}).items()
        return [f"--{name}" if value is True else f"--{name}={value}" for name, value in given if value is not False]


class RegionEntry(_Entry):
    """Run or mutagenesis of the regions in a BED file, `regions`."""

    regions: str


class VariantEntry(_Entry):
    """Effects of the variants in a file, `file`."""

    file: str


class WorkflowConfig(BaseModel):
    """Configuration of the workflow (workflows/config/README.md).

    Attributes
    ----------
    genome, annotation
        Files to read; the annotation may be None.
    shards
        Number of shards that are wanted for each run.
    threads, device
        Options of each job.
    runs, variants, mutations
        Entries by name.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    genome: str
    annotation: str | None = None
    shards: PositiveInt = 1
    threads: PositiveInt = 2
    device: str = "auto"
    runs: dict[str, RegionEntry] = {}
    variants: dict[str, VariantEntry] = {}
    mutations: dict[str, RegionEntry] = {}

    @property
    def files(self) -> list[str]:
        """Paths of all inputs."""
        given = [self.genome, *([] if self.annotation is None else [self.annotation])]
        given += [entry.regions for entry in (*self.runs.values(), *self.mutations.values())]
        return given + [entry.file for entry in self.variants.values()]


def read_config(path: Path) -> WorkflowConfig:
    """Read the configuration that the workflow writes as JSON.

    Raises
    ------
    InputError
        If the file cannot be read, is not JSON, or a value is invalid.
    """
    try:
        return WorkflowConfig.model_validate(parse_json(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}, expected JSON, as the workflow writes to results/config.json") from None
