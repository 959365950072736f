"""Preparation of a training run: model configuration, training data and initial weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from torch import Tensor

from genoscan.errors import InputError
from genoscan.genome.alphabet import N
from genoscan.genome.annotation import read_annotation
from genoscan.genome.genome import Genome
from genoscan.genome.region import Region, parse_region, unknown_sequence
from genoscan.json_input import first_problem
from genoscan.layers.config import ModelConfig
from genoscan.layers.heads import HeadConfig
from genoscan.model import Model
from genoscan.training.data import Split, split_genomes
from genoscan.training.labels import LabelledHead, label_bases
from genoscan.training.objective import LanguageModel

Kind = Literal["mamba", "pd_ssm"]


@dataclass(frozen=True)
class Architecture:
    """Settings of the blocks of a new model.

    Attributes
    ----------
    width
        Number of channels of the activations between blocks.
    layers
        Number of blocks.
    kinds
        Kinds of blocks, "mamba" or "pd_ssm". If there are several kinds, the blocks cycle through them. In
        bidirectional blocks, both directions are of this kind.
    states
        Number of states per channel (Mamba) or per head (PD-SSM). If None, the default of the kind is
        used.
    bidirectional
        Whether each block reads a window in both directions.
    rcps
        Whether the model represents both strands (reverse-complement parameter sharing).

    Raises
    ------
    InputError
        If `rcps` is true but `bidirectional` is false.
    """

    width: int
    layers: int
    kinds: Sequence[Kind] = ("mamba",)
    states: int | None = None
    bidirectional: bool = False
    rcps: bool = False

    def __post_init__(self) -> None:
        if self.rcps and not self.bidirectional:
            raise InputError("--rcps: expected --bidirectional too")

    def blocks(self) -> list[dict[str, Any]]:
        """Return the configurations of the blocks, as in the `layers` entry of config.json."""
        made = []
        for i in range(self.layers):
            kind = self.kinds[i % len(self.kinds)]
            rank = math.ceil(self.width / 16)
            block = {"kind": kind} | ({"dt_rank": rank} if kind == "mamba" else {"rank": rank, "coupled": True})
            block |= {"d_state": self.states} if self.states else {}
            made.append({"kind": "two_way", "inner": block, "rcps": self.rcps} if self.bidirectional else block)
        return made


def new_config(
    architecture: Architecture,
    *,
    window: int,
    language_model: LanguageModel,
    heads: Mapping[str, HeadConfig],
    trained_on: str,
    gc_range: tuple[float, float] | None = None,
) -> ModelConfig:
    """Return the configuration of a new model.

    Parameters
    ----------
    architecture
        Blocks of the model.
    window
        Number of bases per window in training.
    language_model
        What the language-model head is trained to predict: "next-base", "masked" or "none".
    heads
        Configurations of the task heads, by name.
    trained_on
        Description of the training data.
    gc_range
        Range of the G+C content of the training data, as shares from 0 to 1. None if it is unknown.

    Returns
    -------
    ModelConfig
        The configuration.

    Raises
    ------
    InputError
        If a size is too large, or `language_model` is "masked" for causal blocks or "next-base" for
        bidirectional blocks.
    """
    both = architecture.bidirectional
    if language_model != "none" and (language_model == "masked") != both:
        blocks, expected = ("bidirectional", "masked") if both else ("causal", "next-base")
        raise InputError(f"--language-model {language_model}: the blocks are {blocks}, expected {expected} or none")
    masked = {"symbols": "ACGT.", "complement": (3, 2, 1, 0, 4), "mask": 4} if language_model == "masked" else {}
    around = {"label_offset": 0, "context": window // 2, "reach": window // 2, "window": window}
    try:
        return ModelConfig.model_validate(
            {
                "d_model": architecture.width,
                "layers": architecture.blocks(),
                "context": 2 * window,
                "reach": window // 2,
                "language_model": language_model != "none",
                "heads": {name: _fold(head, architecture.rcps) for name, head in heads.items()},
                "trained_on": trained_on,
                "gc_range": gc_range,
                **(around if both else {}),
                **masked,
            }
        )
    except ValidationError as error:
        problem = first_problem(error, omit={"mamba", "pd_ssm", "two_way"})
        raise InputError(f"--width, --layers, --states or --window is too large: {problem}") from None


def _fold(head: HeadConfig, rcps: bool) -> dict[str, Any]:
    return head.model_dump() | {"fold": rcps}


def extended_config(
    model: Model,
    *,
    language_model: LanguageModel,
    heads: Mapping[str, HeadConfig],
    trained_on: str,
    gc_range: tuple[float, float] | None = None,
) -> ModelConfig:
    """Return the configuration of a model that is initialised from another model and has the given heads.

    Parameters
    ----------
    model
        Model that provides the initial weights.
    language_model, heads, trained_on, gc_range
        As for `new_config`.

    Returns
    -------
    ModelConfig
        The configuration of `model`, with the given heads and the given description of the training
        data.

    Raises
    ------
    InputError
        If the model cannot be trained to predict what `language_model` specifies.
    """
    before = model.config
    if language_model == "masked" and before.mask is None:
        raise InputError(f"--language-model masked: {model.name} has no mask symbol; expected none")
    if language_model != "none" and (language_model == "masked") != model.bidirectional:
        expected = "masked" if model.bidirectional else "next-base"
        raise InputError(
            f"--language-model {language_model}: {model.name} does not support it, expected {expected} or none"
        )
    changes = {
        "language_model": language_model != "none",
        "heads": {name: _fold(head, before.strands == 2) for name, head in heads.items()},
        "trained_on": f"{trained_on}; before, {before.trained_on}" if before.trained_on else trained_on,
        "gc_range": gc_range,
        "validation": None,
        "window_errors": None,
        "weights": None,
    }
    return ModelConfig.model_validate(before.model_dump() | changes)


def initial_weights(model: Model, config: ModelConfig) -> dict[str, Tensor]:
    """Return the initial weights that a new model takes from an existing model.

    Parameters
    ----------
    model
        Model that provides the weights.
    config
        Configuration of the new model, as returned by `extended_config`.

    Returns
    -------
    dict
        Weights and buffers, keyed by their names in the new model. They include all that both models have,
        except the weights of task heads whose configurations differ.
    """
    tensors = dict(model.network.named_parameters()) | dict(model.network.named_buffers())
    numbers = {name: i for i, name in enumerate(model.config.heads)}
    kept: dict[str, Tensor] = {name: tensor for name, tensor in tensors.items() if not name.startswith("heads.")}
    if not config.language_model:
        kept.pop("head.weight", None)
    for i, (name, head) in enumerate(config.heads.items()):
        if model.config.heads.get(name) == head:
            prefix = f"heads.{numbers[name]}."
            kept |= {f"heads.{i}.{k.removeprefix(prefix)}": v for k, v in tensors.items() if k.startswith(prefix)}
    return kept


def read_labels(
    paths: Sequence[Path], scheme: str, genomes: Sequence[Genome], tests: Sequence[Genome] = ()
) -> dict[str, LabelledHead]:
    """Read annotation files, and return the task heads of a labelling scheme with their labels.

    Parameters
    ----------
    paths
        Annotation files.
    scheme
        Name of the labelling scheme (see labels.py).
    genomes
        Annotated genomes.
    tests
        Further genomes. They need not be annotated.

    Returns
    -------
    dict
        Heads by name, with labels of the sequences of each annotated genome.

    Raises
    ------
    InputError
        If a file cannot be read, one of `genomes` has no annotated feature, two genomes have sequences
        of the same name, or the annotation lacks the features that the scheme requires.
    """
    sizes = _sizes([*genomes, *tests])
    features = [feature for path in paths for feature in read_annotation(path, sizes)]
    names = ", ".join(map(str, paths))
    annotated = {feature.chrom for feature in features}
    for genome in genomes:
        if annotated.isdisjoint(genome.sizes):
            raise InputError(
                f"{names}: no feature is on a sequence of {genome.path}, expected {_examples(genome.sizes)}"
            )
    labelled = [genome for genome in (*genomes, *tests) if not annotated.isdisjoint(genome.sizes)]
    try:
        return label_bases(scheme, features, _sizes(labelled))
    except InputError as problem:
        raise InputError(f"{names}: {problem}") from None


def _examples(sizes: Mapping[str, int]) -> str:
    names = list(sizes)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _sizes(genomes: Sequence[Genome]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for genome in genomes:
        for chrom, size in genome.sizes.items():
            if chrom in sizes:
                raise InputError(f"{genome.path}: {chrom} is also in another genome, expected different names")
            sizes[chrom] = size
    return sizes


def read_split(
    genomes: Sequence[Genome], regions: Sequence[str], validation: Sequence[str], heads: Mapping[str, LabelledHead]
) -> Split:
    """Divide genomes into training and validation data, as specified by the user.

    Parameters
    ----------
    genomes
        Genomes to train on.
    regions
        Regions to use, as text. If there are none, all sequences are used in full.
    validation
        Either a single fraction or the regions to hold out, as text.
    heads
        Task heads by name, with labels of the sequences.

    Returns
    -------
    Split
        Training and validation data.

    Raises
    ------
    InputError
        If a fraction or region is invalid, or fewer than two A, C, G and T are held out.
    """
    sizes = _sizes(genomes)
    chosen = [parse_region(text, sizes) for text in regions]
    held_out: float | list[Region]
    try:
        held_out = float(validation[0]) if len(validation) == 1 else [_region(text, sizes) for text in validation]
    except ValueError:
        held_out = [_region(text, sizes) for text in validation]
    split = split_genomes(genomes, validation=held_out, regions=chosen, heads=heads)
    known = sum(int((piece.codes < N).sum()) for piece in split.validation)
    if known < 2:
        raise InputError(f"--validation {' '.join(validation)}: leaves {known} A, C, G and T to score")
    return split


def check_tests(tests: Sequence[Genome], split: Split) -> None:
    """Check that genomes can be reported as held out.

    Parameters
    ----------
    tests
        Genomes with which the trained model is tested.
    split
        Training and validation data.

    Raises
    ------
    InputError
        If a genome contains a sequence of the training genomes, or fewer than two A, C, G and T, or if two have
        the same name.
    """
    used = {sequence.m5: sequence.name for sequence in split.sequences}
    names: set[str] = set()
    for genome in tests:
        if genome.path.name in names:
            raise InputError(f"--test {genome.path}: another one has this name, expected different names for the card")
        names.add(genome.path.name)
        known = 0
        for chrom, size in genome.sizes.items():
            if size and (same := used.get(genome.m5(chrom))):
                raise InputError(f"--test {genome.path}: {chrom} is in the training data, as {same}")
            known += int((genome.fetch(chrom, 0, size) < N).sum())
        if known < 2:
            raise InputError(f"--test {genome.path}: has {known} A, C, G and T to score")


def _region(text: str, sizes: Mapping[str, int]) -> Region:
    chrom = text.partition(":")[0]
    if chrom not in sizes and ":" not in text and "{" not in text:
        raise InputError(f"--validation {text}: expected a fraction or a region; {unknown_sequence(chrom, sizes)}")
    return parse_region(text, sizes, option="--validation")
