"""Parameter groups for weight decay.

A module class with parameters declares a class attribute `decays`, a dictionary that maps the name of
each parameter to whether weight decay applies to it. Weight decay applies to the weights of linear
maps, including the embedding and the head, but not to decay rates, skip connections, biases, norms,
convolution filters and the transition maps of PD-SSM.
"""

from torch import nn


def decay_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters with weight decay and those without.

    Parameters
    ----------
    model
        Model whose module classes declare `decays`.

    Returns
    -------
    decayed, plain
        Parameters with and without weight decay, each listed once, in the order of the model.

    Raises
    ------
    TypeError
        If a parameter is not declared, or is declared differently by modules that share it.
    """
    decays: dict[nn.Parameter, bool] = {}
    for path, module in model.named_modules():
        declared = getattr(module, "decays", {})
        for name, parameter in module.named_parameters(recurse=False):
            place = f"{path}.{name}" if path else name
            if name not in declared:
                raise TypeError(f'{place}: declare "{name}" in {type(module).__name__}.decays')
            if decays.setdefault(parameter, declared[name]) != declared[name]:
                raise TypeError(f"{place}: shared by modules whose `decays` differ")
    return [p for p in decays if decays[p]], [p for p in decays if not decays[p]]
