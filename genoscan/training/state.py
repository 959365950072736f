"""Checkpoints of a training run. Each checkpoint consists of a JSON file and a safetensors file.

- `state.json` contains the settings, the step, the training time, the loss curve, and the name and
  checksum of the tensor file.
- `step-N.safetensors` contains the weights, named weight.PARAMETER, and the state of the optimizer,
  named KEY.PARAMETER.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numba
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genoscan import __version__
from genoscan.errors import InputError, note_unfinished
from genoscan.json_input import first_problem, parse_json
from genoscan.layers.config import ModelConfig
from genoscan.temporary import locked_folder
from genoscan.tracks.atomic import atomic_write, make_partial_folder
from genoscan.tracks.provenance import file_sha256
from genoscan.training.data import Split
from genoscan.training.differences import describe_differences
from genoscan.training.labels import LabelledHead
from genoscan.training.optimizer import load_state, state_tensors

STATE = "state.json"
_FORMAT = "genoscan-training/1"
_WEIGHT = "weight"
_TEMPORARY = ".tmp??????", ".state.json.*.part"
"""Patterns of the temporary files that safetensors and `save` leave behind if the process is killed."""


def settings(
    config: ModelConfig,
    options: Mapping[str, Any],
    split: Split,
    weight: Tensor,
    initial: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Return all settings that determine the trained weights, bit for bit.

    Parameters
    ----------
    config
        Configuration of the model.
    options
        Training options.
    split
        Training and validation data.
    weight
        Any parameter of the model; its dtype and device are recorded.
    initial
        Initial values of parameters, by name. None if all parameters are initialised at random.

    Returns
    -------
    dict
        Settings as JSON values; tuples are converted to lists.
    """
    recorded = {
        "format": _FORMAT,
        "versions": {
            "genoscan": __version__,
            "torch": torch.__version__,
            "numba": numba.__version__,
            "numpy": np.__version__,
        },
        "options": dict(options),
        "validation": split.held_out,
        "regions": split.regions,
        "sequences": [asdict(sequence) for sequence in split.sequences],
        "labels": {name: _labels_sha256(head, split) for name, head in split.heads.items()},
        "initial": None if initial is None else tensors_sha256(initial),
        "config": config.model_dump(mode="json"),
        "dtype": str(weight.dtype).removeprefix("torch."),
        "device": _hardware(weight.device),
        "threads": torch.get_num_threads(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(recorded))
    return plain


def _labels_sha256(head: LabelledHead, split: Split) -> str:
    """Return a SHA-256 checksum of the labels of a head for all sequences in the split."""
    digest = hashlib.sha256()
    for sequence in split.sequences:
        labels = np.ascontiguousarray(head.labels[sequence.name])
        digest.update(sequence.name.encode() + b"\0" + labels.tobytes())
    return digest.hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return a checksum of named tensors.

    Parameters
    ----------
    tensors
        Tensors by name; their order does not matter.

    Returns
    -------
    str
        SHA-256 checksum, in hexadecimal.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0" + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _hardware(device: torch.device) -> str:
    """Return the type of a device, with the vector instruction set of a CPU or the name of a CUDA GPU."""
    if device.type == "cpu":
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return device.type


@contextmanager
def open_work(work: Path) -> Iterator[None]:
    """Create and lock the folder of a training run; on exit, remove it if it is empty.

    If a killed process left temporary files behind, these files are removed.

    Parameters
    ----------
    work
        Folder of the training run.

    Raises
    ------
    OutputError
        If another run is using the folder, the folder is a symbolic link, or the folder contains other
        files.
    """
    make_partial_folder(work, (STATE, "step-*.safetensors", *_TEMPORARY))
    with locked_folder(work):
        for pattern in _TEMPORARY:
            for remains in work.glob(pattern):
                remains.unlink()
        try:
            yield
        except BaseException as error:
            if (work / STATE).exists():
                note_unfinished(error, "the last checkpoint is kept", work)
            raise
        finally:
            with suppress(OSError):
                work.rmdir()


def save(
    work: Path,
    recorded: Mapping[str, Any],
    step: int,
    seconds: float,
    rows: list[dict[str, Any]],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write a checkpoint atomically and remove the previous one.

    Parameters
    ----------
    work
        Folder of the training run. It is created if it does not exist.
    recorded
        Settings as returned by `settings`.
    step
        Number of updates completed.
    seconds
        Training time so far, in seconds.
    rows
        Loss curve, with one row per report.
    parameters
        Parameters by name.
    optimizer
        Optimizer of the parameters.

    Notes
    -----
    The previous checkpoint is removed only after the new one is complete. The folder therefore contains
    a complete checkpoint even if the process is killed.
    """
    work.mkdir(parents=True, exist_ok=True)
    tensors = {f"{_WEIGHT}.{name}": p.detach() for name, p in parameters.items()}
    tensors |= state_tensors(optimizer, parameters)
    tensors_name = f"step-{step}.safetensors"
    save_file({name: t.contiguous() for name, t in tensors.items()}, work / tensors_name)
    state = {"settings": recorded, "step": step, "seconds": seconds, "rows": rows}
    state |= {"tensors": tensors_name, "tensors_sha256": file_sha256(work / tensors_name)}
    with atomic_write(work / STATE) as part:
        part.write_text(json.dumps(state | {"checksum": _checksum(state)}))
    for old in work.glob("step-*.safetensors"):
        if old.name != tensors_name:
            old.unlink()


class State(BaseModel):
    """Contents of state.json.

    Attributes
    ----------
    settings
        Settings as returned by `settings`.
    step
        Number of updates completed.
    seconds
        Training time so far, in seconds.
    rows
        Loss curve, with one row per report.
    tensors
        Name of the tensor file.
    tensors_sha256, checksum
        Checksum of the tensor file, and checksum of the other values in state.json except the settings.
        Both are None if the file was written by an early version of genoscan, which did not store
        checksums.
    """

    model_config = ConfigDict(strict=True)

    settings: dict[str, Any]
    step: NonNegativeInt
    seconds: Annotated[FiniteFloat, Field(ge=0)]
    rows: list[dict[str, Any]]
    tensors: Annotated[str, Field(pattern=r"^step-\d+\.safetensors$")]
    tensors_sha256: str | None = None
    checksum: str | None = None


def read_state(work: Path) -> State:
    """Read state.json.

    Parameters
    ----------
    work
        Folder of the training run.

    Returns
    -------
    State
        Contents of the file.

    Raises
    ------
    InputError
        If the file cannot be read or is damaged. If a value is invalid, the message names its key.
    """
    file, restart = work / STATE, f"remove {work} to start again"
    try:
        # A loss that is not finite is stored as NaN.
        state = State.model_validate(parse_json(file.read_bytes(), constants=True))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}; {restart}") from None
    except ValidationError as error:
        raise InputError(f"{file}: damaged: {first_problem(error)}; {restart}") from None
    except ValueError as error:
        raise InputError(f"{file}: damaged: {error}; {restart}") from None
    if state.checksum not in (None, _checksum(state.model_dump())):
        raise InputError(f"{file}: damaged; {restart}")
    return state


def resume(
    work: Path, recorded: Mapping[str, Any], parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[int, float, list[dict[str, Any]]]:
    """Load a checkpoint into the parameters and the optimizer.

    Parameters
    ----------
    work
        Folder of the training run.
    recorded
        Settings as returned by `settings`.
    parameters
        Parameters by name; unchanged if there is no checkpoint.
    optimizer
        Optimizer of the parameters; unchanged if there is no checkpoint.

    Returns
    -------
    step
        Number of updates completed; 0 if there is no checkpoint.
    seconds
        Training time so far, in seconds.
    rows
        Loss curve, with one row per report.

    Raises
    ------
    InputError
        If the checkpoint is damaged, or was written with different settings. In the latter case, the
        message names the first differences.
    """
    restart = f"remove {work} to start again"
    if not (work / STATE).exists():
        return 0, 0.0, []
    state = read_state(work)
    tensors_file = work / state.tensors
    if differing := describe_differences(state.settings, recorded):
        raise InputError(
            f"{work}: contains a training run with other settings: {differing}; use the same settings, or {restart}"
        )
    try:
        tensors = load_file(tensors_file)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors.pop(f"{_WEIGHT}.{name}"))
        load_state(optimizer, parameters, tensors)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{tensors_file}: {reason}; {restart}") from None
    except KeyError as error:
        raise InputError(f"{tensors_file}: no tensor {error}; {restart}") from None
    if state.tensors_sha256 is not None and file_sha256(tensors_file) != state.tensors_sha256:
        raise InputError(f"{tensors_file}: damaged; {restart}")
    return state.step, state.seconds, state.rows


def _checksum(state: Mapping[str, Any]) -> str:
    """Return a checksum of all values in a state except the settings, which are compared directly."""
    values = {key: state[key] for key in sorted(state) if key not in ("settings", "checksum")}
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
