"""genoscan completion: print a script for the completion of commands and options by a shell."""

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a script that completes commands, options and file names in a shell.

    SHELL is bash, zsh or fish. The script is to be loaded at the start of the shell.

    \b
    Examples:
      genoscan completion bash > ~/.local/share/bash-completion/completions/genoscan
      echo 'eval "$(genoscan completion zsh)"' >> ~/.zshrc
      genoscan completion fish > ~/.config/fish/completions/genoscan.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root()
    name = root.command.name or ""
    click.echo(found(root.command, {}, name, f"_{name.upper()}_COMPLETE").source())
