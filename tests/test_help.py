"""Help on topics, completion, versions, and messages while a command runs."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import ROOT, bases, genoscan, tiny_model, write_fasta

from genoscan.cli import progress
from genoscan.cli.inputs import parse_size
from genoscan.cli.messages import format_duration, format_size, size_option
from genoscan.cli.topics import TOPICS
from genoscan.model import load_model
from genoscan.ops import kernel_cache
from genoscan.targets import parse_target
from genoscan.tracks.journal import open_journal
from genoscan.tracks.score import SCORES
from genoscan.tracks.snapshots import SUFFIX


@pytest.mark.parametrize("topic", TOPICS)
def test_topics(topic: str) -> None:
    done = genoscan("help", topic)
    assert (done.code, done.out, done.err) == (0, TOPICS[topic], "")
    assert max(map(len, done.out.splitlines())) <= 110
    options = set(re.findall(r"--[a-z][a-z-]+", done.out))
    known = "".join(genoscan(name, "--help").out for name in ("attribute", "variants", "mutate", "response"))
    assert options <= set(re.findall(r"--[a-z][a-z-]+", known))


def test_topics_are_those_of_the_program() -> None:
    assert set(re.findall(r"^  ([a-z]+)   ", TOPICS["scores"], re.MULTILINE)) == set(SCORES)
    examples = re.findall(r"^  --target (\S+)$", TOPICS["targets"], re.MULTILINE)
    assert len(examples) == 3
    model, sizes = load_model("arabidopsis-genes"), {"chr1": 50_000}
    language, sites = load_model("bacteria"), model.with_head("sites")
    for text in examples:
        parse_target(text, sizes, sites if text.startswith("sites") else language)


def test_help_of_commands() -> None:
    assert genoscan("help", "track", "merge").out == genoscan("track", "merge", "--help").out
    assert genoscan("help").out == genoscan("--help").out
    done = genoscan("help", "track", "targets")
    assert (done.code, done.out) == (2, "")
    assert "no topic or command track targets" in done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    done = genoscan("completion", shell)
    assert (done.code, done.err) == (0, "")
    assert f"_GENOSCAN_COMPLETE={shell}_complete" in done.out


def test_bash_completes(tmp_path: Path) -> None:
    script, program = tmp_path / "completion", tmp_path / "genoscan"
    script.write_text(genoscan("completion", "bash").out)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m genoscan "$@"\n')
    program.chmod(0o755)
    asks = f"source {script}; COMP_WORDS=(genoscan track me); COMP_CWORD=2; _genoscan_completion {program}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", asks + "; echo $COMPREPLY"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "merge\n"


def test_version() -> None:
    import numba
    import torch

    done = genoscan("--version")
    assert done.code == 0
    first, libraries, device = done.out.splitlines()
    assert re.fullmatch(r"genoscan, version \d+\.\d+\.\d+", first)
    assert f"torch {torch.__version__}, numba {numba.__version__}, Python 3." in libraries
    assert device.startswith("device: c")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (99, "99 s"),
        (100, "2 min"),
        (5_990, "100 min"),
        (6_000, "1.7 h"),
        (172_000, "47.8 h"),
        (172_800, "2 days 0 h"),
        (4e8, "4,629 days 15 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text", "option"),
    [
        (0, "0.0 MB", "0MB"),
        (205_400_001, "205.4 MB", "206MB"),
        (999_999_999, "1,000.0 MB", "1000MB"),
        (10**9, "1.0 GB", "1.0GB"),
        (12_340_000_000, "12.3 GB", "12.4GB"),
        (6_668_796_000_000, "6.7 TB", "6.7TB"),
        (6_700_000_000_001, "6.7 TB", "6.8TB"),
    ],
)
def test_sizes(n_bytes: int, text: str, option: str) -> None:
    assert (format_size(n_bytes), size_option(n_bytes)) == (text, option)
    read = parse_size(option)
    assert isinstance(read, int)
    assert read >= n_bytes


def test_progress_is_in_bases_of_the_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_INTERVAL", 0.0)
    genome, model = write_fasta(tmp_path / "g.fa", {"chr1": bases(400, 1)}), tiny_model(tmp_path / "tiny")
    for command in ("attribute", "predict", "mutate"):
        done = genoscan(command, genome, "-m", model, "-r", "chr1:201-260", "--tile", 16, "-o", tmp_path / "x.bw")
        assert done.code == 0, done.err
        lines = [line for line in done.err.splitlines() if line.startswith("genoscan: ")]
        shown = [
            re.fullmatch(r"genoscan: (\d+) of 60 bases, (\d+) %, [\d,]+ bases/s, \d+ s left", line) for line in lines
        ]
        assert shown and all(shown), lines
        amounts = [int(match[1]) for match in shown if match]
        assert amounts == sorted(amounts)
        assert amounts[-1] == 60 or command == "mutate"  # whose work is an estimate


def test_a_run_that_stopped_inside_a_window_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "genoscan")
    with open_journal(tmp_path / "x.bw", {}) as journal:
        journal.log_resumed(0, 3, "regions")
        assert caplog.messages == []
        (journal.path / f"0.0{SUFFIX}").touch()
        journal.log_resumed(0, 3, "regions")
    assert caplog.messages == ["resuming: 0 of 3 regions done, and part of one"]


def test_compilation_is_announced(tmp_path: Path) -> None:
    """The process is not needed after the line, and compilation takes long."""
    genome, model = write_fasta(tmp_path / "g.fa", {"chr1": bases(400, 1)}), tiny_model(tmp_path / "tiny")
    command = [sys.executable, "-m", "genoscan", "attribute", genome, "-m", model, "-o", tmp_path / "x.bw"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cold"), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "compiling kernels (once, about 5 s)\n"
        process.kill()


def test_a_compilation_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, kernel_cache.__name__)
    announcement = kernel_cache._Announcement(cached=False)
    for module in ("theirs", "genoscan.ops.cpu_scan", "genoscan.ops.cpu_scan"):
        dispatcher = SimpleNamespace(py_func=SimpleNamespace(__module__=module))
        announcement.on_start(SimpleNamespace(data={"dispatcher": dispatcher}))
        assert len(caplog.messages) == (module != "theirs")
    assert caplog.messages == ["compiling kernels (in every run, because no folder for them can be written, about 5 s)"]
