"""Tiny seeded models, and layers and genomes whose answers are known by thought."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from genoscan.layer import Carry
from genoscan.layers.bidirectional import BidirectionalConfig, BidirectionalStack
from genoscan.layers.config import ModelConfig
from genoscan.layers.mamba import Mamba, MambaConfig
from genoscan.layers.mamba2 import Mamba2, Mamba2Config
from genoscan.layers.norm import NormConfig
from genoscan.layers.pd_ssm import PdSsm, PdSsmConfig
from genoscan.layers.stack import Stack
from genoscan.layers.weights import build
from genoscan.ops.dispatch import choose
from genoscan.ops.kernels import ScanInputs

N_CODE = 4


def each(function: Callable[[Tensor], Tensor], inputs: ScanInputs) -> ScanInputs:
    """Apply the function to all that is there of a scan's inputs."""
    return ScanInputs(*(None if tensor is None else function(tensor) for tensor in inputs))


def scan_problem(
    *, batch: int = 1, length: int, channels: int, states: int, dtype: torch.dtype = torch.float64, seed: int = 1
) -> ScanInputs:
    """Return inputs of a scan such as a Mamba block would make, with a state from the left."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    inputs = ScanInputs(
        u=normal(batch, length, channels),
        delta=F.softplus(normal(batch, length, channels) - 1),
        A=-torch.exp(normal(channels, states)),
        B=normal(batch, length, states),
        C=normal(batch, length, states),
        D=normal(channels),
        state=normal(batch, channels, states),
    )
    return each(lambda tensor: tensor.to(dtype), inputs)


def tiny_config(width: int = 16, n_layers: int = 2, d_state: int = 4, d_conv: int = 4) -> ModelConfig:
    layer = MambaConfig(d_state=d_state, d_conv=d_conv, expand=2, dt_rank=max(1, width // 16))
    return ModelConfig(d_model=width, layers=(layer,) * n_layers, context=100, reach=50, trained_on="nothing")


def tiny_stack(
    width: int = 16,
    n_layers: int = 2,
    *,
    d_state: int = 4,
    d_conv: int = 4,
    dtype: torch.dtype = torch.float64,
    kernels: str = "cpu",
    seed: int = 1,
) -> Stack:
    """Return a small frozen model with seeded weights, none of them at a special value."""
    torch.manual_seed(seed)
    stack = build(tiny_config(width, n_layers, d_state, d_conv), kernels=kernels)
    with torch.no_grad():
        for name, weight in stack.named_parameters():
            if name.endswith(("norm.weight", ".D")):
                weight.add_(0.2 * torch.randn_like(weight))
            if name.endswith(("head.weight", "embed.weight")):
                weight.normal_()
    return stack.to(dtype).requires_grad_(False)


def biased_stack(kind: str = "mamba", *, dtype: torch.dtype = torch.float64, kernels: str = "cpu") -> Stack:
    """Return a small frozen model with LayerNorm and, in Mamba blocks and the embedding, every bias."""
    layers: dict[str, Any] = {
        "mamba": MambaConfig(d_state=3, dt_rank=1, bias=True),
        "mamba2": Mamba2Config(d_state=4, head_dim=4),
        "pd_ssm": PdSsmConfig(heads=2, d_state=5, n_maps=3, rank=1),
    }
    config = ModelConfig(
        d_model=8,
        norm=NormConfig(kind="layer", eps=1e-3),
        embed_bias=True,
        layers=(layers[kind],) * 2,
        context=100,
        reach=50,
        trained_on="nothing",
    )
    torch.manual_seed(4)
    stack = build(config, kernels=kernels)
    assert isinstance(stack, Stack)
    with torch.no_grad():
        for name, weight in stack.named_parameters():
            if name.endswith(("bias", "norm.weight", ".D")):
                weight.add_(0.3 * torch.randn_like(weight))
    return stack.to(dtype).requires_grad_(False)


def mixed_config(
    width: int = 8,
    kinds: tuple[str, ...] = ("mamba", "pd_ssm"),
    *,
    heads: int = 2,
    d_state: int = 6,
    n_maps: int = 3,
    coupled: bool = True,
    two_way: dict[str, Any] | None = None,
) -> ModelConfig:
    """Return a configuration of blocks of these kinds; `two_way` has the settings of bidirectional ones around them."""
    made = {
        "mamba": MambaConfig(d_state=4, d_conv=4, expand=2, dt_rank=1),
        "pd_ssm": PdSsmConfig(heads=heads, d_state=d_state, n_maps=n_maps, rank=2, coupled=coupled),
    }
    layers: list[Any] = [made[kind] for kind in kinds]
    offset = 1
    if two_way is not None:
        layers, offset = [BidirectionalConfig(inner=layer, **two_way) for layer in layers], 0
    return ModelConfig(d_model=width, layers=layers, label_offset=offset, context=9, reach=9, trained_on="nothing")


def mixed_stack(
    *shape: Any, kernels: str = "cpu", dtype: torch.dtype = torch.float64, **sizes: Any
) -> Stack | BidirectionalStack:
    """Return a frozen network of `mixed_config`'s blocks with seeded weights; phases are not zero as in new blocks."""
    torch.manual_seed(3)
    stack = build(mixed_config(*shape, **sizes), kernels=kernels)
    with torch.no_grad():
        for name, weight in stack.named_parameters():
            if name.endswith(("embed.weight", "head.weight", "router.weight", "phase.weight", "phase.bias")):
                weight.normal_()
    return stack.to(dtype).requires_grad_(False)


