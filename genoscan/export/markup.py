"""Encoding of text for web pages, and a policy that restricts each page to its own scripts.

Names of files, sequences and genes may contain anything, including HTML. Such text is encoded with
`html.escape` in HTML, with `script_json` in scripts and with `plotly_text` in figures.
"""

import html
import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any


def security_policy(scripts: Sequence[str], *, connect: str = "'none'") -> str:
    """Return the Content-Security-Policy of a page.

    Parameters
    ----------
    scripts
        Contents of all <script> elements of the page.
    connect
        Sources from which scripts may load data.

    Returns
    -------
    str
        Policy for a <meta http-equiv="Content-Security-Policy"> element.

    Notes
    -----
    Inline styles are allowed (`unsafe-inline`), because igv.js and plotly set style attributes and,
    while they run, add <style> elements whose hashes are not known in advance. Styles cannot run code,
    and the policy prevents them from loading images or fonts from a server. Neither library needs
    `eval`, workers or frames to draw its tracks or figures. Images with `blob:` URLs are allowed,
    because they are used when a user saves a picture as PNG.
    """
    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def page_style() -> str:
    """Return the styles that all pages share, with colours for light and dark displays."""
    return files("genoscan.export").joinpath("style.css").read_text("utf-8")


def note_list(notes: Sequence[str]) -> str:
    """Return remarks of one line each as an HTML list; empty if there are none."""
    items = "".join(f"<li>{html.escape(note)}</li>" for note in dict.fromkeys(notes))
    return f'<ul class="notes">{items}</ul>' if items else ""


def script_json(value: Any) -> str:
    """Encode a value as JSON that is safe inside a <script> element.

    Parameters
    ----------
    value
        Value that can be encoded as JSON.

    Returns
    -------
    str
        ASCII text without "<", so that no string can close the element or open a comment.
    """
    return json.dumps(value).replace("<", "\\u003c")


def plotly_text(text: str) -> str:
    """Escape text so that plotly does not interpret any part of it as HTML.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    str
        Escaped text for the titles, labels and hover text of a plotly figure.
    """
    return html.escape(text, quote=False)
