"""Pages on the commands, generated from their click definitions: one page for each command or group."""

import re
from collections.abc import Iterator
from html import escape
from textwrap import dedent

import click

_VERBATIM = "\b\n"  # click prints a paragraph that begins with it as it is
_EXTRAS = re.compile(r"  \[(.*)\]$", re.DOTALL)
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def command_pages(group: click.Group) -> list[tuple[str, str, str]]:
    """Return the title, the path and the Markdown of the page on each command of a group, an overview first."""
    context = click.Context(group, info_name=group.name)
    pages = []
    rows = ["| command | |", "|---|---|"]
    for name, command in _subcommands(context):
        title = f"{group.name} {name}"
        text = "\n".join(_section(command, click.Context(command, info_name=name, parent=context), level=1))
        pages.append((title, f"docs/commands/{name}.md", text))
        rows.append(f"| [`{title}`]({name}.md) | {_marked(command.help or '').splitlines()[0]} |")
    overview = ["# Commands", "", *rows, "", *_options(group, context)]
    return [("Overview", "docs/commands/index.md", "\n".join(overview)), *pages]


def _subcommands(context: click.Context) -> Iterator[tuple[str, click.Command]]:
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                yield name, command


def _section(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}\n"
    yield f"```text\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```\n"
    yield from _description(command.help or "")
    yield from _options(command, context)
    for name, subcommand in _subcommands(context):
        yield from _section(subcommand, click.Context(subcommand, info_name=name, parent=context), level + 1)


def _description(text: str) -> Iterator[str]:
    for paragraph in dedent("    " + text).strip().split("\n\n"):
        if not paragraph.startswith(_VERBATIM):
            yield f"{_marked(paragraph)}\n"
            continue
        first, _, rest = paragraph.removeprefix(_VERBATIM).partition("\n")
        if rest and first.endswith(":"):
            yield f"**{first}**\n\n```bash\n{dedent(rest)}\n```\n"
        else:
            yield f"```text\n{dedent(paragraph.removeprefix(_VERBATIM))}\n```\n"


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    prefix = "-".join(context.command_path.split()[1:])
    yield '<dl class="options">'
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if not isinstance(parameter, click.Option) or record is None:
            continue
        names, text = record
        long = max(parameter.opts, key=len).lstrip("-")
        extras = _EXTRAS.search(text)
        text = _EXTRAS.sub("", text)
        marks = f' <span class="default">{_marked_html(extras[1])}</span>' if extras else ""
        yield f'<dt id="{prefix}--{long}"><code>{escape(names)}</code></dt><dd>{_marked_html(text)}{marks}</dd>'
    yield "</dl>\n"


def _marked(text: str) -> str:
    """Escape what Markdown would interpret, and set options as code."""
    escaped = re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)
    return _OPTION.sub(r"`\g<0>`", escaped)


def _marked_html(text: str) -> str:
    return _OPTION.sub(r"<code>\g<0></code>", escape(text))
