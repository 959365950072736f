"""Encoding of bases as integers: 0 for A, 1 for C, 2 for G, 3 for T, and 4 for N.

Case is ignored, and every IUPAC ambiguity code is encoded as N. Any other character raises an error. This
includes the letter U, so that RNA is not mistaken for DNA.
"""

from typing import Final

import numpy as np
from jaxtyping import UInt8

from genoscan.errors import InputError

BASES: Final = "ACGT"
N: Final = 4

_AMBIGUOUS = b"NRYSWKMBDHV"
_PROTEIN_ONLY = b"EFILPQZJOX*"
_NOT_A_BASE = 255


def _code_table() -> bytes:
    table = bytearray([_NOT_A_BASE] * 256)
    letters_of_code = [*(base.encode() for base in BASES), _AMBIGUOUS]
    for code, letters in enumerate(letters_of_code):
        for letter in letters + letters.lower():
            table[letter] = code
    return bytes(table)


_CODES = _code_table()
_LETTERS = np.frombuffer(b"ACGTN", np.uint8)
_COMPLEMENTS = np.array([3, 2, 1, 0, N], np.uint8)


def encode(letters: bytes, *, record: str, offset: int) -> UInt8[np.ndarray, " bases"]:
    """Convert the letters of a sequence to base codes.

    Parameters
    ----------
    letters
        Letters of the sequence in ASCII, without line breaks.
    record
        Name of the sequence, for error messages.
    offset
        0-based position of the first letter in the sequence, for error messages.

    Returns
    -------
    array of shape (bases,)
        Base codes: 0 for A, 1 for C, 2 for G, 3 for T, and 4 for N and the other ambiguity codes.

    Raises
    ------
    InputError
        If a character is not a base or ambiguity code of DNA. The message states the 1-based position of
        the first such character.
    """
    codes = np.frombuffer(bytearray(letters.translate(_CODES)), np.uint8)
    if codes.size and codes.max() == _NOT_A_BASE:
        first = int(codes.argmax())
        raise InputError(
            f"{record}: position {offset + first + 1:,} is {_printable(letters[first])}, "
            f"expected A, C, G, T, N or another IUPAC letter for a base{_hint(letters[first])}"
        )
    return codes


def decode(codes: UInt8[np.ndarray, " bases"]) -> bytes:
    """Convert base codes to letters.

    Parameters
    ----------
    codes
        Base codes from 0 to 4, of shape (bases,).

    Returns
    -------
    bytes
        One ASCII letter per base: A, C, G, T or N.
    """
    return _LETTERS[codes].tobytes()


def complement(codes: UInt8[np.ndarray, " bases"]) -> UInt8[np.ndarray, " bases"]:
    """Return the complement of each base, without reversing the order of the bases.

    Parameters
    ----------
    codes
        Base codes from 0 to 4, of shape (bases,).

    Returns
    -------
    array of shape (bases,)
        Base codes of the complement: A and T are exchanged, C and G are exchanged, and N is unchanged.
    """
    return _COMPLEMENTS[codes]


def reverse_complement(codes: UInt8[np.ndarray, " bases"]) -> UInt8[np.ndarray, " bases"]:
    """Return the reverse complement of a sequence.

    Parameters
    ----------
    codes
        Base codes from 0 to 4, of shape (bases,).

    Returns
    -------
    array of shape (bases,)
        Base codes of the complement, in reverse order.
    """
    return _COMPLEMENTS[codes[::-1]]


def _printable(letter: int) -> str:
    return f'"{chr(letter)}"' if 33 <= letter <= 126 else f"byte 0x{letter:02x}"


def _hint(letter: int) -> str:
    upper = bytes([letter]).upper()
    if upper == b"U":
        return "; this looks like RNA: write T for U"
    if upper in (b"-", b"."):
        return "; this looks like an alignment: remove its gaps"
    return "; this looks like protein" if upper in _PROTEIN_ONLY else ""
