"""The model card: what was trained, on what, for how long, and how well it predicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import dedent


@dataclass(frozen=True)
class Held:
    """Held-out bases, and the bits that each predictor needs for one of them.

    model        the trained model, reading each sequence from its first base to its last
    markov       the Markov chain, counted on the training split
    composition  the entropy of the held-out bases' own composition: what a predictor gets
                 that knows nothing but how often each base occurs there
    """

    name: str
    bases: int
    model: float
    markov: float
    composition: float


@dataclass(frozen=True)
class CardFacts:
    """All that the card states."""

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
    held: Sequence[Held]


def write_card(facts: CardFacts) -> str:
    """Return the card as Markdown."""
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
        "Own composition" is the entropy of the held-out bases' own frequencies, which no
        predictor is told in advance.

        | held out | bases | this model | Markov | own composition |
        |---|---|---|---|---|
        """
    )
    table = "".join(
        f"| {h.name} | {h.bases:,} | **{h.model:.4f}** | {h.markov:.4f} | {h.composition:.4f} |\n"
        for h in facts.held
    )
    return head + rows + training + table
