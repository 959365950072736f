"""Commands are loaded when they run, so that help is quick."""

import importlib

import click

_COMMANDS = {
    "attribute": "The main job: exact sensitivity of every base of every region, as a track.",
    "response": "What changing one base does to the predictions around it, as a track.",
    "verify": "Prove exactness on your own model and sequence.",
    "plan": "Say what attribute would cost, before it runs.",
    "track": "Merge, convert and compare tracks.",
    "report": "What a track holds, on one page.",
    "export": "Make pages and browser sessions of finished tracks.",
    "serve": "Serve a folder to this machine's genome browsers.",
    "workflow": "Find, copy or run the Snakemake workflow.",
    "models": "List models; show a model's card.",
    "train": "Train a model on genomes.",
}


class Commands(click.Group):
    """Lists commands in the order of work, and imports one only to run it."""

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
