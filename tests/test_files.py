"""Files are complete or absent, whoever else writes them and wherever a run fails or is killed."""

import errno
import fcntl
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT, Outcome, bases, elsewhere, genoscan, listing, tiny_model, write_fasta
from headed import write_headed
from hub_models import transformers_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import mixed_config, mixed_stack

from genoscan.errors import GenoscanError, InputError, OutputError
from genoscan.genome.genome import open_genome
from genoscan.genome.region import Region
from genoscan.layers.weights import save_model
from genoscan.temporary import locked_folder, scratch_folder, temporary_path
from genoscan.tracks.atomic import atomic_directory, atomic_files, atomic_write, check_regular, partial_folder
from genoscan.tracks.outputs import check_file, check_outputs
from genoscan.tracks.provenance import TRACK_KEYS, provenance_path, read_provenance
from genoscan.tracks.writer import open_track
from genoscan.training.state import open_work

quick = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a genome, a model, regions, and the files of a finished run and its shards."""
    folder = tmp_path_factory.mktemp("source")
    write_fasta(folder / "g.fa", {"chr1": bases(600, 1), "chr2": bases(200, 2)})
    tiny_model(folder / "tiny")
    write_headed(folder / "headed", "causal")
    save_model(folder / "mixed", mixed_config(), mixed_stack(dtype=torch.float32), "# mixed\n\nUntrained.\n")
    (folder / "rows.bed").write_text("chr1\t110\t130\ta\n")
    (folder / "calls.tsv").write_text("chrom\tpos\tref\talt\nchr1\t300\t-\tAC\nchr2\t90\t-\tT\nchr2\t1\tA\t<DEL>\n")
    runs = {"a": {"regions": "rows.bed", "model": "tiny"}}
    (folder / "config.json").write_text(json.dumps({"genome": "g.fa", "annotation": "rows.bed", "runs": runs}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = ("attribute", "g.fa", "-m", "tiny", "-t", 1)
        assert genoscan(*run, "-r", "chr1:101-200", "-o", "in.bw", "-o", "in.npz").code == 0
        for i in (1, 2):
            regions = ("-r", "chr1:1-50", "-r", "chr2:1-50")
            assert genoscan(*run, *regions, "--batch", 1, "--shard", f"{i}/2", "-o", f"s{i}.bw").code == 0
    return folder


@pytest.fixture
def folder(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of `source`, which is the current folder."""
    made = shutil.copytree(source, tmp_path / "work")
    monkeypatch.chdir(made)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return made


