"""Models, each of which consists of a configuration, a network and a method of differentiation.

Code that uses a model does not depend on the class of the model's network.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from genoscan.engine.activations import activation_bytes
from genoscan.engine.methods import Adjoint, Layerwise, Method
from genoscan.errors import InputError, UnsupportedModelError
from genoscan.layers.bidirectional import BidirectionalStack
from genoscan.layers.catalogue import find_model
from genoscan.layers.config import ModelConfig, base_table, read_config
from genoscan.layers.stack import Stack
from genoscan.layers.weights import copy_stack, read_stack
from genoscan.usage import memory_limit

_CPU_TILE, _GPU_TILE = 1024, 8192
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Model:
    """A network with frozen parameters, together with the method by which it is differentiated.

    Attributes
    ----------
    name
        Name of the model folder.
    path
        Path of the model folder.
    config
        Contents of config.json.
    network
        Network that maps one-hot bases to the outputs of all heads.
    method
        Method by which the network is differentiated.
    weights_sha256
        SHA-256 checksum of model.safetensors.
    head
        Name of the task head whose outputs are computed; "" for the language-model head.
    """

    name: str
    path: Path
    config: ModelConfig
    network: Stack | BidirectionalStack
    method: Method
    weights_sha256: str
    head: str = ""

    @cached_property
    def stack(self) -> Stack | BidirectionalStack:
        """Network that maps one-hot bases to the outputs of the selected head."""
        if not self.config.heads:
            return self.network
        return self.network.select(list(self.config.heads).index(self.head) if self.head else None)

    def with_head(self, head: str) -> "Model":
        """Return a copy of the model in which another head is selected; "" selects the language-model head.

        Raises
        ------
        UnsupportedModelError
            If the model does not have this head.
        """
        if head not in self.config.output_columns:
            raise UnsupportedModelError(
                f"{self.name}: has no {f'head {head}' if head else 'language model'}, expected one of its heads: "
                f"{', '.join(filter(None, self.config.output_columns))}"
            )
        return replace(self, head=head)

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the selected head at each position."""
        columns = self.config.output_columns[self.head]
        return columns.stop - columns.start

    @property
    def label_offset(self) -> int:
        """Offset, in bases, of the labels.

        The output at position t predicts the base, or its label, at position t + label_offset.
        """
        return 0 if self.head else self.config.label_offset

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(self.config.mixers))
        way = "bidirectional " if self.bidirectional else ""
        return (
            f"Model({self.name!r}: {len(self.config.layers)} {way}layers ({kinds}), width "
            f"{self.config.d_model}, {str(self.dtype).removeprefix('torch.')} on {self.device})"
        )

    @property
    def sha256(self) -> str:
        """SHA-256 checksum of the model's configuration (as canonical JSON) and weights.

        Models with equal checksums compute the same function, regardless of the names of their folders.
        """
        # Results of measurements have no influence on what the model computes.
        measured = {"validation", "window_errors"}
        settings = self.config.model_dump(mode="json", exclude=measured) | {"weights": self.weights_sha256}
        canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @cached_property
    def position_bytes(self) -> int:
        """Size, in bytes, of the activations at one position that a causal model on a CPU may keep; otherwise 0."""
        if self.bidirectional or self.device.type == "cuda":
            return 0
        return _position_bytes(self.causal, self.method.tile)

    @property
    def bidirectional(self) -> bool:
        """Whether each output depends on bases on both sides of its position."""
        return isinstance(self.network, BidirectionalStack)

    @property
    def equivariant(self) -> bool:
        """Whether the model is reverse-complement equivariant.

        If it is, the logits for a reverse-complemented input are the reverse-complemented logits.
        """
        represents_both = isinstance(self.network, BidirectionalStack) and self.network.both_strands
        return represents_both and (not self.head or self.config.heads[self.head].fold)

    @property
    def causal(self) -> Stack:
        """Network of the selected head of a causal model.

        Raises
        ------
        UnsupportedModelError
            If the model is bidirectional.
        """
        if isinstance(self.stack, BidirectionalStack):
            raise UnsupportedModelError(f"{self.name}: is bidirectional, expected a causal model")
        return self.stack

    def by_base(self, gradient: Float[Tensor, "... span symbols"]) -> Float32[np.ndarray, "... span 4"]:
        """Return the columns for A, C, G and T of a gradient, as a float32 NumPy array."""
        columns = gradient[..., list(self.config.base_columns)]
        return columns.float().cpu().numpy()

    @property
    def advice_on_overflow(self) -> str:
        """Remedy to include in error messages about NaN or infinite results."""
        if self.dtype == torch.float64:
            return f"{self.name} overflows on this sequence even in float64: check its weights"
        return f"{self.name} overflows on this sequence: run it with --dtype float64"

    def rebuild(self, dtype: torch.dtype, kernels: str) -> "Model":
        """Return a copy of the model with the given dtype and kernel set (see `load_model`)."""
        return replace(self, network=copy_stack(self.network, self.config, dtype=dtype, kernels=kernels))

    def whole(self, x: Float[Tensor, "batch length d_in"]) -> Float[Tensor, "batch length d_out"]:
        """Return the outputs at all positions of a window, computed in one pass without tiles."""
        outputs: Tensor = self.stack(x) if self.bidirectional else self.stack(x, self.causal.begin(len(x)))[0]
        return outputs

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights and of the activations."""
        return next(self.network.parameters()).dtype

    def table(self) -> Float[Tensor, "codes symbols"]:
        """Return a table of the network's inputs for the base codes.

        The table has one row for each of A, C, G, T, N and the mask token, and one column for each symbol
        of the model's alphabet.
        """
        return base_table(self.config, dtype=self.dtype, device=self.device)

    def columns(self) -> Tensor:
        """Return the index of the output column for each of A, C, G, T and N; the index for N is -1."""
        return torch.tensor([*self.config.base_columns, -1])


@torch.inference_mode(False)
def load_model(
    path: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype | str = torch.float32,
    kernels: str = "auto",
    tile: int | None = None,
    slots: int = 64,
    memory: int | Literal["auto"] | None = None,
    spill: Path | None = None,
) -> Model:
    """Load a model, and choose the method by which it is differentiated.

    Parameters
    ----------
    path
        Name (see `genoscan models list`) or folder of a model; a `Path` is always treated as a folder.
    device
        "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one.
    dtype
        torch.float32 or torch.float64, or "float32" or "float64".
    kernels
        Kernel set: "auto" for the default of the device, or "reference" for plain torch operations.
    tile, slots
        Settings of `Adjoint`, the method for causal models. `tile` is also a setting of `Layerwise`. If
        `tile` is None, tiles have 1,024 positions on a CPU and 8,192 on a GPU. Smaller tiles would leave a
        GPU idle for part of the time.
    memory
        Memory, in bytes, for activations. For causal models, those of several tiles are kept in it, which saves
        time; by default, none are. For bidirectional models, see `Layerwise`. "auto" is half of the memory
        available to this process.
    spill
        Setting of `Layerwise`, the method for bidirectional models.

    Returns
    -------
    Model
        Loaded model, with frozen weights.

    Raises
    ------
    ModelError
        If there is no such model, a file is missing or damaged, the configuration is invalid, or a tensor
        is missing, unexpected, of the wrong shape, not finite or outside the range of `dtype`. The message
        states the cause.
    InputError
        If an option is invalid.
    """
    device, dtype = find_device(device), find_dtype(dtype)
    if memory not in (None, "auto") and not (isinstance(memory, int) and memory >= 0):
        raise InputError(f'memory {memory}: expected a number of bytes, or "auto"')
    folder = path if isinstance(path, Path) else find_model(path)
    config = read_config(folder)
    stack, sha256 = read_stack(folder, config, device=device, dtype=dtype, kernels=kernels)
    if tile is None:
        tile = _GPU_TILE if torch.device(device).type == "cuda" else _CPU_TILE
    method = choose_method(stack, tile=tile, slots=slots, memory=memory, spill=spill)
    head = "" if config.language_model else next(iter(config.heads))
    return Model(folder.resolve().name, folder, config, stack, method, sha256, head)


def find_device(text: str, option: str = "device") -> str:
    """Return the name of a torch device that is available.

    Parameters
    ----------
    text
        "cpu", "cuda", "cuda:N", or "auto" for a GPU if there is one.
    option
        Name of the option, for error messages.

    Raises
    ------
    InputError
        If the name is invalid, or the device is not available.
    """
    if text == "auto":
        return "cuda" if torch.cuda.device_count() else "cpu"
    if text == "cpu":
        return text
    kind, _, number = text.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise InputError(f"{option} {text}: expected auto, cpu, cuda or cuda:N")
    if int(number or 0) >= torch.cuda.device_count():
        raise InputError(f"{option} {text}: torch finds {torch.cuda.device_count()} CUDA devices")
    return text


def find_dtype(dtype: torch.dtype | str, option: str = "dtype") -> torch.dtype:
    """Return a torch.dtype, given itself or its name.

    `option` is the name of the option, for error messages.

    Raises
    ------
    InputError
        If the name is neither "float32" nor "float64".
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise InputError(f"{option} {dtype}: expected {' or '.join(_DTYPES)}")
    return _DTYPES[dtype]


