"""Model cards, which describe the training data, training time and performance of a model."""

from collections.abc import Iterator, Mapping, Sequence
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


def verdicts(held_out: Sequence[HeldOutResult]) -> list[str]:
    """Return sentences that compare the model with its baselines.

    Parameters
    ----------
    held_out
        Results on each set of held-out sequences.

    Returns
    -------
    list of str
        Sentences such as "On validation data, the model (1.8420 bits per base) is better than the Markov chain
        (1.9458)". Those about the language model are first, those about labels follow.
    """
    return [*_language_model_verdicts(held_out), *_label_verdicts(held_out)]


def _language_model_verdicts(held_out: Sequence[HeldOutResult]) -> Iterator[str]:
    for result in held_out:
        if result.model is None:
            continue
        baselines = ("the Markov chain", result.markov), ("own composition", result.composition)
        known = [(name, bits, result.model < bits) for name, bits in baselines if bits is not None]
        clauses = [f"{'' if better else 'not '}better than {name} ({bits:.4f})" for name, bits, better in known]
        agreement = " and " if len({better for *_, better in known}) == 1 else ", but "
        yield f"On {result.name}, the model ({result.model:.4f} bits per base) is {agreement.join(clauses)}."


def _label_verdicts(held_out: Sequence[HeldOutResult]) -> Iterator[str]:
    for result in held_out:
        compared = [name for name in result.labels if name in result.baseline]
        others = [name for name in compared if not _is_better(result, name)]
        if compared:
            exceptions = f"; not in {', '.join(others)}" if others else ""
            yield (
                f"On {result.name}, the model is better than its baseline in {len(compared) - len(others)} of "
                f"{len(compared)} predictions{exceptions}."
            )


def _is_better(result: HeldOutResult, name: str) -> bool:
    """Return whether a metric has a baseline, and the model is better."""
    return name in result.baseline and result.labels[name] > result.baseline[name]


def _bold(text: str, better: bool) -> str:
    return f"**{text}**" if better else text


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
        f"Bits per base; lower is better, bold if lower than those of the baselines.{markov} "
        '"Own composition" is the entropy of the held-out bases\' own frequencies, which are not available to the '
        "predictors.",
        100,
    )
    lines = ["| held out | bases | this model | Markov | own composition |", "|---|---|---|---|---|"]
    for result in facts.held_out:
        if result.model is None:
            continue
        chain = "" if result.markov is None else f"{result.markov:.4f}"
        best = result.composition if result.markov is None else min(result.markov, result.composition)
        model = _bold(f"{result.model:.4f}", result.model < best)
        lines.append(f"| {result.name} | {result.bases:,} | {model} | {chain} | {result.composition:.4f} |")
    verdict = " ".join(_language_model_verdicts(facts.held_out))
    return f"{explained}\n\n" + "\n".join(lines) + "\n\n" + fill(verdict, 100) + "\n\n"


def _labels(facts: CardFacts) -> str:
    explained = fill(
        "Accuracy is the share of bases in the right class; its baseline is the most frequent class of the training "
        "data. AUPRC is the area under the precision-recall curve over all bases, and F1 is at the best threshold; "
        "the baseline is the better of a position weight matrix and a first-order Markov model of the 20 bases on "
        "each side, estimated from the training data. Bases about which the annotation is ambiguous are left out. Bold "
        "is better than the baseline.",
        100,
    )
    lines = ["| held out | prediction | this model | baseline | F1 |", "|---|---|---|---|---|"]
    for result in facts.held_out:
        for name, value in result.labels.items():
            if name.endswith(" F1"):
                continue
            baseline = result.baseline.get(name)
            f1 = result.labels.get(name.removesuffix(" AUPRC") + " F1")
            cells = "" if baseline is None else f"{baseline:.3f}", "" if f1 is None else f"{f1:.3f}"
            model = _bold(f"{value:.3f}", _is_better(result, name))
            lines.append(f"| {result.name} | {name} | {model} | {cells[0]} | {cells[1]} |")
    verdict = " ".join(_label_verdicts(facts.held_out))
    return f"{explained}\n\n" + "\n".join(lines) + "\n\n" + fill(verdict, 100) + "\n"
