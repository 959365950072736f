"""genoscan serve: run a local web server for one folder."""

from pathlib import Path

import click

from genoscan.cli.messages import log
from genoscan.cli.options import PATH


@click.command("serve")
@click.argument("folder", metavar="FOLDER", type=PATH)
@click.option(
    "--port", type=int, default=8000, show_default=True, metavar="PORT", help="TCP port; 0 selects a free one."
)
def command(folder: Path, port: int) -> None:
    """Serve a folder of tracks and sessions to browsers on this machine, until Ctrl-C.

    The server supports the byte-range requests of genome browsers. It accepts no connections from other
    machines and serves no files outside the folder.

    \b
    Example:
      genoscan serve results/
    """
    from genoscan.serve import server

    with server(folder, port) as running:
        click.echo(f"http://127.0.0.1:{running.server_port}/")
        log("press Ctrl-C to stop")
        running.serve_forever()
