"""Execute the notebooks of this folder, and store their outputs, figures as pictures.

    python docs/notebooks/execute.py                # all of them
    python docs/notebooks/execute.py genes.ipynb    # one

Needs nbclient and ipykernel, and for the pictures kaleido and Chromium.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent


def execute(path: Path, *, figures: str) -> nbformat.NotebookNode:
    """Return a notebook after a run with the genoscan of this checkout, in its folder.

    Parameters
    ----------
    path
        Notebook.
    figures
        Name of plotly's renderer: "png" for pictures, "json" for the figures' data,
        which needs no browser.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell raises an exception.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        timeout=300,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
    )
    paths = {"PYTHONPATH": str(FOLDER.parents[1])}
    client.execute(env=os.environ | paths | {"PLOTLY_RENDERER": figures})
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


if __name__ == "__main__":
    chosen = [FOLDER / name for name in sys.argv[1:]]
    for path in chosen or sorted(FOLDER.glob("*.ipynb")):
        started = time.monotonic()
        nbformat.write(execute(path, figures="png"), path)
        seconds, size = time.monotonic() - started, path.stat().st_size
        print(f"{path.name}: {seconds:.1f} s, {size / 1e3:.0f} kB")
