"""The files in which compiled kernels are cached, their folder, and a message when kernels are compiled."""

# numba has no annotations.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

import atexit
import hashlib
import logging
import os
import pickle
import shutil
import stat
import tempfile
from functools import lru_cache
from pathlib import Path

import numba
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile

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


@lru_cache(maxsize=1)
def _sources() -> bytes:
    """Return a digest of the source files of all kernels and of the functions that are inlined into them."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


class _Files(IndexDataCacheFile):
    """The cached overloads of one function, each in a file named by a digest of its signature and its source.

    Notes
    -----
    numba numbers these files in the order in which overloads are saved, without a lock: of two processes that compile
    different overloads at the same time, one can overwrite the file of the other, whose code is then loaded for both
    signatures. numba also compares only the source file of the function itself, and not those of functions that are
    inlined into it. It raises an error if a file is truncated, or cannot be written because the disk is full.
    """

    def __init__(self, folder: str, name: str, stamp: object) -> None:
        super().__init__(folder, name, (stamp, _sources()))
        self._folder, self._name = Path(folder), name

    def save(self, key, data) -> None:
        """Save an overload; if this is not possible, log it."""
        digest = hashlib.sha256(repr((key, self._source_stamp, self._version)).encode()).hexdigest()
        name = f"{self._name}.{digest[:16]}.nbc"
        # Where processes save at the same time, one can remove from the index, or from the folder, what another has
        # just saved; it is then compiled once more.
        try:
            if not self._load_index():
                for outdated in self._folder.glob(f"{self._name}.*.nbc"):
                    outdated.unlink(missing_ok=True)
            self._save_data(name, data)
            self._save_index(self._load_index() | {key: name})
        except OSError as error:
            _log.warning("%s: compiled kernels cannot be saved: %s", self._folder, error.strerror)

    def _load_index(self):
        """Return the index, empty if its file is damaged."""
        try:
            return super()._load_index()
        except (EOFError, pickle.UnpicklingError):
            return {}

    def _load_data(self, name):
        """Return an overload, or None, which numba takes as not found, if its file is damaged."""
        try:
            return super()._load_data(name)
        except (EOFError, pickle.UnpicklingError):
            return None


class KernelCache(FunctionCache):
    """The cache of a compiled function, safe for processes that compile at the same time."""

    def __init__(self, function) -> None:
        super().__init__(function)
        locator = self._impl.locator
        self._cache_file = _Files(locator.get_cache_path(), self._impl.filename_base, locator.get_source_stamp())


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
