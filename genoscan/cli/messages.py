"""Messages on standard error, and formatting of results as tables."""

import logging
from collections.abc import Collection, Mapping, Sequence

import click

_UNITS = ("TB", 10**12), ("GB", 10**9), ("MB", 10**6)


class _Echo(logging.Handler):
    """Handler that writes log messages to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        log(record.getMessage())


_ECHO = _Echo()


def show_log() -> None:
    """Write log messages of the package, of level INFO or higher, to standard error."""
    logger = logging.getLogger("genoscan")
    logger.setLevel(logging.INFO)
    logger.addHandler(_ECHO)


def warn_without_effect(**reasons: str) -> None:
    """Log, in one line, the given options of the current command that have no effect.

    Parameters
    ----------
    **reasons
        Reason why each parameter has no effect, by parameter name. Parameters that were not given on
        the command line are ignored.
    """
    context = click.get_current_context()
    given = [
        f"{parameter.opts[-1]} ({reasons[parameter.name]})"
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name in reasons
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        log(f"without effect: {'; '.join(given)}")


def log(text: str) -> None:
    """Write a message to standard error; standard output is reserved for results."""
    click.echo(text, err=True)


def format_duration(seconds: float) -> str:
    """Format a duration in the unit in which it is easily read: seconds, minutes, hours, or days and hours."""
    if seconds < 100:
        return f"{seconds:,.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:,.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:,.1f} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days:,} days {hours} h"


def format_size(n_bytes: float) -> str:
    """Format a number of bytes in MB or, if it is large, in GB or TB."""
    unit, size = _unit(n_bytes)
    return f"{n_bytes / size:,.1f} {unit}"


def size_option(n_bytes: int) -> str:
    """Format a number of bytes, rounded up, as a value of --memory: in whole MB, or in GB or TB if it is large."""
    unit, size = _unit(n_bytes)
    if unit == "MB":
        return f"{-(-n_bytes // size)}MB"
    tenths = -(-10 * n_bytes // size)
    return f"{tenths // 10}.{tenths % 10}{unit}"


def _unit(n_bytes: float) -> tuple[str, int]:
    return next((unit, size) for unit, size in _UNITS if n_bytes >= size or unit == "MB")


def table(rows: Mapping[str, object]) -> str:
    """Format names and values as a table with two aligned columns."""
    return aligned([(name, str(value)) for name, value in rows.items()])


def aligned(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Format rows of cells as a table with aligned columns, those with the indices in `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