RUN = ("attribute", "g.fa", "-m", "tiny", "-t", 1)
DEPENDENCY = ("dependency", "g.fa", "-m", "tiny", "-t", 1, "-r", "chr2:60-64")
MUTATE = ("mutate", "g.fa", "-m", "tiny", "-t", 1, "-r", "chr2:60-64")
EXPORT = ("in.bw", "-g", "g.fa", "-o")
COMMANDS: dict[str, tuple[object, ...]] = {
    "attribute": (*RUN, "-r", "chr2:51-110", "-o", "o.bw", "-o", "o.npz", "-o", "o.bg.gz"),
    "margin": ("attribute", "g.fa", "-m", "mixed", "-t", 1, "-r", "chr2:51-80", "-o", "o.bg", "--with-margin", "o.bw"),
    "predict": ("predict", "g.fa", "-m", "headed", "-o", "o.bed", "-o", "o.bw", "--call", "site+", "--threshold", 0),
    "windows": ("predict", "g.fa", "-m", "headed", "-o", "o.tsv"),
    "response": ("response", "g.fa", "-m", "tiny", "-t", 1, "--at", "chr2:60", "-o", "o.bw"),
    "dependency": (*DEPENDENCY, "-o", "o.npz", "-o", "o.bedpe", "-o", "o.html", "-o", "o.bw"),
    "variants": ("variants", "g.fa", "calls.tsv", "-m", "tiny", "-t", 1, "-o", "o.tsv", "-o", "o.vcf.gz"),
    "variant tracks": ("variants", "g.fa", "calls.tsv", "-m", "tiny", "-t", 1, "-o", "o.vcf", "--tracks", "o"),
    "mutate": (*MUTATE, "-o", "o.npz", "-o", "o.h5", "-o", "o.tsv", "-o", "o.bw"),
    "screen": (*MUTATE, "--screen", 3, "-o", "o.npz"),
    "convert": ("track", "convert", "in.bw", "-o", "o.bg.gz"),
    "summarize": ("track", "summarize", "in.bw", "in.npz", "-R", "rows.bed", "-o", "o.tsv"),
    "profile": ("track", "profile", "in.bw", "-R", "rows.bed", "-o", "o.html", "-o", "o.tsv"),
    "compare": ("track", "compare", "in.bw", "in.npz", "-o", "o.tsv"),
    "merge": ("track", "merge", "s1.bw", "s2.bw", "-g", "g.fa", "-o", "o.bw", "-o", "o.bg"),
    "report": ("report", *EXPORT, "o.html"),
    "html": ("export", "html", *EXPORT, "o.html"),
    "igv": ("export", "igv", *EXPORT, "o.xml"),
    "jbrowse": ("export", "jbrowse", *EXPORT, "o.json"),
    "sites": ("export", "sites", "in.npz", "-o", "o.tsv"),
    "hub": ("export", "hub", *EXPORT, "o", "-a", "rows.bed", "--email", "you@lab.org"),
    "modisco": ("export", "modisco", "in.npz", "-R", "rows.bed", "--width", 20, "-o", "o"),
    "overview": ("export", "overview", "in.bw", "-g", "g.fa", "-o", "o.html"),
    "measure": ("models", "measure", "tiny", "g.fa", "-t", 1, "--regions", 1, "--longest", 200, "-o", "o"),
    "workflow": ("workflow", "init", "o"),
    "check": ("workflow", "check", "config.json", "-o", "o.json"),
}
"""Commands that write files, all of them named o or o.*."""

FOLDERS = {"hub", "measure", "modisco", "workflow"}
QUICK = ("convert", "merge", "html", "sites", "hub")


def outputs_in(folder: Path) -> dict[str, bytes]:
    """Return the content of the outputs and of hidden files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0].startswith(("o", "."))
    }


def assert_one_line(done: Outcome, *parts: str) -> None:
    *before, last = done.err.splitlines()
    assert (done.code, last[:16]) == (1, "genoscan: error:"), done.err
    assert not any("rror" in line for line in before), done.err
    for part in parts:
        assert part in last


# ---- two writers


@quick
@given(st.data())
def test_interleaved_writers_never_mix_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Each of two or three transactions writes the same files; the result is always that of one of them."""
    folder = tmp_path_factory.mktemp("x")
    names = ["a", "a.json", "b"]
    (folder / "a").write_text("old")
    allowed = [{"a": "old"}]

    def writer(number: int) -> Iterator[None]:
        with atomic_files() as files:
            for name in names:
                yield
                part = files.create(folder / name)
                yield
                part.write_text(str(number))
            if data.draw(st.booleans()):
                raise KeyboardInterrupt
            yield
        allowed.append(dict.fromkeys(names, str(number)))

    running = dict(enumerate(map(writer, range(3))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genoscan.temporary._PATIENCE", 0)
        while running:
            number = data.draw(st.sampled_from(sorted(running)))
            try:
                next(running[number])
            except (StopIteration, KeyboardInterrupt):
                del running[number]
            except OutputError as error:
                assert "is being written by another process: wait or name another output" in str(error)
                del running[number]
            found = {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}
            assert found == allowed[-1]
    assert not any(name.startswith(".") for name in listing(folder))


def test_a_folder_is_created_by_one_process(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "hub") as one:
        one.mkdir()
        with (
            pytest.raises(OutputError, match="is being written by another process"),
            atomic_directory(tmp_path / "hub"),
        ):
            pass
    assert listing(tmp_path) == {"hub"}


def test_any_number_of_scratch_folders(tmp_path: Path) -> None:
    """They do not exclude one another, and remains of killed processes disappear."""
    with scratch_folder(tmp_path) as one, scratch_folder(tmp_path) as two:
        assert one != two
        (one / "x").touch()
    for i in (0, 3):
        remains = one.with_name(one.name.replace("-0.", f"-{i}."))
        remains.mkdir()
        (remains / "x").write_bytes(bytes(9))
    with scratch_folder(tmp_path) as three:
        assert list(three.iterdir()) == []
        assert listing(tmp_path) == {three.name}
    assert listing(tmp_path) == set()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EBADF])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Unique names take the place of locks: the last writer wins, and its file is whole."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with atomic_write(tmp_path / "x") as one, atomic_write(tmp_path / "x") as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "x").read_text() == "one"
    with atomic_directory(tmp_path / "d") as made, locked_folder(tmp_path):
        made.mkdir()
    assert listing(tmp_path) == {"x", "d"}


