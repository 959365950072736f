"""The figures in README and docs are those of the committed results: each is formatted here as the page prints it.

Each row or sentence below is made from the JSON and expected, word by word, on its page. A new row of one of these
tables is made here too, or is named in TABLES.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from commands import ROOT

from benchmarks.mechanistic import axes
from benchmarks.mechanistic.experiments import base_run
from benchmarks.mechanistic.learn import accuracy_without_memory
from benchmarks.series.ablations import LABELS
from benchmarks.tracking.tasks import TASKS

README, BENCHMARKS, PERFORMANCE = "README.md", "benchmarks/README.md", "docs/performance.md"
PD_SSM = "docs/pd-ssm.md"


def results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks/results" / name).read_text())


def measures(row: str) -> dict[str, SimpleNamespace]:
    """Return the measures of a row of the speed benchmark by name: median, lowest, highest."""
    return {each["name"]: SimpleNamespace(**each) for each in results("speed/cpu.json")["rows"][row]["measures"]}


def values(name: str) -> dict[str, float]:
    """Return the values of a file's rows by name."""
    return {row["name"]: row["value"] for row in results(name)["rows"]}


def findings(name: str) -> dict[str, float]:
    """Return the findings of an experiment by name."""
    return {finding["name"]: finding["value"] for finding in results(name)["findings"]}


def power(value: float) -> str:
    """Format a small number with two digits: 5.8e-7."""
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


def speed() -> Iterator[tuple[str, str]]:
    mambapy, transformers, checkpoint = map(measures, ("mambapy", "transformers", "checkpoint"))
    forward, scan, tangent = map(measures, ("forward", "scan", "tangent"))
    faster, share = mambapy["times faster"], mambapy["memory, of mambapy's"].median
    distributed, inside = (each.median for each in transformers.values())
    distributed, inside = f"{distributed:.0f} times", f"{inside:.1f} times"
    blocks_time, blocks_memory, _ = checkpoint.values()
    time = forward["time, of forward's"]
    (two_threads,), (side_by_side,) = measures("threads").values(), measures("regions").values()
    one, eight = tangent.values()
    exp, vjp = scan.values()
    for row in (
        f"against mambapy's autograd, 4,096 bp | {faster.median:.1f} times faster ({faster.lowest:.1f} to "
        f"{faster.highest:.1f}), {share:.1f} % of its memory | 20, 5 %",
        f"against transformers' autograd, 1,024 bp | {distributed} faster; {inside} with mambapy's scan inside "
        "it | 120",
        "against per-block checkpointing of our own layers, 65,536 bp | "
        f"{blocks_time.median:.2f} of its time, {blocks_memory.median:.1f} % of its memory | 1, 10 %",
        f"against a forward pass, 16,384 bp | {time.median:.2f} times its time ({time.lowest:.2f} to "
        f"{time.highest:.2f}) | 3.6",
        f"scan against `torch.exp` of the same number of elements, one thread | {exp.median:.2f} | 0.6",
        f"scan's vjp against the scan | {vjp.median:.2f} | 2.5",
        f"two threads against one | {two_threads.median:.2f} times faster | 1.7",
        f"tangent of one direction against a forward pass | {one.median:.2f} times its time | 2.2",
        f"eight directions in one sweep against eight sweeps | {eight.median:.2f} | 0.55",
        f"240 regions of 2,114 bp, four per batch against one at a time | {side_by_side.median:.2f} times faster | 1.3",
    ):
        yield BENCHMARKS, f"| {row} |"
    for row in (
        f"against mambapy's autograd, 4,096 bases | {faster.median:.1f} times as fast, in {share:.1f} % of its memory",
        f"against transformers' autograd as distributed, 1,024 bases | {distributed} as fast; {inside} with mambapy's "
        "scan inside it",
        f"against a forward pass, 16,384 bases | {time.median:.2f} times its time",
        f"two threads against one | {two_threads.median:.2f} times as fast",
    ):
        yield PERFORMANCE, f"| {row} |"
    yield (
        README,
        f"{distributed} as fast as gradients through transformers' Mamba as distributed, {inside} as fast as the same "
        f"with mambapy's scan (1,024 bases), {faster.median:.0f} times as fast as mambapy itself in {share:.0f} % of "
        "its memory",
    )


