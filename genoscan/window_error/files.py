"""Writing of measured window errors to the configuration and the card of a model."""

import json
import re
import shutil
from pathlib import Path
from textwrap import fill

from genoscan.genome.files import read_errors
from genoscan.json_input import parse_json
from genoscan.layers.config import CONFIG, ModelConfig, read_config
from genoscan.layers.weights import CARD
from genoscan.layers.window_error import LIKELIHOOD, DistantShare, WindowError, WindowErrors, percent
from genoscan.tracks.atomic import atomic_directory, atomic_files, check_writable, os_errors

_HEADING = "## What the window changes"
_SECTION = re.compile(rf"^{_HEADING}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def check_errors_writable(folder: Path) -> None:
    """Check that window errors can be written to a model folder.

    Raises
    ------
    OutputError
        If the folder or one of its files cannot be written.
    """
    for name in (CONFIG, CARD):
        check_writable(folder / name)


def write_window_errors(folder: Path, errors: WindowErrors) -> None:
    """Write how much scores depend on the window to the configuration and the card of a model.

    Parameters
    ----------
    folder
        Model folder. Its config.json and README.md are replaced together; earlier results are replaced.
    errors
        Results of the measurement.

    Raises
    ------
    ModelError
        If the configuration is not valid any more.
    OutputError
        If a file cannot be written.
    """
    config = read_config(folder)
    with read_errors(folder / CONFIG):
        content = parse_json((folder / CONFIG).read_bytes())
    assert isinstance(content, dict)
    content["window_errors"] = errors.model_dump(mode="json")
    card = folder / CARD
    with read_errors(card):
        text = card.read_text(encoding="utf-8", errors="surrogateescape") if card.exists() else f"# {folder.name}\n"
    with atomic_files() as files:
        for path, new in (
            (card, _with_section(text, window_section(errors, config))),
            (folder / CONFIG, json.dumps(content, indent=2) + "\n"),
        ):
            part = files.create(path)
            with os_errors(path):
                part.write_text(new, encoding="utf-8", errors="surrogateescape")


def copy_model(folder: Path, output: Path, errors: WindowErrors) -> None:
    """Write a copy of the files of a model folder that contains the results of a measurement.

    Parameters
    ----------
    folder
        Model folder to copy.
    output
        New folder.
    errors
        Results of the measurement.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    with atomic_directory(output) as made:
        with os_errors(output):
            made.mkdir()
            for path in folder.iterdir():
                if path.is_file():
                    shutil.copy2(path, made)
        write_window_errors(made, errors)


def _with_section(card: str, section: str) -> str:
    """Return a card in which the section on the window is replaced, or added at the end."""
    if _SECTION.search(card):
        return _SECTION.sub(lambda _: f"{section}\n", card).rstrip() + "\n"
    return f"{card.rstrip()}\n\n{section}"


def window_section(errors: WindowErrors, config: ModelConfig) -> str:
    """Return the section of a model card about the window, as Markdown text.

    Parameters
    ----------
    errors
        Results of the measurement.
    config
        Configuration of the model, whose default context and reach are printed in bold.
    """
    target = errors.measured_target + ("" if errors.target == LIKELIHOOD else ", with its labels in turn")
    about = fill(
        f"Error of scores due to the window: the L2 norm of their difference from scores with {errors.long_window}, "
        "divided by the norm of the latter. Scores are the four derivatives at each base minus their mean. Median, and "
        f"largest error in parentheses, in {errors.regions:,} regions of {errors.genome} with {errors.bases:,} bases "
        f"each; target {target}. Bold is the default window.",
        100,
        break_on_hyphens=False,
    )
    heads = [f"reach {reach:,}" for reach in errors.reaches] if errors.reach else ["error"]
    lines = [f"| context | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    default = errors.at(config.context, config.reach)
    for context in errors.contexts:
        row = [one for one in errors.errors if one.context == context]
        cells = [f"**{_cell(one)}**" if one is default else _cell(one) for one in row]
        lines.append(f"| {context:,} | {' | '.join(cells)} |")
    section = f"{_HEADING}\n\n{about}\n\n" + "\n".join(lines) + "\n"
    if not errors.distant:
        return section
    about = fill(
        f"Share of the sensitivity of one logit (sum of absolute values over other bases, up to {errors.context:,} "
        "bases away) that belongs to bases further away than",
        100,
        break_on_hyphens=False,
    )
    distances = " | ".join(f"{one.distance:,}" for one in errors.distant)
    shares = " | ".join(map(_cell, errors.distant))
    rule = "|---" * len(errors.distant)
    return f"{section}\n{about}\n\n| {distances} |\n{rule}|\n| {shares} |\n"


def _cell(found: WindowError | DistantShare) -> str:
    return f"{percent(found.median)} ({percent(found.worst)})"
