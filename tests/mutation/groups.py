"""Which sources are mutated, which tests answer for them, and which mutants change nothing."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from .operators import OPERATORS, Edit, Mutant, edits

PER_OPERATOR = 2
"""Mutants of each operator in each group, in as many files as there are."""

# Cheap ones first: kernels are compiled again for every mutant.
GROUPS: dict[str, tuple[str, ...]] = {
    "planning": ("genome/plan.py", "job.py", "shards.py", "targets.py", "genome/region.py"),
    "scoring": (
        *("tracks/score.py", "tracks/sink.py", "pipeline.py", "gradient.py", "attribution.py"),
        *("export/handoff.py", "merge.py"),
    ),
    "writers": (
        *("tracks/bigwig.py", "tracks/bigwig_index.py", "tracks/bigwig_zoom.py"),
        *("tracks/bedgraph.py", "tracks/columns.py", "tracks/writer.py", "tracks/store.py", "tracks/journal.py"),
        "tracks/provenance.py",
    ),
    "engine": ("engine/*.py",),
    "kernels": ("ops/cpu_*.py", "ops/lane*.py", "ops/reference.py", "ops/associative.py"),
    "gpu kernels": ("ops/triton_gpu/*.py",),
}
"""Sources of each group, under genoscan/."""

TESTS: dict[str, tuple[str, ...]] = {
    "genoscan/genome/": ("genome", "foreign", "merge", "cli"),
    "genoscan/shards.py": ("merge",),
    "genoscan/job.py": ("genome", "merge", "resume", "foreign", "bad_input", "cli"),
    "genoscan/targets.py": ("genome", "foreign", "bad_input", "cli"),
    "genoscan/merge.py": ("merge",),
    "genoscan/pipeline.py": ("non_finite", "merge", "resume", "foreign", "cli"),
    "genoscan/gradient.py": ("api", "non_finite", "foreign"),
    "genoscan/attribution.py": ("api",),
    "genoscan/tracks/sink.py": ("non_finite", "merge", "resume", "foreign", "cli", "api"),
    "genoscan/export/": ("handoff", "export", "report"),
    "genoscan/tracks/score.py": ("tracks", "handoff", "non_finite", "cli"),
    "genoscan/tracks/": ("tracks", "convert", "clients", "merge", "resume", "report"),
    "genoscan/engine/": ("checkpoints", "merging", "by_layer", "stages", "engine", "memory"),
    "genoscan/ops/triton_gpu/": ("triton",),
    "genoscan/ops/associative.py": ("associative", "pgf"),
    "genoscan/ops/": ("scan", "pd_scan", "denormals", "ops", "layers"),
}
"""Names of the test files that answer for a source; the first prefix that fits decides."""

EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "genoscan/ops/cpu_scan_kernels.py",
        "ahead, back = (group + 1, 0) if group + 1 < last else (first, SUB)",
        "ahead, back = (group + 1, 0) if group - 1 < last else (first, SUB)",
    ): "both are read by prefetch alone, which loads nothing and may point past the end"
}
"""(file, before, after) of mutants that no input tells from the original, and why."""


def tests_of(file: str) -> tuple[str, ...]:
    """Return the test files that answer for a source file."""
    return next(tests for prefix, tests in TESTS.items() if file.startswith(prefix))


def reason(mutant: Mutant) -> str | None:
    """Return why a mutant is equivalent to the original; None: it is not known to be."""
    return EQUIVALENT.get((mutant.file, mutant.before, mutant.after))


def sources(root: Path, group: str) -> list[str]:
    """Return the files of a group, relative to the repository's root."""
    package = root / "genoscan"
    found = {path for pattern in GROUPS[group] for path in package.glob(pattern)}
    return sorted(str(path.relative_to(root)) for path in found)


def chosen(root: Path, seed: int) -> Iterator[tuple[str, Mutant]]:
    """Yield group and mutant, as many of each operator as PER_OPERATOR says, from different files.

    Sites are ranked by a hash of the seed and their own text, so that a change elsewhere in the
    source leaves the choice as it is. A file's chance grows with the number of its sites.
    """
    for group in GROUPS:
        texts = {file: (root / file).read_text() for file in sources(root, group)}
        sites = [
            (_rank(seed, file, edit, raw), file, edit)
            for file, text in texts.items()
            for raw in [text.encode()]
            for edit in edits(text)
        ]
        for operator in OPERATORS:
            left = sorted(site for site in sites if site[2].operator == operator)
            for _ in range(PER_OPERATOR):
                if not left:
                    break
                _, file, edit = left[0]
                yield group, edit.mutant(file, texts[file])
                left = [site for site in left if site[1] != file] or left[1:]


def _rank(seed: int, file: str, edit: Edit, raw: bytes) -> bytes:
    return sha256(repr((seed, file, edit.operator, *edit.changed(raw))).encode()).digest()
