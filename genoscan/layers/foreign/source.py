"""A foreign checkpoint as it lies on disk: its config, and its tensors by name.

Read are `model.safetensors`, shards of it under `model.safetensors.index.json`,
`pytorch_model.bin` and Lightning's `.ckpt`.  The last two are pickles: torch unpickles them with
`weights_only`, which builds tensors and containers and runs nothing else.
"""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from genoscan.errors import ModelError

CONFIG = "config.json"
_WHOLE, _SHARDS, _PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"


class Source:
    """What is read of a checkpoint, and what of its tensors has not been asked for yet."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.folder = path if path.is_dir() else path.parent
        self.path = path
        self.config: dict[str, Any] = _config(self.folder)
        self._tensors = _plain_names(_tensors(path))
        self._left = set(self._tensors)

    @property
    def names(self) -> set[str]:
        """All tensors that there are."""
        return set(self._tensors)

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a tensor in float32.

        Raises
        ------
        ModelError
            If it is not there, of another shape, or not finite.
        """
        if name not in self._tensors:
            raise ModelError(f'{self.path}: tensor "{name}" is missing')
        tensor = self._tensors[name]
        self._left.discard(name)
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f'{self.path}: tensor "{name}" has shape {tuple(tensor.shape)}, its config says '
                f"{shape}"
            )
        if not tensor.is_floating_point():
            return tensor
        if not torch.isfinite(tensor).all():
            raise ModelError(f'{self.path}: tensor "{name}" holds values that are not finite')
        return tensor.float()

    def tied(self, name: str, partner: Tensor) -> None:
        """Check a tensor that equals its partner, where the file holds it at all."""
        if name in self._tensors and not torch.equal(self.take(name, *partner.shape), partner):
            raise ModelError(
                f'{self.path}: tensor "{name}" is said to be tied to another, and differs from it'
            )

    def finish(self) -> None:
        """Refuse a file that holds tensors which have no place in the model."""
        if self._left:
            raise ModelError(
                f'{self.path}: tensor "{min(self._left)}" has no place in the model of its config'
            )


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder}: no {CONFIG} in it, which says what the model is") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{file}: expected a table of settings")
    return config


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.is_file():
        return _safetensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    if (path / _WHOLE).is_file():
        return _safetensors(path / _WHOLE)
    if (path / _SHARDS).is_file():
        return _shards(path / _SHARDS)
    pickled = [path / _PICKLE] if (path / _PICKLE).is_file() else sorted(path.glob("*.ckpt"))
    if len(pickled) == 1:
        return _unpickled(pickled[0])
    raise ModelError(f"{path}: expected {_WHOLE}, {_SHARDS}, {_PICKLE} or one .ckpt in it")


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: not a whole safetensors file ({error})") from None


def _shards(index: Path) -> dict[str, Tensor]:
    try:
        places: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index}: not an index of shards ({error})") from None
    found: dict[str, Tensor] = {}
    for name in files:
        if Path(name).name != name:
            raise ModelError(f'{index}: shard "{name}" lies outside its folder')
        found |= _safetensors(index.parent / name)
    if missing := sorted(set(places) - set(found)):
        raise ModelError(f'{index}: tensor "{missing[0]}" is not in {places[missing[0]]}')
    return found


def _unpickled(file: Path) -> dict[str, Tensor]:
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file}: holds more than tensors, and is not opened: {_first_line(error)}; save its "
            "state dict as safetensors where you trust it"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read: {_first_line(error)}") from None
    held = held.get("state_dict", held) if isinstance(held, dict) else held
    if not isinstance(held, dict):
        raise ModelError(f"{file}: expected tensors by name, found {type(held).__name__}")
    return {str(name): tensor for name, tensor in held.items() if isinstance(tensor, Tensor)}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the prefix under which Lightning keeps the model."""
    if all(name.startswith("model.") for name in tensors):
        return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return tensors
