"""Functions that read tensors from checkpoint files.

The supported formats are `model.safetensors`, `pytorch_model.bin`, sharded versions of either file with an
index, and training checkpoints (`.ckpt`, `.pt` or `.pth`). All formats except safetensors are based on
pickle. These files are loaded in the `weights_only` mode of torch, which creates only tensors and
containers and runs no other code.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.json_input import parse_json
from genoscan.layers.downloads import check_downloaded
from genoscan.layers.foreign.naming import is_model

_INDEX = ".index.json"
_WHOLE, _PICKLE = "model.safetensors", "pytorch_model.bin"
_PREFERRED = _WHOLE, _WHOLE + _INDEX, _PICKLE, _PICKLE + _INDEX
_MAX_DEPTH = 3
"""Maximum depth of the nested dictionaries that are searched for a model."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint.

    Parameters
    ----------
    path
        Folder of a checkpoint, file that contains tensors, or index file of a sharded checkpoint.

    Returns
    -------
    dict
        Tensors on the CPU, by their names in the file.

    Raises
    ------
    ModelError
        If no supported file is found, or if the file is damaged, contains objects other than tensors, or
        does not contain exactly one model.
    """
    if path.is_file():
        return _read(path)
    for name in _PREFERRED:
        if (path / name).is_file():
            return _read(path / name)
    # Next to a .ckpt file, .pt and .pth files contain optimizer or scheduler states.
    pickled = sorted(path.glob("*.ckpt")) or sorted([*path.glob("*.pt"), *path.glob("*.pth")])
    if len(pickled) == 1:
        return _read(pickled[0])
    found = ", ".join(sorted(file.name for file in path.iterdir())[:8]) if path.is_dir() else ""
    raise ModelError(
        f"{path}: expected {', '.join(_PREFERRED)} or one .ckpt, .pt or .pth file, found {found or 'no such folder'}"
    )


def _read(file: Path) -> dict[str, Tensor]:
    if file.name.endswith(_INDEX):
        return _shards(file)
    return _safetensors(file) if file.suffix == ".safetensors" else _unpickled(file)


def _safetensors(file: Path) -> dict[str, Tensor]:
    check_downloaded(file)
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: not a complete safetensors file ({error})") from None


def _shards(index: Path) -> dict[str, Tensor]:
    check_downloaded(index, "JSON")
    try:
        shard_of = parse_json(index.read_bytes())["weight_map"]
        files = sorted(set(shard_of.values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index}: not an index of shards ({error})") from None
    if not all(isinstance(name, str) for name in files):
        raise ModelError(f"{index}: not an index of shards (expected one file name per tensor)")
    if outside := [name for name in files if not _is_below(name)]:
        raise ModelError(f'{index}: shard "{outside[0]}" is outside its folder')
    found: dict[str, Tensor] = {}
    for name in files:
        file = index.parent / name
        if not file.is_file():
            raise ModelError(f'{index}: shard "{name}" not found: download it too')
        shard = _safetensors(file) if file.suffix == ".safetensors" else _unpickled(file)
        # Include tensors missing from the index, but not those that it assigns to another shard.
        found |= {tensor: shard[tensor] for tensor in shard if shard_of.get(tensor, name) == name}
    if missing := sorted(set(shard_of) - set(found)):
        raise ModelError(f'{index}: tensor "{missing[0]}" is not in {shard_of[missing[0]]}')
    return found


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _unpickled(file: Path) -> dict[str, Tensor]:
    check_downloaded(file)
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise any exception
        raise ModelError(f"{file}: {_reason(error)}") from None
    if not isinstance(loaded, dict):
        raise ModelError(f"{file}: expected tensors by name, found {type(loaded).__name__}")
    return _state_dict(file, loaded)


def _state_dict(file: Path, loaded: dict[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors of the only model in the nested dictionaries of a training checkpoint.

    An error is raised if there is no model, or more than one.
    """
    level: Mapping[str, dict[Any, Any]] = {"": loaded}
    for _ in range(_MAX_DEPTH + 1):
        found = {place: _tensors_of(within) for place, within in level.items()}
        models = {place: tensors for place, tensors in found.items() if is_model(tensors)}
        if len(models) > 1:
            places = " and ".join(f'"{place}"' for place in models)
            raise ModelError(f"{file}: models under {places}: expected one; save the intended one as safetensors")
        if models:
            return next(iter(models.values()))
        level = {
            f"{place}.{key}".lstrip("."): inner
            for place, within in level.items()
            for key, inner in within.items()
            if isinstance(inner, dict)
        }
    keys = ", ".join(map(str, list(loaded)[:5])) or "nothing"
    raise ModelError(
        f"{file}: expected tensors of a Mamba or Caduceus model by name (backbone., lm_head.), found {keys}"
    )


def _tensors_of(loaded: dict[Any, Any]) -> dict[str, Tensor]:
    return {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}


def _reason(error: Exception) -> str:
    """Return the reason why torch rejected a file, without its advice to load the file unsafely."""
    text = str(error).strip()
    remedy = "save its state dict as safetensors if you trust it"
    if "TorchScript" in text:
        return f"is a TorchScript archive, which contains code, and was not loaded; {remedy}"
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        return f"contains more than tensors and was not loaded: found {found[1]}; {remedy}"
    if "unrecognized" in text or "Can only" in text:
        return f"contains more than tensors and was not loaded; {remedy}"
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text:
        return "cannot be read: damaged, or not written by torch.save"
    return f"cannot be read: {(text.splitlines() or [type(error).__name__])[0]}"
