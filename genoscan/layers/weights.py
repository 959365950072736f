"""Functions that build networks, and that read and write model folders without using pickle.

A model folder contains three files:

config.json         configuration (see config.py)
model.safetensors   tensors named embed.weight, layers.{i}.…, norm.weight, head.weight, heads.{i}.…
README.md           model card
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
from genoscan.layers.bidirectional import BidirectionalBlock, BidirectionalConfig, BidirectionalStack
from genoscan.layers.config import CONFIG, LayerConfig, ModelConfig
from genoscan.layers.downloads import check_downloaded
from genoscan.layers.heads import Head
from genoscan.layers.linear import Linear
from genoscan.layers.mamba import Mamba
from genoscan.layers.mamba2 import Mamba2
from genoscan.layers.norm import NormConfig, build_norm
from genoscan.layers.pd_ssm import PdSsm
from genoscan.layers.stack import Stack
from genoscan.ops.dispatch import choose
from genoscan.ops.kernels import Kernels
from genoscan.ops.memory import fix_mmap_threshold

WEIGHTS, CARD = "model.safetensors", "README.md"

_BLOCKS: dict[str, Callable[..., nn.Module]] = {
    "mamba": Mamba,
    "mamba2": Mamba2,
    "pd_ssm": PdSsm,
    "two_way": BidirectionalBlock,
}


def build(config: ModelConfig, *, device: str = "cpu", kernels: str = "auto") -> Stack | BidirectionalStack:
    """Return a network with randomly initialised weights.

    Parameters
    ----------
    config
        Configuration of the model.
    device
        Device of the weights.
    kernels
        Name of the kernel set (see `ops.dispatch.choose`).

    Returns
    -------
    Stack or BidirectionalStack
        Network whose parameters require gradients.

    Notes
    -----
    The weights are drawn from torch's global random number generator.
    """
    return _build_network(config, choose(device, kernels)).to(device)


def _build_network(config: ModelConfig, kernels: Kernels) -> Stack | BidirectionalStack:
    n_symbols, d_model, width = len(config.symbols), config.d_model, config.strands * config.d_model
    shared: dict[str, Any] = {"norm": config.norm, "kernels": kernels}
    kind = BidirectionalStack if isinstance(config.layers[0], BidirectionalConfig) else Stack
    # The order determines which random numbers initialise which weights.
    blocks = [_BLOCKS[layer.kind](layer, d_model, **shared) for layer in config.layers]
    embed = Linear(n_symbols, width, bias=config.embed_bias, kernels=kernels)
    norm = build_norm(config.norm, d_model, kernels)
    head = Linear(width, n_symbols, bias=False, kernels=kernels) if config.language_model else None
    heads = [Head(head, d_model, config.strands, kernels) for head in config.heads.values()]
    return kind(embed, blocks, norm, head, heads)


def assemble(
    layers: Sequence[LayerConfig], d_model: int, d_in: int, d_out: int, *, eps: float, kernels: Kernels
) -> Stack:
    """Return a stack of causal blocks with randomly initialised weights.

    Parameters
    ----------
    layers
        Configurations of the blocks, from first to last.
    d_model
        Number of channels between the blocks.
    d_in, d_out
        Numbers of input channels and of output channels.
    eps
        Constant added to the mean square in the norms.
    kernels
        Kernel set that computes the operations of the layers.

    Returns
    -------
    Stack
        Network whose parameters require gradients.
    """
    shared: dict[str, Any] = {"norm": NormConfig(eps=eps), "kernels": kernels}
    return Stack(
        blocks=[_BLOCKS[layer.kind](layer, d_model, **shared) for layer in layers],
        embed=Linear(d_in, d_model, bias=False, kernels=kernels),
        norm=build_norm(shared["norm"], d_model, kernels),
        head=Linear(d_model, d_out, bias=False, kernels=kernels),
    )


def read_stack(
    path: Path, config: ModelConfig, *, device: str, dtype: torch.dtype, kernels: str
) -> tuple[Stack | BidirectionalStack, str]:
    """Read the weights in a model folder, and return a frozen network.

    Parameters
    ----------
    path
        Model folder.
    config
        Configuration of the model.
    device
        Device of the weights.
    dtype
        Data type to which the weights are converted, `torch.float32` or `torch.float64`.
    kernels
        Name of the kernel set (see `ops.dispatch.choose`).

    Returns
    -------
    stack
        Network whose parameters do not require gradients.
    sha256
        SHA-256 checksum of the weight file, in hexadecimal.

    Raises
    ------
    ModelError
        If the weight file is missing, is damaged or does not have the expected checksum; if a tensor is
        missing or unexpected; or if a tensor has the wrong shape, values that are not finite, or values
        outside the range of `dtype`.
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
    kernel_set = choose(device, kernels)
    try:
        with torch.device("meta"):
            stack = _build_network(config, kernel_set)
    except RuntimeError as error:  # a tensor of 2^63 bytes or more
        raise ModelError(f"{path / CONFIG}: its sizes are too large: {str(error).splitlines()[0]}") from None
    expected = {name: tuple(tensor.shape) for name, tensor in _named_tensors(stack).items()}
    _check_tensors(path, tensors, expected, dtype)
    sha256 = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    if config.weights not in (None, sha256):
        raise ModelError(
            f"{path / WEIGHTS}: sha256 is {sha256}, {CONFIG} expects {config.weights}: the file is "
            'damaged or was replaced; if it was replaced on purpose, set "weights" to null'
        )
    return _load(stack, tensors, device, dtype), sha256


