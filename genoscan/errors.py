"""Errors that a user can correct.

GenoscanError
├── InputError             a file, region or option has an invalid value
├── OutputError            a result cannot be written
├── ModelError             a model folder is incomplete, damaged or inconsistent
├── UnsupportedModelError  a valid model that is not supported
└── NonFiniteError         a result at a known base, or a target, is NaN or infinite

Every message states, in one line, where the problem is, what was found, what was expected and what
to do.  The command line prints it and exits with status 1; any other exception is a bug and is
shown with its traceback.
"""


class GenoscanError(Exception):
    """Base class of errors that a user can correct."""


class InputError(GenoscanError, ValueError):
    """A file, region or option has an invalid value."""


class OutputError(GenoscanError, OSError):
    """A result cannot be written."""


class ModelError(GenoscanError):
    """A model folder is incomplete, damaged or inconsistent."""


class UnsupportedModelError(GenoscanError, NotImplementedError):
    """A valid model that is not supported."""


class NonFiniteError(GenoscanError, ArithmeticError):
    """A result at a known base, or a target, is NaN or infinite."""
