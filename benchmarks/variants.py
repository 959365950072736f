"""Effects of variants and saturation mutagenesis against passes over whole windows."""

import json
import random
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.alone import alone
from benchmarks.clock import timed
from benchmarks.run import write_text
from benchmarks.threshold import at_least, at_most, row
from genoscan import usage
from genoscan.effects.change_effects import change_effects
from genoscan.effects.edit_effects import edit_effects
from genoscan.effects.edit_sums import EditSums, Effects, Terms
from genoscan.effects.variant_job import VariantJob, VariantOptions, prepare_variants
from genoscan.engine.edits import STEP, Edit
from genoscan.engine.inputs import OneHot
from genoscan.engine.target import whole_window
from genoscan.engine.workers import workers
from genoscan.genome.alphabet import BASES
from genoscan.genome.genome import open_genome
from genoscan.genome.variant import OK, Allele, Change
from genoscan.genome.variant_files import VariantTable
from genoscan.model import Model, load_model
from genoscan.tracks.journal import open_journal

_COMPARED = 64
"""Number of variants for which whole windows are run."""
_ROUNDS = 3
WINDOW = 100_000
MUTATED = 98_000, 49_500
"""First positions of the mutated parts."""

_BASES = 16
"""Number of bases, evenly spaced in a mutated part, whose substitutions are compared with whole passes.

Their copies fill three batches of 16, which two threads run with tiles of 1,024.
"""


def random_snvs(codes: np.ndarray, chrom: str, count: int) -> list[Change]:
    """Return random substitutions in genome order."""
    draw = random.Random(1)
    at = sorted(draw.sample(np.flatnonzero(codes < 4).tolist(), count))
    return [Change(chrom, i, BASES[codes[i]], BASES[(codes[i] + draw.randint(1, 3)) % 4]) for i in at]


def job_of(genome_path: Path, model: Model, count: int, **options: Any) -> VariantJob:
    """Return the job of random substitutions of the first sequence."""
    genome = open_genome(genome_path)
    chrom, size = next(iter(genome.sizes.items()))
    changes = random_snvs(genome.fetch(chrom, 0, size), chrom, count)
    alleles = [Allele(i, chrom, c.start + 1, ".", c.ref, c.alt, OK, c) for i, c in enumerate(changes)]
    return prepare_variants(genome, model, VariantTable(alleles), VariantOptions(**options))


def effects_of(job: VariantJob, output: Path) -> Effects:
    """Return the effects, computed as by the command."""
    with open_journal(output, {}) as journal:
        return change_effects(job, journal)


