"""genoscan workflow: locate, copy or run the Snakemake workflow."""

import json
import sys
from pathlib import Path

import click

from genoscan.cli.messages import log
from genoscan.cli.options import PATH


@click.group("workflow")
def command() -> None:
    """Locate, copy or run the Snakemake workflow."""


@command.command("path")
def path() -> None:
    """Print the path of the Snakefile."""
    from genoscan.workflow import snakefile

    click.echo(snakefile())


@command.command("init")
@click.argument("folder", metavar="FOLDER", type=PATH)
def init(folder: Path) -> None:
    """Copy the workflow to a new folder.

    The settings of the workflow are in FOLDER/config/config.yaml; they are those of an example, whose data are
    copied, too.
    """
    from genoscan.workflow import copy_workflow

    copy_workflow(folder)
    log("cd to the folder and run snakemake for the example; enter your genome and regions in this file")
    click.echo(folder / "config" / "config.yaml")


@command.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", metavar="[SNAKEMAKE'S ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
def run(arguments: tuple[str, ...]) -> None:
    """Run the workflow in the current folder. All arguments are passed to Snakemake.

    \b
    Example:
      genoscan workflow run --configfile my.yaml --cores 8
    """
    from genoscan.workflow import run_workflow

    sys.exit(run_workflow(arguments))


@command.command("check")
@click.argument("config_path", metavar="CONFIG", type=PATH)
@click.option(
    "-o", "--output", metavar="FILE", type=PATH, required=True, help="JSON file to write: the shards of each run."
)
def check(config_path: Path, output: Path) -> None:
    """Check all inputs of a configuration, and plan its shards, before anything is computed.

    The workflow runs this command first. CONFIG is the configuration as JSON, which the workflow writes to
    results/config.json. All errors are listed: regions and features past the end of a sequence, unknown models
    and targets, and others.

    \b
    Example:
      genoscan workflow check results/config.json -o results/plan.json
    """
    from genoscan.cli.workflow_check import check_config
    from genoscan.tracks.atomic import atomic_write, os_errors
    from genoscan.tracks.outputs import check_file
    from genoscan.workflow import read_config

    config = read_config(config_path)
    check_file(output, [config_path, *map(Path, config.files)])
    plan = check_config(config)
    with atomic_write(output) as part, os_errors(output):
        part.write_text(json.dumps({"runs": plan}, indent=1) + "\n")
    click.echo(output)
