# What the rules ask of the config.
import json
import re
import sys
from pathlib import Path


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
    shard=r"\d+-of-\d+",
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


def model_files(entry):
    """Return the files of the entry's model if it is a folder, so that a model that was trained again is read again."""
    names = ("config.json", "model.safetensors") if "model" in entry else ()
    files = [Path(entry["model"], name) for name in names]
    return [given(str(path)) for path in files if path.is_file()]


def run_model(wildcards):
    return model_files(config["runs"][wildcards.run])


def variants_model(wildcards):
    return model_files(config["variants"][wildcards.variants])


def mutations_model(wildcards):
    return model_files(config["mutations"][wildcards.mutations])


def entries(wildcards):
    """Return the inputs of all runs, variants and mutations."""
    own = ("runs.", "variants.", "mutations.")
    return [given(path) for key, path in files(config) if key.startswith(own)]


def options(entry, inputs):
    """Return the options of a command: all keys of an entry except its inputs. Those that are true are flags."""
    wanted = {name: value for name, value in entry.items() if name not in inputs}
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in wanted.items()
        if value is not False
    ]


def question(wildcards):
    """Return attribute's options: what the run asks of which model."""
    return options(config["runs"][wildcards.run], ["regions"])


def variants_question(wildcards):
    return options(config["variants"][wildcards.variants], ["file"])


def mutations_question(wildcards):
    return options(config["mutations"][wildcards.mutations], ["regions"])


def shard(wildcards):
    """Return 2/7 for 2-of-7."""
    return wildcards.shard.replace("-of-", "/")


def shards(wildcards):
    """Return the shards of a run, such as 1-of-2 and 2-of-2: at most as many as it has batches."""
    plan = json.loads(Path(checkpoints.check.get().output[0]).read_text())
    number = plan["runs"][wildcards.run]["shards"]
    return [f"{i}-of-{number}" for i in range(1, number + 1)]


def scores(wildcards):
    return [f"results/shards/{wildcards.run}/{item}.bw" for item in shards(wildcards)]


def records(wildcards):
    return [f"{path}.json" for path in scores(wildcards)]


def annotation(wildcards):
    return [given(config["annotation"])] if "annotation" in config else []


def genes(wildcards, input):
    """Return the option for the annotation, if there is one."""
    return [f"--annotation={path}" for path in input.annotation]