def test_a_writer_whose_lock_is_invisible_is_noticed(tmp_path: Path) -> None:
    """As on network file systems that lock per machine: another one removes the file as remains."""

    def act() -> None:
        with atomic_write(tmp_path / "x") as part:
            part.unlink()
            part.write_text("other")

    with pytest.raises(OutputError, match="also written by another process"):
        act()
    assert listing(tmp_path) == {temporary_path(tmp_path / "x").name}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convert", "attribute", "report"])
def test_two_processes(folder: Path, name: str) -> None:
    """50 times: the files are those of one of the two processes, and at least one succeeds."""
    with open_track(folder / "long.bw", {"chr1": 300_000}) as track:
        track.write(Region("chr1", 0, 300_000), np.random.default_rng(1).normal(size=300_000).astype(np.float32))
    asks: dict[str, list[tuple[object, ...]]] = {
        "convert": [("track", "convert", file, "-o", "{}.bg.gz") for file in ("long.bw", "in.bw")],
        "attribute": [(*RUN, "-r", region, "-o", "{}.bw", "-o", "{}.npz") for region in ("chr2:1-90", "chr1:1-50")],
        "report": [("report", *EXPORT, "{}.html"), ("report", *EXPORT, "{}.html", "-a", "rows.bed")],
    }

    def start(ask: tuple[object, ...]) -> "subprocess.Popen[str]":
        words = [str(word).format("both") for word in ask]
        return subprocess.Popen(
            [sys.executable, "-m", "genoscan", *words],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def files(stem: str) -> dict[str, object]:
        """Return the content of the outputs; of records only what a run determines."""
        found: dict[str, object] = {}
        for path in folder.glob(f"{stem}.*"):
            key = path.name.removeprefix(stem)
            if path.suffix == ".json":
                read_provenance(path.with_suffix(""))
                found[key] = json.loads(path.read_text())["regions"]
            else:
                found[key] = path.read_bytes()
        return found

    whole = []
    for i, ask in enumerate(asks[name]):
        assert genoscan(*(str(word).format(f"r{i}") for word in ask)).code == 0
        whole.append(files(f"r{i}"))
    for trial in range(50):
        for path in folder.glob("both.*"):
            path.unlink()
        running = [start(ask) for ask in asks[name]]
        said = [process.communicate()[1] for process in running]
        codes = [process.returncode for process in running]
        assert 0 in codes, said
        assert all(code == 0 or text.count("\n") == 1 for code, text in zip(codes, said, strict=True)), said
        assert files("both") in whole, trial
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


# ---- failures between two writes


@contextmanager
def failing_at(number: int) -> Iterator[list[str]]:
    """Let the `number`-th creation, renaming or removal of a file fail, as on a full or faulty disk."""
    calls: list[str] = []

    def counted(name: str) -> Callable[..., object]:
        original = getattr(Path, name)

        def act(path: Path, *given: object, **options: object) -> object:
            calls.append(f"{name} {path.name}")
            if len(calls) == number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(path, *given, **options)

        return act

    with pytest.MonkeyPatch.context() as patch:
        for name in ("touch", "mkdir", "replace", "write_text"):
            patch.setattr(Path, name, counted(name))
        yield calls


def assert_pairs(folder: Path, old: dict[str, bytes], new: dict[str, bytes]) -> None:
    """Every output is whole, old or new; a track beside a record of another run is refused."""
    found = {name: content for name, content in outputs_in(folder).items() if "partial" not in name}
    for name, content in found.items():
        assert not name.startswith("."), name
        if not name.endswith(".json"):
            assert content in (old.get(name), new.get(name)), name
    for name, content in found.items():
        if not name.endswith((".bw", ".npz", ".bg", ".bg.gz")):
            continue
        try:
            read_provenance(folder / name)
        except InputError as error:
            assert "is not the file that" in str(error) or "cannot be read" in str(error)
        else:
            assert content == old.get(name) or found[f"{name}.json"] != old[f"{name}.json"]


def earlier_outputs(folder: Path) -> None:
    """Give every track of COMMANDS a predecessor with a record of the earlier version, without a checksum."""
    genoscan("track", "convert", "in.bw", "-o", "in.bg.gz")
    genoscan("track", "convert", "in.bw", "-o", "in.bg")
    for suffix in (".bw", ".npz", ".bg", ".bg.gz", ".bg.gz.tbi"):
        shutil.copy(folder / f"in{suffix}", folder / f"o{suffix}")
    record = json.loads((folder / "in.bw.json").read_text())
    for key in TRACK_KEYS:
        del record[key]
    for suffix in (".bw", ".npz", ".bg", ".bg.gz"):
        (folder / f"o{suffix}.json").write_text(json.dumps(record))


def fail_everywhere(folder: Path, name: str) -> None:
    earlier_outputs(folder)
    old = outputs_in(folder)
    assert genoscan(*COMMANDS[name]).code == 0
    new = outputs_in(folder)
    for number in count(1):
        for path in [*folder.glob("o"), *folder.glob("o.*"), *folder.glob("o_*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for file, content in old.items():
            (folder / file).write_bytes(content)
        with failing_at(number) as calls:
            done = genoscan(*COMMANDS[name])
        if len(calls) < number:
            break
        assert_one_line(done, "the disk is full")
        assert_pairs(folder, old, new)
        if not any(call.startswith("replace") for call in calls[:-1]):
            assert {n: c for n, c in outputs_in(folder).items() if "partial" not in n} == old, calls[-1]
    assert done.code == 0
    assert number > 2


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in COMMANDS])
def test_a_failure_between_any_two_writes(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("genoscan.export.page._EMBED_LIMIT", 10)  # the folder beside the page, too
    fail_everywhere(folder, name)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in COMMANDS])
