"""What notebooks show of results: one line, and a table of a few rows."""

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

ROWS_SHOWN = 10


def show_frame(result: object, frame: "pd.DataFrame") -> str:
    """Return the HTML of the `repr` of a result, above a table."""
    return f"<p>{html.escape(repr(result))}</p>{frame.to_html(index=False)}"


def largest_rows(frame: "pd.DataFrame", column: str) -> "pd.DataFrame":
    """Return the rows with the largest absolute values in a column, in descending order."""
    return frame.loc[frame[column].abs().nlargest(ROWS_SHOWN).index]
