"""Encode text for the scripts and figures of pages, and restrict pages to their own scripts.

Names of files, sequences and genes may contain anything, including HTML. HTML is encoded by
`html.escape`, scripts by `script_json`, text of figures by `plotly_text`.
"""

import html
import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
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
    Styles remain `unsafe-inline`: igv.js and plotly set style attributes and, while they run, add
    <style> elements whose hashes are not known in advance. Styles cannot run code, and images and fonts
    cannot be requested from a server. Neither library needs `eval`, workers or frames for the tracks
    and figures of these pages. `blob:` images are used when a picture is saved as PNG.
    """
    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def script_json(value: Any) -> str:
    """Return JSON that is safe inside a <script> element.

    Parameters
    ----------
    value
        JSON value.

    Returns
    -------
    str
        ASCII text without "<", so that no string can close the element or open a comment.
    """
    return json.dumps(value).replace("<", "\\u003c")


def plotly_text(text: str) -> str:
    """Return text that plotly displays unchanged, instead of as a subset of HTML.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    str
        Text for titles, labels and hover text of a plotly figure.
    """
    return html.escape(text, quote=False)
