"""Compare the dependency of paired bases of tRNAs with that of other bases at the same distance.

    python docs/trna_dependency.py bacteria docs/dependency.png

prints the table of docs/dependency.md, and draws the map of trnF with its stems. Needs kaleido.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from genoscan.dependency.compute import compute_map
from genoscan.dependency.page import dependency_figure
from genoscan.dependency.plan import MapOptions, prepare_map
from genoscan.genome.alphabet import decode, reverse_complement
from genoscan.genome.bed import read_bed
from genoscan.genome.genome import open_genome
from genoscan.model import load_model

DATA = Path(__file__).parents[1] / "data"
PAIRS = {"AT", "TA", "CG", "GC", "GT", "TG"}
DRAWN = "trnF"


def stems(letters: str) -> dict[str, list[tuple[int, int]]]:
    """Return the base pairs of a cloverleaf that are Watson-Crick or G-U pairs, 0-based.

    The acceptor stem (7) and the T stem (5, loop 7) are counted from the 3' end, before the discriminator base.
    The anticodon stem (5, loop 7) is where most pairs form, with a variable loop of 3 to 21 bases; the D stem (4)
    begins at base 10 and ends two bases before the anticodon stem.
    """
    last = len(letters) - 1
    t_arm = last - 24

    def pairs(first: int, end: int, count: int) -> list[tuple[int, int]]:
        found = [(first + k, end - k) for k in range(count)]
        return [(i, j) for i, j in found if letters[i] + letters[j] in PAIRS]

    anticodon = max(
        (t_arm - 17 - loop for loop in range(3, 22)),
        key=lambda at: (len(pairs(at, at + 16, 5)), -abs(t_arm - 17 - 5 - at)),
    )
    return {
        "acceptor": pairs(0, last - 1, 7),
        "D": pairs(9, anticodon - 2, 4),
        "anticodon": pairs(anticodon, anticodon + 16, 5),
        "T": pairs(t_arm, t_arm + 16, 5),
    }


def main(name: str, picture: Path) -> None:
    genome, model = open_genome(DATA / "chloroplast.fa"), load_model(name)
    rows: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    seen = set()
    for gene in read_bed(DATA / "chloroplast.genes.bed", genome.sizes):
        codes = genome.fetch(gene.chrom, gene.start, gene.end)
        letters = decode(reverse_complement(codes) if gene.strand == "-" else codes).decode()
        # Whole genes with the conserved start of the T loop; each once, because of the inverted repeat.
        if not gene.name.startswith("trn") or not 70 <= len(gene) <= 95 or letters in seen or letters[-20:-17] != "TTC":
            continue
        seen.add(letters)
        found = compute_map(prepare_map(genome, model, MapOptions(gene, symmetrise="mean")))
        values = found.values[::-1, ::-1] if gene.strand == "-" else found.values
        made = stems(letters)
        paired = {pair for pairs in made.values() for pair in pairs}
        for stem, pairs in made.items():
            for i, j in pairs:
                distance = j - i
                others = [
                    values[a, a + distance] for a in range(len(letters) - distance) if (a, a + distance) not in paired
                ]
                if others:
                    value = float(values[i, j])
                    rows[stem].append((value, float(np.mean(others)), float(np.mean(np.array(others) < value))))
        if gene.name == DRAWN:
            draw(dependency_figure(found, "log-odds"), made, gene.start + 1).write_image(picture)
    rows["all"] = [row for found in rows.values() for row in found]
    print(f"{name}: {len(seen)} tRNA genes")
    print("| stem | pairs | mean, paired | mean, others | ratio | share of others below |")
    for stem, found in rows.items():
        value, other, below = np.mean(found, 0)
        print(f"| {stem} | {len(found)} | {value:.3f} | {other:.3f} | {value / other:.2f} | {below:.0%} |")


def draw(figure: go.Figure, made: dict[str, list[tuple[int, int]]], first: int) -> go.Figure:
    """Mark the pairs of the stems, below and above the diagonal."""
    for (stem, pairs), colour in zip(made.items(), ("#000000", "#009E73", "#D55E00", "#CC79A7"), strict=True):
        x, y = zip(*[pair for i, j in pairs for pair in ((first + i, first + j), (first + j, first + i))], strict=True)
        marker = {"symbol": "square-open", "size": 11, "color": colour, "line": {"width": 2}}
        figure.add_scatter(x=x, y=y, mode="markers", marker=marker, name=stem)
    return figure.update_layout(width=1000, height=900, legend={"orientation": "h", "y": 1.05}, margin={"t": 60})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