def speed_amd() -> Iterator[tuple[str, str]]:
    found = results("speed/cpu-amd.json")["rows"]
    of = {(row, each["name"]): each for row in found for each in found[row]["measures"]}
    block_row = results("speed/blocks-amd.json")["rows"]["blocks"]
    (blocks,) = (each for each in block_row["measures"] if each["name"] == "time, of Mamba's")
    mambapy = of["mambapy", "times faster"]
    intel = results("speed/cpu.json")["rows"]

    def slower(row: str, program: str) -> float:
        seconds = [rows[row]["contenders"][program]["median_seconds"] for rows in (found, intel)]
        return float(seconds[0] / seconds[1])

    forward, tangent = of["forward", "time, of forward's"], of["tangent", "one, of forward's time"]
    scan, threads = of["scan", "forward, of exp's time"], of["threads", "times faster"]
    yield README, f"(4,096 bases; {mambapy['median']:.0f} times on an AMD EPYC)"
    yield PERFORMANCE, f"| the same on an AMD EPYC, with later code | {mambapy['median']:.1f} times as fast |"
    yield (
        BENCHMARKS,
        f"{mambapy['median']:.1f} times as fast as mambapy's autograd ({mambapy['lowest']:.1f} to "
        f"{mambapy['highest']:.1f}; mambapy itself takes {slower('mambapy', 'mambapy'):.2f} of its time on the Intel "
        f"processor; the threshold of 20 is missed), {forward['median']:.2f} times a forward pass "
        f"({forward['lowest']:.1f} to {forward['highest']:.1f}), the scan "
        f"{scan['median']:.2f} of `torch.exp`, two threads {threads['median']:.2f} times as fast as one, and the "
        f"tangent of one direction {tangent['median']:.2f} times a forward pass (the threshold of 2.2 is missed: "
        f"a forward pass takes {slower('tangent', 'forward'):.2f} of its time on the other processor, the tangent "
        f"{slower('tangent', 'tangent-1'):.2f})",
    )
    block_range = f"({blocks['lowest']:.2f} to {blocks['highest']:.2f}"
    yield BENCHMARKS, f"**One PD-SSM block takes {blocks['median']:.2f} times as long as a Mamba block** {block_range})"
    times = [block_row["contenders"][f"{kind}-block"]["microseconds_per_base"] for kind in ("pd_ssm", "mamba")]
    yield (
        "docs/pd-ssm.md",
        f"defaults {times[0]:.1f} us per step, Mamba of 16 states {times[1]:.1f}: {blocks['median']:.2f} times "
        f"{block_range} in five rounds)",
    )


PARTS = {
    "in_proj": "in_proj",
    "x_proj": "x_proj",
    "dt_proj": "dt_proj",
    "out_proj": "out_proj",
    "scan": "scan, with steps and gate",
    "conv_silu": "convolution and SiLU",
    "rms_norm": "norm",
}


def floor() -> Iterator[tuple[str, str]]:
    found = results("speed/cpu-floor.json")
    for key, part in found["parts"].items():
        cells = [PARTS[key]]
        for pass_ in ("forward", "vjp"):
            time, bound = part[pass_], part[f"{pass_}_floor"]
            cells += [
                f"{time:.2f}" if time < 10 else f"{time:.1f}",
                f"{bound:.2f}",
                f"{bound / time:.0%}".replace("%", " %"),
            ]
        yield BENCHMARKS, f"| {' | '.join(cells)} |"
    products, bandwidth, exponentials = found["ceilings"].values()
    whole = results("speed/cpu.json")["rows"]["checkpoint"]["contenders"]["genoscan"]["microseconds_per_base"]
    yield (
        BENCHMARKS,
        f"{products:.0f} GFLOP/s, {bandwidth:.1f} GB/s copied, {exponentials:.1f}e9 exponentials per second",
    )
    yield (
        BENCHMARKS,
        f"add up to {found['adjoint_parts']:.0f} us per base, their bounds to {found['adjoint_floor']:.0f}; the "
        f"adjoint takes {found['adjoint']:.0f} on one core, {whole:.0f} on two. The remaining "
        f"{found['adjoint'] - found['adjoint_parts']:.0f} are Python",
    )


