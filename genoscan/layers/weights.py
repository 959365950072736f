"""A model folder -> a model, and back.  Nothing is unpickled.

config.json         what the model is (`ModelConfig`)
model.safetensors   embed.weight, layers.{i}.…, norm.weight, head.weight
README.md           the model card
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from genoscan.errors import InputError, ModelError, UnsupportedModelError
from genoscan.layers.linear import Linear
from genoscan.layers.mamba import Mamba, MambaConfig
from genoscan.layers.mamba2 import Mamba2, Mamba2Config
from genoscan.layers.norm import RMSNorm
from genoscan.layers.pd_ssm import PdSsm, PdSsmConfig
from genoscan.layers.stack import Stack
from genoscan.layers.two_way import TwoWay, TwoWayConfig, TwoWayStack
from genoscan.ops.dispatch import choose
from genoscan.ops.kernels import Kernels
from genoscan.ops.memory import fix_mmap_threshold

_BLOCKS: dict[str, Callable[..., nn.Module]] = {"mamba": Mamba, "mamba2": Mamba2, "pd_ssm": PdSsm}
LayerConfig = Annotated[
    MambaConfig | Mamba2Config | PdSsmConfig | TwoWayConfig, Field(discriminator="kind")
]

_KINDS = {*_BLOCKS, "two_way"}

MASK = 5
"""The code of a base that is hidden from a masked model."""

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


class NormConfig(BaseModel):
    """The norm before every block and before the head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["rms"] = "rms"
    eps: PositiveFloat = 1e-5