def copy_stack(
    stack: Stack | BidirectionalStack, config: ModelConfig, *, dtype: torch.dtype, kernels: str
) -> Stack | BidirectionalStack:
    """Return a frozen copy of a network, with the given dtype and kernel set.

    Parameters
    ----------
    stack
        Network to copy.
    config
        Configuration of the network.
    dtype
        Data type of the copy, `torch.float32` or `torch.float64`.
    kernels
        Name of the kernel set (see `ops.dispatch.choose`).

    Returns
    -------
    Stack or BidirectionalStack
        Copy on the same device as `stack`. If the dtype is the same, the copy shares its weights with
        `stack`.
    """
    tensors = {name: tensor.detach() for name, tensor in _named_tensors(stack).items()}
    device = next(stack.parameters()).device
    with torch.device("meta"):
        copy = _build_network(config, choose(device, kernels))
    return _load(copy, tensors, device, dtype)


def _load(
    stack: Stack | BidirectionalStack, tensors: Mapping[str, Tensor], device: torch.device | str, dtype: torch.dtype
) -> Stack | BidirectionalStack:
    """Load tensors that have been checked into a network, and freeze the network."""
    stack.load_state_dict(dict(tensors), assign=True, strict=False)
    return stack.to(device, dtype).requires_grad_(False)


def _read_tensors(file: Path) -> dict[str, Tensor]:
    check_downloaded(file)
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"{file}: file not found, expected beside {CONFIG}") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: not a complete safetensors file ({error})") from None


def _check_tensors(
    path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], dtype: torch.dtype
) -> None:
    for name, shape in expected.items():
        if name not in tensors:
            raise ModelError(f'{path}: tensor "{name}" is missing from {WEIGHTS}')
        found = tuple(tensors[name].shape)
        if found != shape:
            raise ModelError(f'{path}: tensor "{name}" has shape {found}, {CONFIG} implies {shape}')
        if not tensors[name].is_floating_point():
            raise ModelError(f'{path}: tensor "{name}" is {tensors[name].dtype}, expected floats')
        if not torch.isfinite(tensors[name].double()).all():
            raise ModelError(f'{path}: tensor "{name}" has values that are not finite')
        _check_range(path, name, tensors[name], dtype)
    if spare := sorted(set(tensors) - set(expected)):
        raise ModelError(f'{path}: tensor "{spare[0]}" is not part of the model in {CONFIG}')


def _check_range(path: Path, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Raise `ModelError` if conversion to `dtype` would cause values of a tensor to overflow or underflow."""
    given = tensor.double()
    # Scale first: the norm of very small or very large numbers would itself underflow or overflow.
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


def _named_tensors(stack: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a network by name; a shared tensor is listed once, by its first name."""
    return dict(stack.named_parameters()) | dict(stack.named_buffers())


def save_model(path: str | Path, config: ModelConfig, stack: nn.Module, card: str) -> None:
    """Write a network to a model folder.

    Parameters
    ----------
    path
        Folder to write. It is created if it does not exist.
    config
        Configuration of the model. In the written file, its checksum is replaced by that of the weights.
    stack
        Network whose weights are written.
    card
        Model card in Markdown.
    """
    write_model(Path(path), config, _named_tensors(stack), card)


def write_model(path: Path, config: ModelConfig, tensors: Mapping[str, Tensor], card: str) -> None:
    """Write named tensors and their configuration to a model folder.

    Parameters
    ----------
    path
        Folder to write. It is created if it does not exist.
    config
        Configuration of the model. In the written file, its checksum is replaced by that of the weights.
    tensors
        Weights by tensor name.
    card
        Model card in Markdown.
    """
    path.mkdir(parents=True, exist_ok=True)
    save_file(_unshared(tensors), path / WEIGHTS)
    sha256 = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    stated = config.model_copy(update={"weights": sha256}).model_dump(mode="json")
    (path / CONFIG).write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
    (path / CARD).write_text(card, encoding="utf-8")
    # safetensors creates files readable by the owner only; use the permissions of the card.
    (path / WEIGHTS).chmod((path / CARD).stat().st_mode & 0o777)


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous CPU tensors that do not share memory, as required by safetensors.

    Contiguous tensors may still share memory, as do a tied embedding of width 1 and its transpose. Such
    tensors are copied.
    """
    unshared: dict[str, Tensor] = {}
    used: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        unshared[name] = own.clone() if storage in used else own
        used.add(storage)
    return unshared
