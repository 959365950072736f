"""A run that is killed inside a window continues from its last saved state, to the same bytes."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import bases, elsewhere, listing, tiny_model, write_fasta
from commands import genoscan as command
from truth import caduceus

import genoscan
from genoscan.engine.boundaries import BoundaryStore, TensorBoundary
from genoscan.engine.recovery import load_layer, save_layer
from genoscan.errors import OutputError
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.weights import write_model
from genoscan.tracks import snapshots
from genoscan.tracks.sink import Sink
from genoscan.tracks.snapshots import FileSnapshots

KILL = """
import os, signal
from genoscan.tracks import snapshots
snapshots._INTERVAL = snapshots._SHARE = 0
save, calls = snapshots.FileSnapshots.save, []
def dying(self, name, state):
    calls.append(name)
    if len(calls) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, name, state)
snapshots.FileSnapshots.save = dying
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_fasta(folder / "g.fa", {"chr1": bases(320, 1), "chr2": bases(90, 2)})
    tiny_model(folder / "causal")
    config = caduceus.config()
    caduceus.write(folder / "foreign", config, caduceus.tensors(config))
    write_model(folder / "bidirectional", *read_foreign(folder / "foreign"), "")
    return folder


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Save a state whenever a sweep offers one."""
    monkeypatch.setattr(snapshots, "_INTERVAL", 0)
    monkeypatch.setattr(snapshots, "_SHARE", 0)
    with monkeypatch.context() as patch:
        yield patch


def run(
    source: Path, out: Path, kind: str, strand: str, slots: int = 4, memory: int | None = None
) -> dict[str, object]:
    options: dict[str, Any] = {"slots": slots, "memory": memory} if kind == "causal" else {}
    model = genoscan.load_model(source / kind, tile=20, **options)
    return genoscan.attribute_regions(source / "g.fa", out / "x.npz", regions=["chr1"], model=model, strand=strand)


def interrupt(patch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Interrupt the run when the state of this number is to be saved; return the names of all."""
    save, names = FileSnapshots.save, []

    def dying(self, name, state):  # type: ignore[no-untyped-def]
        names.append(f"{self._prefix}{name}")
        if len(names) == at:
            raise KeyboardInterrupt
        save(self, name, state)

    patch.setattr(FileSnapshots, "save", dying)
    return names


@pytest.mark.parametrize("some", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("kind", "strand"),
    [pytest.param("causal", "+", marks=pytest.mark.slow), ("causal", "both"), ("bidirectional", "both")],
)
def test_interrupted_in_every_phase(
    source: Path, tmp_path: Path, always: pytest.MonkeyPatch, kind: str, strand: str, some: bool
) -> None:
    with always.context() as patch:
        names = interrupt(patch, 0)
        run(source, tmp_path, kind, strand)
    truth = (tmp_path / "x.npz").read_bytes()
    assert len({name.split(".")[1] for name in names}) == len({strand} | ({"-"} if strand == "both" else set()))
    for at in {2, len(names) // 4 + 1, len(names) // 2 + 1, len(names)} if some else range(2, len(names) + 1):
        (tmp_path / "x.npz").unlink()
        with always.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt(patch, at)
            run(source, tmp_path, kind, strand)
        again: list[str] = []
        with always.context() as patch:
            again = interrupt(patch, 0)
            run(source, tmp_path, kind, strand)
        assert (tmp_path / "x.npz").read_bytes() == truth, (at, names[at - 1])
        assert len(again) < len(names)
        assert listing(tmp_path) == {"x.npz", "x.npz.json"}


def test_a_continued_run_computes_only_the_rest(source: Path, tmp_path: Path, always: pytest.MonkeyPatch) -> None:
    with always.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, 13)
        run(source, tmp_path, "causal", "+")
    received: list[slice] = []
    receive = Sink.receive

    def noted(self, rows, span, gradients):  # type: ignore[no-untyped-def]
        received.append(span)
        receive(self, rows, span, gradients)

    always.setattr(Sink, "receive", noted)
    run(source, tmp_path, "causal", "+", slots=2)
    assert 0 < len(received) < 14


def test_a_run_continues_with_other_memory(source: Path, tmp_path: Path, always: pytest.MonkeyPatch) -> None:
    run(source, tmp_path, "causal", "+")
    truth = (tmp_path / "x.npz").read_bytes()
    each = genoscan.load_model(source / "causal", tile=20).position_bytes
    for first, then in ((1, 3), (3, 1), (2, 3)):
        (tmp_path / "x.npz").unlink()
        with always.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt(patch, 8)
            run(source, tmp_path, "causal", "+", memory=first * 20 * each)
        run(source, tmp_path, "causal", "+", memory=then * 20 * each)
        assert (tmp_path / "x.npz").read_bytes() == truth


def test_a_saved_boundary_is_not_read_at_once(tmp_path: Path, always: pytest.MonkeyPatch) -> None:
    """Boundaries are spilled because they do not fit in memory."""
    assert always
    (tmp_path / "spill").mkdir()
    store = BoundaryStore(1 << 20, tmp_path / "spill")
    boundary = store.boundary(torch.zeros(1, 1, 4))
    assert isinstance(boundary, TensorBoundary)
    boundary.numbers.copy_(torch.arange(boundary.numbers.numel()).view_as(boundary.numbers))
    saved = FileSnapshots(tmp_path, "w", list, lambda _at: 0)
    save_layer(saved, 3, boundary)
    tracemalloc.start()
    try:
        found = load_layer(saved, store, torch.device("cpu"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found is not None
    assert isinstance(found.boundary, TensorBoundary)
    assert (found.layer, found.value) == (3, None)
    assert torch.equal(found.boundary.numbers, boundary.numbers)
    assert peak < boundary.numbers.nbytes / 3


def test_killed_inside_a_window(source: Path, tmp_path: Path) -> None:
    words = ["attribute", source / "g.fa", "-m", source / "causal", "-t", 2, "--tile", 20, "-r", "chr1"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert command(*words, "-o", whole / "x.npz").code == 0
    assert elsewhere(*words, "-o", killed / "x.npz", before=KILL).code == -9
    assert any(path.suffix == ".state" for path in (killed / "x.npz.partial").iterdir())
    assert command(*words, "-o", killed / "x.npz").code == 0
    assert (killed / "x.npz").read_bytes() == (whole / "x.npz").read_bytes()
    assert listing(killed) == {"x.npz", "x.npz.json"}


@pytest.mark.parametrize("name", ["columns", "codes", "scores", ".state"])
@pytest.mark.parametrize("finished", [True, False])
def test_flipped_bytes_are_noticed(
    source: Path, tmp_path: Path, always: pytest.MonkeyPatch, name: str, finished: bool
) -> None:
    def failing(*_given: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with always.context() as patch, pytest.raises(KeyboardInterrupt):
        if finished:
            patch.setattr("genoscan.pipeline.write_tracks", failing)
        else:
            interrupt(patch, 13)
        run(source, tmp_path, "causal", "+")
    folder = tmp_path / "x.npz.partial"
    files = [path for path in folder.iterdir() if path.name.endswith(name)]
    assert bool(files) != (finished and name == ".state")
    for path in files:
        content = bytearray(path.read_bytes())
        # The results of the last tile, which is finished first; the data of the last array.
        content[-100 if name != ".state" else content.rfind(b"\x93NUMPY") + 128] ^= 1
        path.write_bytes(content)
        with pytest.raises(OutputError, match="damaged: remove"):
            run(source, tmp_path, "causal", "+")
        return
