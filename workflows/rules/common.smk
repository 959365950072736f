# What the rules ask of the config.
import re


wildcard_constraints:
    run="|".join(map(re.escape, config["runs"])),


GENOME = local(config["genome"])


def regions(wildcards):
    return local(config["runs"][wildcards.run]["regions"])


def question(wildcards):
    """Return attribute's options: what the run asks of which model."""
    run = config["runs"][wildcards.run]
    asked = ("model", "target", "score", "strand", "context", "reach", "batch")
    return [f"--{name}={run[name]}" for name in asked if name in run]


def shard(wildcards):
    """Return 2/7 for the item 2-of-7."""
    return wildcards.scatteritem.replace("-of-", "/")


def annotation():
    return [local(config["annotation"])] if "annotation" in config else []


def genes(wildcards, input):
    """Return the option for the annotation, if there is one."""
    return [f"--annotation={path}" for path in input.annotation]
