"""Model cards: training data, training time and predictive performance."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import dedent


@dataclass(frozen=True)
class HeldOutResult:
    """Bits per base of each predictor on one set of held-out sequences.

    Attributes
    ----------
    name
        Name of the set.
    bases
        Number of bases scored.
    model
        Bits per base of the trained model, on whole sequences.
    markov
        Bits per base of the Markov chain estimated from the training split.
    composition
        Entropy of the base composition of the held-out sequences, in bits.
    """

    name: str
    bases: int
    model: float
    markov: float
    composition: float


@dataclass(frozen=True)
class CardFacts:
    """Contents of a model card.

    Attributes
    ----------
    name, kind
        Name of the model and kinds of its layers.
    trained_on
        Short description of the training data.
    command
        Command that reproduces the training.
    sources
        Description of each training sequence.
    split
        Description of the training and validation split.
    weights
        Number of weights.
    training_bases
        Number of bases in the training split, counted on one strand.
    bases_seen
        Number of bases processed in training, including repetitions.
    hours
        Training time, in hours.
    threads
        Number of CPU threads.
    markov
        Order and smoothing of the Markov chain.
    held_out
        Results on held-out sequences.
    """

    name: str
    kind: str
    trained_on: str
    command: str
    sources: Sequence[str]
    split: str
    weights: int
    training_bases: int
    bases_seen: int
    hours: float
    threads: int
    markov: str
    held_out: Sequence[HeldOutResult]


def write_card(facts: CardFacts) -> str:
    """Return the model card as Markdown."""
    head = dedent(
        f"""\
        # {facts.name}

        A causal {facts.kind} model of DNA, one base a token: it predicts each base from those
        before it. {facts.weights:,} weights. Trained on {facts.trained_on}.

        ## Data and split

        {facts.split}

        """
    )
    rows = "".join(f"- {source}\n" for source in facts.sources)
    training = dedent(
        f"""
        ## Training

        {facts.bases_seen:,} bases seen ({facts.bases_seen / facts.training_bases:.1f} times the
        training split, both strands) in {facts.hours:.2f} hours on {facts.threads} CPU threads.
        The loss curve is in `training.tsv`. Made by

            {facts.command}

        ## How well it predicts

        Bits per base, lower is better; every A, C, G and T but each sequence's first is scored.
        The Markov chain is the best of orders 1 to 12 and of 21 additive smoothings on the
        validation bases, counted on the whole training split, both strands: {facts.markov}.
        "Own composition" is the entropy of the held-out bases' own frequencies, which are
        not available to the predictors.

        | held out | bases | this model | Markov | own composition |
        |---|---|---|---|---|
        """
    )
    table = "".join(
        f"| {h.name} | {h.bases:,} | **{h.model:.4f}** | {h.markov:.4f} | {h.composition:.4f} |\n"
        for h in facts.held_out
    )
    return head + rows + training + table