def regions() -> Iterator[tuple[str, str]]:
    peaks, peaks_error, tiles, tiles_error = results("regions/regions.json")["rows"]
    long, long_error = results("regions/trachomatis.json")["rows"]
    source = "*C. trachomatis*, one run ([`trachomatis.json`](results/regions/trachomatis.json))"
    for name, fast, error, threshold in (
        ("200 random regions of 400 bases, `--strand both`", peaks, peaks_error, "5"),
        ("73 tiles of 2,114 bases", tiles, tiles_error, "2.5"),
        (f"493 tiles of 2,114 bases: {source}", long, long_error, "2.5"),
    ):
        joined, apart = fast["seconds"].values()
        yield (
            BENCHMARKS,
            f"| {name} | {joined:.1f} s, error {error['value']:g} | {apart:.1f} s, error {error['apart']:.3f} | "
            f"{fast['value']:.1f} | {threshold} |",
        )
    joined, apart = peaks["seconds"].values()
    yield (
        PERFORMANCE,
        f"| 200 regions of 400 bases of a chloroplast, both strands | {joined:.0f} s; {apart:.0f} s with `--apart`, "
        f"whose scores differ by {100 * peaks_error['apart']:.0f} % from those of the whole sequence |",
    )


def variants() -> Iterator[tuple[str, str]]:
    found = {row["name"]: row for row in results("variants/variants.json")["rows"]}
    fast, rate = found["variants: times as fast as two whole windows"], found["variants: per second"]["value"]
    low, second, third = sorted(fast["rounds"])
    end, middle = "mutate 98,001-99,000", "mutate 49,501-50,500"
    apart = ": times as fast as a pass each"
    near = ", tolerance 0.001"
    for row in (
        f"2,000 random substitutions of 1.04 Mb, against two whole windows each | {fast['value']:.1f} times as fast "
        f"({low:.1f}, {second:.1f} and {third:.1f} in three rounds), {rate:.0f} variants a second; ",
        f"3,000 substitutions of bases 98,001 to 99,000 of a window of 100,000, against a pass each | "
        f"{found[end + apart]['value']:.0f} times as fast | 10 |",
        f"of its middle | **{found[middle + apart]['value']:.2f} times**, from twelve copies, ",
        f"the same with `--tolerance 0.001` | {found[end + near + apart]['value']:.0f} and "
        f"{found[middle + near + apart]['value']:.0f} times; worst errors of twelve: "
        f"{power(found[end + near + ': worst error of 12']['value'])} and "
        f"{power(found[middle + near + ': worst error of 12']['value'])} nats | 10 |",
        "against float64 passes, in float32 | "
        f"**{power(found[f'{end}: error']['value'])}** and **{power(found[f'{middle}: error']['value'])}** (middle), "
        "three substitutions each; ",
        "the same on a GPU (H200), 150 kb | "
        f"{results('gpu/variants.json')['bacteria: variants per second']:.0f} variants a second |",
    ):
        yield BENCHMARKS, f"| {row}"
    growth = found["variants: growth of memory from 200 to 20,000"]
    yield BENCHMARKS, f"**{growth['value']:.0f} %**; later"
    exact = {row["positions_exact"] for row in found.values() if "positions_exact" in row}
    yield BENCHMARKS, f"whose exact effects take {exact.pop() / 1e6:.1f} million positions:"
    for tolerance in ("0.1", "0.01", "0.001", "0.0001"):
        row = found[f"tolerance {tolerance}: worst error of 500"]
        worst = power(row["value"]) if row["value"] < 1e-3 else f"{row['value']:.2g}"
        # Those above the tolerance are bold.
        worst = f"**{worst}**" if row["value"] > float(tolerance) else worst
        yield BENCHMARKS, f"| {tolerance} | {row['positions'] / 1e6:.2f} | {worst} | {power(row['median'])} |"
    yield (
        PERFORMANCE,
        f"| 2,000 random substitutions of 1.04 Mb | {rate:.0f} a second, {fast['value']:.1f} times as fast as two "
        "passes over each window |",
    )
    yield (
        PERFORMANCE,
        f"| 3,000 substitutions in the last 1 % of a window of 100,000 | {found[end + apart]['value']:.0f} times as "
        "fast as a pass each |",
    )
    yield README, f"or a status that states why not: {rate:.0f} a second on two cores"


