"""Equivariance in training of models for both strands (rcps).

The embedding of the reverse strand is that of the complementary symbol on the forward strand, and so are
the weights of the language-model head. These pairs of weights are stored separately; they stay equal if
they start equal and their gradients are averaged.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from genoscan.layers.config import ModelConfig

_AXES = {"embed.weight": 0, "embed.bias": 0, "head.weight": 1}
"""Tensors with paired weights, and the axis of their channels; another axis has one entry per symbol."""


def average_strands(config: ModelConfig, name: str, tensor: Tensor) -> Tensor:
    """Average the paired weights of a tensor, or the gradients of these weights.

    Parameters
    ----------
    config
        Configuration of the model.
    name
        Name of the tensor.
    tensor
        Weights or gradients.

    Returns
    -------
    Tensor
        The average; the tensor itself if it has no paired weights.
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
    """Replace each pair of weights with its average.

    Parameters
    ----------
    config
        Configuration of the model.
    parameters
        Parameters by name, which are modified.
    """
    for name, parameter in parameters.items():
        parameter.copy_(average_strands(config, name, parameter))
