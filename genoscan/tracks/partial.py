"""Unfinished results, kept beside the output so that no finished batch is ever lost.

`OUT.partial/` holds memory maps over all scored bases, one region after the other, and the
numbers of the batches that are done.  A batch is noted only once its numbers are in the maps;
whatever a kill leaves of an unfinished one is computed again.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genoscan.errors import InputError, OutputError
from genoscan.genome.region import Region
from genoscan.tracks.atomic import explained

_SETTINGS, _DONE = "settings.json", "done"


@dataclass(frozen=True)
class Partial:
    """Scores, bases and, where asked for, the four columns of every scored base.

    Memory: on disk, 5 bytes a base, 21 with columns; what is resident the system may drop.
    """

    path: Path
    scores: np.ndarray
    codes: np.ndarray
    columns: np.ndarray | None
    offsets: Mapping[Region, int]
    done: dict[int, list[float]]

    def keep(self, batch: int, values: Sequence[float]) -> None:
        """Note that a batch is finished, with its target's values."""
        for array in (self.scores, self.codes, self.columns):
            if isinstance(array, np.memmap):
                array.flush()
        with explained(self.path), (self.path / _DONE).open("a") as file:
            file.write(json.dumps({"batch": batch, "values": list(values)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[batch] = list(values)

    def remove(self) -> None:
        """Delete it all: the finished files have taken its place."""
        shutil.rmtree(self.path)


def open_partial(
    output: Path, regions: Sequence[Region], settings: Mapping[str, Any], *, columns: bool
) -> Partial:
    """Start, or go on with what an earlier run with the same settings has left.

    Raises
    ------
    InputError
        If an earlier run had other settings; the message names the first that differs.
    OutputError
        If the files cannot be made.
    """
    path = output.with_name(output.name + ".partial")
    with explained(path):
        path.mkdir(exist_ok=True)
        _check_settings(path, json.loads(json.dumps(settings)), output)
        lengths = [len(region) for region in regions]
        total = sum(lengths)
        offsets = dict(zip(regions, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True))
        return Partial(
            path,
            scores=_map(path / "scores", np.float32, (total,)),
            codes=_map(path / "codes", np.uint8, (total,)),
            columns=_map(path / "columns", np.float32, (total, 4)) if columns else None,
            offsets=offsets,
            done=_done(path / _DONE),
        )


def _map(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Map a file whose room is taken at once: a full disk is an error here, not a crash later."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size == 0:
        return np.zeros(shape, dtype)
    with path.open("ab") as file:
        if file.tell() != size:
            os.posix_fallocate(file.fileno(), 0, size)
    return np.memmap(path, dtype, "r+", shape=shape)


def _check_settings(path: Path, settings: dict[str, Any], output: Path) -> None:
    file = path / _SETTINGS
    if not file.exists():
        partial = file.with_suffix(".new")
        partial.write_text(json.dumps(settings, indent=1))
        partial.replace(file)
        return
    try:
        before = json.loads(file.read_text())
    except ValueError:
        raise OutputError(f"{file}: damaged; remove {path} to start again") from None
    for name in sorted({*before, *settings}):
        if before.get(name) != settings.get(name):
            raise InputError(
                f"{path}: holds an unfinished run with {name} {_brief(before.get(name))}, this one "
                f"has {_brief(settings.get(name))}; give the same to go on with it, remove the "
                f"folder to start again, or name another output than {output.name}"
            )


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _done(path: Path) -> dict[int, list[float]]:
    """Read the finished batches; a last line that a kill cut short does not count."""
    done: dict[int, list[float]] = {}
    if path.exists():
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                entry = json.loads(line)
                done[entry["batch"]] = entry["values"]
    return done
