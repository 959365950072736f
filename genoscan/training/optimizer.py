"""AdamW (arXiv 1711.05101) with the weight decay groups that layers declare."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from genoscan.errors import InputError
from genoscan.layers.decay import decay_groups

_STATE = "step", "exp_avg", "exp_avg_sq"


def adamw(
    model: nn.Module,
    *,
    rate: float,
    decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.AdamW:
    """Return torch's optimizer over all parameters of the model, in two groups.

    Raises
    ------
    TypeError
        If a parameter is in no declared group (`decay_groups`).
    """
    decayed, plain = decay_groups(model)
    groups = [
        {"params": decayed, "weight_decay": decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=eps)


def update(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    gradients: Sequence[Tensor],
    *,
    rate: float,
    clip: float,
) -> None:
    """Update the parameters with these gradients, scaled so that their joint norm is at most clip.

    Raises
    ------
    InputError
        If the gradients are not finite; the parameters are unchanged then.
    """
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    if not norm.isfinite():
        raise InputError(
            f"training: the gradient's norm is {float(norm)}, expected a finite number; use a "
            "lower learning rate"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def state_tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Return AdamW's state as tensors named KEY.PARAMETER, such as exp_avg.head.weight.

    Every parameter must have been updated before.
    """
    return {
        f"{key}.{name}": optimizer.state[parameter][key]
        for name, parameter in parameters.items()
        for key in _STATE
    }


def load_state(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    """Give AdamW a state as `state_tensors` returns it, for parameters of these names.

    Raises
    ------
    KeyError
        If a tensor is missing.
    """
    names = {parameter: name for name, parameter in parameters.items()}
    ordered = [names[p] for group in optimizer.param_groups for p in group["params"]]
    state = {
        i: {key: tensors[f"{key}.{name}"].clone() for key in _STATE}
        for i, name in enumerate(ordered)
    }
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
