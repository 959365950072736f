"""genoscan workflow: the Snakemake workflow that comes along."""

import sys
from pathlib import Path

import click

from genoscan.cli.options import PATH, say


@click.group("workflow")
def command() -> None:
    """Find, copy or run the Snakemake workflow."""


@command.command("path")
def path() -> None:
    """Print where the Snakefile is."""
    from genoscan.workflow import snakefile

    click.echo(snakefile())


@command.command("init")
@click.argument("folder", metavar="FOLDER", type=PATH)
def init(folder: Path) -> None:
    """Copy the workflow to FOLDER; what to change is FOLDER/config/config.yaml."""
    from genoscan.workflow import copy_workflow

    copy_workflow(folder)
    say("name your genome and regions in it: those there are the example's")
    click.echo(folder / "config" / "config.yaml")


@command.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", metavar="[SNAKEMAKE'S ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
def run(arguments: tuple[str, ...]) -> None:
    """Run the workflow in this folder, with Snakemake's own arguments.

    \b
    Example:
      genoscan workflow run --configfile my.yaml --cores 8
    """
    from genoscan.workflow import run_workflow

    sys.exit(run_workflow(arguments))
