"""Check of a configuration of the workflow: each entry is prepared by the command that will compute it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from genoscan.cli import attribute, mutate, variants
from genoscan.cli.inputs import prepare_jobs
from genoscan.cli.messages import log
from genoscan.errors import GenoscanError, InputError
from genoscan.workflow import RegionEntry, VariantEntry, WorkflowConfig

_MACHINE = "--device=cpu", "--threads=1"
"""The check may run on a machine without a GPU; neither option changes the batches."""


def check_config(config: WorkflowConfig) -> dict[str, dict[str, int]]:
    """Read all inputs of the configuration and prepare each job; log warnings.

    Parameters
    ----------
    config
        Configuration of the workflow.

    Returns
    -------
    dict
        For each run, the numbers of its `batches` and `shards`. There are at most as many shards as batches.

    Raises
    ------
    InputError
        If the genome cannot be read, or there are other errors. If there are several, they are logged.
    """
    from genoscan.genome.genome import open_genome

    problems: list[str] = []
    plan: dict[str, dict[str, int]] = {}
    with _located("genome", problems):
        sizes = open_genome(Path(config.genome)).sizes
    if not problems:
        if config.annotation is not None:
            with _located("annotation", problems):
                _check_annotation(Path(config.annotation), sizes)
        for name, run in config.runs.items():
            with _located(f"runs.{name}", problems):
                plan[name] = _plan_run(run, config)
        for name, variant_file in config.variants.items():
            with _located(f"variants.{name}", problems):
                _check_variants(variant_file, config)
        for name, mutated in config.mutations.items():
            with _located(f"mutations.{name}", problems):
                _check_mutations(mutated, config)
    if len(problems) > 1:
        for problem in problems:
            log(problem)
        raise InputError(f"config: {len(problems)} errors, listed above; nothing was computed")
    if problems:
        raise InputError(problems[0])
    return plan


@contextmanager
def _located(place: str, problems: list[str]) -> Iterator[None]:
    """Collect an error as a line with its place in the configuration, whose keys are options without dashes."""
    log(f"checking {place}")
    try:
        yield
    except (GenoscanError, click.UsageError) as error:
        text = error.format_message() if isinstance(error, click.UsageError) else str(error)
        problems.append(f"config: {place}: {re.sub(r'(?<![^ (])--(?=[a-z])', '', text)}")


def _check_annotation(annotation: Path, sizes: Mapping[str, int]) -> None:
    from genoscan.genome.annotation import read_annotation

    if not read_annotation(annotation, sizes, log):
        raise InputError(f"{annotation}: no feature lies within the genome: is it of another assembly?")


def _plan_run(entry: RegionEntry, config: WorkflowConfig) -> dict[str, int]:
    """Return the numbers of batches and shards of a run; log them."""
    files = f"--bed={entry.regions}", "--output=track.bw", "--", config.genome
    with _parsed(attribute.command, [*entry.options, *_MACHINE, *files]) as options:
        del options["margin_path"]
        (job, _), *_ = prepare_jobs(**options)
    batches, regions = len(job.batches), len(job.regions)
    shards = min(config.shards, batches)
    fewer = f" (not {config.shards:,}: a shard has at least one batch)" if shards < config.shards else ""
    log(f"regions: {regions:,}, batches: {batches:,}, shards: {shards:,}{fewer}")
    return {"batches": batches, "shards": shards}


def _check_variants(entry: VariantEntry, config: WorkflowConfig) -> None:
    files = "--output=effects.tsv", "--", config.genome, entry.file
    with _parsed(variants.command, [*entry.options, *_MACHINE, *files]) as options:
        for written in ("outputs", "tracks", "top_tracks"):
            del options[written]
        variants.prepare(**options)


def _check_mutations(entry: RegionEntry, config: WorkflowConfig) -> None:
    files = f"--bed={entry.regions}", "--output=effects.tsv", "--", config.genome
    with _parsed(mutate.command, [*entry.options, *_MACHINE, *files]) as options:
        for written in ("outputs", "convention"):
            del options[written]
        mutate.prepare(**options)


@contextmanager
def _parsed(command: click.Command, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Parse the arguments of a command, which becomes the current one; yield the values of its parameters."""
    with command.make_context(command.name, list(arguments)) as context:
        yield dict(context.params)
