"""Notebooks as pages: cells and their stored outputs. Nothing is executed."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from plotly.io import from_json

PLOTLY = "docs/site/plotly.min.js"
"""Where the pages expect plotly.js, for figures that were stored without a picture."""

_FIGURE = "application/vnd.plotly.v1+json"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def notebook_page(path: Path) -> str:
    """Return the Markdown of a notebook, with a link to the file itself after its title."""
    notebook = nbformat.read(path, as_version=4)
    parts = [part for cell in notebook.cells for part in _cell(cell)]
    title, _, rest = "\n\n".join(parts).partition("\n")
    return f"{title}\n\n[Download the notebook]({path.name}){{ .download }}\n{rest}\n"


def _cell(cell: Any) -> Iterator[str]:
    if cell.cell_type == "markdown":
        yield cell.source
    elif cell.cell_type == "code" and cell.source.strip():
        yield f"```python\n{cell.source}\n```"
        for output in cell.outputs:
            yield from _output(output)


def _output(output: Any) -> Iterator[str]:
    if output.output_type == "stream":
        yield _text(output.text)
    elif output.output_type == "error":
        yield _text("\n".join(output.traceback))
    else:
        data = output.data
        for kind in ("image/png", "image/jpeg"):
            if kind in data:
                yield f'<img alt="Output of the cell" src="data:{kind};base64,{_base64(data[kind])}">'
                return
        if _FIGURE in data:
            figure = from_json(json.dumps(data[_FIGURE]), skip_invalid=True)
            html = figure.to_html(full_html=False, include_plotlyjs=f"../../{PLOTLY.removeprefix('docs/')}")
            yield f'<div class="output">{" ".join(html.split())}</div>'
            return
        for kind in ("image/svg+xml", "text/html"):
            # One line: an empty line would end the block of HTML.
            if kind in data and "<script" not in data[kind]:
                yield f'<div class="output">{" ".join(data[kind].split())}</div>'
                return
        if "text/plain" in data:
            yield _text(data["text/plain"])


def _text(text: str) -> str:
    return f"```text\n{_ANSI.sub('', text).rstrip()}\n```"


def _base64(data: str | bytes) -> str:
    return base64.b64encode(data).decode() if isinstance(data, bytes) else "".join(data.split())
