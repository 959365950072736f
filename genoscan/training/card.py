"""Model cards, which describe the training data, training time and performance of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import dedent, fill


@dataclass(frozen=True)
class HeldOutResult:
    """Performance on one set of held-out sequences.

    Attributes
    ----------
    name
        Name of the set.
    bases
        Number of bases predicted.
    model
        Bits per base of the language model; None if the model has no language-model head.
    markov
        Bits per base of the Markov chain that was estimated from the training data; None if it was not
        computed.
    composition
        Entropy of the base composition of the held-out sequences, in bits.
    labels, baseline
        Metrics of the task heads and of their baselines, by name (see `evaluation.py`).
    """

    name: str
    bases: int
    model: float | None
    markov: float | None
    composition: float
    labels: Mapping[str, float] = field(default_factory=dict)
    baseline: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CardFacts:
    """Contents of a model card.

    Attributes
    ----------
    name, kind
        Name of the model, and description of its layers.
    predicts
        Description of what the model predicts.
    trained_on
        Short description of the training data.
    command
        Command that reproduces the training.
    sources
        Description of each training sequence.
    split
        Description of how the data was divided into training and validation data.
    origin
        Description of the model that provided the initial weights; "" if there was none.
    weights
        Number of weights in the model.
    training_bases
        Number of bases in the training data, counted on one strand.
    bases_seen
        Number of bases processed in training, including repetitions.
    hours
        Training time, in hours.
    hardware
        Hardware on which the model was trained, such as "2 CPU threads".
    markov
        Description of the order and smoothing of the Markov chain; "" if no chain was estimated.
    held_out
        Results on each set of held-out sequences.
    """

    name: str
    kind: str
    predicts: str
    trained_on: str
    command: str
    sources: Sequence[str]
    split: str
    origin: str
    weights: int
    training_bases: int
    bases_seen: int
    hours: float
    hardware: str
    markov: str
    held_out: Sequence[HeldOutResult]


def write_card(facts: CardFacts) -> str:
    """Return a model card as Markdown text."""
    intro = fill(
        f"A {facts.kind} model of DNA with one base per token, which predicts {facts.predicts}. "
        f"{facts.weights:,} weights. Trained on {facts.trained_on}.",
        100,
    )
    head = f"# {facts.name}\n\n{intro}\n\n## Data and split\n\n{fill(facts.split, 100)}\n\n"
    rows = "".join(f"- {source}\n" for source in facts.sources)
    origin = f"{fill(facts.origin, 100)}\n\n" if facts.origin else ""
    training = (
        dedent(
            f"""
        ## Training

        {facts.bases_seen:,} bases seen ({facts.bases_seen / facts.training_bases:.1f} times the
        training split, both strands) in {_duration(facts.hours)} on {facts.hardware}.
        The loss curve is in `training.tsv` and `training.html`. Command:

            {facts.command}
        """
        )
        + f"\n{origin}"
    )
    return head + rows + training + _performance(facts)


def _duration(hours: float) -> str:
    return f"{hours:.2f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _performance(facts: CardFacts) -> str:
    text = "## How well it predicts\n\n"
    if any(result.model is not None for result in facts.held_out):
        text += _language_model(facts)
    if any(result.labels for result in facts.held_out):
        text += _labels(facts)
    return text.rstrip() + "\n"


def _language_model(facts: CardFacts) -> str:
    markov = (
        f" The Markov chain is the best of orders 1 to 12 and of 21 additive smoothings on the validation bases, "
        f"counted on the whole training split, both strands: {facts.markov}."
        if facts.markov
        else ""
    )
    explained = fill(
        f'Bits per base; lower is better.{markov} "Own composition" is the entropy of the held-out bases\' own '
        "frequencies, which are not available to the predictors.",
        100,
    )
    lines = ["| held out | bases | this model | Markov | own composition |", "|---|---|---|---|---|"]
    verdicts = []
    for result in facts.held_out:
        if result.model is None:
            continue
        chain = "" if result.markov is None else f"{result.markov:.4f}"
        lines.append(
            f"| {result.name} | {result.bases:,} | **{result.model:.4f}** | {chain} | {result.composition:.4f} |"
        )
        best = result.composition if result.markov is None else min(result.markov, result.composition)
        verb = "is better than" if result.model < best else "is not better than"
        verdicts.append(f"On {result.name}, the model {verb} its baselines.")
    return f"{explained}\n\n" + "\n".join(lines) + "\n\n" + fill(" ".join(verdicts), 100) + "\n\n"


def _labels(facts: CardFacts) -> str:
    explained = fill(
        "Accuracy is the share of bases in the right class; its baseline is the most frequent class of the training "
        "data. AUPRC is the area under the precision-recall curve over all bases, and F1 is at the best threshold; "
        "the baseline is the better of a position weight matrix and a first-order Markov model of the 20 bases on "
        "each side, estimated from the training data. Bases about which the annotation is ambiguous are left out.",
        100,
    )
    lines = ["| held out | prediction | this model | baseline | F1 |", "|---|---|---|---|---|"]
    verdicts = []
    for result in facts.held_out:
        better = compared = 0
        for name, value in result.labels.items():
            if name.endswith(" F1"):
                continue
            baseline = result.baseline.get(name)
            f1 = result.labels.get(name.removesuffix(" AUPRC") + " F1")
            cells = "" if baseline is None else f"{baseline:.3f}", "" if f1 is None else f"{f1:.3f}"
            lines.append(f"| {result.name} | {name} | **{value:.3f}** | {cells[0]} | {cells[1]} |")
            if baseline is not None:
                compared += 1
                better += value > baseline
        if compared:
            verdicts.append(
                f"On {result.name}, the model is better than its baseline in {better} of {compared} predictions."
            )
    return f"{explained}\n\n" + "\n".join(lines) + "\n\n" + fill(" ".join(verdicts), 100) + "\n"
