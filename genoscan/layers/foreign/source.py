"""Checkpoints from other projects, with their configurations and tensors."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.json_input import parse_json
from genoscan.layers.downloads import check_downloaded
from genoscan.layers.foreign.files import read_tensors
from genoscan.layers.foreign.naming import model_names

CONFIG = "config.json"
_MAX_LENGTH = 60
_FLOATS = torch.float16, torch.bfloat16, torch.float32, torch.float64


class Source:
    """A checkpoint from another project.

    The object also records which of its tensors have been used in the conversion.

    Parameters
    ----------
    path
        Folder or file of the checkpoint.
    name
        Name of the checkpoint.

    Attributes
    ----------
    name
        Name of the checkpoint.
    path
        Folder or file of the checkpoint.
    folder
        Folder that contains config.json.
    config
        Contents of config.json, as a dictionary.
    defaults
        Sizes that are missing from config.json, with the default values of the model family. The attribute
        is set by `read_settings`.

    Raises
    ------
    ModelError
        If the checkpoint cannot be read or does not contain exactly one model.

    Notes
    -----
    The arguments of the methods are the names of tensors in the model. Error messages give the names of
    these tensors in the file.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.folder = path if path.is_dir() else path.parent
        self.path = path
        self.config: dict[str, Any] = _config(self.folder)
        self.defaults: Mapping[str, int] = {}
        self._tensors = read_tensors(path)
        self._names, self._outside, self._prefixes = model_names(path, self._tensors)
        self._unused = set(self._names)

    @property
    def names(self) -> set[str]:
        """Names of all tensors in the model."""
        return set(self._names)

    @property
    def origin(self) -> str:
        """Description of the origin of the model.

        It includes the names of tensors that were left out, and unknown prefixes that were removed from
        tensor names.
        """
        origin = f"unknown: imported from {self.name}"
        if self._prefixes:
            origin += f", with {' and '.join(self._prefixes)} removed from the names of its tensors"
        if not self._outside:
            return origin
        more = ", …" if len(self._outside) > 3 else ""
        return f"{origin}, without {', '.join(self._outside[:3])}{more} outside the model"

    @property
    def assumed(self) -> str:
        """Text to append to error messages: a list of the sizes that were set to default values.

        The text is empty if there are no such sizes.
        """
        if not self.defaults:
            return ""
        sizes = ", ".join(f"{name} {size}" for name, size in self.defaults.items())
        return f" (not in {CONFIG}; defaults of its family: {sizes})"

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a weight, and mark it as used.

        Parameters
        ----------
        name
            Name of the tensor in the model.
        *shape
            Expected shape of the tensor.

        Returns
        -------
        Tensor
            The weight. It is float64 if it is stored as float64; otherwise, it is float32.

        Raises
        ------
        ModelError
            If the tensor is missing, contains values that are not finite, or has an unexpected shape or
            dtype.
        """
        tensor = self._shaped(name, shape)
        if tensor.dtype not in _FLOATS:
            raise ModelError(
                f"{self._place(name)} is {tensor.dtype}: expected float16, bfloat16, float32 or "
                "float64 (quantized weights are not supported)"
            )
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{self._place(name)} has values that are not finite")
        return tensor if tensor.dtype == torch.float64 else tensor.float()

    def n_rows(self, name: str) -> int:
        """Return the size of the first axis of a tensor, given its name in the model.

        Raises
        ------
        ModelError
            If the tensor is a scalar or is empty.
        """
        shape = self._tensors[self._names[name][0]].shape
        if 0 in shape or not shape:
            raise ModelError(f"{self._place(name)} has shape {tuple(shape)}: expected at least one row")
        return shape[0]

    def omit(self, prefix: str) -> None:
        """Leave out all unused tensors of the model whose names begin with `prefix`.

        They are then listed in `origin`, and `check_all_used` ignores them.
        """
        left_out = sorted(name for name in self._unused if name.startswith(prefix))
        self._outside += [stored for name in left_out for stored in self._names[name]]
        self._unused.difference_update(left_out)

    def take_indices(self, name: str, *shape: int) -> Tensor:
        """Return a tensor of integers as int64, and mark it as used.

        Parameters
        ----------
        name
            Name of the tensor in the model.
        *shape
            Expected shape of the tensor.

        Returns
        -------
        Tensor
            The integers, as int64.

        Raises
        ------
        ModelError
            If the tensor is missing, has the wrong shape, or contains values that are not integers.
        """
        tensor = self._shaped(name, shape)
        whole = tensor.long()
        if not torch.equal(whole.to(tensor.dtype), tensor):
            raise ModelError(f"{self._place(name)} has values that are not integers")
        return whole

    def take_tied(self, name: str, partner: str, *shape: int) -> Tensor:
        """Return a weight that is stored under at least one of two names, and mark it as used.

        Parameters
        ----------
        name, partner
            The two names of the tensor in the model.
        *shape
            Expected shape of the tensor.

        Returns
        -------
        Tensor
            The weight. It is float64 if it is stored as float64; otherwise, it is float32.

        Raises
        ------
        ModelError
            If the file contains neither tensor, if it contains different tensors under the two names, or if
            a tensor is invalid (see `take`).
        """
        found = [known for known in (name, partner) if known in self._names]
        if not found:
            raise ModelError(
                f'{self.path}: tensor "{name}" is missing, and so is "{partner}", to which it is '
                f"tied{self._nearest(name)}"
            )
        weight, *other = (self.take(known, *shape) for known in found)
        if other and not torch.equal(weight.double(), other[0].double()):
            raise ModelError(
                f'{self._place(partner)} differs from the tensor to which it is tied, "{self._names[name][0]}"'
            )
        return weight

    def check_all_used(self) -> None:
        """Check that all tensors of the model have been used.

        Raises
        ------
        ModelError
            If a tensor has not been used; the error message names it.
        """
        if self._unused:
            raise ModelError(f"{self._place(min(self._unused))} is not part of the model in its config" + self.assumed)

    def _shaped(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self._names:
            raise ModelError(f'{self.path}: tensor "{name}" is missing{self._nearest(name)}')
        first, *others = self._names[name]
        tensor = self._tensors[first]
        self._unused.discard(name)
        if tuple(tensor.shape) != shape:
            raise ModelError(
                f"{self._place(name)} has shape {tuple(tensor.shape)}, its config implies {shape}" + self.assumed
            )
        for other in others:
            if not torch.equal(self._tensors[other].to(tensor.dtype), tensor):
                raise ModelError(
                    f'{self.path}: tensors "{first}" and "{other}" differ: expected one model; '
                    "save the intended one as safetensors"
                )
        return tensor

    def _place(self, name: str) -> str:
        return f'{self.path}: tensor "{self._names[name][0]}"'

    def _nearest(self, name: str) -> str:
        """Return a text to append to error messages: the names that are most similar to a missing name."""
        # Compare from the end: prefixes vary between files, but the last segments identify a tensor.
        backward = {stored[::-1]: stored for stored in self._tensors}
        near = difflib.get_close_matches(name[::-1], list(backward), n=2, cutoff=0.6)
        found = [backward[stored] for stored in near] or sorted(self._tensors)[:2]
        names = " and ".join(f'"{stored}"' for stored in found) or "none"
        kind = "the most similar" if near else "the first"
        return f"; of {len(self._tensors)} in the file, {kind}: {names}{self.assumed}"


def format_value(value: object) -> str:
    """Format a setting for an error message; long values are truncated, and None is written as null."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= _MAX_LENGTH else text[:_MAX_LENGTH] + "…"


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    check_downloaded(file, "JSON")
    try:
        config = parse_json(file.read_bytes(), constants=True)
    except FileNotFoundError:
        raise ModelError(f"{folder}: {CONFIG} not found, expected beside the weights") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{file}: expected a JSON object of settings")
    return config
