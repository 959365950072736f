"""Mutation operators: small faults at exact positions in the source.

sign          a + for a -, or the reverse; a minus sign left out
off by one    < for <=, or the reverse; an integer or the end of a slice one too large
swap          two neighbouring indices, or two neighbouring arguments, variables or values of
              like names, exchanged
drop          a term, a factor, a condition or a statement left out

Left alone: docstrings, annotations, decorators, imports, messages, assertions, whatever is
raised, and what affects speed alone.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

OPERATORS = ("sign", "off by one", "swap", "drop")

_ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_OTHER = {"+": "-", "-": "+", "<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_SKIPPED = (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.JoinedStr)
_SKIPPED_FIELDS = {"annotation", "returns", "decorator_list", "type"}
_TYPES = {"Callable", "Literal", "Sequence", "tuple", "dict", "list"}
_SPEED_ONLY = {"prefetch", "widest"}
_SYMMETRIC = {"max", "min", "maximum", "minimum", "isinstance", "issubclass", "getattr", "hasattr", "TypeVar"}
_PAIRS = [
    ("start", "end"),
    ("start", "stop"),
    ("first", "last"),
    ("left", "right"),
    ("forth", "back"),
    ("before", "after"),
    ("low", "high"),
    ("context", "reach"),
    ("length", "width"),
]
_SPEED_ONLY_KEYWORDS = {"align", "buffering", "indent", "maxsize", "warps"}


@dataclass(frozen=True)
class Mutant:
    """One fault: bytes start..end of a file replaced by `text`.

    line           1-based, of the first changed byte
    before, after  the changed lines, white space collapsed
    """

    file: str
    line: int
    operator: str
    before: str
    after: str
    start: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        """Return the source with the fault in it."""
        raw = source.encode()
        return (raw[: self.start] + self.text.encode() + raw[self.end :]).decode()


class Edit(NamedTuple):
    """Bytes start..end of a source to be replaced by `text`."""

    operator: str
    start: int
    end: int
    text: str

    def changed(self, raw: bytes) -> tuple[str, str]:
        """Return the changed lines before and after, white space collapsed."""
        first = raw.rfind(b"\n", 0, self.start) + 1
        last = raw.find(b"\n", self.end)
        last = len(raw) if last < 0 else last
        before = raw[first:last].decode()
        after = raw[first : self.start].decode() + self.text + raw[self.end : last].decode()
        return " ".join(before.split()), " ".join(after.split())

    def mutant(self, file: str, source: str) -> Mutant:
        """Return the mutant of the source that the edit makes."""
        raw = source.encode()
        line = raw.count(b"\n", 0, self.start) + 1
        return Mutant(file, line, self.operator, *self.changed(raw), *self[1:])


def edits(source: str) -> Iterator[Edit]:
    """Yield every fault that the operators make in a source, in the order of its syntax tree."""
    yield from map(Edit._make, _Sites(source).edits())


_Site = tuple[str, int, int, str]


class _Sites:
    """The places of one source file where the operators apply."""

    def __init__(self, source: str) -> None:
        self._raw = source.encode()
        self._tree = ast.parse(source)
        lines = self._raw.split(b"\n")
        self._offsets = [0]
        for line in lines:
            self._offsets.append(self._offsets[-1] + len(line) + 1)

    def edits(self) -> Iterator[_Site]:
        """Yield operator, first byte, one past the last byte, and the replacement."""
        yield from self._walk(self._tree, None)

    def _walk(self, node: ast.AST, parent: ast.AST | None) -> Iterator[_Site]:
        if isinstance(node, _SKIPPED):
            return
        if isinstance(node, ast.Call) and _name(node.func) in _SPEED_ONLY:
            return
        if isinstance(node, ast.Subscript) and _name(node.value) in _TYPES:
            return
        if isinstance(node, ast.keyword) and node.arg in _SPEED_ONLY_KEYWORDS:
            return
        yield from self._at(node, parent)
        for field, value in ast.iter_fields(node):
            if field in _SKIPPED_FIELDS:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self._walk(child, node)

    def _at(self, node: ast.AST, parent: ast.AST | None) -> Iterator[_Site]:
        match node:
            case ast.BinOp() if type(node.op) in _ARITHMETIC and not _is_text(node):
                yield from self._operation(node, _ARITHMETIC[type(node.op)])
            case ast.AugAssign() if type(node.op) in _ARITHMETIC:
                start, end = self._between(node.target, node.value, _ARITHMETIC[type(node.op)])
                symbol = self._raw[start:end].decode()
                if symbol in _OTHER and not _is_text(node.value):
                    yield "sign", start, end, _OTHER[symbol]
                yield "drop", *self._span(node), "pass"
            case ast.UnaryOp(op=ast.USub()):
                start = self._span(node)[0]
                yield "sign", start, start + 1, ""
            case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
                symbol = _COMPARISONS[type(op)]
                start, end = self._between(node.left, node.comparators[0], symbol)
                yield "off by one", start, end, _OTHER[symbol]
            case ast.Constant(value=int(value)) if type(value) is int and _counts(parent):
                yield "off by one", *self._span(node), str(value + 1)
            case ast.Slice(upper=ast.expr() as upper) if not isinstance(upper, ast.Constant):
                yield "off by one", *self._span(upper), f"({self._text(upper)}) + 1"
            case ast.Call() if _name(node.func) not in _SYMMETRIC:
                yield from self._swaps(node.args)
            case ast.Tuple() if not isinstance(parent, ast.Subscript) and not _is_text(node):
                yield from self._swaps(node.elts)
            case ast.Subscript(slice=ast.Tuple(elts=elements)) if not _is_text(node.slice):
                yield from self._swaps(elements, indices=True)
            case ast.BoolOp():
                for one, other in pairwise(node.values):
                    start, end = self._between(one, other, r"and\b|or\b", escape=False)
                    if one is node.values[0]:
                        yield "drop", self._span(node)[0], self._skip(end), ""
                    if other is node.values[-1]:
                        yield "drop", start, self._span(node)[1], ""
            case ast.Expr(value=ast.Call(func=function)) if _name(function) not in _SPEED_ONLY:
                yield "drop", *self._span(node), "pass"

    def _operation(self, node: ast.BinOp, symbol: str) -> Iterator[_Site]:
        start, end = self._between(node.left, node.right, symbol)
        if symbol in "+-":
            yield "sign", start, end, _OTHER[symbol]
        first, last = self._span(node)
        yield "drop", start, last, ""
        if symbol in "+*":
            yield "drop", first, self._skip(end), ""

    def _swaps(self, parts: list[ast.expr], *, indices: bool = False) -> Iterator[_Site]:
        for one, other in pairwise(parts):
            texts = self._text(one), self._text(other)
            starred = isinstance(one, ast.Starred) or isinstance(other, ast.Starred)
            if not starred and texts[0] != texts[1] and (indices or _are_alike(*texts)):
                start, end = self._span(one)[0], self._span(other)[1]
                between = self._raw[self._span(one)[1] : self._span(other)[0]].decode()
                yield "swap", start, end, f"{texts[1]}{between}{texts[0]}"

    def _between(self, left: ast.AST, right: ast.AST, symbol: str, *, escape: bool = True) -> tuple[int, int]:
        """Return where the operator between two operands lies."""
        start, end = self._span(left)[1], self._span(right)[0]
        # Comments may lie between the operands.
        text = re.sub(rb"#[^\n]*", lambda comment: b" " * len(comment[0]), self._raw[start:end])
        found = re.search((re.escape(symbol) if escape else symbol).encode(), text)
        assert found is not None
        return start + found.start(), start + found.end()

    def _skip(self, at: int) -> int:
        """Return the first byte from here on that is no space."""
        while self._raw[at : at + 1].isspace():
            at += 1
        return at

    def _span(self, node: ast.AST) -> tuple[int, int]:
        first, last = node.lineno, node.end_lineno  # type: ignore[attr-defined]
        start = self._offsets[first - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self._offsets[last - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _text(self, node: ast.AST) -> str:
        return self._raw[slice(*self._span(node))].decode()


def _name(function: ast.AST) -> str:
    """Return the last part of a function's name."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _are_alike(one: str, other: str) -> bool:
    """Return whether two expressions could be mistaken for each other: most others fail at once."""
    if max(len(one), len(other)) <= 3:
        return True
    for pair in (*_PAIRS, *(pair[::-1] for pair in _PAIRS)):
        if one.replace(*pair) == other:
            return True
    return one[:3] == other[:3] or one[-4:] == other[-4:]


def _is_text(node: ast.AST) -> bool:
    """Return whether text or a list stands in it, to which arithmetic does not apply."""
    parts = [node.left, node.right] if isinstance(node, ast.BinOp) else [node]
    parts += parts[0].elts if isinstance(parts[0], ast.Tuple) and len(parts) == 1 else []
    if isinstance(node, ast.BinOp):
        texts: tuple[type, ...] = (ast.JoinedStr, ast.List, ast.Tuple)
    else:
        texts = (ast.JoinedStr, ast.List)
    return any(
        isinstance(part, texts)
        or (isinstance(part, ast.Constant) and isinstance(part.value, str | bytes))
        or (isinstance(part, ast.BinOp) and _is_text(part))
        for part in parts
    )


def _counts(parent: ast.AST | None) -> bool:
    """Return whether an integer here is an index, an argument, a bound or a term."""
    if isinstance(parent, ast.BinOp):
        return not isinstance(parent.op, ast.LShift | ast.Pow)
    return isinstance(
        parent, ast.Slice | ast.Subscript | ast.Call | ast.keyword | ast.Compare | ast.Tuple | ast.UnaryOp
    )