def gpu() -> Iterator[tuple[str, str]]:
    found = values("gpu/gpu.json")
    kernels = {name: value for name, value in found.items() if re.match("kernels: .*float(32|64)$", name)}
    engine = {name: value for name, value in found.items() if name.startswith("engine: ")}
    commands = {name: value for name, value in found.items() if name.startswith("commands: ")}

    def worst(rows: dict[str, float], precision: str) -> str:
        return power(max(value for name, value in rows.items() if name.endswith(precision)))

    def thousands(name: str) -> str:
        return f"{found[name] / 1e3:.0f}"

    def gibibytes(name: str) -> str:
        return f"{found[name] / 1024:.1f}"

    def listed(texts: list[str]) -> str:
        return f"{', '.join(texts[:-1])} and {texts[-1]}"

    lengths = "131,072 bp", "1,048,576 bp", "10,485,760 bp"
    tiles = "2,048", "4,096", "8,192", "12,288"
    tile_speeds = [thousands(f"tiles: {tile}, speed") for tile in tiles]
    tile_memory = [gibibytes(f"tiles: {tile}, memory") for tile in tiles]
    memory = listed([format(found[f"memory: at {length}"], ",.0f") for length in lengths])
    speeds = [thousands(f"memory: speed at {length}") for length in lengths]
    autograd = found["autograd: time, of autograd's"]
    share = found["autograd: memory, of autograd's"]
    rows = results("gpu/gpu.json")["rows"]
    scans = next(row["contenders"] for row in rows if row["name"] == "kernels: forward reaches")
    picoseconds = [
        f"{1e12 * median(scans[name]['times']) / (scans[name]['length'] * 2 * 256):.0f}"
        for name in ("scan-forward", "scan-vjp")
    ]
    whole = next(row["contenders"]["autograd"] for row in rows if row["name"] == "autograd: time, of autograd's")
    weights = max(value for name, value in found.items() if name.startswith("weights: "))
    surrogates = max(value for name, value in found.items() if name.startswith("surrogates: "))
    rounding = max(value for name, value in found.items() if name.startswith("rounding: "))
    both = next(row["contenders"] for row in rows if row["name"] == "blocks: time, of Mamba's")
    (faster,) = {f"{both[name]['times'][-2] / both[name]['times'][-1]:.1f}" for name in ("pd_ssm-block", "mamba-block")}
    bigwig, slots = thousands("bigwig: bases a second"), thousands("slots: one a tile, speed")
    checkpointing, blocks = found["autograd: time, of checkpointing's"], found["blocks: time, of Mamba's"]
    small, small_memory = thousands("gibibyte: bases a second"), found["gibibyte: memory"]
    for row in (
        f"every kernel, its derivatives and tangents against float64, {len(kernels)} rows | at most "
        f"{worst(kernels, 'float32')}; float64 {worst(kernels, 'float64')} | 1e-5; 1e-12 |",
        f"adjoint against float64 autograd, six kinds of models | at most {worst(engine, 'float32')}; float64 "
        f"{worst(engine, 'float64')} | 2e-6; 1e-12 |",
        f"derivatives by all weights, three kinds of models | at most {power(weights)} | 1e-5 |",
        f"both surrogate gradients of PD-SSM by all weights, float64 | at most {power(surrogates)} | 1e-12 |",
        "variants, mutagenesis, dependency maps, integrated gradients and joined windows against the CPU in float64, "
        f"three kinds of models | at most {worst(commands, 'float32')}; float64 {worst(commands, 'float64')} | 1e-5; "
        "1e-7 |",
        "float32 against float64 over 131,072 bases: adjoint, scan † (scan only) | "
        f"{power(found['long engine: float32 against float64, 131,072 bp'])}, {power(rounding)} | 1e-5 |",
        f"scores read back from a bigWig | {power(found['track: scores read back'])} | 1e-5 |",
        f"adjoint in tiles of {listed(list(tiles))} (524,288 bp) | {listed(tile_speeds)} thousand bases a second, in "
        f"{listed(tile_memory)} GiB | |",
        f"† memory at 131,072, 1,048,576 and 10,485,760 bp, tiles of 12,288 | {memory} MiB: "
        f"{found['memory: growth']:.1f} % of growth | 4 GiB, 5 % |",
        f"† speed at these lengths | {listed(speeds)} thousand bases a second | |",
        f"FASTA to bigWig, 10.5 Mb, tiles of 8,192 | **{bigwig},000 bases a second**; before, 243,000 in tiles of "
        f"12,288, and {slots},000 with a carry kept for every tile ({gibibytes('slots: one a tile, memory')} GiB in "
        "tiles of 8,192) | 500,000 |",
        f"within 1 GiB † | {small},000 bases a second in {small_memory:.0f} MiB | |",
        f"against whole-window autograd with the same kernels, tiles of 4,096 | **{autograd:.1f} times its time**, "
        f"{share:.1f} % of its memory ({whole['extra_bytes'] / 2**30:.0f} GiB) | 1.6, 5 % |",
        f"against checkpointing of blocks | {checkpointing:.1f} times its time | |",
        f"PD-SSM block, coupled, against a Mamba block, 16,384 steps | **{blocks:.1f} times its time**, not stable "
        f"yet: the third run of either was {faster} times as fast as the second; not coupled † 1.3 (1.1 to 1.9) "
        "| 1.8 |",
        f"scan: forward, vjp, launched one by one | {listed(picoseconds)} ps per base and channel, limited by the "
        f"host: **{found['kernels: forward reaches']:.0f} and {found['kernels: vjp reaches']:.0f} %** of what "
        "bandwidth and exponentials allow; as replayed",
        "the paper's layer, full gradient, against its tile scan for one direction | "
        f"**{found['paper: times faster']:.0f} times**; ",
        f"effects of 500 substitutions, `bacteria` | {found['variants: per second']:.0f} a second: "
        f"{found['variants: times as fast as two whole windows']:.2f} of the speed of two whole windows each | |",
    ):
        yield BENCHMARKS, f"| {row}"
    first, *others = speeds
    for row in (
        f"131,072 bases | {first},000 bases a second",
        *(
            f"{length.removesuffix(' bp')} bases | {speed},000"
            for length, speed in zip(lengths[1:], others, strict=True)
        ),
        f"memory at these lengths | {memory} MiB in tiles of 12,288",
        f"FASTA to bigWig, 10.5 Mb | {bigwig},000 bases a second",
        f"within 1 GiB | {small},000 bases a second in {small_memory:.0f} MiB",
    ):
        yield PERFORMANCE, f"| {row} |"
    reserved = sorted(found[f"memory: {length}, reserved by the allocator"] for length in lengths)
    yield (
        PERFORMANCE,
        f"{reserved[0]:,.0f} to {reserved[-1]:,.0f} MiB at these lengths, "
        f"{found['gibibyte: genoscan, reserved by the allocator']:.0f} MiB within 1 GiB",
    )
    yield PERFORMANCE, f"genoscan takes {autograd:.1f} times its time, in {share:.1f} % of its memory (tiles of 4,096)"
    short, long = (length / found[f"memory: speed at {length:,} bp"] for length in (131_072, 10_485_760))
    (size,) = {gibibytes(f"memory: at {length}") for length in (lengths[0], lengths[-1])}
    yield (
        README,
        f"takes {short:.2f} s for 131,072 bases and {long:.0f} s for 10,485,760, both in {size} GiB of tensors",
    )


