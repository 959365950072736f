"""Conversion of the settings and tensors of Mamba and Mamba-2 mixers.

Within a mixer, all supported model families use the same tensor names.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PositiveInt
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.foreign.source import CONFIG, Source
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config

MixerConfig = MambaConfig | Mamba2Config

_SHARED = "in_proj.weight", "out_proj.weight", "in_proj.bias", "out_proj.bias"
"""Names of the weights that the two mixers of a bidirectional block may share; not all mixers have biases."""

_TRAINING = frozenset(
    {
        "A_init_range",
        "chunk_size",
        "conv_init",
        "dt_init",
        "dt_init_floor",
        "dt_max",
        "dt_min",
        "dt_scale",
        "layer_idx",
        "process_group",
        "sequence_parallel",
        "use_fast_path",
        "use_mem_eff_path",
    }
)
"""Names of the settings in `ssm_cfg` that do not affect the output of the model."""


def _number(value: Any) -> Any:
    """Convert a value of the form {"__float__": "Infinity"} to a number; return any other value unchanged.

    Recent versions of transformers write some numbers in this form.
    """
    return float(value.get("__float__", "")) if isinstance(value, dict) else value


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    if not (0 <= low <= high and low < math.inf and high > 0):
        raise ValueError("expected two bounds of the step size, the lower one first")
    return bounds


_Bound = Annotated[float, BeforeValidator(_number)]
StepLimits = Annotated[tuple[_Bound, _Bound], AfterValidator(_ordered)]
"""Lower and upper bounds of the step size in Mamba-2."""


def _without_training(value: Any) -> Any:
    """Return `ssm_cfg` without the settings that do not affect the output of the model.

    Null is treated like {}, as in state-spaces.
    """
    if isinstance(value, dict):
        return {name: setting for name, setting in value.items() if name not in _TRAINING}
    return {} if value is None else value


class _Ssm(BaseModel):
    """Settings in `ssm_cfg` that affect the output of the model; unknown settings are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: Literal["Mamba1", "Mamba2"] = "Mamba1"
    d_state: PositiveInt | None = None
    d_conv: PositiveInt = 4
    expand: PositiveInt = 2
    dt_rank: PositiveInt | Literal["auto"] = "auto"
    conv_bias: Literal[True] = True
    bias: bool = False
    headdim: PositiveInt = 64
    ngroups: PositiveInt = 1
    rmsnorm: Literal[True] = True
    norm_before_gate: Literal[False] = False
    D_has_hdim: Literal[False] = False
    d_ssm: None = None
    activation: Literal["silu", "swish"] = "silu"
    dt_limit: StepLimits = (0.0, math.inf)

    def inner(self, source: Source, width: int, *, mamba2: bool) -> MixerConfig:
        """Convert the settings of the mixer to this package's format.

        Parameters
        ----------
        source
            The checkpoint, which error messages name.
        width
            Number of input and output channels of the mixer.
        mamba2
            Whether the mixer is Mamba-2.

        Returns
        -------
        MambaConfig or Mamba2Config
            Settings of the mixer in this package's format.

        Raises
        ------
        ModelError
            If the channels of a Mamba-2 mixer cannot be divided equally into heads and groups, or if its
            projections have biases.
        """
        sizes: dict[str, Any] = {"d_conv": self.d_conv, "expand": self.expand}
        if mamba2:
            check_unbiased(source, "ssm_cfg.bias", self.bias)
            inner = Mamba2Config(
                d_state=self.d_state or 128,
                head_dim=self.headdim,
                n_groups=self.ngroups,
                dt_limit=dt_limit(self.dt_limit),
                **sizes,
            )
            check_heads(source, inner, width)
            return inner
        rank = math.ceil(width / 16) if self.dt_rank == "auto" else self.dt_rank
        return MambaConfig(d_state=self.d_state or 16, dt_rank=rank, bias=self.bias, **sizes)


Ssm = Annotated[_Ssm, BeforeValidator(_without_training)]
"""Type of the setting `ssm_cfg` in the configurations of state-spaces and Caduceus."""

DEFAULT_SSM = _Ssm()
"""Mixer settings for configurations without `ssm_cfg`."""