def test_a_full_disk_at_any_size(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The system itself refuses to let files grow, whichever library writes them."""
    monkeypatch.setattr("genoscan.export.page._EMBED_LIMIT", 10)
    earlier_outputs(folder)
    old = outputs_in(folder)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for limit in [0, 1, 30, 100, 300, 700, 1_000, 1_500, 3_000, 8_000, 1 << 20, 3 << 20]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            done = genoscan(*COMMANDS[name])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        if done.code == 0:
            break
        assert_one_line(done)
        assert {n: c for n, c in outputs_in(folder).items() if "partial" not in n} == old
    else:
        assert genoscan(*COMMANDS[name]).code == 0


# ---- kills


@quick
@given(st.sampled_from(QUICK), st.binary(max_size=9))
def test_remains_are_removed(source: Path, tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    """What a killed process leaves has the name of the next one's temporary file or folder."""
    folder = tmp_path_factory.mktemp("x")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(source)
        word = next(str(word) for word in COMMANDS[name] if str(word).startswith("o"))
        remains = temporary_path(folder / word)
        if name in FOLDERS:
            (remains / "o").mkdir(parents=True)
            (remains / "o" / "x").write_bytes(content)
        else:
            remains.write_bytes(content)
        words = [folder / str(word) if str(word).startswith("o.") or word == "o" else word for word in COMMANDS[name]]
        assert genoscan(*words).code == 0
    assert not [n for n in listing(folder) if n.startswith(".")]


KILL = """
import os, signal
from pathlib import Path
replace, calls = Path.replace, []
def dying(path, *given):
    calls.append(path)
    if len(calls) == {}:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, *given)
Path.replace = dying
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_before_a_renaming(folder: Path, name: str) -> None:
    """The next run gives what an unbroken one gives, and nothing else stays."""
    assert genoscan(*COMMANDS[name]).code == 0
    whole = outputs_in(folder)
    for number in count(1):
        for path in [*folder.glob("o"), *folder.glob("o.*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if elsewhere(*COMMANDS[name], before=KILL.format(number), cwd=folder).code == 0:
            break
        shutil.rmtree(folder / "o", ignore_errors=True)
        assert genoscan(*COMMANDS[name]).code == 0
        found = outputs_in(folder)
        assert set(found) == set(whole)
        for file, content in whole.items():
            assert file.endswith(".json") or found[file] == content
    assert number > 1


KILLED: dict[str, tuple[object, ...]] = {
    **COMMANDS,
    "import": ("models", "import", "foreign", "--name", "o", "--tokens", "A=7,C=8,G=9,T=10"),
    "train": ("train", "g.fa", "-o", "o", "-t", 1, "--steps", 40, "--window", 64, "--batch", 2, "--width", 8),
}
SAVE_OFTEN = """
from genoscan.tracks import snapshots
snapshots._INTERVAL = snapshots._SHARE = 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in KILLED if name not in ("igv", "jbrowse", "sites")])
def test_killed_at_random_times(folder: Path, name: str) -> None:
    """Four kills a command, spread over its time: the same bytes afterwards, and nothing left behind."""
    random = np.random.default_rng(sum(map(ord, name)))
    data = folder.parent / "data"
    transformers_model("mamba", hidden_size=16, num_hidden_layers=2, state_size=8).save_pretrained(folder / "foreign")
    words = [sys.executable, "-c", f"{SAVE_OFTEN}\nimport genoscan.__main__", *map(str, KILLED[name])]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(data)}

    def made() -> dict[str, bytes]:
        inside = {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}
        return outputs_in(folder) | inside

    def remove() -> None:
        shutil.rmtree(data, ignore_errors=True)
        for path in [*folder.glob("o"), *folder.glob("o.*"), *folder.glob("o_*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    started = time.monotonic()
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
    took, whole = time.monotonic() - started, made()
    killed = 0
    for number in range(4):
        remove()
        # The last third of the time is that in which files are written.
        after = took * ((number + random.random()) / 6 + 1 / 3)
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
        if (folder / "o").is_dir() or (data / "genoscan" / "models" / "o").is_dir():
            remove()  # the folder is complete, and the command would refuse to replace it
        subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
        found = made()
        assert set(found) == set(whole)
        for file, content in whole.items():
            # Seconds; in a folder of models, also those of training.tsv.
            unequal = file.endswith((".json", "README.md", "training.tsv")) and name != "sites"
            assert unequal or found[file] == content, file
    assert killed


# ---- a record and its track


READERS: list[tuple[object, ...]] = [
    COMMANDS[name] for name in ("convert", "report", "html", "igv", "jbrowse", "hub", "sites", "modisco", "merge")
]


@pytest.mark.parametrize("ask", READERS, ids=lambda ask: " ".join(map(str, ask[:2])))
def test_a_track_beside_the_record_of_another_is_refused(folder: Path, ask: tuple[object, ...]) -> None:
    track = folder / next(str(word) for word in ask if str(word).endswith((".bw", ".npz")))
    whole = track.read_bytes()
    for changed in (whole[:-1], whole[:20] + bytes([whole[20] ^ 1]) + whole[21:]):
        track.write_bytes(changed)
        assert_one_line(genoscan(*ask), f"{track.name}: is not the file that {track.name}.json describes")
        assert not outputs_in(folder)
    track.write_bytes(whole)
    assert genoscan(*ask).code == 0


def test_a_record_of_an_earlier_version_is_read(folder: Path) -> None:
    record = json.loads((folder / "in.bw.json").read_text())
    assert record["track_bytes"] == (folder / "in.bw").stat().st_size
    for key in TRACK_KEYS:
        del record[key]
    (folder / "in.bw.json").write_text(json.dumps(record))
    assert genoscan(*COMMANDS["igv"]).code == 0


def test_files_of_a_replaced_track_are_removed(tmp_path: Path) -> None:
    """A record, and an index of the other kind, which readers would prefer."""
    for name in ("x.bg.gz.csi", "x.bg.gz.json"):
        (tmp_path / name).write_text("of an earlier track")
    with open_track(tmp_path / "x.bg.gz", {"a": 9}) as track:
        track.write(Region("a", 0, 3), np.ones(3, np.float32))
        assert {"x.bg.gz.csi", "x.bg.gz.json"} <= listing(tmp_path)
    assert listing(tmp_path) == {"x.bg.gz", "x.bg.gz.tbi"}


# ---- what is no file, or not ours


@contextmanager
def special(kind: str, path: Path) -> Iterator[None]:
    with ExitStack() as stack:
        if kind == "FIFO":
            os.mkfifo(path)
        elif kind == "socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(os.path.relpath(path))
        else:
            path.symlink_to("/dev/null")
        yield


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - FOLDERS))
def test_only_files_are_replaced(folder: Path, name: str, kind: str) -> None:
    """Outputs, records and indexes alike, before anything is computed."""
    output = folder / next(str(word) for word in COMMANDS[name] if str(word).startswith("o."))
    beside = [provenance_path(output)] if output.suffix in (".bw", ".gz") else []
    for path in (output, *beside):
        with special(kind, path):
            before = path.lstat().st_ino
            assert_one_line(genoscan(*COMMANDS[name]), f"{path.name}: it is a device, FIFO or socket: name a file")
            assert path.lstat().st_ino == before
            path.unlink()
    assert not outputs_in(folder)


