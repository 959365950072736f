"""Errors that a user can correct.

GenoscanError
├── InputError             a file, region or option has an invalid value
├── OutputError            a result cannot be written
├── ModelError             a model folder is incomplete, damaged or inconsistent
├── UnsupportedModelError  a model is valid but not supported
└── NonFiniteError         a target, or a result at an A, C, G or T, is NaN or infinite

Each message is a single line that states the location of the problem, the value found, the value
expected and a remedy. The command-line interface prints the message and exits with status 1. For any other
exception, it also prints a single line and, if the exception indicates a bug, writes the traceback to a
file.
"""

from pathlib import Path


class GenoscanError(Exception):
    """Base class for errors that a user can correct."""


class InputError(GenoscanError, ValueError):
    """Error raised if a file, region or option has an invalid value."""


class OutputError(GenoscanError, OSError):
    """Error raised if a result cannot be written."""


class ModelError(GenoscanError):
    """Error raised if a model folder is incomplete, damaged or inconsistent."""


class UnsupportedModelError(GenoscanError, NotImplementedError):
    """Error raised if a model is valid but not supported."""


class NonFiniteError(GenoscanError, ArithmeticError):
    """Error raised if a target, or a result at an A, C, G or T, is NaN or infinite."""


def note_unfinished(error: BaseException, kept: str, folder: Path | None = None) -> None:
    """Add a note to the exception by which Ctrl-C or SIGTERM ends a run: what is kept, and how to continue.

    Other exceptions get no note, because the same command may fail again. The command-line interface prints
    the note.

    Parameters
    ----------
    error
        Exception that ends the run. If several folders are noted, its note is a single sentence that names all.
    kept
        Clause without a folder, such as "finished work is kept".
    folder
        Folder that contains the work, or None.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit):
        folders: list[str] = vars(error).setdefault("folders", [])
        if folder is not None:
            folders.insert(0, str(folder))  # because folders are closed last to first
        place = f" in {' and '.join(folders)}" if folders else ""
        error.__notes__ = [f"{kept}{place}; the same command continues the run"]
