"""Parameter groups for weight decay.

Each module class that has parameters must declare a class attribute `decays`. It is a dictionary that maps
the name of each parameter to True if weight decay applies to the parameter, and to False otherwise. Weight
decay applies to the weights of linear maps, including the embedding and the head. It does not apply to
decay rates, skip connections, biases, norms, convolution filters or the transition maps of PD-SSM.
"""

from torch import nn


def decay_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters to which weight decay applies, and those to which it does not apply.

    Parameters
    ----------
    model
        Model whose module classes declare `decays`.

    Returns
    -------
    decayed, plain
        Lists of the parameters with and without weight decay. Each parameter is listed once, in the order
        of the modules in the model.

    Raises
    ------
    TypeError
        If a parameter is missing from `decays`, or if modules that share a parameter declare it
        differently.
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