def test_links_keep_pointing(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "x").symlink_to("to/y")
    with atomic_write(tmp_path / "x") as part:
        part.write_text("new")
    assert (tmp_path / "x").is_symlink()
    assert (tmp_path / "to" / "y").read_text() == "new"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="leads to itself"):
        check_regular(tmp_path / "loop")
    assert listing(tmp_path) == {"to", "x", "loop"}


@pytest.mark.parametrize(
    "made", ["mine.txt", "scores/x", "settings.json/x", "link", "done.txt", ".hidden", "step-1.safetensors.bak"]
)
@pytest.mark.parametrize("command", ["attribute", "train"])
def test_a_folder_of_the_users_is_not_touched(folder: Path, command: str, made: str) -> None:
    asks: dict[str, tuple[object, ...]] = {
        "attribute": (*RUN, "-r", "chr1:1-50", "-o", "o.bw"),
        "train": ("train", "g.fa", "-t", 1, "-o", "o.bw", "--window", 8, "--walk", 2, "--steps", 1),
    }
    work, precious = folder / "o.bw.partial", folder / "precious"
    precious.mkdir()
    (precious / "mine.txt").write_text("precious")
    if made == "link":
        work.symlink_to(precious)
    else:
        (work / made).parent.mkdir(parents=True)
        (work / made).write_text("precious")
    before = sorted(work.rglob("*"))
    assert_one_line(genoscan(*asks[command]), "o.bw.partial: ", "name another output")
    assert sorted(work.rglob("*")) == before
    assert (precious / "mine.txt").read_text() == "precious"
    assert {name for name in listing(folder) if name.startswith(("o", "."))} == {"o.bw.partial"}