def choose_method(
    network: Stack | BidirectionalStack,
    *,
    tile: int,
    slots: int = 64,
    memory: int | Literal["auto"] | None = None,
    spill: Path | None = None,
) -> Method:
    """Return the method of differentiation for a network.

    Parameters
    ----------
    network
        Causal or bidirectional network.
    tile, slots
        Settings of `Adjoint`, for causal networks; `tile` is also used by `Layerwise`.
    memory
        Memory, in bytes, for activations; "auto" is half of the memory available to this process.
    spill
        Setting of `Layerwise`, for bidirectional networks.

    Returns
    -------
    Method
        `Adjoint` or `Layerwise`.

    Raises
    ------
    InputError
        If a setting is invalid.
    """
    # Both are made, so that invalid settings are an error for any network.
    size = memory_limit() // 2 if memory == "auto" else memory
    causal, bidirectional = Adjoint(tile, slots, size or 0), Layerwise(tile, size, spill)
    if isinstance(network, BidirectionalStack):
        return bidirectional
    return replace(causal, position_bytes=_position_bytes(network, tile)) if causal.memory else causal


def _position_bytes(network: Stack, tile: int) -> int:
    weight = next(network.embed.parameters())
    return activation_bytes(network, weight.new_zeros(1, tile, weight.shape[1]))
