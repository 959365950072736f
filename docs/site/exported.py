"""Names that `genoscan` exports, for Griffe, which reads the sources without importing them."""

from typing import Any

import griffe

from genoscan import _HOMES


class ExportedNames(griffe.Extension):
    """Make the names of the package available that are imported on first use."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Add an alias of each exported object, and complete the descriptions of its parameters."""
        if pkg.name != "genoscan":
            return
        for name, home in _HOMES.items():
            found = pkg[f"{home}.{name}"]
            pkg.set_member(name, griffe.Alias(name, found))
            for each in (found, *found.members.values()) if found.is_class else (found,):
                if each.is_function:
                    _complete(each)


def _complete(function: griffe.Function) -> None:
    """Give parameters that are described together, as in "seed, sigma", each its own type and default."""
    for section in function.docstring.parsed if function.docstring else ():
        if section.kind is griffe.DocstringSectionKind.parameters:
            for parameter in section.value:
                if parameter.name in function.parameters:
                    declared = function.parameters[parameter.name]
                    parameter.annotation, parameter.value = declared.annotation, declared.default