def check_unbiased(source: Source, key: str, bias: bool) -> None:
    """Raise `ModelError` if `bias` is true: projections with biases are not supported in Mamba-2.

    `key` is the name of the setting in config.json, for the error message.
    """
    if bias:
        raise ModelError(f"{source.folder / CONFIG}: {key} is True: expected false for Mamba-2")


def check_heads(source: Source, inner: Mamba2Config, width: int) -> None:
    """Check that the channels can be divided into equal heads, and the heads into equal groups.

    Parameters
    ----------
    source
        The checkpoint, which the error message names.
    inner
        Settings of the Mamba-2 mixer.
    width
        Number of input and output channels of the mixer.

    Raises
    ------
    ModelError
        If the channels or the heads cannot be divided equally.
    """
    channels = inner.expand * width
    if channels % inner.head_dim or channels // inner.head_dim % inner.n_groups:
        raise ModelError(
            f"{source.folder / CONFIG}: {channels} channels, heads of {inner.head_dim} and "
            f"{inner.n_groups} groups: expected whole heads, equally many per group{source.assumed}"
        )


def dt_limit(bounds: tuple[float, float]) -> tuple[float, float | None]:
    """Return the bounds of the step size in the format of `Mamba2Config`, with None for infinity."""
    low, high = bounds
    return low, None if math.isinf(high) else high


def mixer_tensors(source: Source, old: str, new: str, inner: MixerConfig, width: int) -> dict[str, Tensor]:
    """Return the tensors of a mixer, except for its input and output projections.

    Parameters
    ----------
    source
        The checkpoint.
    old, new
        Prefixes of the tensor names in the checkpoint and in the result.
    inner
        Settings of the mixer.
    width
        Number of input and output channels of the mixer.

    Returns
    -------
    dict
        Tensors by their names in this package.

    Raises
    ------
    ModelError
        If a tensor is missing or invalid (see `Source.take`).
    """
    shapes, convolved = _shapes(inner, width)
    tensors = {
        new + _NEW_NAMES.get(name, name): source.take(old + name, *shape)
        for name, shape in shapes.items()
        if name not in _SHARED
    }
    taps = source.take(old + "conv1d.weight", convolved, 1, inner.d_conv)
    bias = source.take(old + "conv1d.bias", convolved)
    return tensors | {new + "conv.weight": taps[:, 0], new + "conv.bias": bias}


def projection_tensors(
    source: Source, old: str, new: str, inner: MixerConfig, width: int, partner: str | None = None
) -> dict[str, Tensor]:
    """Return the input and output projections of a mixer.

    Parameters
    ----------
    source, old, new, inner, width
        As in `mixer_tensors`.
    partner
        Prefix of the tensor names of a second mixer, if the two mixers share their projections. A
        tensor that is missing under the prefix `old` is then read under the prefix `partner`. If None,
        the projections are not shared.

    Returns
    -------
    dict
        Tensors by their names in this package.

    Raises
    ------
    ModelError
        If a tensor is missing or invalid (see `Source.take_tied`).
    """
    shapes, _ = _shapes(inner, width)
    return {
        new + name: source.take(old + name, *shapes[name])
        if partner is None
        else source.take_tied(old + name, partner + name, *shapes[name])
        for name in _SHARED
        if name in shapes
    }


def norm_tensors(source: Source, old: str, new: str, width: int, *, bias: bool) -> dict[str, Tensor]:
    """Return the weight of a norm and, if it is a LayerNorm, its bias.

    Parameters
    ----------
    source
        The checkpoint.
    old, new
        Prefixes of the tensor names in the checkpoint and in the result.
    width
        Number of channels.
    bias
        Whether the norm has a bias.

    Returns
    -------
    dict
        Tensors by their names in this package.

    Raises
    ------
    ModelError
        If a tensor is missing or invalid (see `Source.take`).
    """
    return {new + name: source.take(old + name, width) for name in ("weight", *(["bias"] if bias else []))}


_NEW_NAMES = {"norm.weight": "gate_norm"}


def _shapes(inner: MixerConfig, width: int) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the shapes of a mixer's tensors by name, and the number of channels of its convolution."""
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
    if inner.bias:
        shapes |= {"in_proj.bias": (2 * channels,), "out_proj.bias": (width,)}
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