def series() -> Iterator[tuple[str, str]]:
    found = findings("series/long-series-of-2.json")
    table = pd.read_csv(ROOT / "benchmarks/results/series/long-series-of-2.csv")
    for kind, name, block in (
        ("pd_ssm", "PD-SSM", "PD-SSM, one head of 64 states"),
        ("mamba", "Mamba", "Mamba, 16 states per channel"),
    ):
        right = table[table.kind == kind].groupby("seed").test.max()
        memory = found[f"{name}, one series of 17,984 steps: peak memory"]
        updates = table[table.kind == kind].groupby("seed").step.max().dropna().astype(int)
        said = ", ".join(map(str, updates))
        row = f"{block} | {', '.join(f'{share:.1%}' for share in right).replace('%', '')} % | {said} | {memory:.1f} MiB"
        yield PD_SSM, f"| {row} |"


def ablations() -> Iterator[tuple[str, str]]:
    found = findings("series/long-series-ablations.json")
    for name in list(dict.fromkeys(key.split(":")[0] for key in found)):
        seeds = found[f"{name}: seeds that learn 4,096 steps"]
        learnt = f"{seeds:.0f} | {found[f'{name}: updates until then, mean of these']:.0f} |" if seeds else "**0** | |"
        accuracy = f"{found[f'{name}: right at 4,096 steps, mean of 3 seeds']:.1%}".replace("%", " %")
        said = {
            "all as by default": "nothing",
            # Names in the committed file; those of the command are the page's.
            "inflow and phases independent of the step": LABELS["coupling"],
            "initial steps uniform up to 0.1": LABELS["log-uniform steps"],
        }.get(name, name)
        yield PD_SSM, f"| {said} | {learnt} {accuracy} |"


