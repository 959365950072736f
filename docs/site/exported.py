"""Names that `genoscan` exports lazily, for Griffe, which reads the sources without importing them."""

from typing import Any

import griffe

from genoscan import _HOMES


class ExportedNames(griffe.Extension):
    """Add each exported name to the package as an alias of the object in its module."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Add the aliases to the package."""
        if pkg.name == "genoscan":
            for name, home in _HOMES.items():
                pkg.set_member(name, griffe.Alias(name, f"genoscan.{home}.{name}"))
