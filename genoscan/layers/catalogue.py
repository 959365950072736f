"""Where models are found: a folder's path, a name among the shipped ones, or an imported one."""

import difflib
from pathlib import Path

import platformdirs

from genoscan.errors import ModelError
from genoscan.layers.config import CONFIG

DEFAULT = "bacteria"


def model_folders() -> list[Path]:
    """Return the folders that hold models by name: the shipped ones, then the user's own."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_models"
    shipped = installed if installed.is_dir() else package.parent / "models"
    return [shipped, user_models()]


def user_models() -> Path:
    """Return the folder of the user's own models."""
    return platformdirs.user_data_path("genoscan") / "models"


def names() -> dict[str, Path]:
    """Return every model that has a name, and its folder."""
    found: dict[str, Path] = {}
    for shelf in model_folders():
        for config in sorted(shelf.glob(f"*/{CONFIG}")):
            found.setdefault(config.parent.name, config.parent)
    return found


def find_model(name: str) -> Path:
    """Return the folder of a model, given by name or path.

    Raises
    ------
    ModelError
        If there is none; the message suggests the nearest name.
    """
    known = names()
    if name in known:
        return known[name]
    path = Path(name)
    if path.is_dir():
        return path
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"known are: {', '.join(known) or 'none'}"
    raise ModelError(f'no model "{name}", by name or as a folder; {hint}')
