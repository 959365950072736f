"""Evaluation of a trained model against the Markov baseline, and export of its model folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from genoscan.genome.genome import Genome
from genoscan.layers.config import ModelConfig
from genoscan.layers.stack import Stack
from genoscan.layers.weights import save_model
from genoscan.training.card import CardFacts, HeldOutResult, write_card
from genoscan.training.data import Split
from genoscan.training.markov import markov_baseline
from genoscan.training.state import read_state
from genoscan.training.train import bits_per_base

CURVE = "training.tsv"
_KINDS = {"mamba": "Mamba", "pd_ssm": "PD-SSM"}


def finish_model(
    output: Path,
    config: ModelConfig,
    stack: Stack,
    split: Split,
    genomes: Sequence[Genome],
    tests: Sequence[Genome],
    work: Path,
    *,
    command: str,
    bases_seen: int,
) -> None:
    """Score held-out sequences with the model and the Markov chain, and write the model folder.

    Parameters
    ----------
    output
        Model folder to write.
    config
        Configuration of the model.
    stack
        Trained model.
    split
        Training and validation data.
    genomes
        Genomes that were split into training and validation data.
    tests
        Further held-out genomes.
    work
        Folder of the training state.
    command
        Command that reproduces the training, for the model card.
    bases_seen
        Number of bases processed in training.

    Raises
    ------
    InputError
        If a set of sequences has no base that can be scored.
    """
    held_out = {"validation (the end of every training sequence)": split.validation}
    for genome in tests:
        held_out[genome.path.name] = [genome.fetch(chrom, 0, size) for chrom, size in genome.sizes.items()]
    baseline = markov_baseline(split.training, split.validation, held_out)
    state = read_state(work)
    facts = CardFacts(
        name=output.name,
        kind=" and ".join(dict.fromkeys(_KINDS[layer.kind] for layer in config.layers)),
        trained_on=config.trained_on,
        command=command,
        sources=[
            f"{genome.path.name}: {chrom}, {size:,} bases, M5 {genome.m5(chrom)}"
            for genome in genomes
            for chrom, size in genome.sizes.items()
        ],
        split=f"The first {split.n_training:,} bases (of every sequence, its start) were trained "
        f"on, the last {split.n_validation:,} held out.",
        weights=sum(weight.numel() for weight in stack.parameters()),
        training_bases=split.n_training,
        bases_seen=bases_seen,
        hours=state.seconds / 3600,
        threads=torch.get_num_threads(),
        markov=f"order {baseline.order}, smoothing {baseline.smoothing:g}",
        held_out=[
            HeldOutResult(
                name,
                baseline.held_out[name].n_bases,
                bits_per_base(stack, config, sequences, pieces=None),
                baseline.held_out[name].bits,
                _composition(sequences),
            )
            for name, sequences in held_out.items()
        ],
    )
    save_model(output, config, stack, write_card(facts))
    pd.DataFrame(state.rows).to_csv(output / CURVE, sep="\t", index=False, float_format="%.5g")


def _composition(sequences: Sequence[np.ndarray]) -> float:
    """Return the entropy of the base composition, in bits."""
    counts = sum(np.bincount(codes[codes < 4], minlength=4) for codes in sequences)
    share = counts / np.sum(counts)
    return float(-(share * np.log2(share, where=share > 0, out=np.zeros(4))).sum())
