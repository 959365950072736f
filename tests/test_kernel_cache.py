"""Kernels are compiled and cached where neither the package nor the home folder is writable."""

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