def percent(value: float) -> str:
    return f"{value:.0%}".replace("%", " %")


def by_seed(found: pd.DataFrame, column: str = "test") -> str:
    """Return the accuracies of the seeds, in order, of rows that have one."""
    return ", ".join(f"{value:.0%}"[:-1] for value in found.dropna(subset=[column])[column]) + " %"


def automata() -> Iterator[tuple[str, str]]:
    for task in TASKS:
        table = pd.read_csv(ROOT / f"benchmarks/results/tracking/{task}.csv")
        cells = [by_seed(table[table.kind == kind]) for kind in ("maps_only", "pd_ssm", "mamba")]
        guessing = percent(findings(f"tracking/{task}.json")["guessing"])
        yield PD_SSM, f"| {task.replace('-', ' ')} | {guessing} | {' | '.join(cells)} |"


def language() -> Iterator[tuple[str, str]]:
    runs = pd.read_csv(ROOT / "benchmarks/results/language/modelling.csv").dropna(subset=["test"])
    by_kind = runs.pivot_table(index="seed", columns="kind", values="test")
    mamba2, ours = by_kind["mamba2"], by_kind["activated"]
    low, high = sorted(ours / mamba2)
    cells = f"{mamba2.mean():.3f} | {ours.mean():.3f} | at most 1.01 of Mamba-2's: **missed**"
    yield (
        PD_SSM,
        f"| bits per byte, test, mean of two seeds | {cells} ({ours.mean() / mamba2.mean():.3f}; {low:.3f} and "
        f"{high:.3f} by seed) |",
    )
    found = findings("language/costs.json")
    for what, measure, unit, bound in (
        ("training", "bytes per second", "", "at least Mamba-2's: met"),
        ("training", "peak memory", " MiB", "at most Mamba-2's: met"),
        ("evaluation", "bytes per second", "", "at least Mamba-2's: met"),
        ("evaluation", "peak memory", " MiB", "at most Mamba-2's: **missed**"),
    ):
        ratio = "PD-SSM's, of Mamba-2's"
        names = [f"{length} bytes, {what}, {measure}: " for length in ("512", "4,096")]
        cells = []
        for kind in ("Mamba-2", "PD-SSM"):
            values = (found[name + kind] for name in names)
            cells.append(", ".join(f"{value if unit else float(f'{value:.3g}'):,.0f}" for value in values) + unit)
        ratios = ", ".join(f"{found[name + ratio]:.2f}" for name in names)
        row = f"{what}, {measure.removeprefix('peak ')}, 512 and 4,096 bytes"
        yield PD_SSM, f"| {row} | {' | '.join(cells)} | {bound} ({ratios}) |"
    for task in ("swaps-of-two", "moves", "swaps-of-three"):
        table = pd.read_csv(ROOT / f"benchmarks/results/language/{task}.csv")
        for events in (4, 8, 16):
            found = table[table.events == events]
            cells = [by_seed(found[found.kind == kind]) for kind in ("mamba2", "activated")]
            yield PD_SSM, f"| {task.replace('-', ' ')}, {events} events | {' | '.join(cells)} |"


def mechanistic() -> Iterator[tuple[str, str]]:
    table = pd.read_csv(ROOT / "benchmarks/results/mechanistic/mechanistic.csv")
    means = table.pivot_table(index="task", columns="kind", values="test")
    for task, row in means.iterrows():
        kinds = [f"{row[kind]:.1%}".replace("%", " %") for kind in ("mamba", "mamba2", "activated", "straight_through")]
        guessing = percent(accuracy_without_memory(base_run(str(task))))
        yield (
            PD_SSM,
            f"| {str(task).replace('-', ' ').replace('in context', 'in-context')} | {guessing} | {' | '.join(kinds)} |",
        )
    runs = pd.read_csv(ROOT / "benchmarks/results/mechanistic/selective-copying-by-states.csv").dropna(subset=["test"])
    for states, both in runs.groupby("states"):
        cells = [f"{percent(run.test)} | {run.weights:,.0f}" for run in both.itertuples()]
        yield PD_SSM, f"| {states} | {' | '.join(cells)} |"


