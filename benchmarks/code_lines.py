"""Count lines of code without docstrings, comments and blank lines: python -m benchmarks.code_lines genoscan"""

import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

_LAYOUT = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def code_lines(path: Path) -> int:
    """Return the number of lines of a Python file that have code."""
    with path.open("rb") as file:
        return len(set(_lines(list(tokenize.tokenize(file.readline)))))


def _lines(tokens: list[tokenize.TokenInfo]) -> Iterator[int]:
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        docstring = token.type == tokenize.STRING and before.type in _LAYOUT and after.type == tokenize.NEWLINE
        if token.type not in _LAYOUT and not docstring:
            yield from range(token.start[0], token.end[0] + 1)


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        print(f"{sum(map(code_lines, Path(folder).rglob('*.py'))):,}  {folder}")
