"""The file from which a run continues that was killed: weights, optimiser, and progress.

A safetensors file with the tensors weight.NAME (present weights), best.NAME (those best on
validation) and KEY.NAME (the optimiser's), and settings and progress as JSON in its metadata.
Batches depend only on seed and step, so no generator has a state.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.experiment import Cell, Environment
from benchmarks.learning import BestWeights
from genoscan.errors import InputError
from genoscan.tracks.atomic import atomic_write, os_errors
from genoscan.training.optimizer import load_state, state_tensors
from genoscan.training.state import tensors_sha256

SECONDS = 180.0
"""Time between two checkpoints."""

_KEY = "genoscan-run"


@dataclass
class Progress:
    """Progress of a run.

    step     updates so far
    seconds  processor time so far
    curve    (step, mean loss since the previous entry, score on validation)
    losses   losses since the last entry of the curve
    """

    step: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


class Checkpoint:
    """Saves a run every few minutes, and loads it.

    Parameters
    ----------
    path
        File; its folder exists.
    settings
        Everything that the run depends on, as JSON values.
    seconds
        Time between two checkpoints.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], seconds: float = SECONDS) -> None:
        self.path = path
        self._settings = json.loads(json.dumps(settings))
        self._seconds = seconds
        self._last = time.monotonic()

    def load(
        self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, best: BestWeights
    ) -> Progress:
        """Load the checkpoint, if there is one; return the progress.

        Raises
        ------
        InputError
            If the file is damaged or from a run with other settings.
        """
        if not self.path.exists():
            return Progress()
        try:
            with safe_open(self.path, "pt") as file:
                state = json.loads(file.metadata()[_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if state["sha256"] != tensors_sha256(tensors):
                raise ValueError("the tensors are not those that were saved")
            known = state["settings"] == self._settings
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path}: damaged: {error}; remove it to start the run again") from None
        if not known:
            raise InputError(f"{self.path}: from a run with other settings; remove it to start the run again")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[f"weight.{name}"])
        load_state(optimizer, parameters, tensors)
        best.score = state["best"]
        best.weights = {
            name: tensors[f"best.{name}"].to(part.device, part.dtype) for name, part in best.weights.items()
        }
        done = Progress(**state["progress"])
        done.curve = [tuple(point) for point in done.curve]  # type: ignore[misc]
        return done

    def save(
        self,
        progress: Progress,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        best: BestWeights,
        *,
        now: bool = False,
    ) -> None:
        """Replace the checkpoint, if the last one is old enough or `now` is True."""
        if time.monotonic() - self._last < self._seconds and not now:
            return
        tensors: dict[str, Tensor] = {f"weight.{name}": part.detach() for name, part in parameters.items()}
        tensors |= {f"best.{name}": part for name, part in best.weights.items()}
        tensors |= state_tensors(optimizer, parameters)
        tensors = {name: part.cpu().clone(memory_format=torch.contiguous_format) for name, part in tensors.items()}
        state = {"settings": self._settings, "progress": asdict(progress), "best": best.score}
        text = json.dumps(state | {"sha256": tensors_sha256(tensors)})
        with atomic_write(self.path) as part, os_errors(self.path):
            part.write_bytes(save(tensors, {_KEY: text}))
        self._last = time.monotonic()

    def remove(self) -> None:
        """Remove the file, when the results of the run are known."""
        self.path.unlink(missing_ok=True)


def run_checkpoint(
    stem: Path, cell: Cell, environment: Environment, *, data: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Return the checkpoint of a cell's run, beside the results of its experiment.

    Parameters
    ----------
    stem
        Path of the results, without their ending.
    data
        Files that are read, as in `Experiment.data`.
    """
    settings = {
        "cell": dict(cell.settings),
        "data": data,
        "environment": asdict(environment),
        **machine.circumstances(environment.device),
    }
    return Checkpoint(Path(f"{stem}-{cell.name.replace(' ', '-')}.checkpoint.safetensors"), settings)
