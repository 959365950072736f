"""Windows with which the error due to the window is measured (see window_measurement.py)."""

from dataclasses import dataclass

from genoscan.errors import InputError
from genoscan.model import Model

LIKELIHOOD = "log-likelihood"

REGION = 128
"""Number of bases scored at each place. Short regions give the error at one distance from the ends of the window."""

_LONGEST = 32_768
_SMALLEST, _FACTOR = 256, 4


@dataclass(frozen=True)
class Ladder:
    """Contexts and reaches to measure, and those of the long window with which they are compared.

    Attributes
    ----------
    contexts, reaches
        Contexts and reaches, in ascending order. Each context is combined with each reach.
    context, reach
        Context and reach of the long window.
    """

    contexts: tuple[int, ...]
    reaches: tuple[int, ...]
    context: int
    reach: int

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Combinations of context and reach, in ascending order."""
        return [(context, reach) for context in self.contexts for reach in self.reaches]

    @property
    def cost(self) -> int:
        """Largest number of bases that are read for each place."""
        errors = sum(context + REGION + reach for context, reach in [*self.pairs, (self.context, self.reach)])
        return errors + self.context + self.reach


def default_target(model: Model, head: str | None = None) -> str:
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
    config = model.config
    heads = [name for name, one in config.heads.items() if one.kind == "per_base"]
    if head is None:
        if not (config.language_model or heads):
            raise InputError(
                f"{model.name}: its heads label windows exactly as they are read, so that no context is left out"
            )
        return LIKELIHOOD if config.language_model else heads[0]
    if head not in heads:
        expected = f"one of {', '.join(heads)}" if heads else "none, because no head of the model labels bases"
        raise InputError(f"--head {head}: expected {expected}")
    return head


def ladder(model: Model, target: str, longest: int | None = None) -> Ladder:
    """Return the contexts and reaches to measure: 256, 1,024, ... and the defaults of the model.

    Parameters
    ----------
    model
        Model to measure.
    target
        Target, as returned by `default_target`.
    longest
        Context and reach of the long window. If None, they are 32,768 or, if this is more, twice the larger default
        of the model. The largest of the other contexts and reaches is at most half of this.

    Raises
    ------
    InputError
        If `longest` is not longer than the defaults of the model.
    """
    config = model.config
    # The outputs of a causal model do not depend on the bases that follow, but the likelihood of these does.
    context, reach = config.context, config.reach if model.bidirectional or target == LIKELIHOOD else None
    default = max(context, reach or 0)
    longest = max(_LONGEST, 2 * default) if longest is None else longest
    if longest <= default:
        raise InputError(f"--longest {longest}: expected more than the context or reach of {model.name}, {default:,}")
    steps, length = [], _SMALLEST
    while length <= longest / 2:
        steps.append(length)
        length *= _FACTOR
    contexts = tuple(sorted({*steps, context}))
    if reach is None:
        return Ladder(contexts, (0,), longest, 0)
    return Ladder(contexts, tuple(sorted({*steps, reach})), longest, longest)
