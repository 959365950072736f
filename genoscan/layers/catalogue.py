"""Lookup of models by path, or by the name of a shipped or imported model."""

import difflib
import shlex
from pathlib import Path

import platformdirs

from genoscan.errors import ModelError
from genoscan.layers.config import CONFIG

DEFAULT = "bacteria"


def model_search_path() -> list[Path]:
    """Return the directories that are searched for named models: first the package's, then the user's."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_models"
    shipped = installed if installed.is_dir() else package.parent / "models"
    return [shipped, user_model_directory()]


def is_included(folder: Path) -> bool:
    """Return whether a model folder is one of those that are included in the package."""
    return folder.resolve().parent == model_search_path()[0].resolve()


def user_model_directory() -> Path:
    """Return the directory for imported models, which is located in the user's data directory."""
    return platformdirs.user_data_path("genoscan") / "models"


def named_models() -> dict[str, Path]:
    """Return a dictionary that maps the names of models to their folders.

    If a shipped and an imported model have the same name, the shipped model takes precedence.
    """
    found: dict[str, Path] = {}
    for directory in model_search_path():
        for config in sorted(directory.glob(f"*/{CONFIG}")):
            found.setdefault(config.parent.name, config.parent)
    return found


def find_model(name: str) -> Path:
    """Return the folder of a model.

    Parameters
    ----------
    name
        Name of a shipped or imported model, or path of a model folder.

    Returns
    -------
    Path
        Model folder.

    Raises
    ------
    ModelError
        If there is no such model. The error message suggests a similar name, if there is one.
    """
    known = named_models()
    if name in known:
        return known[name]
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_file():
        raise ModelError(
            f'no model "{name}": it is a file, expected a name or a model folder; to import a checkpoint: '
            f"genoscan models import {shlex.quote(name)} --name NAME"
        )
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"named models: {', '.join(known) or 'none'}"
    raise ModelError(f'no model "{name}", by name or as a folder; {hint}')
