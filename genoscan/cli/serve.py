"""genoscan serve: a folder, for the browsers of this machine."""

from pathlib import Path

import click

from genoscan.cli.options import PATH, say


@click.command("serve")
@click.argument("folder", metavar="FOLDER", type=PATH)
@click.option(
    "--port", type=int, default=8000, show_default=True, metavar="PORT",
    help="Where to listen; 0: any that is free.",
)  # fmt: skip
def command(folder: Path, port: int) -> None:
    """Serve a folder with tracks and sessions to this machine alone, until Ctrl-C.

    Ranges of files are sent, as genome browsers ask for them, and nothing outside the folder.

    \b
    Example:
      genoscan serve results/
    """
    from genoscan.serve import server

    with server(folder, port) as running:
        click.echo(f"http://127.0.0.1:{running.server_port}/")
        say("Ctrl-C ends it")
        running.serve_forever()
