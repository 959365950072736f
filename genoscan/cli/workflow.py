"""genoscan workflow: locate, copy or run the Snakemake workflow."""

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

    The settings of the workflow are in FOLDER/config/config.yaml.
    """
    from genoscan.workflow import copy_workflow

    copy_workflow(folder)
    log("enter your genome and regions in this file; it contains those of the example")
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
