"""Shared by the benchmarks that train small models: labels, training steps, learning rate, accuracy, best weights."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn import functional as F

from genoscan.layers.stack import Stack
from genoscan.training.optimizer import update

Tokens = Int64[np.ndarray, "sequences length"]
Labels = Int64[np.ndarray, "sequences length"]

UNKNOWN = -1
"""The label of positions that are not scored."""

HELD_OUT = {"validation": 10_000_019, "test": 20_000_003}
"""Seeds of the held-out sequences."""

_LOWEST_RATE = 1e-5


def outputs(stack: Stack, tokens: Tensor, n_tokens: int) -> Tensor:
    """Return the outputs for tokens of shape (sequences, length), as (sequences, length, outputs)."""
    x = F.one_hot(tokens, n_tokens).float()
    found: Tensor = stack(x, stack.begin(len(x)))[0]
    return found


def loss(answers: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over the labelled positions."""
    return F.cross_entropy(answers.flatten(0, 1), labels.flatten(), ignore_index=UNKNOWN)


def share_right(answers: Tensor, labels: Tensor) -> float:
    """Return the accuracy over the labelled positions."""
    asked = labels != UNKNOWN
    return float((answers.argmax(-1) == labels)[asked].double().mean())


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    weights: Sequence[nn.Parameter],
    tokens: Tensor,
    labels: Tensor,
    *,
    rate: float,
) -> float:
    """Update the weights once, with gradients clipped to a norm of 1; return the loss before.

    Raises
    ------
    InputError
        If a gradient is not finite. The weights are then unchanged.
    """
    value = loss(model(tokens), labels)
    update(optimizer, weights, torch.autograd.grad(value, weights), rate=rate, clip=1.0)
    return float(value.detach())


def cosine_rate(peak: float, step: int, steps: int) -> float:
    """Return the learning rate: linear warm-up for a tenth of the steps, then cosine decay."""
    warm = max(1, steps // 10)
    if step <= warm:
        return peak * step / warm
    done = (step - warm) / max(1, steps - warm)
    return _LOWEST_RATE + (peak - _LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


class BestWeights:
    """The weights of a model that have the highest score on validation so far, the first ones if equal.

    Attributes
    ----------
    score
        Highest score so far.
    weights
        The weights and buffers by name.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.weights = model.state_dict()
        self.score = -math.inf

    def offer(self, score: float) -> None:
        """Copy the model's present weights if their score is higher."""
        if score > self.score:
            self.score = score
            self.weights = {name: part.clone() for name, part in self._model.state_dict().items()}

    def restore(self) -> None:
        """Load the best weights into the model."""
        self._model.load_state_dict(self.weights)