def by_size() -> Iterator[tuple[str, str]]:
    """The axes that have been measured."""
    folder = ROOT / "benchmarks/results/mechanistic"
    for name in axes.EXPERIMENTS:
        if not (folder / f"{name}.csv").exists():
            continue
        task, _, axis = name.rpartition("-by-")
        runs = pd.read_csv(folder / f"{name}.csv").dropna(subset=["test"])
        for value, found in runs.groupby(axis):
            base = base_run(task)
            size = type(getattr(base, axis))(value)
            without = accuracy_without_memory(replace(base, **{axis: size}))
            shares = found.set_index("kind").test[["mamba", "mamba2", "activated", "straight_through"]]
            cells = [f"{share:.1%}".replace("%", " %") for share in shares]
            words = task.replace("-", " ").replace("in context", "in-context")
            yield PD_SSM, f"| {words}, {axis} {value:g} | {percent(without)} | {' | '.join(cells)} |"


def codons() -> Iterator[tuple[str, str]]:
    runs = pd.read_csv(ROOT / "benchmarks/results/codons/codon-position.csv").dropna(subset=["test"])
    for kind, label in (("mamba", "Mamba"), ("mixed", "both, alternating"), ("pd_ssm", "PD-SSM")):
        cells = [label, f"{runs[runs.kind == kind].width.iloc[0]:.0f}"]
        for equal in ("bases", "time"):
            found = runs[(runs.kind == kind) & (runs.equal == equal)]
            cells += [", ".join(f"{steps:.0f}" for steps in sorted(set(found.step), reverse=True))]
            cells += [by_seed(found, "validation"), by_seed(found)]
        yield PD_SSM, f"| {' | '.join(cells)} |"


FIGURES = [
    *speed(),
    *speed_amd(),
    *floor(),
    *regions(),
    *variants(),
    *gpu(),
    *series(),
    *ablations(),
    *automata(),
    *mechanistic(),
    *by_size(),
    *language(),
    *codons(),
]

TABLES = {
    (BENCHMARKS, "On two CPU cores"): (),
    (BENCHMARKS, "Lower bound on a CPU"): (),
    (BENCHMARKS, "Regions near each other, and kept activations"): (),
    (BENCHMARKS, "Variants and mutagenesis"): (
        "positions that copies of 290 substitutions",
        "peak memory, 200 to 20,000",
    ),
    (BENCHMARKS, "On a GPU"): ("training of `arabidopsis-genes`",),
    (PERFORMANCE, "On two CPU cores"): ("`genoscan attribute`, read and written",),
    (PERFORMANCE, "On a GPU"): (),
    (PERFORMANCE, "Many regions"): ("one window of 131,072 bases with `--memory 4GB`",),
    (PERFORMANCE, "Variants and mutagenesis"): ("in its middle",),
    (PD_SSM, "16, 21: long series"): (),
}
"""Tables of results, by page and heading, and the rows that no committed file contains."""


def page(name: str) -> str:
    """Return a page with single spaces, its lines of tables apart."""
    return re.sub(r"(?<!\|)\n(?!\|)[ \t]*|[ \t]+", " ", (ROOT / name).read_text())


@pytest.mark.parametrize(("name", "text"), FIGURES, ids=[f"{name}: {text[:50]}" for name, text in FIGURES])
def test_a_figure_is_that_of_the_results(name: str, text: str) -> None:
    assert text in page(name), f"{name}: expected {text!r}"


@pytest.mark.parametrize(("name", "heading"), TABLES, ids=map(": ".join, TABLES))
def test_every_row_of_a_table_is_checked(name: str, heading: str) -> None:
    section = (ROOT / name).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    # A table of the rows of gpu.sh, and a subsection, contain no results.
    section = section.partition("\nRows, most important first:\n")[0].partition("\n### ")[0]
    rows = re.findall(r"(?<=\n)\| .*(?=\n)(?!\n\|---)", section)
    expected = [text for where, text in FIGURES if where == name]
    unchecked = [
        row
        for row in rows
        if not any(text in row for text in expected) and not row[2:].startswith(TABLES[name, heading])
    ]
    assert rows
    assert not unchecked
