"""Command group that imports each command only when it is used, so that help texts appear quickly."""

import importlib

import click

_COMMANDS = {
    "attribute": "Compute the exact sensitivity of every base of every region, as a track.",
    "predict": "Write the model's predictions as tracks.",
    "variants": "Compute the effects of variants (VCF) on a target.",
    "mutate": "Compute the effect of every substitution of a region (saturation mutagenesis).",
    "response": "Compute how changing one base changes the predictions around it, as a track.",
    "dependency": "Compute how each base's prediction depends on each other base, as a map.",
    "verify": "Check exactness on your own model and sequence.",
    "plan": "Estimate the memory, disk space and time that attribute needs.",
    "track": "Merge, convert, compare, summarize and profile tracks.",
    "report": "Summarise a track on one page.",
    "export": "Export tracks to web pages, genome browsers and motif tools.",
    "serve": "Serve a folder to genome browsers on this machine.",
    "workflow": "Locate, copy or run the Snakemake workflow.",
    "models": "List, show, import and measure models.",
    "train": "Train a model on genomes.",
    "help": "Print help on a command, or on targets, scores or memory.",
    "completion": "Print a script for completion in bash, zsh or fish.",
}


class Commands(click.Group):
    """Command group that imports commands on first use, and lists them in the order of a typical analysis."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"genoscan.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))
