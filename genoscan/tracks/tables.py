"""Tables as text files with tabs between the columns."""

from csv import QUOTE_NONE
from pathlib import Path
from typing import TYPE_CHECKING

from genoscan.tracks.atomic import atomic_write, os_errors

if TYPE_CHECKING:
    import pandas as pd


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
