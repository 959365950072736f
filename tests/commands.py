"""Commands run as a shell runs them, on a tiny model and tiny genomes."""

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from unittest import mock

import click
import numpy as np
import torch
from toys import tiny_config, tiny_stack

from benchmarks.cli import cli as benchmark_cli
from genoscan.cli import cli, failure, main
from genoscan.layers.weights import save_model

CONTEXT, REACH = 64, 32
ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {("genoscan",): cli, ("python", "-m", "benchmarks"): benchmark_cli}


class Outcome(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def genoscan(*arguments: object, group: click.Group = cli) -> Outcome:
    """Run a command in this process; a crash escapes with its traceback."""
    out, err = io.StringIO(), io.StringIO()
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM
    handlers, hook = [signal.getsignal(number) for number in numbers], sys.unraisablehook
    with (
        mock.patch.object(failure, "_saved_traceback", _raise),
        mock.patch.object(sys, "argv", [group.name, *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main(group)
        except SystemExit as end:
            code = end.code
        finally:
            sys.unraisablehook = hook
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
    assert isinstance(code, int)
    assert_options_exist(group, [str(argument) for argument in arguments], err.getvalue())
    return Outcome(code, out.getvalue(), err.getvalue())


def assert_options_exist(group: click.Group, arguments: list[str], err: str) -> None:
    """Check that errors name only options of the command that was run, or of a command that they name."""
    command: click.Command = group
    for argument in arguments:
        if isinstance(command, click.Group) and (found := command.get_command(click.Context(command), argument)):
            command = found
    options = {name for parameter in command.params for name in parameter.opts}
    for line in err.splitlines():
        if line.startswith("genoscan: error:"):
            # Options of another command follow its name, as in "attribute --shard"; quoted input is not advice.
            own = re.sub(r"\b(genoscan|attribute|response|plan|serve|samtools|bcftools) [^;:,)]*", "", line)
            unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", own)) - options - set(arguments)
            assert not unknown, (unknown, line)


def _raise(error: BaseException) -> NoReturn:
    raise error


def benchmark(*arguments: object) -> Outcome:
    """Run `python -m benchmarks` in this process."""
    return genoscan(*arguments, group=benchmark_cli)


def commands_in(text: str) -> list[list[str]]:
    """Return the commands of ours in blocks of code, word by word."""
    found = []
    for language, block in re.findall(r"```(bash|console|sh)\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if language == "console" and not line.startswith("$ "):
                continue  # output
            for part in re.split(r"&&|\||;", line.split(" #")[0]):
                command = part.strip().removeprefix("$ ")
                if command.startswith(tuple(" ".join([*program, ""]) for program in PROGRAMS)):
                    found.append(shlex.split(command))
    return found


def elsewhere(*arguments: object, before: str = "", package: str = "genoscan", **options: Any) -> Outcome:
    """Run a command in a process of its own, after the statements of `before`."""
    script = f"{before}\nimport {package}.__main__"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=120,
        **options,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def tiny_model(folder: Path) -> Path:
    """Write a model of two layers that reads 64 bases before a region and 32 past it."""
    config = tiny_config().model_copy(update={"context": CONTEXT, "reach": REACH})
    save_model(folder, config, tiny_stack(dtype=torch.float32), "# tiny\n\nUntrained.\n")
    return folder


def edited_model(folder: Path) -> Path:
    """Write the same model with another eps: the same weights, another function."""
    config = json.loads((tiny_model(folder) / "config.json").read_text())
    config["norm"]["eps"] = 1e-3
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def bases(length: int, seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def write_fasta(path: Path, sequences: Mapping[str, str], *, end: str = "\n") -> Path:
    """Write a FASTA file in lines of 60."""
    with path.open("w", newline="") as file:
        for name, letters in sequences.items():
            lines = [letters[i : i + 60] for i in range(0, len(letters), 60)]
            file.write(end.join([f">{name}", *lines, ""]))
    return path


def listing(folder: Path) -> set[str]:
    """Return what lies in a folder, hidden files too, indexes of FASTA files apart."""
    return {path.name for path in folder.iterdir() if path.suffix not in (".fai", ".gzi")}
