"""Weight decay: every parameter of every layer kind, and the group that it is in."""

from itertools import chain

import pytest
import torch
from torch import nn

from genoscan.layers.bidirectional import BidirectionalConfig
from genoscan.layers.config import ModelConfig
from genoscan.layers.decay import decay_groups
from genoscan.layers.linear import Linear
from genoscan.layers.mamba import Mamba, MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.norm import NormConfig, RMSNorm
from genoscan.layers.pd_ssm import PdSsmConfig
from genoscan.layers.weights import _BLOCKS, _build_network
from genoscan.ops.dispatch import choose
from genoscan.training.optimizer import adamw

KERNELS = choose("cpu")
MAMBA = MambaConfig(dt_rank=1)
MAMBA2 = Mamba2Config(head_dim=8)
PD_SSM = PdSsmConfig(d_state=4, n_maps=2, rank=1)
KINDS = {
    "mamba": MAMBA,
    "mamba2": MAMBA2,
    "pd_ssm": PD_SSM,
    "two_way, mamba": BidirectionalConfig(inner=MAMBA),
    "two_way, mamba, untied": BidirectionalConfig(inner=MAMBA, tied=False),
    "two_way, mamba2, both strands": BidirectionalConfig(inner=MAMBA2, rcps=True),
    "two_way, pd_ssm": BidirectionalConfig(inner=PD_SSM),
}

MAMBA_DECAYS = ["in_proj.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight"]
MAMBA_DOES_NOT = ["conv.weight", "conv.bias", "dt_proj.bias", "A_log", "D"]
MAMBA2_DECAYS = ["in_proj.weight", "out_proj.weight"]
MAMBA2_DOES_NOT = ["conv.weight", "conv.bias", "dt_bias", "A_log", "D", "gate_norm"]
PD_SSM_SHARED = ["in_proj.weight", "out_proj.weight"]
PD_SSM_OWN = [f"{name}.weight" for name in ("B_proj", "low", "size", "phase", "C_proj", "router", "state_out")]
PD_SSM_DOES_NOT = ["conv.weight", "conv.bias", "size.bias", "phase.bias", "C_proj.bias", "dictionary", "D"]


def within(place: str, names: list[str]) -> list[str]:
    return [f"{place}.{name}" for name in names]


DECAYS = {
    "mamba": MAMBA_DECAYS,
    "mamba2": MAMBA2_DECAYS,
    "pd_ssm": PD_SSM_SHARED + PD_SSM_OWN,
    "two_way, mamba": [*within("fwd", MAMBA_DECAYS), "rev.x_proj.weight", "rev.dt_proj.weight"],
    "two_way, mamba, untied": [*within("fwd", MAMBA_DECAYS), *within("rev", MAMBA_DECAYS)],
    "two_way, mamba2, both strands": within("fwd", MAMBA2_DECAYS),
    "two_way, pd_ssm": [*within("fwd", PD_SSM_SHARED + PD_SSM_OWN), *within("rev", PD_SSM_OWN)],
}
DOES_NOT = {
    "mamba": ["norm.weight", *MAMBA_DOES_NOT],
    "mamba2": ["norm.weight", *MAMBA2_DOES_NOT],
    "pd_ssm": ["norm.weight", *PD_SSM_DOES_NOT],
    "two_way, mamba": ["norm.weight", *within("fwd", MAMBA_DOES_NOT), *within("rev", MAMBA_DOES_NOT)],
    "two_way, mamba, untied": ["norm.weight", *within("fwd", MAMBA_DOES_NOT), *within("rev", MAMBA_DOES_NOT)],
    "two_way, mamba2, both strands": ["norm.weight", *within("fwd", MAMBA2_DOES_NOT), *within("rev", MAMBA2_DOES_NOT)],
    "two_way, pd_ssm": ["norm.weight", *within("fwd", PD_SSM_DOES_NOT), *within("rev", PD_SSM_DOES_NOT)],
}


def model_of(kind: str) -> nn.Module:
    config = ModelConfig(
        d_model=8,
        layers=(KINDS[kind],),
        context=1,
        reach=1,
        trained_on="nothing",
        label_offset=0 if "two_way" in kind else 1,
    )
    return _build_network(config, KERNELS)


def test_every_kind_is_listed() -> None:
    assert {kind.split(",")[0] for kind in KINDS} == {*_BLOCKS, "two_way"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_in_its_group(kind: str) -> None:
    model = model_of(kind)
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, plain = ([names[p] for p in group] for group in decay_groups(model))
    block = "layers.0"
    assert sorted(decayed) == sorted(["embed.weight", "head.weight", *within(block, DECAYS[kind])])
    assert sorted(plain) == sorted(["norm.weight", *within(block, DOES_NOT[kind])])
    assert sorted(decayed + plain) == sorted(names.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimizer_decays_the_one_group_alone(kind: str) -> None:
    """With gradients of zero nothing but decay moves a parameter."""
    model = model_of(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0).grad = torch.zeros_like(parameter)
    optimizer = adamw(model, rate=0.5, decay=0.25)
    optimizer.step()
    decayed, plain = decay_groups(model)
    assert all((parameter == 0.875).all() for parameter in decayed)
    assert all((parameter == 1).all() for parameter in plain)


class Scaled(Mamba):
    """A kind of layer whose author forgot to declare a parameter."""

    def __init__(self) -> None:
        super().__init__(MAMBA, 8, norm=NormConfig(), kernels=KERNELS)
        self.scale = nn.Parameter(torch.ones(8))


@pytest.mark.parametrize(
    ("module", "place"),
    [
        (Scaled(), '1.scale: declare "scale" in Scaled.decays'),
        (nn.Linear(3, 3), '1.weight: declare "weight" in Linear.decays'),
        (nn.ParameterList([torch.ones(2)]), '1.0: declare "0" in ParameterList.decays'),
    ],
)
def test_a_parameter_in_no_group_is_an_error(module: nn.Module, place: str) -> None:
    model = nn.Sequential(RMSNorm(8, eps=1e-5, kernels=KERNELS), module)
    for make in (decay_groups, lambda model: adamw(model, rate=1.0, decay=0.1)):
        with pytest.raises(TypeError, match=place):
            make(model)


def test_a_shared_parameter_is_in_one_group() -> None:
    embed, head = (Linear(4, 4, bias=False, kernels=KERNELS) for _ in range(2))
    head.weight = embed.weight
    groups = decay_groups(nn.Sequential(embed, head))
    assert list(map(id, chain(*groups))) == [id(embed.weight)]
    norm = RMSNorm(4, eps=1e-5, kernels=KERNELS)
    norm.weight = embed.weight
    with pytest.raises(TypeError, match=r"1\.weight: shared by modules whose `decays` differ"):
        decay_groups(nn.Sequential(embed, norm))
