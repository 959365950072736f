"""Targets and windows for which the error due to the window is measured (see measurement.py)."""

import shlex
from dataclasses import dataclass

from genoscan.errors import InputError
from genoscan.layers.catalogue import is_included
from genoscan.layers.config import ModelConfig
from genoscan.layers.window_error import LIKELIHOOD
from genoscan.model import Model

SCORED_BASES = 128
"""Number of bases in each measured region. Short regions give the error at one distance from the ends of the window."""

_LONGEST = 32_768
_SMALLEST, _FACTOR = 256, 4


@dataclass(frozen=True)
class WindowGrid:
    """Contexts and reaches to measure, and those of the long window with which they are compared.

    Attributes
    ----------
    contexts, reaches
        Contexts and reaches, in ascending order. Each context is combined with each reach.
    context, reach
        Context and reach of the long window.
    shortest
        Smallest context and reach that the long window may have: twice the larger default of the model.
    """

    contexts: tuple[int, ...]
    reaches: tuple[int, ...]
    context: int
    reach: int
    shortest: int

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Combinations of context and reach, in ascending order."""
        return [(context, reach) for context in self.contexts for reach in self.reaches]

    @property
    def cost(self) -> int:
        """Largest number of bases that are read for each region."""
        errors = sum(context + SCORED_BASES + reach for context, reach in [*self.pairs, (self.context, self.reach)])
        return errors + self.context + self.reach


def measurable_targets(config: ModelConfig) -> list[str]:
    """Return the targets whose errors can be measured: "log-likelihood", and the names of heads that label bases.

    Heads that label whole windows have no window error, because a window is read without context.
    """
    likelihood = [LIKELIHOOD] if config.language_model else []
    return likelihood + [name for name, head in config.heads.items() if head.kind == "per_base"]


def chosen_target(model: Model, head: str | None = None) -> str:
    """Return the target to measure: "log-likelihood", or the name of a head that labels bases.

    Parameters
    ----------
    model
        Model to measure.
    head
        Name of a task head. If None, the language model or, in a model without one, the first head that labels
        bases.

    Raises
    ------
    InputError
        If the head does not exist or labels windows, or the model has neither a language model nor a head that
        labels bases.
    """
    targets = measurable_targets(model.config)
    if head is None:
        if not targets:
            raise InputError(
                f"{model.name}: expected a language model or a head that labels bases; a window that is labelled as a "
                "whole is read without context, and has no window error"
            )
        return targets[0]
    heads = [target for target in targets if target != LIKELIHOOD]
    if head not in heads:
        expected = f"one of {', '.join(heads)}" if heads else "none, because no head of the model labels bases"
        raise InputError(f"--head {head}: expected {expected}")
    return head


def measuring_command(model: Model, name: str, genome: str, target: str | None = None) -> str:
    """Return the command that measures the errors of a model.

    Parameters
    ----------
    model
        Model to measure.
    name, genome
        Name or folder of the model, and path of a genome.
    target
        Target to measure (see `measurable_targets`). If None, the one that is measured by default.
    """
    command = ["genoscan", "models", "measure", name, genome]
    if target is not None and target != chosen_target(model):
        command += ["--head", target]
    if is_included(model.path):
        command += ["-o", "FOLDER"]
    return shlex.join(command)


def window_grid(model: Model, target: str, longest: int | None = None) -> WindowGrid:
    """Return the contexts and reaches to measure: 256, 1,024, ... and the defaults of the model.

    Parameters
    ----------
    model
        Model to measure.
    target
        Target, as returned by `chosen_target`.
    longest
        Context and reach of the long window. If None, they are 32,768 or, if this is more, twice the larger default
        of the model. The largest of the other contexts and reaches is at most half of this.

    Raises
    ------
    InputError
        If `longest` is less than twice the larger default of the model.
    """
    config = model.config
    # The outputs of a causal model do not depend on the bases that follow, but the likelihood of these does.
    context, reach = config.context, config.reach if model.bidirectional or target == LIKELIHOOD else None
    shortest = max(2 * max(context, reach or 0), 1)
    longest = max(_LONGEST, shortest) if longest is None else longest
    if longest < shortest:
        raise InputError(
            f"--longest {longest}: expected at least {shortest}, twice the larger of the default context and reach of "
            f"{model.name}; compared with windows of nearly the same length, every error is small"
        )
    steps, length = [], _SMALLEST
    while length <= longest / 2:
        steps.append(length)
        length *= _FACTOR
    contexts = tuple(sorted({*steps, context}))
    if reach is None:
        return WindowGrid(contexts, (0,), longest, 0, shortest)
    return WindowGrid(contexts, tuple(sorted({*steps, reach})), longest, longest, shortest)
