"""Which parameters weight decay applies to.

Every module class that makes parameters declares it for each of them, in `decays`: attribute name
-> whether it decays.  Weights of linear maps do, embedding and head included; decay rates, skips,
biases, norms, convolution filters and the maps of PD-SSM do not.
"""

from torch import nn


def decay_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters that decay and those that do not, each once, in the model's order.

    Raises
    ------
    TypeError
        If a parameter is in no group, or one that several modules share is in both.
    """
    decays: dict[nn.Parameter, bool] = {}
    for path, module in model.named_modules():
        declared = getattr(module, "decays", {})
        for name, parameter in module.named_parameters(recurse=False):
            place = f"{path}.{name}" if path else name
            if name not in declared:
                raise TypeError(f'{place}: declare "{name}" in {type(module).__name__}.decays')
            if decays.setdefault(parameter, declared[name]) != declared[name]:
                raise TypeError(f"{place}: shared by modules that differ in whether it decays")
    return [p for p in decays if decays[p]], [p for p in decays if not decays[p]]
