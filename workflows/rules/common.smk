# What the rules ask of the config.
import re
import sys


def by_strand(runs):
    """Return the runs, with two in place of each run whose strands are separate."""
    found = {}
    for name, run in runs.items():
        separate = run.get("strand") == "separate"
        strands = {f"{name}.plus": "+", f"{name}.minus": "-"} if separate else {}
        for own in strands or [name]:
            if own in found:
                sys.exit(
                    f"Error: config: runs: two runs are called {own}, rename one of them"
                )
            found[own] = run | ({"strand": strands[own]} if separate else {})
    return found


if "runs" in config:
    config["runs"] = by_strand(config["runs"])


wildcard_constraints:
    run="|".join(map(re.escape, config.get("runs", {}))),
    variants="|".join(map(re.escape, config.get("variants", {}))),
    mutations="|".join(map(re.escape, config.get("mutations", {}))),


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


def variants(wildcards):
    return given(config["variants"][wildcards.variants]["file"])


def mutated_regions(wildcards):
    return given(config["mutations"][wildcards.mutations]["regions"])


def options(entry, inputs):
    """Return the options of a command: all keys of an entry except its inputs."""
    return [f"--{name}={entry[name]}" for name in entry if name not in inputs]


def question(wildcards):
    """Return attribute's options: what the run asks of which model."""
    return options(config["runs"][wildcards.run], ["regions"])


def variants_question(wildcards):
    return options(config["variants"][wildcards.variants], ["file"])


def mutations_question(wildcards):
    return options(config["mutations"][wildcards.mutations], ["regions"])


def shard(wildcards):
    """Return 2/7 for the item 2-of-7."""
    return wildcards.scatteritem.replace("-of-", "/")


def annotation(wildcards):
    return [given(config["annotation"])] if "annotation" in config else []


def genes(wildcards, input):
    """Return the option for the annotation, if there is one."""
    return [f"--annotation={path}" for path in input.annotation]
