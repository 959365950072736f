"""genoscan bench: the measurements behind the README."""

from pathlib import Path

import click

from genoscan.cli.options import PATH, table


@click.group("bench")
def command() -> None:
    """The measurements behind the README."""


@command.command("period3")
@click.argument("track", metavar="NPZ", type=PATH)
@click.argument("annotation", metavar="GENBANK", type=PATH)
@click.option("--figure", metavar="HTML", type=PATH,
              help="Where to draw the periodograms.")  # fmt: skip
def period3(track: Path, annotation: Path, figure: Path | None) -> None:
    """Measure how strongly a track beats in threes inside coding sequence, and outside.

    Non-overlapping windows of 150 bases wholly inside CDS against windows wholly outside genes;
    p from 1,000 circular shifts. The same for the sequence's own G+C, which is what the track
    has to go past.
    """
    from genoscan.bench.biology import compare, draw

    found = compare(track, annotation)
    for name, result in found.results.items():
        click.echo(
            table(
                {
                    name: f"{result.ratio:.2f} times as strong inside coding sequence",
                    "  inside": f"{result.mean_inside:.2f} over {result.n_inside:,} windows",
                    "  outside": f"{result.mean_outside:.2f} over {result.n_outside:,} windows",
                    "  dropped": f"{result.n_dropped:,} windows with gaps",
                    "  p": f"{result.p:.4f} ({result.n_shifts:,} shifts)",
                }
            )
        )
    if figure is not None:
        draw(found, figure)
        click.echo(figure)
