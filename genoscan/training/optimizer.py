"""The AdamW optimizer (arXiv 1711.05101).

Each layer declares to which of its parameters weight decay applies (see layers/decay.py).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from genoscan.errors import InputError
from genoscan.layers.decay import decay_groups

_STATE = "step", "exp_avg", "exp_avg_sq"


def adamw(
    model: nn.Module, *, rate: float, decay: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> torch.optim.AdamW:
    """Return an AdamW optimizer for the trainable parameters of a model.

    The optimizer has two groups of parameters. Weight decay is applied only to the first group.

    Parameters
    ----------
    model
        Model whose layers declare `decays` (see layers/decay.py).
    rate
        Learning rate.
    decay
        Weight decay of the parameters in the first group.
    betas
        Exponential decay rates of the estimates of the first and second moments.
    eps
        Constant that is added to the denominator to avoid division by zero.

    Returns
    -------
    torch.optim.AdamW
        The optimizer.

    Raises
    ------
    TypeError
        If a layer does not declare whether weight decay applies to one of its parameters.
    """
    decayed, plain = ([p for p in group if p.requires_grad] for group in decay_groups(model))
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=eps)


def update(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    gradients: Sequence[Tensor],
    *,
    rate: float,
    clip: float,
) -> None:
    """Take one optimizer step with clipped gradients.

    Parameters
    ----------
    optimizer
        Optimizer of the parameters.
    parameters
        Parameters to update.
    gradients
        Gradient of each parameter.
    rate
        Learning rate.
    clip
        Maximum L2 norm of the concatenated gradients. If the norm is larger, all gradients are scaled
        down by the same factor.

    Raises
    ------
    InputError
        If a gradient is not finite. The parameters are then unchanged.
    """
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    if not norm.isfinite():
        raise InputError(
            f"training: the gradient's norm is {float(norm)}, expected a finite number; use a lower learning rate"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def state_tensors(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the state of AdamW as named tensors.

    Parameters
    ----------
    optimizer
        Optimizer that has updated each parameter at least once.
    parameters
        Parameters by name.

    Returns
    -------
    dict
        Tensors by name. A name has the form KEY.PARAMETER, such as exp_avg.head.weight.
    """
    return {
        f"{key}.{name}": optimizer.state[parameter][key] for name, parameter in parameters.items() for key in _STATE
    }


def load_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Restore the state of AdamW from named tensors.

    Parameters
    ----------
    optimizer
        Optimizer whose state is replaced.
    parameters
        Parameters by name.
    tensors
        State as returned by `state_tensors`.

    Raises
    ------
    KeyError
        If a tensor is missing.
    """
    names = {parameter: name for name, parameter in parameters.items()}
    ordered = [names[p] for group in optimizer.param_groups for p in group["params"]]
    state = {i: {key: tensors[f"{key}.{name}"].clone() for key in _STATE} for i, name in enumerate(ordered)}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