def whole_windows(model: Model, rows: Tensor) -> Tensor:
    """Return the log-likelihood of windows of equal length, run in batches as edited copies are."""
    target = whole_window(rows, model.columns(), model.label_offset)
    side_by_side = max(1, model.method.tile // STEP)

    def run(start: int) -> Tensor:
        part = slice(start, min(start + side_by_side, len(rows)))
        inputs, own, total = OneHot(rows[part], model.table()), target.rows(part), torch.zeros(1)
        carry = model.causal.begin(inputs.batch)
        for first in range(0, inputs.length, STEP):
            span = slice(first, min(first + STEP, inputs.length))
            outputs, carry = model.causal.forward(inputs.tile(span), carry)
            total = total + own(outputs, span).cpu()
        return total

    with workers(torch.get_num_threads() if model.device.type == "cpu" else 0) as threads:
        return torch.cat(threads.run([partial(run, start) for start in range(0, len(rows), side_by_side)]))


def variants(genome_path: Path, model: Model, count: int, folder: Path) -> list[dict[str, Any]]:
    """Compare the effects of substitutions with two whole windows of context and reach for each."""
    job = job_of(genome_path, model, count)
    chosen = list(range(0, count, max(1, count // _COMPARED)))[:_COMPARED]
    windows, copies, kept = [], [], []
    for i in chosen:
        change = job.changes[i]
        left, right = change.start - job.context, change.stop + job.reach
        if left < 0 or right > job.genome.sizes[change.chrom]:
            continue
        codes = job.genome.fetch(change.chrom, left, right)
        windows.append(codes)
        copies.append(codes.copy())
        copies[-1][job.context] = BASES.index(change.alt)
        kept.append(i)
    rows = torch.from_numpy(np.stack([*windows, *copies]))
    ours, theirs, deltas = [], [], np.zeros(0)
    for _ in range(_ROUNDS):
        seconds, found = timed(lambda: effects_of(job, folder / "variants.tsv"), model.device.type)
        ours.append(seconds / count)
        seconds, values = timed(lambda: whole_windows(model, rows), model.device.type)
        theirs.append(seconds / len(kept))
        deltas = (values[len(kept) :] - values[: len(kept)]).numpy()
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    # The reference is read from the stretch's first base, whole windows from `context` bases before the variant.
    difference = np.abs(found.delta[kept] - deltas).max()
    return [
        row("variants: times as fast as two whole windows", median(ratios), "x", at_least(5), rounds=ratios),
        row("variants: per second", 1 / median(ours), "/s", seconds=ours, count=count),
        row("variants: largest difference due to the left edge", float(difference), "nats"),
    ]


def mutagenesis(
    genome_path: Path, model: Model, precise: Model, tolerance: float, length: int = 1_000
) -> list[dict[str, Any]]:
    """Compare substitutions of parts of a long window with a forward pass of the window for each.

    `precise` is the model in float64, whose passes are the truth; the parts have `length` bases.
    """
    genome = open_genome(genome_path)
    chrom = next(iter(genome.sizes))
    codes = torch.from_numpy(genome.fetch(chrom, 0, WINDOW))
    found = []
    seconds, whole = timed(lambda: _pass(model, codes), model.device.type)
    again, _ = timed(lambda: _pass(model, codes), model.device.type)
    precise_whole = _pass(precise, codes)
    one_pass = min(seconds, again)
    for first in MUTATED:
        last = first + length
        name = f"{first + 1:,}-{last:,}"
        every = [Edit(at, at + 1, (b,), WINDOW) for at in range(first, last) for b in range(4) if b != codes[at]]
        compared = set(np.linspace(first, last - 1, _BASES, dtype=int).tolist())
        few = [edit for edit in every if edit.start in compared]
        started = time.perf_counter()
        exact = edit_effects(model, codes, few, Terms())
        # The reference is run once, whatever the number of substitutions.
        per_edit = (time.perf_counter() - started - one_pass) / len(few)
        total = one_pass + per_edit * len(every)
        bar = at_least(10) if first > WINDOW / 2 else at_least(1.8)
        found.append(
            row(f"mutate {name}: times as fast as a pass each", one_pass * len(every) / total, "x", bar, few=len(few))
        )
        copies = [codes.clone() for _ in few]
        for copy, edit in zip(copies, few, strict=True):
            copy[edit.start] = edit.codes[0]
        truth = np.array([_pass(precise, copy) - precise_whole for copy in copies[:3]])
        passes = np.array([_pass(model, copy) - whole for copy in copies[:3]])
        error, error_of_passes = (np.linalg.norm(a - truth) / np.linalg.norm(truth) for a in (exact.delta[:3], passes))
        details = {"passes": float(error_of_passes)}
        found.append(row(f"mutate {name}: error", float(error), "relative", at_most(1e-5), **details))
        started = time.perf_counter()
        near = edit_effects(model, codes, every, Terms(), tolerance=tolerance)
        seconds = time.perf_counter() - started
        bar = at_least(10)
        name = f"mutate {name}, tolerance {tolerance:g}"
        found.append(row(f"{name}: times as fast as a pass each", one_pass * len(every) / seconds, "x", bar))
        index = {(edit.start, edit.codes): i for i, edit in enumerate(every)}
        worst = max(abs(near.delta[index[e.start, e.codes]] - exact.delta[i]) for i, e in enumerate(few))
        found.append(row(f"{name}: worst error of {len(few)}", float(worst), "nats", seconds=seconds))
    return found


def tolerances(genome_path: Path, model: Model, count: int = 500, length: int = 20_000) -> list[dict[str, Any]]:
    """Compare linear estimates with exact effects of substitutions on the log-likelihood of a window."""
    genome = open_genome(genome_path)
    chrom = next(iter(genome.sizes))
    codes = torch.from_numpy(genome.fetch(chrom, 0, length))
    changes = random_snvs(codes.numpy(), chrom, count)
    edits = [Edit(c.start, c.stop, (BASES.index(c.alt),), length) for c in changes]
    run: list[int] = []
    exact = edit_effects(model, codes, edits, Terms(), progress=run.append)
    found = []
    for tolerance in (1e-1, 1e-2, 1e-3, 1e-4):
        few: list[int] = []
        near = edit_effects(model, codes, edits, Terms(), tolerance=tolerance, progress=few.append)
        errors = np.abs(near.delta - exact.delta)
        details: dict[str, Any] = {
            "median": float(np.median(errors)),
            "positions": sum(few),
            "positions_exact": sum(run),
        }
        found.append(row(f"tolerance {tolerance:g}: worst error of {count}", float(errors.max()), "nats", **details))
    return found


def remainders(genome_path: Path, model: Model, count: int = 300, length: int = 60_000) -> list[dict[str, Any]]:
    """Measure how early copies could be stopped if the change that remains to the end of the reach were known.

    No estimate of the remaining change can stop copies earlier at the same tolerance.
    """
    genome = open_genome(genome_path)
    chrom = next(iter(genome.sizes))
    codes = torch.from_numpy(genome.fetch(chrom, 0, length))
    reach = model.config.reach
    changes = [c for c in random_snvs(codes.numpy(), chrom, count) if c.stop + reach <= length]
    edits = [Edit(c.start, c.stop, (BASES.index(c.alt),), c.stop + reach) for c in changes]
    sums = EditSums(model, codes, edits, Terms())
    so_far: list[list[float]] = [[] for _ in edits]
    for tile in model.method.edited(model.stack, codes, model.table(), edits, label_offset=model.label_offset):
        sums.add(tile)
        for i in tile.edits.tolist():
            so_far[i].append(float(sums.effects.down[i]))
    found = []
    for tolerance in (1e-1, 1e-2, 1e-3):
        shares = []
        for sums_of_one in so_far:
            left = np.abs(sums_of_one[-1] - np.array(sums_of_one))
            shares.append((int(np.argmax(left <= tolerance)) + 1) / len(left))
        name = f"variants: positions to be run if the remaining change were known, tolerance {tolerance:g}"
        found.append(row(name, 100 * float(np.mean(shares)), "%", count=len(edits), reach=reach))
    return found


def _pass(model: Model, codes: Tensor) -> float:
    target = whole_window(codes[None], model.columns(), model.label_offset)
    tiles = model.method.forward(model.stack, OneHot(codes[None], model.table()))
    return float(sum(target(outputs, span) for span, outputs in tiles))


def peak(genome: str, model: str, count: int, reach: int, folder: str) -> dict[str, Any]:
    """Return the peak memory, in bytes, of a process that computes the effects of substitutions."""
    job = job_of(Path(genome), load_model(model), count, reach=reach)
    effects_of(job, Path(folder) / f"{count}.tsv")
    return {"bytes": usage.peak("cpu")}


def memory(genome: Path, model: str, counts: tuple[int, int], folder: Path, reach: int = 128) -> list[dict[str, Any]]:
    """Compare the peak memory for a small and a large number of substitutions, in separate processes."""
    settings = {"genome": str(genome), "model": model, "reach": reach, "folder": str(folder)}
    few, many = (alone(peak, settings | {"count": count})["bytes"] for count in counts)
    name = f"variants: growth of memory from {counts[0]:,} to {counts[1]:,}"
    return [row(name, 100 * (many / few - 1), "%", at_most(5), bytes=[few, many])]


def measure(
    genome: Path, model_name: str, output: Path, *, count: int, quick: bool, device: str
) -> list[dict[str, Any]]:
    """Measure all rows, and write them to variants.json in a folder."""
    model = load_model(model_name, device=device)
    rows = variants(genome, model, min(count, 100) if quick else count, output)
    rows += remainders(genome, model, *((30, 10_000) if quick else ()))
    precise = load_model(model_name, device=device, dtype=torch.float64)
    rows += mutagenesis(genome, model, precise, 1e-3, *((_BASES,) if quick else ()))
    rows += tolerances(genome, model, *((50, 4_000) if quick else ()))
    rows += memory(genome, model_name, (20, 200) if quick else (200, 20_000), output)
    document = {
        **machine.circumstances(device),
        "threads": torch.get_num_threads(),
        "genome": genome.name,
        "model": model_name,
        "rows": rows,
    }
    write_text(output / "variants.json", json.dumps(document, indent=1) + "\n")
    return rows
