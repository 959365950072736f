"""Cached kernels: processes at the same time, changed sources, damaged files, folders that are not writable."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from commands import ROOT, bases, tiny_model, write_fasta

from genoscan.ops import kernel_cache


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_cache_is_private_and_kept(temporary: Path) -> None:
    first, second = kernel_cache._temporary_cache(), kernel_cache._temporary_cache()
    assert first == second
    assert stat.S_IMODE(first.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_cache_that_others_can_write_is_not_used(temporary: Path, kind: str) -> None:
    taken = temporary / f"genoscan-kernels-{os.getuid()}"
    if kind == "open":
        taken.mkdir()
        taken.chmod(0o777)
    elif kind == "link":
        (temporary / "elsewhere").mkdir(mode=0o700)
        taken.symlink_to(temporary / "elsewhere")
    else:
        taken.write_text("")
    found = kernel_cache._temporary_cache()
    assert found != taken
    assert stat.S_IMODE(found.stat().st_mode) == 0o700


def files(folder: Path, stamp: str = "source") -> kernel_cache._Files:
    return kernel_cache._Files(str(folder), "kernel", stamp)


@pytest.mark.parametrize("step", ["_save_data", "_save_index"])
def test_overloads_saved_at_the_same_time_are_not_confused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A second process, which loaded the index when it was empty, saves before a step of the first."""
    first, second = files(tmp_path), files(tmp_path)
    monkeypatch.setattr(second, "_load_index", dict)
    complete = getattr(first, step)

    def interrupted(*arguments: object) -> None:
        second.save("float64", "code of float64")
        complete(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(first, step, interrupted)
        first.save("float32", "code of float32")
    for key in ("float32", "float64"):
        assert files(tmp_path).load(key) in (None, f"code of {key}")
        files(tmp_path).save(key, f"code of {key}")
    assert [files(tmp_path).load(key) for key in ("float32", "float64")] == ["code of float32", "code of float64"]


def test_code_of_another_source_is_not_used_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function's own file, or any other in the folder of kernels, as its functions can be inlined."""
    files(tmp_path).save("float32", "old")
    assert files(tmp_path, "another source").load("float32") is None
    monkeypatch.setattr(kernel_cache, "_sources", lambda: b"another inlined function")
    assert files(tmp_path).load("float32") is None
    files(tmp_path).save("float32", "new")
    assert files(tmp_path).load("float32") == "new"
    assert len(list(tmp_path.glob("*.nbc"))) == 1


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_cut_off_files_are_written_again(tmp_path: Path, suffix: str) -> None:
    files(tmp_path).save("float32", ["code"])
    (path,) = tmp_path.glob(f"*.{suffix}")
    complete = path.read_bytes()
    for size in range(len(complete)):
        path.write_bytes(complete[:size])
        assert files(tmp_path).load("float32") is None, size
    files(tmp_path).save("float32", ["code"])
    assert files(tmp_path).load("float32") == ["code"]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kernel_cache._Files, "_save_data", fail)
    files(tmp_path).save("float32", "code")
    assert caplog.messages == [f"{tmp_path}: compiled kernels cannot be saved: No space left on device"]


@pytest.mark.slow
def test_two_precisions_compiled_at_the_same_time(tmp_path: Path) -> None:
    """What one of the processes has removed from an index is compiled by a second run, after which all is loaded."""
    script = str(Path(__file__).with_name("compile_kernels.py"))
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def start(precision: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, script, precision], env=environment)

    def cached() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.nbc")}

    both = [start(precision) for precision in ("float32", "float64")]
    assert [process.wait() for process in both] == [0, 0]
    for precision in ("float32", "float64"):
        assert start(precision).wait() == 0
    complete = cached()
    assert complete
    for precision in ("float32", "float64"):
        assert start(precision).wait() == 0
    assert cached() == complete


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "/dev/null"])
def test_read_only_package_and_home(tmp_path: Path, home: str | None) -> None:
    """A file named __pycache__, and a home that is a file, are not writable even for root."""
    shutil.copytree(ROOT / "genoscan", tmp_path / "genoscan", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "genoscan" / "ops" / "__pycache__").write_text("")
    write_fasta(tmp_path / "g.fa", {"chr1": bases(300, 1)})
    (tmp_path / "tmp").mkdir()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": "/dev/null/cache"}
    if home is not None:
        environment["HOME"] = home
    command = [sys.executable, "-m", "genoscan", "attribute", "g.fa", "-m", str(tiny_model(tmp_path / "tiny"))]
    done = subprocess.run(
        [*command, "-o", "x.bw"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "x.bw\n"), done.stderr
    assert list((tmp_path / "tmp").glob("genoscan-kernels-*/*/*.nbi"))
