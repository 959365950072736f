"""Messages on standard error, and formatting of results as tables."""

from collections.abc import Mapping

import click


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


def table(rows: Mapping[str, object]) -> str:
    """Format names and values as a table with two aligned columns."""
    width = max(len(name) for name in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows.items())