class ModelConfig(BaseModel):
    """config.json.

    symbols       one letter an input column and output logit
    base_columns  the columns of A, C, G and T
    complement    for each column, that of its complement
    mask          the column of the mask symbol; None for causal models
    unknown       the column of the symbol for bases that are not A, C, G or T; None: such a base
                  is read as the mean of A, C, G and T
    label_offset  an output at position t predicts the base at t + label_offset
    context       bases read before a region, unless the user says otherwise
    reach         bases read past a region, whose likelihood the region's bases can change
    window        the longest window that training saw; None: not known, or any
    weights       sha256 of model.safetensors; None: not checked
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["genoscan-model/1"] = "genoscan-model/1"
    d_model: PositiveInt
    norm: NormConfig = NormConfig()
    layers: tuple[LayerConfig, ...]
    symbols: str = "ACGT"
    base_columns: tuple[int, int, int, int] = (0, 1, 2, 3)
    complement: tuple[int, ...] = (3, 2, 1, 0)
    mask: NonNegativeInt | None = None
    unknown: NonNegativeInt | None = None
    label_offset: NonNegativeInt = 1
    context: NonNegativeInt
    reach: NonNegativeInt
    trained_on: str
    window: PositiveInt | None = None
    weights: str | None = None

    @model_validator(mode="after")
    def _columns_exist(self) -> "ModelConfig":
        columns = range(len(self.symbols))
        if sorted(self.complement) != list(columns):
            raise ValueError(f"complement must hold each of the {len(columns)} columns once")
        if len(set(self.base_columns)) != 4 or not set(self.base_columns) <= set(columns):
            raise ValueError(f"base_columns must be 4 of the columns 0 to {len(columns) - 1}")
        if any(self.complement[other] != i for i, other in enumerate(self.complement)):
            raise ValueError("complement must give every column back when it is applied twice")
        a, c, g, t = self.base_columns
        if (self.complement[a], self.complement[c]) != (t, g):
            raise ValueError("complement must pair A with T and C with G")
        for name, column in (("mask", self.mask), ("unknown", self.unknown)):
            if column is not None and column not in columns:
                raise ValueError(f"{name} must be one of the columns 0 to {len(columns) - 1}")
        if not self.layers:
            raise ValueError("layers: at least one is needed")
        two_way = [layer for layer in self.layers if layer.kind == "two_way"]
        if two_way and len(two_way) < len(self.layers):
            raise ValueError("layers: two-way ones cannot stand among causal ones")
        if len({layer.rcps for layer in two_way}) > 1:
            raise ValueError("layers: rcps must be the same in all")
        return self


@dataclass(frozen=True)
class Model:
    """A model ready to run: a value, nothing in it changes.

    weights_sha256  of model.safetensors
    """

    name: str
    path: Path
    config: ModelConfig
    stack: Stack | TwoWayStack
    weights_sha256: str

    @property
    def sha256(self) -> str:
        """Hash of the whole model: its configuration, in canonical JSON, and its weights.

        Two models of one hash compute the same function, whatever their folders are called.
        """
        settings = self.config.model_dump(mode="json") | {"weights": self.weights_sha256}
        canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def bidirectional(self) -> bool:
        """Whether an output depends on bases on both sides of it."""
        return isinstance(self.stack, TwoWayStack)

    @property
    def causal(self) -> Stack:
        """The stack of a model that reads one way.

        Raises
        ------
        UnsupportedModelError
            If the model looks both ways.
        """
        if isinstance(self.stack, TwoWayStack):
            raise UnsupportedModelError(f"{self.name}: looks both ways: expected a causal model")
        return self.stack

    def whole(self, x: Float[Tensor, "batch length d_in"]) -> Float[Tensor, "batch length d_out"]:
        """Return all outputs of a window at once, of which nothing is forgotten."""
        outputs: Tensor = (
            self.stack(x) if isinstance(self.stack, TwoWayStack)
            else self.stack(x, self.stack.begin(len(x)))[0]
        )  # fmt: skip
        return outputs

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.stack.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return next(self.stack.parameters()).dtype

    def table(self) -> Tensor:
        """Return the input row of each base code (A, C, G, T, N, mask), one column a symbol."""
        return base_table(self.config, dtype=self.dtype, device=self.device)

    def columns(self) -> Tensor:
        """Return the output column of each base code, -1 for N."""
        return torch.tensor([*self.config.base_columns, -1])


def base_table(
    config: ModelConfig, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Float[Tensor, "codes symbols"]:
    """Return the input row of each base code: A, C, G, T, N and, where there is one, the mask.

    N is the model's own symbol for unknown bases or, without one, the mean of A, C, G and T: a row
    of zeros would be a singular point of RMSNorm, whose derivative there grows as eps ** -0.5 with
    every layer.
    """
    table = torch.zeros(6, len(config.symbols), dtype=dtype, device=device)
    for code, column in enumerate(config.base_columns):
        table[code, column] = 1
    if config.unknown is None:
        table[4] = table[:4].mean(0)
    else:
        table[4, config.unknown] = 1
    if config.mask is not None:
        table[MASK, config.mask] = 1
    return table


def build(config: ModelConfig, *, device: str = "cpu", kernels: str = "auto") -> Stack:
    """Make a causal stack with fresh weights; seed torch first."""
    stack = _assembled(config, choose(device, kernels))
    assert isinstance(stack, Stack)
    return stack.to(device)


def _assembled(config: ModelConfig, kernels: Kernels) -> Stack | TwoWayStack:
    n_symbols, eps, d_model = len(config.symbols), config.norm.eps, config.d_model
    shared: dict[str, Any] = {"eps": eps, "kernels": kernels}
    first = config.layers[0]
    if not isinstance(first, TwoWayConfig):
        return assemble(config.layers, d_model, n_symbols, n_symbols, **shared)
    width = 2 * d_model if first.rcps else d_model
    return TwoWayStack(
        embed=Linear(n_symbols, width, bias=False, kernels=kernels),
        blocks=[
            TwoWay(layer, d_model, **shared)
            for layer in config.layers
            if isinstance(layer, TwoWayConfig)  # all are
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


def load_model(
    path: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    kernels: str = "auto",
) -> Model:
    """Read a model folder; its weights are frozen.

    Raises
    ------
    ModelError
        If a file is missing or damaged, the configuration is not valid, or a tensor is
        missing, spare, of another shape, not finite or beyond the range of `dtype`; the message
        names it.
    InputError
        If `dtype` is neither float32 nor float64.
    """
    if dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"dtype {dtype}: expected torch.float32 or torch.float64; half precision is too coarse "
            "for exact sensitivities"
        )
    fix_mmap_threshold()
    path = Path(path)
    config = read_config(path)
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
    stack.to(device, dtype).requires_grad_(False)
    return Model(path.resolve().name, path, config, stack, sha256)


def read_config(path: Path) -> ModelConfig:
    """Read and validate a model folder's config.json."""
    file = path / CONFIG
    try:
        return ModelConfig.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path}: no {CONFIG} in it: is this a model folder?") from None
    except (NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise ModelError(f"{file}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        # A layer's kind picked what it is checked by, and is no place in the file.
        parts = (str(part) for part in first["loc"] if part not in _KINDS)
        place = ".".join(parts) or "the file"
        raise ModelError(f"{file}: {place}: {first['msg']}") from None


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
