"""genoscan models: list, import and show models."""

from typing import Any

import click

from genoscan.cli.messages import table


@click.group("models")
def command() -> None:
    """List models, show a model, or import a checkpoint of another project."""


@command.command("list")
def list_models() -> None:
    """List the models that are available by name."""
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

    SOURCE is a folder with config.json and the weights: model.safetensors, pytorch_model.bin, shards
    of either with their index, or one .ckpt, .pt or .pth file. It may also be such a file beside its
    config.json, or a Hugging Face id, OWNER/NAME. The model is then available by name; its folder is
    printed.

    Heads that classify windows (CaduceusForSequenceClassification, Plant DNAMamba, Orthrus with a head)
    become the head "classes", with the labels in config.json or label_0, label_1 and so on. GENATATOR's
    heads become "segments" and "transcript". `genoscan models show` lists heads and labels, and
    --target HEAD:LABEL selects one.

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
    """Print the properties of a model and its model card."""
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
                "sha256": loaded.sha256,
            }
        )
    )
    card = path / CARD
    if card.is_file():
        click.echo("\n" + card.read_text(encoding="utf-8", errors="replace").rstrip())
