"""genoscan models: list, import and show models."""

from typing import TYPE_CHECKING, Any

import click

from genoscan.cli.messages import table

if TYPE_CHECKING:
    from genoscan.layers.config import ModelConfig


@click.group("models")
def command() -> None:
    """List models, show a model, or import a checkpoint from another project."""


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
      genoscan models import caduceus-ps_seqlen-131k_d_model-256_n_layer-16 --name caduceus
      genoscan attribute chrX.fa --region chrX:1,000,001-1,001,000 -m caduceus -o x.bw
    """
    from genoscan.importer import import_model

    click.echo(import_model(source, name=name, tokens=tokens, pooling=pooling))


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
                "layers": ", ".join(layer.kind for layer in config.layers),
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
