"""Weights of a model folder: read, checked against its config.json, written.  Nothing is unpickled.

config.json         what the model is (config.py)
model.safetensors   embed.weight, layers.{i}.…, norm.weight, head.weight
README.md           the model card
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from genoscan.errors import InputError, ModelError
from genoscan.layers.bidirectional import (
    BidirectionalBlock,
    BidirectionalConfig,
    BidirectionalStack,
)
from genoscan.layers.config import CONFIG, LayerConfig, ModelConfig
from genoscan.layers.linear import Linear
from genoscan.layers.mamba import Mamba
from genoscan.layers.mamba2 import Mamba2
from genoscan.layers.norm import RMSNorm
from genoscan.layers.pd_ssm import PdSsm
from genoscan.layers.stack import Stack
from genoscan.ops.dispatch import choose
from genoscan.ops.kernels import Kernels
from genoscan.ops.memory import fix_mmap_threshold

WEIGHTS, CARD = "model.safetensors", "README.md"

_BLOCKS: dict[str, Callable[..., nn.Module]] = {"mamba": Mamba, "mamba2": Mamba2, "pd_ssm": PdSsm}


def build(config: ModelConfig, *, device: str = "cpu", kernels: str = "auto") -> Stack:
    """Make a causal stack with fresh weights; seed torch first."""
    stack = _assembled(config, choose(device, kernels))
    assert isinstance(stack, Stack)
    return stack.to(device)


def _assembled(config: ModelConfig, kernels: Kernels) -> Stack | BidirectionalStack:
    n_symbols, eps, d_model = len(config.symbols), config.norm.eps, config.d_model
    shared: dict[str, Any] = {"eps": eps, "kernels": kernels}
    first = config.layers[0]
    if not isinstance(first, BidirectionalConfig):
        return assemble(config.layers, d_model, n_symbols, n_symbols, **shared)
    width = 2 * d_model if first.rcps else d_model
    return BidirectionalStack(
        embed=Linear(n_symbols, width, bias=False, kernels=kernels),
        blocks=[
            BidirectionalBlock(layer, d_model, **shared)
            for layer in config.layers
            if isinstance(layer, BidirectionalConfig)  # all are
        ],
        norm=RMSNorm(d_model, **shared),
        head=Linear(width, n_symbols, bias=False, kernels=kernels),
    )


def assemble(
    layers: Sequence[LayerConfig], d_model: int, d_in: int, d_out: int, *, eps: float,
    kernels: Kernels,
) -> Stack:  # fmt: skip
    """Make a stack of these causal blocks, fresh weights, from `d_in` columns to `d_out`."""
    shared: dict[str, Any] = {"eps": eps, "kernels": kernels}
    return Stack(
        blocks=[_BLOCKS[layer.kind](layer, d_model, **shared) for layer in layers],
        embed=Linear(d_in, d_model, bias=False, kernels=kernels),
        norm=RMSNorm(d_model, **shared),
        head=Linear(d_model, d_out, bias=False, kernels=kernels),
    )


def read_stack(
    path: Path, config: ModelConfig, *, device: str, dtype: torch.dtype, kernels: str
) -> tuple[Stack | BidirectionalStack, str]:
    """Read a model folder's weights into a frozen stack; return it and the file's sha256.

    Raises
    ------
    ModelError
        If the file is missing or damaged, or a tensor is missing, spare, of another shape, not
        finite or beyond the range of `dtype`; the message names it.
    InputError
        If `dtype` is neither float32 nor float64.
    """
    if dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"dtype {dtype}: expected torch.float32 or torch.float64; half precision is too coarse "
            "for exact sensitivities"
        )
    fix_mmap_threshold()
    tensors = _read_tensors(path / WEIGHTS)
    with torch.device("meta"):
        stack = _assembled(config, choose(device, kernels))
    expected = {name: tuple(tensor.shape) for name, tensor in _tensors(stack).items()}
    _check_tensors(path, tensors, expected, dtype)
    sha256 = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    if config.weights not in (None, sha256):
        raise ModelError(
            f"{path / WEIGHTS}: its sha256 is {sha256}, {CONFIG} says {config.weights}: the file "
            'is damaged, or was exchanged; if that was meant, set "weights" to null'
        )
    stack.load_state_dict(dict(tensors), assign=True, strict=False)  # checked above
    return stack.to(device, dtype).requires_grad_(False), sha256


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"{file}: not there, though {CONFIG} is") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: not a whole safetensors file ({error})") from None


def _check_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
) -> None:
    for name, shape in expected.items():
        if name not in tensors:
            raise ModelError(f'{path}: tensor "{name}" is missing from {WEIGHTS}')
        found = tuple(tensors[name].shape)
        if found != shape:
            raise ModelError(f'{path}: tensor "{name}" has shape {found}, {CONFIG} says {shape}')
        if not tensors[name].is_floating_point():
            raise ModelError(f'{path}: tensor "{name}" holds {tensors[name].dtype}, not floats')
        if not torch.isfinite(tensors[name].double()).all():
            raise ModelError(f'{path}: tensor "{name}" holds values that are not finite')
        _check_range(path, name, tensors[name], dtype)
    if spare := sorted(set(tensors) - set(expected)):
        raise ModelError(f'{path}: tensor "{spare[0]}" has no place in the model of {CONFIG}')


def _check_range(path: Path, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Refuse a tensor that overflows or is lost to underflow in the dtype that it is run in."""
    given = tensor.double()
    # Scaled first: the norm of very small or very large numbers would itself leave the range.
    largest = given.abs().max() if given.numel() else given.new_zeros(())
    if not largest:
        return
    error = ((tensor.to(dtype).double() - given) / largest).norm() / (given / largest).norm()
    if not error <= torch.finfo(dtype).eps:
        kind = str(dtype).removeprefix("torch.")
        raise ModelError(
            f'{path}: tensor "{name}" has values up to {float(largest):.3g}, outside the range of '
            f"{kind}; run the model in float64"
        )


def _tensors(stack: nn.Module) -> dict[str, Tensor]:
    """Return every tensor once, under the first of its names."""
    return dict(stack.named_parameters()) | dict(stack.named_buffers())


def save_model(path: str | Path, config: ModelConfig, stack: nn.Module, card: str) -> None:
    """Write a model folder; its config states the weights' checksum."""
    write_model(Path(path), config, _tensors(stack), card)


def write_model(path: Path, config: ModelConfig, tensors: Mapping[str, Tensor], card: str) -> None:
    """Write a model folder of tensors by name."""
    path.mkdir(parents=True, exist_ok=True)
    save_file(_apart(tensors), path / WEIGHTS)
    sha256 = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    stated = config.model_copy(update={"weights": sha256}).model_dump(mode="json")
    (path / CONFIG).write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
    (path / CARD).write_text(card, encoding="utf-8")
    # safetensors keeps its file to the owner; whoever may read the card may read the weights.
    (path / WEIGHTS).chmod((path / CARD).stat().st_mode & 0o777)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors on the CPU, no two of them in the same memory.

    Safetensors refuses to write shared memory: a tied embedding of width 1, whose transpose is
    contiguous too.
    """
    apart: dict[str, Tensor] = {}
    used: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        apart[name] = own.clone() if storage in used else own
        used.add(storage)
    return apart
