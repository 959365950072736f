"""What can go wrong for a user, as a tree.

GenoscanError
├── InputError             a file, region or option has a value that cannot be used
├── OutputError            a result cannot be written
├── ModelError             a model folder is incomplete, damaged or contradicts itself
├── UnsupportedModelError  a sound model that this program cannot serve
└── NonFiniteError         a result at a known base, or a target, is NaN or infinite

Every message says where, what was found, what was expected and what to do, in one line.
The command line prints it and exits 1; anything else that escapes is a bug and keeps its
traceback.
"""


class GenoscanError(Exception):
    """Anything that the user can put right."""


class InputError(GenoscanError, ValueError):
    """A file, region or option has a value that cannot be used."""


class OutputError(GenoscanError, OSError):
    """A result cannot be written."""


class ModelError(GenoscanError):
    """A model folder is incomplete, damaged or contradicts itself."""


class UnsupportedModelError(GenoscanError, NotImplementedError):
    """A sound model that this program cannot serve."""


class NonFiniteError(GenoscanError, ArithmeticError):
    """A result at a known base, or a target, is NaN or infinite."""
