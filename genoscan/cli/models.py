"""genoscan models: list, import, show and measure models."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genoscan.cli.inputs import open_model
from genoscan.cli.messages import log, table
from genoscan.cli.options import GENOME, MACHINE, PATH
from genoscan.errors import OutputError

if TYPE_CHECKING:
    import pandas as pd

    from genoscan.layers.config import ModelConfig
    from genoscan.layers.window_error import WindowErrors
    from genoscan.model import Model


@click.group("models")
def command() -> None:
    """List, show and measure models, or import a checkpoint from another project."""


@command.command("list")
def list_models() -> None:
    """List the models that can be selected by name."""
    from genoscan.layers.catalogue import named_models
    from genoscan.layers.config import read_config

    for name, path in named_models().items():
        config = read_config(path)
        click.echo(f"{name}\t{len(config.layers)} layers, width {config.d_model}\t{config.trained_on}")


@command.command("import")
@click.argument("source", metavar="SOURCE")
@click.option("--name", metavar="NAME", help="Name of the new model.  [default: SOURCE's name]")
@click.option(
    "--tokens",
    metavar="TEXT",
    help="Token of each base, such as A=7,C=8,G=9,T=10,N=11, if SOURCE has no tokenizer.json, vocab.json or vocab.txt.",
)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "max", "first", "last"]),
    help="Pooling over positions in SOURCE's classification head, which checkpoints do not state.  [default: mean; "
    "last for the heads score and classifier of causal models]",
)
def import_foreign(source: str, name: str | None, tokens: str | None, pooling: Any) -> None:
    """Import a checkpoint of Caduceus, Mamba or Mamba-2, or of a model fine-tuned from one.

    SOURCE is one of the following: a folder with config.json and the weights (model.safetensors,
    pytorch_model.bin, shards of either file with their index, or a single .ckpt, .pt or .pth file); a
    weights file with config.json in the same folder; or a Hugging Face id, OWNER/NAME. The command
    prints the folder of the new model, which can then be selected by name.

    A head that classifies whole windows (CaduceusForSequenceClassification, Plant DNAMamba, or Orthrus
    with a head) becomes the head "classes". Its labels are those in config.json or, without them,
    label_0, label_1 and so on. The heads of GENATATOR become "segments" and "transcript". The heads and
    labels are listed by genoscan models show; --target HEAD:LABEL selects a label.

    \b
    Example:
      genoscan models import kuleshov-group/caduceus-ps_seqlen-131k_d_model-256_n_layer-16 --name caduceus
      genoscan attribute chrX.fa --region chrX:1,000,001-1,001,000 -m caduceus -o x.bw
    """
    from genoscan.importer import import_model

    click.echo(import_model(source, name=name, tokens=tokens, pooling=pooling))


@command.command("measure")
@click.argument("model", metavar="MODEL")
@GENOME
@click.option(
    "--head",
    metavar="NAME",
    help="Task head to measure, the logits of whose labels are differentiated in turn. A model stores the errors of "
    "one target: those of another head replace them.  [default: the language model; without one, the first head that "
    "labels bases]",
)
@click.option(
    "--regions",
    "n_regions",
    type=int,
    default=16,
    show_default=True,
    metavar="N",
    help="Number of regions drawn from the genome; more take more time and give a more precise median.",
)
@click.option(
    "--longest",
    type=int,
    metavar="BASES",
    help="Context and reach of the long window with which the other windows are compared: at least twice the model's "
    "default context and reach. The others have at most half of it.  [default: 32768, or twice the model's default "
    "context or reach if that is more]",
)
@click.option("--seed", type=int, default=1, show_default=True, metavar="N", help="Seed with which regions are drawn.")
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    type=PATH,
    help="Write a copy of the model that contains the results to a new folder, and leave the model as it is.",
)
@MACHINE
def measure_windows(
    model: str,
    genome: Path,
    head: str | None,
    n_regions: int,
    longest: int | None,
    seed: int,
    output: Path | None,
    dtype: str,
    device: str,
    threads: int | None,
) -> None:
    """Measure how much the scores of a model depend on the window.

    Regions of 128 bases drawn from GENOME are scored with several contexts and reaches, among them the defaults
    of the model, and with a much longer window. The command prints, for each context and reach, the median and
    the largest relative L2 difference from the scores of the long window, and the share of a logit's sensitivity
    that belongs to bases further away than 64, 256, ... bases.

    The results are written to the model's config.json and README.md, from which plan and attribute state the
    expected error of a window. They replace earlier results, also those of another head. Included models are
    not changed; --output writes a copy with the results. To continue an interrupted run that writes its results,
    repeat the same command.

    \b
    Example:
      genoscan models measure my-model chr.fa
    """
    from genoscan.cli.progress import progress
    from genoscan.estimate import passes
    from genoscan.genome.genome import open_genome
    from genoscan.layers.catalogue import is_included
    from genoscan.tracks.atomic import check_new_folder
    from genoscan.tracks.journal import open_journal
    from genoscan.tracks.tables import table_text
    from genoscan.window_error.files import check_errors_writable, copy_model, write_window_errors
    from genoscan.window_error.measurement import measure, measurement_settings, prepare_measurement

    loaded = open_model(model, dtype, device, threads)
    if output is not None:
        check_new_folder(output)
    elif not is_included(loaded.path):
        try:
            check_errors_writable(loaded.path)
        except OutputError as error:
            raise OutputError(f"{error}; -o FOLDER writes a copy of the model") from None
    prepared = prepare_measurement(
        loaded, open_genome(genome), head=head, n_regions=n_regions, longest=longest, seed=seed
    )
    grid = prepared.grid
    log(f"{n_regions:,} regions: {len(grid.pairs):,} windows each, compared with {grid.context:,} bases on each side")
    unchanged = output is None and is_included(loaded.path)
    with ExitStack() as stack:
        journal = None
        if not unchanged:
            journal = stack.enter_context(open_journal(output or loaded.path, measurement_settings(prepared)))
        with progress(sum(map(passes, prepared.jobs))) as advance:
            errors = measure(prepared, journal, progress=advance)
        click.echo(table_text(_window_table(errors)), nl=False)
        if output is not None:
            copy_model(loaded.path, output, errors)
            log(f"{output}: a copy of {loaded.name} with these results")
        elif unchanged:
            log(f"{loaded.name} is an included model, which is not changed; -o FOLDER writes a copy with these results")
        else:
            write_window_errors(loaded.path, errors)
            log(f"{loaded.path}: these results are in config.json and README.md")


def _window_table(errors: "WindowErrors") -> "pd.DataFrame":
    """Return a row for each context and reach, and for each distance."""
    import pandas as pd

    rows = [("window_error", one.context, one.reach, None, one.median, one.worst) for one in errors.errors]
    shares = [("distant_share", None, None, one.distance, one.median, one.worst) for one in errors.distant]
    made = pd.DataFrame([*rows, *shares], columns=["quantity", "context", "reach", "distance", "median", "worst"])
    return made.astype(dict.fromkeys(["context", "reach", "distance"], "Int64"))


@command.command("show")
@click.argument("model", metavar="MODEL")
def show(model: str) -> None:
    """Print the properties and the model card of a model."""
    from genoscan.layers.weights import CARD
    from genoscan.model import load_model

    loaded = load_model(model)
    path = loaded.path
    config = loaded.config
    n_weights = sum(weight.numel() for weight in loaded.network.parameters())
    heads = {
        f"head {name}": f"{', '.join(head.labels)} ({head.kind.replace('_', ' ')}, {head.pool or head.link})"
        for name, head in config.heads.items()
    }
    click.echo(
        table(
            {
                "name": loaded.name,
                "folder": path,
                "layers": ", ".join(config.mixers),
                "reads": "both ways" if loaded.bidirectional else "left to right",
                "width": config.d_model,
                "weights": f"{n_weights:,}",
                "symbols": config.symbols,
                "language model": "yes" if config.language_model else "no",
                **heads,
                "trained window": f"{config.window:,} bases" if config.window else "unknown",
                "context": f"{config.context:,} bases",
                "reach": f"{config.reach:,} bases",
                "trained on": config.trained_on,
                **_training_data(config),
                "window error": _window_error(loaded, model),
                "sha256": loaded.sha256,
            }
        )
    )
    card = path / CARD
    if card.is_file():
        click.echo("\n" + card.read_text(encoding="utf-8", errors="replace").rstrip())


def _training_data(config: "ModelConfig") -> dict[str, str]:
    """Return what is known about the training data, with which other sequences are compared."""
    found = {}
    if config.gc_range is not None:
        low, high = config.gc_range
        found["training G+C"] = f"{low:.0%} to {high:.0%} (1st to 99th percentile of pieces of 4,096 bases)"
    if (held_out := config.validation) is not None:
        found["validation"] = f"{held_out.bits:.3f} bits per base ({held_out.composition:.3f} by composition alone)"
    return found


def _window_error(loaded: "Model", name: str) -> str:
    """Return the measured error of the default window."""
    from genoscan.layers.window_error import percent
    from genoscan.window_error.grid import measurable_targets, measuring_command

    config, errors = loaded.config, loaded.config.window_errors
    if not measurable_targets(config):
        return "none: the heads label whole windows, which are read without context"
    if errors is None:
        return f"not measured; to measure it: {measuring_command(loaded, name, 'GENOME')}"
    about = f"{errors.regions:,} regions of {errors.genome}, target {errors.measured_target}"
    found = errors.at(config.context, config.reach)
    if found is None:
        return f"measured in {about}, not for the default context and reach"
    default = f"{percent(found.median)} with the default context and reach"
    return f"{default} (worst region {percent(found.worst)}), from {about}"
