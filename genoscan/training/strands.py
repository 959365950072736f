"""Reverse-complement equivariance during the training of models for both strands (rcps).

The embedding of a symbol on the reverse strand equals the embedding of the complementary symbol on the
forward strand. The weights of the language-model head are paired in the same way. The two weights of a
pair are stored separately. They remain equal if their initial values are equal and their gradients are
averaged.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from genoscan.layers.config import ModelConfig

_AXES = {"embed.weight": 0, "embed.bias": 0, "head.weight": 1}
"""Axis of the channels in each tensor that has paired weights; a second axis has one entry per symbol."""


def average_strands(config: ModelConfig, name: str, tensor: Tensor) -> Tensor:
    """Average the paired weights of a tensor, or the gradients of these weights.

    Parameters
    ----------
    config
        Configuration of the model.
    name
        Name of the parameter.
    tensor
        Weights of the parameter, or their gradients.

    Returns
    -------
    Tensor
        The averaged tensor, or the unchanged tensor if it has no paired weights.
    """
    if config.strands == 1 or name not in _AXES:
        return tensor
    channels = _AXES[name]
    forward, reverse = tensor.chunk(2, channels)

    def complement(half: Tensor) -> Tensor:
        """Exchange the entries of complementary symbols."""
        return half if half.ndim == 1 else half.index_select(1 - channels, pairs)

    pairs = torch.tensor(config.complement, device=tensor.device)
    mean = (forward + complement(reverse)) / 2
    return torch.cat([mean, complement(mean)], channels)


@torch.no_grad()
def tie_strands(config: ModelConfig, parameters: Mapping[str, Tensor]) -> None:
    """Replace both weights of each pair with their average.

    Parameters
    ----------
    config
        Configuration of the model.
    parameters
        Parameters by name. They are modified in place.
    """
    for name, parameter in parameters.items():
        parameter.copy_(average_strands(config, name, parameter))
