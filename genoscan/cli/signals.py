"""Handling of Ctrl-C, SIGTERM and SIGHUP, which end the process with at most one line of output."""

import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit status of a process ended by Ctrl-C: as in a shell, 128 and the number of the signal."""

_RETRY = 0.001
"""Delay, in seconds, before an exception that Python discarded is raised again."""

_received: list[int] = []


def install_handlers() -> None:
    """Install handlers that raise KeyboardInterrupt on Ctrl-C and SystemExit on SIGTERM and SIGHUP.

    Notes
    -----
    Only the first signal raises an exception. Later signals are ignored, so that they cannot interrupt
    the removal of temporary files. If the exception is raised in a destructor or callback, Python
    discards it; in this case, it is raised again shortly afterwards. If Ctrl-C or SIGHUP, which a closed
    terminal sends, was already ignored when the process started, as in the background jobs of a shell or
    by nohup, it remains ignored.
    """
    _received.clear()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, lambda _signal, _frame: _raise(_received[0]))
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _stop)
    sys.unraisablehook = _retry


def exit_status() -> int | None:
    """Return the exit status for the first signal received, or None if no signal was received."""
    return 128 + _received[0] if _received else None


def ignore_signals() -> None:
    """Ignore Ctrl-C, SIGTERM and SIGHUP while the interpreter shuts down."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, _frame: FrameType | None) -> None:
    if not _received:
        _received.append(number)
        _raise(number)


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _retry(discarded: "sys.UnraisableHookArgs") -> None:
    if _received and issubclass(discarded.exc_type, KeyboardInterrupt | SystemExit):
        # Not here: an exception raised in this function would be discarded, too.
        signal.setitimer(signal.ITIMER_REAL, _RETRY)
    else:
        sys.__unraisablehook__(discarded)
