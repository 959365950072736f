"""Signals, lack of memory and crashes end a command with one line."""

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import click
import pytest
import torch
from commands import ROOT, bases, elsewhere, genoscan, listing, tiny_model, write_fasta
from hypothesis import given, settings
from hypothesis import strategies as st

from genoscan.cli import failure
from genoscan.cli.failure import describe_failure
from genoscan.ops.memory import aligned_empty, buffer_pool

ONE_LINE = re.compile(r"genoscan: error: [^\n]+\n")


def raising(error: BaseException) -> click.Group:
    """Return a command group that raises an error."""

    @click.group("genoscan", invoke_without_command=True)
    def group() -> None:
        raise error

    return group


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory"), "out of"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
        (RuntimeError("can't start new thread"), "out of memory"),
        (OSError(12, "Cannot allocate memory"), "out of memory"),
        (OSError(5, "Input/output error", "a.fa"), "a.fa: reading or writing failed: Input/output error"),
        (PermissionError(13, "Permission denied", b"\xff.fa"), "Permission denied"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_known_failures_are_one_line(error: Exception, found: str) -> None:
    done = genoscan(group=raising(error))
    assert done.code == 1
    assert found in done.err
    assert ONE_LINE.fullmatch(done.err)


def test_broken_pipe_is_silent() -> None:
    assert genoscan(group=raising(BrokenPipeError(32, "Broken pipe"))) == (1, "", "")
    piped = f"{sys.executable} -m genoscan models list"
    done = subprocess.run(f"{piped} | true", shell=True, capture_output=True, cwd=ROOT, check=False)
    assert (done.stdout, done.stderr) == (b"", b"")


def nested() -> RecursionError:
    try:
        exec("def f(): f()\nf()", {})
    except RecursionError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("error", [nested(), ValueError("a\nb"), EOFError(), KeyError("x"), AssertionError()])
def test_crash_is_one_line_with_a_traceback_file(error: Exception, tmp_path: Path) -> None:
    with mock.patch.object(failure.tempfile, "tempdir", str(tmp_path)):
        lines = {describe_failure(error) for _ in range(3)}
    saved = sorted(tmp_path.iterdir())
    assert len(lines) == len(saved) == 3  # a file of an earlier crash is not overwritten
    for line in lines:
        assert "\n" not in line
        assert line.startswith(f"internal error: {type(error).__name__}")
        assert Path(line.split()[-1]) in saved
    assert type(error).__name__ in saved[0].read_text()


def test_crash_without_a_temporary_folder_is_one_line() -> None:
    try:
        raise ValueError("odd")
    except ValueError as error:
        with mock.patch.object(
            failure.tempfile, "NamedTemporaryFile", side_effect=OSError(30, "Read-only file system")
        ):
            line = describe_failure(error)
    assert "test_failures.py:" in line
    assert "Read-only file system" in line


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([OSError, RuntimeError, MemoryError, ImportError, UnicodeError, ArithmeticError, SystemError]),
    st.lists(st.one_of(st.text(), st.integers(), st.binary()), max_size=3),
)
def test_any_exception_is_one_line(kind: type[Exception], values: list[object]) -> None:
    with mock.patch.object(failure, "_saved_traceback", lambda _error: "report it"):
        line = describe_failure(kind(*values))
    assert line.strip()
    assert len(" ".join(line.split())) < 1000


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [300_000, 600_000, 700_000, 850_000, 900_000])
def test_memory_limit(tmp_path: Path, kilobytes: int) -> None:
    write_fasta(tmp_path / "g.fa", {"chr1": bases(500, 1)})
    command = "attribute", tmp_path / "g.fa", "-m", tiny_model(tmp_path / "tiny"), "-o", tmp_path / "x.bw"
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({kilobytes << 10},) * 2)"
    done = elsewhere(*command, before=limit)
    if done.code:
        assert "out of memory" in done.err
        assert ONE_LINE.fullmatch(done.err)
        assert "x.bw" not in listing(tmp_path)


SLOW_DESTRUCTOR = """
import os, signal, time
from genoscan.cli import models
from genoscan.layers import catalogue
class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        for _ in range(1000):
            pass
def interrupted():
    Interrupted()
    for _ in range(100):
        time.sleep(0.1)
    return {{}}
signal.signal(signal.SIGINT, signal.default_int_handler)
catalogue.named_models = interrupted
"""


@pytest.mark.parametrize(
    ("name", "code", "err"), [("SIGINT", 130, "genoscan: interrupted\n"), ("SIGTERM", 143, "genoscan: terminated\n")]
)
def test_a_signal_in_a_destructor_ends_the_command(name: str, code: int, err: str) -> None:
    started = time.monotonic()
    assert elsewhere("models", "list", before=SLOW_DESTRUCTOR.format(name=name)) == (code, "", err)
    assert time.monotonic() - started < 8


def test_buffers_are_returned_without_python_code() -> None:
    calls: list[object] = []
    with buffer_pool():
        array = aligned_empty((100, 100), torch.empty(0).numpy())
        sys.setprofile(lambda frame, event, _argument: calls.append((event, frame.f_code.co_name)))
        try:
            del array
        finally:
            sys.setprofile(None)
    assert ("call", "__del__") not in calls


@pytest.mark.slow
def test_interrupts_at_random_times_print_one_line(tmp_path: Path) -> None:
    write_fasta(tmp_path / "g.fa", {"chr1": bases(200_000, 1)})
    command = [sys.executable, "-m", "genoscan", "attribute", "g.fa", "-o", "x.bw", "--tile", "64"]
    command += ["-m", str(tiny_model(tmp_path / "tiny"))]
    chance = random.Random(1)
    for _ in range(40):
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        time.sleep(chance.uniform(0.3, 4))
        for _ in range(chance.choice([1, 2, 4])):
            process.send_signal(signal.SIGINT)
            time.sleep(chance.choice([0, 0.001, 0.01]))
        _, err = process.communicate(timeout=60)
        assert re.fullmatch("genoscan: interrupted(: finished work is kept in x.bw.partial; .*)?\n", err)
        # If an extension module was interrupted during its import, Python ends with the signal itself,
        # for which shells report 130, too.
        assert process.returncode in (130, -signal.SIGINT)


def test_no_destructor_in_python() -> None:
    """Python discards KeyboardInterrupt in a destructor."""
    for path in (ROOT / "genoscan").rglob("*.py"):
        assert "def __del__" not in path.read_text(), path
