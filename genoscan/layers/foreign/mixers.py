"""A mixer's settings and tensors, which all families name alike, and what they are here."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PositiveInt
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.foreign.source import CONFIG, Source
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config

Inner = MambaConfig | Mamba2Config

_SHARED = "in_proj.weight", "out_proj.weight"
"""What two mixers of a block may share."""

_TRAINING = frozenset(
    {
        "A_init_range", "chunk_size", "conv_init", "dt_init", "dt_init_floor", "dt_max", "dt_min",
        "dt_scale", "layer_idx", "process_group", "sequence_parallel", "use_fast_path",
        "use_mem_eff_path",
    }
)  # fmt: skip
"""What `ssm_cfg` may have that does not decide the function."""


def _number(value: Any) -> Any:
    """Read {"__float__": "Infinity"}, which newer files of transformers write."""
    return float(value.get("__float__", "")) if isinstance(value, dict) else value


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    if not (0 <= low <= high and low < math.inf and high > 0):
        raise ValueError("expected two bounds of the step size, the lower one first")
    return bounds


_Bound = Annotated[float, BeforeValidator(_number)]
StepLimits = Annotated[tuple[_Bound, _Bound], AfterValidator(_ordered)]
"""Bounds of Mamba-2's step sizes."""


def _without_training(value: Any) -> Any:
    """Leave out what is for training; null is as good as nothing, as state-spaces has it."""
    if isinstance(value, dict):
        return {name: held for name, held in value.items() if name not in _TRAINING}
    return {} if value is None else value


class _Ssm(BaseModel):
    """All of `ssm_cfg` that decides the function; state-spaces refuses settings that it lacks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    d_ssm: None = None
    activation: Literal["silu", "swish"] = "silu"
    dt_limit: StepLimits = (0.0, math.inf)

    def inner(self, source: Source, width: int, *, mamba2: bool) -> Inner:
        """Return the mixer.

        Raises
        ------
        ModelError
            If Mamba-2's heads and groups do not divide its channels.
        """
        sizes: dict[str, Any] = {"d_conv": self.d_conv, "expand": self.expand}
        if mamba2:
            inner = Mamba2Config(
                d_state=self.d_state or 128, head_dim=self.headdim, n_groups=self.ngroups,
                dt_limit=limit(self.dt_limit), **sizes,
            )  # fmt: skip
            check_heads(source, inner, width)
            return inner
        rank = math.ceil(width / 16) if self.dt_rank == "auto" else self.dt_rank
        return MambaConfig(d_state=self.d_state or 16, dt_rank=rank, **sizes)


Ssm = Annotated[_Ssm, BeforeValidator(_without_training)]
"""`ssm_cfg` of state-spaces' and Caduceus's configs."""

NO_SSM = _Ssm()
"""Of a config that has none."""


def check_heads(source: Source, inner: Mamba2Config, width: int) -> None:
    """Refuse heads that do not divide the channels, and groups that do not divide the heads."""
    channels = inner.expand * width
    if channels % inner.head_dim or channels // inner.head_dim % inner.n_groups:
        raise ModelError(
            f"{source.folder / CONFIG}: {channels} channels, heads of {inner.head_dim} and "
            f"{inner.n_groups} groups: expected whole heads, as many in each group{source.assumed}"
        )


def limit(bounds: tuple[float, float]) -> tuple[float, float | None]:
    """Return the bounds of the step sizes, as a `Mamba2Config` has them."""
    low, high = bounds
    return low, None if math.isinf(high) else high


def mixer(source: Source, theirs: str, ours: str, inner: Inner, width: int) -> dict[str, Tensor]:
    """Return the tensors of a mixer of a model so wide, without its projections in and out.

    Their names begin with `theirs` in the file, and with `ours` here.
    """
    shapes, convolved = _shapes(inner, width)
    made = {
        ours + (_OURS.get(name, name)): source.take(theirs + name, *shape)
        for name, shape in shapes.items()
        if name not in _SHARED
    }
    taps = source.take(theirs + "conv1d.weight", convolved, 1, inner.d_conv)
    made[ours + "conv.weight"] = taps[:, 0]
    made[ours + "conv.bias"] = source.take(theirs + "conv1d.bias", convolved)
    return made


def projections(
    source: Source, theirs: str, ours: str, inner: Inner, width: int, partner: str | None = None
) -> dict[str, Tensor]:
    """Return a mixer's projections in and out; a tied `partner` may have them in its stead."""
    shapes, _ = _shapes(inner, width)
    return {
        ours + name: source.take(theirs + name, *shapes[name]) if partner is None
        else source.take_tied(theirs + name, partner + name, *shapes[name])
        for name in _SHARED
    }  # fmt: skip


_OURS = {"norm.weight": "gate_norm"}


def _shapes(inner: Inner, width: int) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the shapes of a mixer's tensors, and how many channels are convolved."""
    return _mamba(inner, width) if isinstance(inner, MambaConfig) else _mamba2(inner, width)


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