def test_one_training_at_a_time(folder: Path) -> None:
    (folder / "o.partial").mkdir()
    with locked_folder(folder / "o.partial"):
        ask = ("train", "g.fa", "-t", 1, "-o", "o", "--window", 8, "--walk", 2, "--steps", 1)
        assert_one_line(genoscan(*ask), "o.partial: in use by another run")
    for name in (".tmpAb12Cd", ".state.json.12345678.part"):
        (folder / "o.partial" / name).touch()  # of a killed run
    with open_work(folder / "o.partial"):
        assert listing(folder / "o.partial") == set()
    assert not (folder / "o.partial").exists()


# ---- names


WRITTEN = st.sampled_from(
    [
        lambda path: path,
        provenance_path,
        temporary_path,
        partial_folder,
        lambda path: path.with_name(path.name + ".tbi"),
        lambda path: path.with_name(path.name + ".csi"),
        lambda path: temporary_path(provenance_path(path)),
    ]
)


@quick
@given(st.sampled_from(["x.bg.gz", "y.bedgraph.gz"]), WRITTEN, st.sampled_from([".", "link", "a/.."]))
def test_no_input_is_named_like_a_file_to_write(
    tmp_path: Path, name: str, written: Callable[[Path], Path], way: str
) -> None:
    (tmp_path / "a").mkdir(exist_ok=True)
    if not (tmp_path / "link").is_symlink():
        (tmp_path / "link").symlink_to(".")
    given_as = tmp_path / way / written(tmp_path / name).name
    with pytest.raises(InputError, match="is read from, too: name another output"):
        check_outputs([tmp_path / "first.bw", tmp_path / name], [None, given_as])


