"""genoscan help: print the help of a command, or on a topic that concerns several commands."""

import click

from genoscan.cli.topics import TOPICS


@click.command("help")
@click.argument("words", metavar="[TOPIC|COMMAND]...", nargs=-1)
def command(words: tuple[str, ...]) -> None:
    """Print help on a topic or a command.

    Topics: targets (what is differentiated), scores (how four derivatives become one number, its sign and unit) and
    memory (what a run needs, and how to change it).

    \b
    Examples:
      genoscan help targets
      genoscan help track merge
    """
    if len(words) == 1 and words[0] in TOPICS:
        click.echo(TOPICS[words[0]], nl=False)
        return
    context = click.get_current_context().find_root()
    for word in words:
        group = context.command
        found = group.get_command(context, word) if isinstance(group, click.Group) else None
        if found is None:
            raise click.UsageError(f"no topic or command {' '.join(words)}; topics are {', '.join(TOPICS)}")
        context = click.Context(found, info_name=word, parent=context)
    click.echo(context.get_help())
