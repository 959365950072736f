"""The command-line interface.

torch is not imported until a command runs.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from genoscan import __version__
from genoscan.cli.group import Commands
from genoscan.errors import GenoscanError

_INTERRUPTED, _TERMINATED = 130, 143


@click.group("genoscan", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="genoscan")
def cli() -> None:
    """Exact per-base sensitivities of Mamba DNA models, as genome browser tracks.

    Regions are written as in samtools: chr1:1,001-2,000 is 1-based and inclusive.
    """


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(_TERMINATED)


def main(group: click.Group = cli) -> NoReturn:
    """Run a command of a group and exit the process.

    The exit status is 0 on success, 1 on an error, which is reported in one line, 2 on a usage
    error, 130 on Ctrl-C and 143 on SIGTERM.
    """
    # Idle torch threads would otherwise busy-wait on the cores that run the scan kernels.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        group.main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{group.name}: interrupted", err=True)
        sys.exit(_INTERRUPTED)
    except GenoscanError as error:
        click.echo(f"{group.name}: error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    sys.exit(0)
