"""Summation of the cotangents of parameters during a sweep."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class ParameterSums:
    """Cotangents of parameters, summed over tiles, layers and directions."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._sums = {parameter: torch.zeros_like(parameter) for parameter in parameters}

    def __bool__(self) -> bool:
        return bool(self._sums)

    def of(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """Return the given parameters whose cotangents are summed, without duplicates."""
        return [parameter for parameter in dict.fromkeys(parameters) if parameter in self._sums]

    def add(self, parameters: Sequence[Tensor], bars: Iterable[Tensor | None]) -> None:
        """Add the cotangents of the given parameters to the sums; None stands for zero."""
        for parameter, bar in zip(parameters, bars, strict=True):
            if bar is not None:
                self._sums[parameter] += bar

    def grad(self, outputs: Sequence[Tensor], x: Tensor, bars: Sequence[Tensor] | None = None) -> Tensor:
        """Return the cotangent of `x`, and add the cotangents of all parameters to the sums.

        `bars` contains the cotangents of `outputs`. It may be None if each output is a scalar.
        """
        parameters = list(self._sums)
        x_bar, *found = torch.autograd.grad(outputs, [x, *parameters], bars, allow_unused=True)
        self.add(parameters, found)
        assert x_bar is not None
        return x_bar

    def totals(self) -> tuple[Tensor, ...]:
        """Return the sums in the order in which the parameters were given."""
        return tuple(self._sums.values())
