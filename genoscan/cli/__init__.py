"""Command-line interface of genoscan.

PyTorch is imported only when a command runs, so that help texts appear quickly.
"""

import os
import sys
from contextlib import suppress
from typing import NoReturn

import click

from genoscan import __version__
from genoscan.cli.failure import describe_failure
from genoscan.cli.group import Commands
from genoscan.cli.messages import show_log
from genoscan.cli.signals import INTERRUPTED, exit_status, ignore_signals, install_handlers
from genoscan.errors import GenoscanError


@click.group("genoscan", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-V",
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=lambda context, _option, wanted: _print_version(context) if wanted else None,
    help="Show the versions of genoscan and its libraries, and the device that is used, and exit.",
)
def cli() -> None:
    """Compute exact per-base sensitivities of Mamba DNA models, as genome browser tracks.

    Regions are written as in samtools: chr1:1,001-2,000 (1-based and inclusive).
    """


def _print_version(context: click.Context) -> None:
    """Print the versions that a report of a problem should contain; exit."""
    import platform
    from importlib.metadata import version

    import torch

    libraries = f"torch {torch.__version__}, numba {version('numba')}, Python {platform.python_version()}"
    device = f"cpu, {platform.machine()}"
    if torch.cuda.device_count():
        device = f"cuda, {torch.cuda.get_device_name()}"
    click.echo(f"genoscan, version {__version__}\n{libraries}\ndevice: {device}")
    context.exit()


def main(group: click.Group = cli) -> NoReturn:
    """Run the command given in `sys.argv`, and exit the process.

    The exit status is 0 on success, 1 on an error, 2 on a usage error, 129 on SIGHUP (a closed terminal),
    130 on Ctrl-C and 143 on SIGTERM. Errors other than usage errors are reported in a single line on standard error.

    Parameters
    ----------
    group
        Command group that contains the command.
    """
    # Idle torch threads would otherwise busy-wait on the cores that run the scan kernels.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    install_handlers()
    _permit_open_files()
    show_log()
    try:
        status = _run(group)
        sys.stdout.flush()
    except BaseException as error:
        status = _report(group, error)
    ignore_signals()
    _close_output()
    sys.exit(status)


def _permit_open_files() -> None:
    """Raise the limit of open files as far as permitted: outputs remain open until all of them are complete."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _run(group: click.Group) -> int:
    """Run the command given in `sys.argv`; return the exit status."""
    name = group.name or ""
    if f"_{name.upper()}_COMPLETE" in os.environ:
        group.main(prog_name=name)
    # Not group.main, which prints an empty line on Ctrl-C, and takes EOFError for Ctrl-C.
    with group.make_context(name, sys.argv[1:]) as context:
        group.invoke(context)
    return 0


def _report(group: click.Group, error: BaseException) -> int:
    """Print an error message for the exception that ended a command, if necessary; return the exit status."""
    if (stopped := exit_status()) is not None:
        # Libraries may have replaced KeyboardInterrupt by another exception.
        _print_stopped(group, "interrupted" if stopped == INTERRUPTED else "terminated", error)
        return stopped
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        _print_stopped(group, "interrupted", error)
        return INTERRUPTED
    if not isinstance(error, BrokenPipeError):
        known = isinstance(error, GenoscanError)
        _print(f"{group.name}: error: {' '.join((str(error) if known else describe_failure(error)).split())}")
    return 1


def _print_stopped(group: click.Group, how: str, error: BaseException) -> None:
    """Print that a signal ended the command, and what is kept (see `errors.note_unfinished`)."""
    _print(": ".join([f"{group.name}: {how}", *getattr(error, "__notes__", [])]))


def _print(line: str) -> None:
    with suppress(OSError):
        click.echo(line, err=True)


def _close_output() -> None:
    """Flush standard output; if this fails, redirect standard output to the null device.

    Without the redirection, the interpreter would report the same error again at shutdown.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
