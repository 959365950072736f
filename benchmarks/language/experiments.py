"""START HERE: the experiments by name."""

from pathlib import Path

from benchmarks.experiment import Experiment
from benchmarks.language.corpus import read_corpus
from benchmarks.language.costs import costs
from benchmarks.language.modelling import NAME, modelling
from benchmarks.language.probe import probe
from benchmarks.language.stories import TASKS

NEED_CORPUS = (NAME,)
"""Experiments that read the corpus."""


def experiments(folder: Path, corpus: Path | None, size: str) -> dict[str, Experiment]:
    """Return the experiments by name; without a corpus, those that need none.

    Parameters
    ----------
    folder
        Folder of the results, in which the runs save their checkpoints.
    corpus
        Folder into which fetch.sh unpacked a package.
    size
        Key of `modelling.SIZES`.

    Raises
    ------
    InputError
        If the corpus cannot be read.
    """
    made = {} if corpus is None else {NAME: modelling(read_corpus(corpus), folder, size)}
    return made | {"costs": costs(size)} | {task: probe(task, folder) for task in TASKS}
