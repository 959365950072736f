"""Choice of the folder in which numba caches compiled kernels, and a message when kernels are compiled."""

import atexit
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path

import numba
from numba.core import event

_log = logging.getLogger(__name__)


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


class _Announcement(event.Listener):
    """Listener that logs a message when a kernel is first compiled in this process, rather than read from the cache."""

    def __init__(self, cached: bool) -> None:
        self._how_often = "once" if cached else "in every run, because no folder for them can be written"
        self._made = False

    def on_start(self, event: event.Event) -> None:
        if not self._made and event.data["dispatcher"].py_func.__module__.startswith(__package__):
            self._made = True
            _log.info("compiling kernels (%s, about 5 s)", self._how_often)

    def on_end(self, event: event.Event) -> None:
        """Do nothing; the interface requires this method."""


def announce_compilation(cached: bool) -> None:
    """Log a message, of level INFO, when the first kernel is compiled.

    Parameters
    ----------
    cached
        Whether compiled kernels are cached (see `choose_cache`).
    """
    event.register("numba:compile", _Announcement(cached))


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