def mamba2_block(
    width: int,
    *,
    heads: int = 2,
    n_groups: int = 1,
    d_state: int = 5,
    d_conv: int = 4,
    dt_limit: tuple[float, float | None] = (0.0, None),
    dtype: torch.dtype = torch.float64,
    kernels: str = "cpu",
) -> Mamba2:
    """Return a frozen Mamba-2 block with seeded weights, none of them at a special value."""
    torch.manual_seed(3)
    config = Mamba2Config(
        d_state=d_state, head_dim=2 * width // heads, n_groups=n_groups, d_conv=d_conv, dt_limit=dt_limit
    )
    block = Mamba2(config, width, norm=NormConfig(), kernels=choose("cpu", kernels))
    with torch.no_grad():
        for weight in (block.D, block.gate_norm, block.dt_bias):
            weight.add_(0.3 * torch.randn_like(weight))
    return block.to(dtype).requires_grad_(False)


def pd_block(
    width: int = 8,
    *,
    heads: int = 2,
    d_state: int = 6,
    n_maps: int = 3,
    coupled: bool = True,
    kernels: str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> PdSsm:
    """Return one frozen PD-SSM block with seeded weights."""
    sizes: dict[str, Any] = {"heads": heads, "d_state": d_state, "n_maps": n_maps, "coupled": coupled}
    return mixed_stack(width, ("pd_ssm",), kernels=kernels, dtype=dtype, **sizes).layers[0]


def genome(length: int, *, batch: int = 1, n_share: float = 0.0, seed: int = 1) -> Tensor:
    """Return random bases as codes; a share of them is N."""
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(4, (batch, length), generator=random)
    codes[torch.rand(batch, length, generator=random) < n_share] = N_CODE
    return codes.to(torch.uint8)


def one_hot_table(dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the input row of A, C, G, T and N for a model of four symbols; N's is their mean."""
    return torch.cat([torch.eye(4, dtype=dtype), torch.full((1, 4), 0.25, dtype=dtype)])


def output_columns() -> Tensor:
    """Return the output column of A, C, G, T and N for a model of four symbols."""
    return torch.tensor([0, 1, 2, 3, -1])


class RunningSum:
    """y_t = x_1 + ... + x_t; one number of carry a channel.

    The derivative of a weighted sum of y at x_t is the sum of the weights from t on.
    """

    def __init__(self, channels: int, dtype: torch.dtype = torch.float64) -> None:
        self.zero = torch.zeros(channels, dtype=dtype)

    def begin(self, batch: int) -> Carry:
        return self.zero.expand(batch, -1).clone()

    def forward(self, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        y = carry[:, None] + x.cumsum(1)
        return y, y[:, -1].clone()

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return iter(())


class MovingAverage:
    """y_t = the mean of x_t and the span - 1 inputs before it; zeros lie left of the first."""

    def __init__(self, channels: int, span: int, dtype: torch.dtype = torch.float64) -> None:
        self.span = span
        self.zero = torch.zeros(span - 1, channels, dtype=dtype)

    def begin(self, batch: int) -> Carry:
        return (self.zero.expand(batch, -1, -1).clone(),)

    def forward(self, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        padded = torch.cat([carry[0], x], 1)
        y = padded.unfold(1, self.span, 1).mean(-1)
        return y, (padded[:, x.shape[1] :].clone(),)

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        return iter(())


def straight_mamba(block: Mamba, x: Tensor, carry: Sequence[Tensor]) -> Tensor:
    """One Mamba block over a whole window, in plain torch from the formulas of the paper.

    Shares no code with genoscan.layers or genoscan.ops, and leaves derivatives to torch.
    """
    tail, h = carry
    channels, n_states = block.A_log.shape
    rank = block.dt_proj.weight.shape[1]
    normed = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + block.norm.eps) * block.norm.weight
    projected = normed @ block.in_proj.weight.T
    u, z = projected[..., :channels], projected[..., channels:]
    padded = torch.cat([tail, u], 1).transpose(1, 2)
    convolved = F.conv1d(padded, block.conv.weight[:, None], block.conv.bias, groups=channels)
    c = convolved.transpose(1, 2)
    c = c * torch.sigmoid(c)
    d_b_c = c @ block.x_proj.weight.T
    step = d_b_c[..., :rank] @ block.dt_proj.weight.T + block.dt_proj.bias
    step = torch.log1p(torch.exp(-step.abs())) + step.clamp(min=0)
    B, C = d_b_c[..., rank : rank + n_states], d_b_c[..., rank + n_states :]
    decay = torch.exp(torch.einsum("bte,en->bten", step, -torch.exp(block.A_log)))
    inflow = torch.einsum("bte,btn->bten", step * c, B)
    states = []
    for decay_t, inflow_t in zip(decay.unbind(1), inflow.unbind(1), strict=True):
        h = decay_t * h + inflow_t
        states.append(h)
    y = torch.einsum("bten,btn->bte", torch.stack(states, 1), C) + block.D * c
    return x + (y * (z * torch.sigmoid(z))) @ block.out_proj.weight.T


def straight_stack(stack: Stack, x: Tensor, carry: Carry) -> Tensor:
    """A whole model over a whole window, in plain torch: the truth that the engine is held to."""
    x = x @ stack.embed.weight.T
    for block, before in zip(stack.layers, carry, strict=True):
        x = straight_mamba(block, x, before)
    x = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + stack.norm.eps) * stack.norm.weight
    return x @ stack.head.weight.T
