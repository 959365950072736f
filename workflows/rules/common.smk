# What the rules ask of the config.
import re
import sys


wildcard_constraints:
    run="|".join(map(re.escape, config["runs"])),


def given(path):
    """Return an input; refuse a name that Snakemake does not quote in the scripts of cluster jobs."""
    if workflow.non_local_exec and re.search(r"""['\\]|\A".*"\Z""", path):
        sys.exit(
            f"Error: config: {path}: without --executor, or rename it: \\ and ' are unsafe in cluster jobs"
        )
    return local(path)


def genome(wildcards):
    return given(config["genome"])


def regions(wildcards):
    return given(config["runs"][wildcards.run]["regions"])


def question(wildcards):
    """Return attribute's options: what the run asks of which model."""
    run = config["runs"][wildcards.run]
    asked = ("model", "target", "score", "strand", "context", "reach", "batch")
    return [f"--{name}={run[name]}" for name in asked if name in run]


def shard(wildcards):
    """Return 2/7 for the item 2-of-7."""
    return wildcards.scatteritem.replace("-of-", "/")


def annotation(wildcards):
    return [given(config["annotation"])] if "annotation" in config else []


def genes(wildcards, input):
    """Return the option for the annotation, if there is one."""
    return [f"--annotation={path}" for path in input.annotation]