@pytest.mark.parametrize("suffix", ["", ".json", ".fai", ".gzi", ".tbi"])
def test_no_output_is_named_like_a_file_to_read(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match="is read from, too"):
        check_file(tmp_path / f"in{suffix}", [tmp_path / "in"])


@quick
@given(st.sampled_from("nä本𝄞"), st.integers(0, 30), st.sampled_from(["convert", "sites", "hub"]))
def test_names_near_the_limit(
    source: Path, tmp_path_factory: pytest.TempPathFactory, letter: str, short: int, name: str
) -> None:
    """Such a name works, or is refused in one line; in no case does anything else stay."""
    folder = tmp_path_factory.mktemp("x")
    suffix = {"convert": ".bg", "sites": ".tsv", "hub": ""}[name]
    stem = letter * ((260 - short - len(suffix)) // len(letter.encode()))
    output = folder / f"{stem}{suffix}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(source)
        done = genoscan(*(output if str(word) in ("o", "o.bg.gz", "o.tsv") else word for word in COMMANDS[name]))
    longest = len(os.fsencode(output.name)) + (len(".json") if name == "convert" else 0)
    if longest > 255:
        assert_one_line(done, "the file name is too long: choose a shorter one")
        assert listing(folder) == set()
    else:
        assert done.code == 0, done.err
        assert listing(folder) == {output.name} | ({f"{output.name}.json"} if name == "convert" else set())


def test_the_folder_of_unfinished_work_is_never_too_long(folder: Path) -> None:
    """Its name does not matter to anyone, so it is shortened."""
    output = "n" * (255 - len(".bw.json")) + ".bw"
    assert genoscan(*RUN, "-r", "chr1:1-50", "-o", output).code == 0
    assert {n for n in listing(folder) if n.startswith("n")} == {output, f"{output}.json"}
    assert len(partial_folder(Path(output)).name) < 255
    assert partial_folder(Path("x.bw")) == Path("x.bw.partial")


def test_an_interrupt_leaves_the_old_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")

    def act(error: BaseException) -> None:
        with atomic_files() as files:
            files.create(tmp_path / "x").write_text("new")
            files.make_folder(tmp_path / "folder")
            files.remove(tmp_path / "x")
            raise error

    for error in (KeyboardInterrupt(), SystemExit(143), MemoryError(), GenoscanError()):
        with pytest.raises(type(error)):
            act(error)
        assert listing(tmp_path) == {"x"}
        assert (tmp_path / "x").read_text() == "old"


def test_an_index_that_is_no_file_is_neither_read_nor_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is then in the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    genome = write_fasta(tmp_path / "g.fa", {"chr1": bases(100, 1)})
    os.mkfifo(f"{genome}.fai")
    assert open_genome(genome).sizes == {"chr1": 100}
    assert Path(f"{genome}.fai").is_fifo()
    assert len(list((tmp_path / "cache").rglob("*.fai"))) == 1


def test_names_that_are_not_utf8(folder: Path) -> None:
    """A record, which is UTF-8, names them; the track has its name."""
    name = os.fsdecode(b"caf\xe9.bw")
    done = elsewhere(*RUN, "-r", "chr2:51-60", "-o", name)
    assert done.code == 0, done.err
    assert Path(name).exists()
    record = json.loads(Path(f"{name}.json").read_text(encoding="utf-8"))
    assert record["command"][-1] == "caf\ufffd.bw"
    done = elsewhere("export", "hub", name, "-g", "g.fa", "--email", "you@lab.org", "-o", "hub")
    assert done.code == 0, done.err
    assert "bigDataUrl caf%E9.bw" in next(Path("hub").glob("*/trackDb.txt")).read_text(encoding="utf-8")
