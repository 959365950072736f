"""One-line messages for exceptions other than `GenoscanError`, such as those caused by bugs."""

import errno
import os
import platform
import resource
import shlex
import sys
import tempfile
import traceback
from pathlib import Path

from genoscan import __version__

_NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "can't start new thread",
    "failed to map segment",
)
"""Lower-case phrases by which torch, numba and the dynamic linker report a lack of memory."""


def describe_failure(error: BaseException) -> str:
    """Return a one-line message for an exception.

    Parameters
    ----------
    error
        The exception. Its traceback is written to a new file in the system's temporary folder, unless
        the exception reports a lack of memory or a failed file operation.

    Returns
    -------
    str
        Message that states either the cause and a remedy, or how to report the bug and where the
        traceback was saved.
    """
    if _is_out_of_memory(error):
        return (
            f"out of memory ({_in_one_line(error)}): "
            "free memory or raise the limit of this process (ulimit -v, control group or Slurm)"
        )
    if isinstance(error, OSError):
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        return ": ".join([*names, f"reading or writing failed: {error.strerror or _in_one_line(error)}"])
    return f"internal error: {_in_one_line(error)}; {_saved_traceback(error)}"


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an exception, or any exception in its chain of causes, reports a lack of memory."""
    if error is None:
        return False
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    # Python raises SystemError if an extension returns an error without a cause, such as a failed malloc.
    if isinstance(error, SystemError) and resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return True
    # torch raises RuntimeError, numba and the import system their own classes.
    if isinstance(error, Exception) and any(text in str(error).lower() for text in _NO_MEMORY):
        return True
    return _is_out_of_memory(error.__cause__ or error.__context__)


def _in_one_line(error: BaseException) -> str:
    # Some of torch's messages contain a C++ traceback after the first line.
    text = " ".join(str(error).partition("\n")[0].split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _saved_traceback(error: BaseException) -> str:
    """Write the traceback of an exception to a new file; return instructions for reporting the bug."""
    details = [
        f"genoscan {__version__}, Python {platform.python_version()}, {platform.platform()}",
        shlex.join(sys.argv),
        "".join(traceback.format_exception(error)),
    ]
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="genoscan-crash-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write("\n".join(details))
    except OSError as problem:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return f"report it with this line ({place}; no traceback could be saved: {problem.strerror})"
    return f"report it with the traceback in {file.name}"
