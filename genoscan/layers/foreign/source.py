"""A foreign checkpoint: its config, and its tensors by the names of the model."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.foreign.files import read_tensors
from genoscan.layers.foreign.naming import model_names

CONFIG = "config.json"
_LONGEST = 60
_FLOATS = torch.float16, torch.bfloat16, torch.float32, torch.float64


class Source:
    """A checkpoint's config, its tensors, and which of these have not been used yet.

    Tensors go by the model's names; messages name them as the file does.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.folder = path if path.is_dir() else path.parent
        self.path = path
        self.config: dict[str, Any] = _config(self.folder)
        self.defaults: Mapping[str, int] = {}
        """Sizes that config.json lacks, as the family's own config class has them."""
        self._tensors = read_tensors(path)
        self._names, self._outside = model_names(path, self._tensors)
        self._left = set(self._names)

    @property
    def names(self) -> set[str]:
        """All tensors of the model."""
        return set(self._names)

    @property
    def origin(self) -> str:
        """Where the model came from, and what in the file was around it and was left out."""
        told = f"unknown: imported from {self.name}"
        if not self._outside:
            return told
        more = ", …" if len(self._outside) > 3 else ""
        return f"{told}, without {', '.join(self._outside[:3])}{more} outside the model"

    @property
    def assumed(self) -> str:
        """The sizes that are defaults, for the end of a message."""
        if not self.defaults:
            return ""
        sizes = ", ".join(f"{name} {size}" for name, size in self.defaults.items())
        return f" (not in {CONFIG}, so by the default of its family: {sizes})"

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a weight in float32, or in float64 where the file has that.

        Raises
        ------
        ModelError
            If it is missing, of another shape or of another dtype, or not finite.
        """
        tensor = self._shaped(name, shape)
        if tensor.dtype not in _FLOATS:
            raise ModelError(
                f"{self._place(name)} is of {tensor.dtype}: expected float16, bfloat16, float32 or "
                "float64 (quantized weights are not read)"
            )
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{self._place(name)} holds values that are not finite")
        return tensor if tensor.dtype == torch.float64 else tensor.float()

    def take_indices(self, name: str, *shape: int) -> Tensor:
        """Return a buffer of whole numbers, in int64.

        Raises
        ------
        ModelError
            If it is missing, of another shape, or holds other numbers.
        """
        tensor = self._shaped(name, shape)
        whole = tensor.long()
        if not torch.equal(whole.to(tensor.dtype), tensor):
            raise ModelError(f"{self._place(name)} holds values that are not whole numbers")
        return whole

    def take_tied(self, name: str, partner: str, *shape: int) -> Tensor:
        """Return a weight that has two names in the model, of which the file may have either.

        Raises
        ------
        ModelError
            As `take`, or if the file has both and they differ.
        """
        held = [known for known in (name, partner) if known in self._names]
        if not held:
            raise ModelError(
                f'{self.path}: tensor "{name}" is missing, and so is "{partner}", which is tied to '
                f"it{self._nearest(name)}"
            )
        weight, *other = (self.take(known, *shape) for known in held)
        if other and not torch.equal(weight.double(), other[0].double()):
            raise ModelError(
                f"{self._place(partner)} is said to be tied to another, and differs from it: "
                f'"{self._names[name][0]}"'
            )
        return weight

    def finish(self) -> None:
        """Refuse a file that holds tensors which have no place in the model."""
        if self._left:
            raise ModelError(
                f"{self._place(min(self._left))} has no place in the model of its config"
                + self.assumed
            )

    def _shaped(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self._names:
            raise ModelError(f'{self.path}: tensor "{name}" is missing{self._nearest(name)}')
        first, *others = self._names[name]
        tensor = self._tensors[first]
        self._left.discard(name)
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"{self._place(name)} has shape {tuple(tensor.shape)}, its config says {shape}"
                + self.assumed
            )
        for other in others:
            if not torch.equal(self._tensors[other].to(tensor.dtype), tensor):
                raise ModelError(
                    f'{self.path}: tensors "{first}" and "{other}" differ: expected one model; '
                    "save the one that is meant as safetensors"
                )
        return tensor

    def _place(self, name: str) -> str:
        return f'{self.path}: tensor "{self._names[name][0]}"'

    def _nearest(self, name: str) -> str:
        """Return what of the file is most like a tensor that is missing."""
        # The last segments tell tensors apart; prefixes are what files differ in.
        backward = {held[::-1]: held for held in self._tensors}
        near = difflib.get_close_matches(name[::-1], list(backward), n=2, cutoff=0.6)
        found = [backward[held] for held in near] or sorted(self._tensors)[:2]
        said = " and ".join(f'"{held}"' for held in found) or "none"
        kind = "the most similar" if near else "the first"
        return f"; of the {len(self._tensors)} there, {kind}: {said}{self.assumed}"


def shown(value: object) -> str:
    """Return a config's value as a message shows it: short, and None as JSON has it."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


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
