"""Genomes of very many short sequences, such as draft assemblies of plants."""

import cProfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

import numpy as np
import pytest
from commands import bases, elsewhere, genoscan, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from genoscan.genome import alphabet
from genoscan.genome.fasta import FastaGenome
from genoscan.genome.region import Region
from genoscan.tracks.bigwig_zoom import finest_bins, merge_bins
from genoscan.tracks.reader import BigWig
from genoscan.tracks.writer import open_track

# Quiet cores; a process takes less than a second to start.
CONVERT_SECONDS, PLAN_SECONDS = 5, 3
MOST_CALLS = 10
"""Calls of functions of the package, about a microsecond each: 300,000 sequences take three seconds."""
PACKAGE = Path(alphabet.__file__).parent.parent


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def write_annotation(folder: Path, n: int) -> None:
    rows = (f"contig_{i}\t.\tgene\t11\t90\t.\t+\t.\tID=gene_{i}\n" for i in range(n))
    (folder / "a.gff3").write_text("##gff-version 3\n" + "".join(rows))


def write_assembly(folder: Path, n: int) -> None:
    letters = bases(300_000, 1)
    with (folder / "g.fa").open("w") as file:
        for i in range(n):
            file.write(f">contig_{i}\n{letters[i % 999 * 300 :][:300]}\n")


@pytest.mark.slow
def test_convert_in_seconds(tmp_path: Path) -> None:
    write_assembly(tmp_path, 70_000)
    rows = (f"contig_{i}\t10\t20\t{i % 17 - 8.5}\ncontig_{i}\t20\t21\t{i % 13}\n" for i in range(70_000))
    (tmp_path / "a.bedgraph").write_text("".join(rows))
    command = "track", "convert", tmp_path / "a.bedgraph", "-g", tmp_path / "g.fa", "-o", tmp_path / "a.bw"
    assert elsewhere(*command).code == 0  # builds the index of the genome
    with at_most(CONVERT_SECONDS):
        assert elsewhere(*command).code == 0


@pytest.mark.slow
def test_plan_of_one_sequence_in_seconds(tmp_path: Path) -> None:
    write_assembly(tmp_path, 300_000)
    command = "plan", tmp_path / "g.fa", "-m", tiny_model(tmp_path / "tiny"), "-r", "contig_5", "-o", tmp_path / "x.bw"
    assert elsewhere(*command).code == 0
    with at_most(PLAN_SECONDS):
        assert elsewhere(*command).code == 0


def is_ours(code: CodeType | str) -> bool:
    return isinstance(code, CodeType) and str(PACKAGE) in code.co_filename


def test_other_sequences_take_few_operations(tmp_path: Path) -> None:
    """Calls for each sequence that is not read, and for its gene."""
    model, calls = tiny_model(tmp_path / "tiny"), list[int]()
    for n in (1_000, 1_000, 1_500):  # the first run loads modules; 1,000 headers are compared with an index
        write_assembly(tmp_path, n)
        write_annotation(tmp_path, n)
        arguments = ("attribute", tmp_path / "g.fa", "-m", model, "-r", "gene_5", "-a", tmp_path / "a.gff3", "-t", 1)
        FastaGenome(tmp_path / "g.fa")  # builds the index
        with cProfile.Profile() as profile:
            assert genoscan(*arguments, "-o", tmp_path / "x.bw").code == 0
        calls.append(sum(entry.callcount for entry in profile.getstats() if is_ours(entry.code)))
    assert (calls[2] - calls[1]) / 500 < MOST_CALLS


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=40), st.integers(0, 99))
def test_short_sequences_share_the_buffer(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int
) -> None:
    chance = np.random.default_rng(seed)
    path = tmp_path_factory.getbasetemp() / "short.bw"
    sizes = {f"c{i}": length for i, length in enumerate(lengths)}
    written = {}
    with open_track(path, sizes) as track:
        for chrom, length in sizes.items():
            scores = chance.normal(size=length).astype(np.float32)
            scores[chance.random(length) < 0.3] = np.nan
            written[chrom] = scores
            track.write(Region(chrom, 0, length), scores)
    with BigWig(path) as track:
        for chrom, length in sizes.items():
            np.testing.assert_array_equal(track.scores(chrom, 0, length), written[chrom])


def test_bins_of_different_sequences_are_not_merged() -> None:
    values = np.arange(48, dtype=np.float32)
    bins = finest_bins(values, np.array([0, 1, 1]), np.array([0, 0, 16]))
    wider = merge_bins(bins, 64)
    assert wider["chrom"].tolist() == [0, 1]
    assert wider["start"].tolist() == [0, 0]
    assert wider["end"].tolist() == [16, 32]
    assert wider["sum"].tolist() == [sum(range(16)), sum(range(16, 48))]
