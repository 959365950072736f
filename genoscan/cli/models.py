"""genoscan models: what there is, and what it is."""

import click

from genoscan.cli.options import table


@click.group("models")
def command() -> None:
    """List models; show a model's card."""


@command.command("list")
def list_models() -> None:
    """List the models that have a name."""
    from genoscan.layers.catalogue import names
    from genoscan.layers.weights import read_config

    for name, path in names().items():
        config = read_config(path)
        click.echo(f"{name}\t{len(config.layers)} layers, width {config.d_model}\t"
                   f"{config.trained_on}")  # fmt: skip


@command.command("show")
@click.argument("model", metavar="MODEL")
def show(model: str) -> None:
    """Print what a model is, and its card."""
    from genoscan.layers.catalogue import find_model
    from genoscan.layers.weights import CARD, load_model

    path = find_model(model)
    loaded = load_model(path)
    config = loaded.config
    n_weights = sum(weight.numel() for weight in loaded.stack.parameters())
    click.echo(
        table(
            {
                "name": loaded.name,
                "folder": path,
                "layers": ", ".join(layer.kind for layer in config.layers),
                "width": config.d_model,
                "weights": f"{n_weights:,}",
                "symbols": config.symbols,
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
