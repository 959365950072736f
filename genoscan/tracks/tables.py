"""Tables as text files with tabs between the columns."""

from collections.abc import Iterable
from csv import QUOTE_NONE
from pathlib import Path
from typing import TYPE_CHECKING

from genoscan.errors import InputError
from genoscan.tracks.atomic import atomic_write, os_errors
from genoscan.tracks.outputs import check_file

if TYPE_CHECKING:
    import pandas as pd

_SUFFIXES = ".tsv", ".txt", ".bed"


def table_text(table: "pd.DataFrame") -> str:
    """Return a table as text.

    Parameters
    ----------
    table
        Table whose texts contain no tabs or line breaks.

    Returns
    -------
    str
        A line of column names that begins with "#", as in BED files, and a line per row. Floating-point numbers
        have six digits, and missing values are empty.
    """
    return "#" + table.to_csv(sep="\t", index=False, float_format="%.6g", lineterminator="\n", quoting=QUOTE_NONE)


def check_table(output: Path, inputs: Iterable[Path | None]) -> None:
    """Check that a table can be written.

    Parameters
    ----------
    output
        Table to write.
    inputs
        Files that the command will read.

    Raises
    ------
    InputError
        If the suffix is not .tsv, .txt or .bed, or the file is also an input.
    OutputError
        If the file cannot be written.
    """
    if output.suffix.lower() not in _SUFFIXES:
        raise InputError(f'{output}: unknown suffix "{output.suffix}", expected .tsv, a table with tabs')
    check_file(output, inputs)


def write_table(output: Path, table: "pd.DataFrame") -> None:
    """Write a table as text; see `table_text`.

    Parameters
    ----------
    output
        TSV file to write.
    table
        Table whose texts contain no tabs or line breaks.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with atomic_write(output) as part, os_errors(output), part.open("w", encoding="utf-8", newline="") as file:
        file.write(table_text(table))
