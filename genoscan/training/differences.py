"""Description of the differences between the settings of an interrupted training run and the current ones."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_SHOWN = 3
_LONGEST = 60

_OPTIONS = {
    "config.d_model": "--width",
    "config.layers": "--layers",
    "config.layers.kind": "--block, --bidirectional",
    "config.layers.d_state": "--states",
    "config.layers.inner.kind": "--block",
    "config.layers.inner.d_state": "--states",
    "config.layers.rcps": "--rcps",
    "config.heads": "--labels, --head",
    "config.language_model": "--language-model",
    "config.trained_on": "--trained-on",
    "config.window": "--window",
    "options.steps": "--steps",
    "options.window": "--window",
    "options.walk": "--walk",
    "options.batch": "--batch",
    "options.rate": "--rate",
    "options.seed": "--seed",
    "options.tile": "--tile",
    "options.slots": "--slots",
    "options.surrogate": "--surrogate",
    "options.language_model": "--language-model",
    "options.site_weight": "--site-weight",
    "options.freeze": "--freeze",
    "validation": "--validation",
    "regions": "--region",
    "sequences": "GENOME",
    "labels": "--labels",
    "initial": "--from",
    "device": "--device",
    "threads": "--threads",
}
"""Arguments of `genoscan train` that determine a setting. Numbers of items are left out of the setting's name."""


def describe_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str | None:
    """Describe the first differences between the settings of two training runs, each with both values.

    Parameters
    ----------
    saved, current
        Settings of the interrupted run and of this one, as returned by `settings`.

    Returns
    -------
    str or None
        The first three differences, such as "options.rate (--rate) was 0.004, is now 0.01", and the number of
        others. None if the settings are equal.
    """
    found = list(_differences(saved, current))
    others = f"; and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + others if found else None


def _differences(saved: Any, current: Any, place: str = "") -> Iterator[str]:
    """Yield a description of each difference between two JSON values."""
    if isinstance(saved, Mapping) and isinstance(current, Mapping):
        for key in [*current, *(key for key in saved if key not in current)]:
            inner = f"{place}.{key}" if place else key
            if key not in saved:
                yield f"{_named(inner)} was not recorded, is now {_value(current[key])}"
            elif key not in current:
                yield f"{_named(inner)} was {_value(saved[key])}, is no longer a setting"
            else:
                yield from _differences(saved[key], current[key], inner)
    elif isinstance(saved, list) and isinstance(current, list):
        if len(saved) != len(current):
            yield f"{_named(place)}: there were {len(saved)}, there are now {len(current)}"
            return
        for i, (a, b) in enumerate(zip(saved, current, strict=True)):
            yield from _differences(a, b, f"{place}.{i}")
    elif saved != current or isinstance(saved, bool) != isinstance(current, bool):
        yield f"{_named(place)} was {_value(saved)}, is now {_value(current)}"


def _named(place: str) -> str:
    """Return the place of a setting, with the argument that determines it, if there is one."""
    parts = [part for part in place.split(".") if not part.isdecimal()]
    # All parts of a sequence or of labels depend on one argument.
    option = _OPTIONS.get(".".join(parts)) or _OPTIONS.get(parts[0])
    return place if option is None else f"{place} ({option})"


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
