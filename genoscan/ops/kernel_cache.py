"""Choice of the folder in which numba caches compiled kernels."""

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path

import numba


def choose_cache() -> bool:
    """Return whether kernels can be cached; if numba finds no folder for its cache, choose one.

    Notes
    -----
    By default, numba caches kernels in the folder of the source file or, if that folder is not writable, in
    the user's cache folder. If neither folder is writable, numba raises RuntimeError, and this function
    places the cache in the folder for temporary files. If this is also impossible, kernels are compiled
    again in every process.
    """
    try:
        numba.njit(cache=True)(_probe)
    except RuntimeError:
        try:
            numba.config.CACHE_DIR = str(_temporary_cache())  # type: ignore[attr-defined]
        except OSError:
            return False
    return True


def _probe() -> None:
    """Do nothing; this function is compiled only to test whether numba finds a folder for its cache."""


def _temporary_cache() -> Path:
    """Return a folder in the system's temporary folder that only the current user can read and write."""
    shared = Path(tempfile.gettempdir()) / f"genoscan-kernels-{os.getuid()}"
    try:
        shared.mkdir(mode=0o700)
    except FileExistsError:
        found = shared.lstat()
        # numba unpickles cached files, so another user must not be able to write them.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            private = Path(tempfile.mkdtemp(prefix="genoscan-kernels-"))
            atexit.register(shutil.rmtree, private, ignore_errors=True)
            return private
    tempfile.TemporaryFile(dir=shared).close()
    return shared
