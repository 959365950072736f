"""A mixer's settings and tensors, which all families name alike, and what they are here."""

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor

from genoscan.layers.foreign.source import Source
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config

Inner = MambaConfig | Mamba2Config

SHARED = "in_proj.weight", "out_proj.weight"
"""What two mixers of a block may share."""


class Ssm(BaseModel):
    """`ssm_cfg` of state-spaces' and Caduceus's configs: all of it that decides the function."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    layer: Literal["Mamba1", "Mamba2"] = "Mamba1"
    d_state: PositiveInt | None = None
    d_conv: PositiveInt = 4
    expand: PositiveInt = 2
    dt_rank: PositiveInt | Literal["auto"] = "auto"
    conv_bias: Literal[True] = True
    bias: Literal[False] = False
    headdim: PositiveInt = 64
    ngroups: PositiveInt = 1
    rmsnorm: Literal[True] = True
    norm_before_gate: Literal[False] = False
    D_has_hdim: Literal[False] = False
    dt_limit: tuple[float, float] = (0.0, math.inf)

    def inner(self, width: int, *, mamba2: bool) -> Inner:
        """Return the mixer."""
        sizes: dict[str, Any] = {"d_conv": self.d_conv, "expand": self.expand}
        if mamba2:
            return Mamba2Config(
                d_state=self.d_state or 128, head_dim=self.headdim, n_groups=self.ngroups,
                dt_limit=limit(self.dt_limit), **sizes,
            )  # fmt: skip
        rank = math.ceil(width / 16) if self.dt_rank == "auto" else self.dt_rank
        return MambaConfig(d_state=self.d_state or 16, dt_rank=rank, **sizes)


def limit(bounds: tuple[float, float]) -> tuple[float, float | None]:
    """Return the bounds of the step sizes, as a `Mamba2Config` has them."""
    low, high = bounds
    return low, None if math.isinf(high) else high


def mixer(
    source: Source, theirs: str, ours: str, inner: Inner, width: int,
    tied: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Return the tensors of a mixer of a model so wide; `theirs` + name in the file.

    Projections that are `tied` to another mixer's are only checked, where they are there.
    """
    shapes, convolved = (
        _mamba(inner, width) if isinstance(inner, MambaConfig) else _mamba2(inner, width)
    )
    if tied is not None:
        for name in SHARED:
            source.tied(theirs + name, tied[name])
            del shapes[name]
    made = {
        ours + (_OURS.get(name, name)): source.take(theirs + name, *shape)
        for name, shape in shapes.items()
    }
    taps = source.take(theirs + "conv1d.weight", convolved, 1, inner.d_conv)
    made[ours + "conv.weight"] = taps[:, 0]
    made[ours + "conv.bias"] = source.take(theirs + "conv1d.bias", convolved)
    return made


_OURS = {"norm.weight": "gate_norm"}


def _mamba(inner: MambaConfig, width: int) -> tuple[dict[str, tuple[int, ...]], int]:
    channels, states, rank = inner.expand * width, inner.d_state, inner.dt_rank
    shapes: dict[str, tuple[int, ...]] = {
        "in_proj.weight": (2 * channels, width),
        "out_proj.weight": (width, channels),
        "x_proj.weight": (rank + 2 * states, channels),
        "dt_proj.weight": (channels, rank),
        "dt_proj.bias": (channels,),
        "A_log": (channels, states),
        "D": (channels,),
    }
    return shapes, channels


def _mamba2(inner: Mamba2Config, width: int) -> tuple[dict[str, tuple[int, ...]], int]:
    channels = inner.expand * width
    heads, convolved = channels // inner.head_dim, channels + 2 * inner.n_groups * inner.d_state
    shapes: dict[str, tuple[int, ...]] = {
        "in_proj.weight": (channels + convolved + heads, width),
        "out_proj.weight": (width, channels),
        "dt_bias": (heads,),
        "A_log": (heads,),
        "D": (heads,),
        "norm.weight": (channels,),
    }
    return shapes, convolved
