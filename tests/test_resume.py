"""A run that ends early, in whatever way, is taken up by the same command, to the same bytes."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from commands import bases, edited_model, elsewhere, genoscan, listing, tiny_model, write_fasta

from genoscan import pipeline
from genoscan.errors import InputError, NonFiniteError
from genoscan.genome.region import Region
from genoscan.temporary import locked_folder
from genoscan.tracks import store
from genoscan.tracks.sink import Sink

OUTPUTS = ("x.bw", "x.npz", "x.bedgraph.gz")
FILES = {*OUTPUTS, "x.bedgraph.gz.tbi"}
RECORDS = {f"{name}.json" for name in OUTPUTS}

KILL_IN_SECOND_BATCH = """
import os, signal
from genoscan.tracks.sink import Sink
stored, calls = Sink._store, []
def dying(sink, *given):
    stored(sink, *given)
    calls.append(len(sink._arrays.journal.entries))
    if calls.count(1) == 7:  # a part of the second strand is in the maps
        os.kill(os.getpid(), signal.SIGKILL)
Sink._store = dying
"""
KILL_BETWEEN_TRACKS = """
import os, signal
from genoscan import pipeline
pipeline.write_columns = lambda *given, **options: os.kill(os.getpid(), signal.SIGKILL)
"""
KILL_AT_THE_VERY_END = """
import os, signal
from genoscan.tracks import journal
journal.shutil.rmtree = lambda *given, **options: os.kill(os.getpid(), signal.SIGKILL)
"""
SIGNAL_AFTER_FIRST_BATCH = """
import os, signal
from genoscan.tracks import store
# A shell's background job, as a CI's may be, starts with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
keep = store.ScoreStore.commit
def interrupted(self, *given):
    keep(self, *given)
    os.kill(os.getpid(), signal.{})
store.ScoreStore.commit = interrupted
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A genome and a model, and in `unbroken/` what a run that nothing stops makes."""
    folder = tmp_path_factory.mktemp("source")
    write_fasta(folder / "g.fa", {"chr1": bases(500, 1), "chr2": bases(200, 2)})
    tiny_model(folder / "tiny")
    (folder / "unbroken").mkdir()
    assert genoscan(*command(folder / "unbroken", folder)).code == 0
    return folder


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first region of every batch that is computed in this process."""
    seen: list[str] = []
    run = pipeline.attribute_batch

    def noted(job, batch, *given):  # type: ignore[no-untyped-def]
        seen.append(str(batch[0][0].scored))
        return run(job, batch, *given)

    monkeypatch.setattr(pipeline, "attribute_batch", noted)
    return seen


def command(out: Path, source: Path, *more: object) -> list[object]:
    """Ask for three regions, each a batch of its own, on both strands."""
    regions = ["-r", "chr1:101-200", "-r", "chr1:301-420", "-r", "chr2:51-110"]
    outputs = [word for name in OUTPUTS for word in ("-o", out / name)]
    return [
        "attribute",
        source / "g.fa",
        "-m",
        source / "tiny",
        "-t",
        1,
        "--strand",
        "both",
        "--tile",
        50,
        *regions,
        *outputs,
        *more,
    ]


def assert_finished(folder: Path, source: Path) -> None:
    """Every file holds the bytes of the unbroken run, and nothing else lies there."""
    assert listing(folder) == FILES | RECORDS
    for name in FILES:
        assert (folder / name).read_bytes() == (source / "unbroken" / name).read_bytes()
    for name in RECORDS:
        made, whole = (json.loads((d / name).read_text()) for d in (folder, source / "unbroken"))
        for own in ("seconds", "command"):
            del made[own], whole[own]
        assert made == whole


def test_killed_in_the_middle(source: Path, tmp_path: Path, computed: list[str]) -> None:
    killed = elsewhere(*command(tmp_path, source), before=KILL_IN_SECOND_BATCH)
    assert (killed.code, killed.out) == (-9, "")
    assert listing(tmp_path) == {"x.bw.partial"}
    notes = (tmp_path / "x.bw.partial" / "done").read_text().splitlines()
    assert [json.loads(note)["batch"] for note in notes] == [0]
    done = genoscan(*command(tmp_path, source))
    assert done.code == 0
    assert "resuming: 1 of 3 regions done\n" in done.err
    assert computed == ["chr1:301-420", "chr2:51-110"]
    assert_finished(tmp_path, source)


def test_regions_of_a_joined_window_are_counted(source: Path, tmp_path: Path) -> None:
    near = "-r", "chr1:101-120", "-r", "chr1:131-150", "-r", "chr2:51-110"
    words = ["attribute", source / "g.fa", "-m", source / "tiny", "-t", 1, *near, "-o", tmp_path / "x.npz"]
    assert elsewhere(*words, before=KILL_BETWEEN_TRACKS).code == -9
    done = genoscan(*words)
    assert done.code == 0
    assert "resuming: 3 of 3 regions done\n" in done.err
    record = json.loads((tmp_path / "x.npz.json").read_text())
    assert sum(map(len, record["target_values"])) == 2  # one for each window


@pytest.mark.parametrize("kill", [KILL_BETWEEN_TRACKS, pytest.param(KILL_AT_THE_VERY_END, marks=pytest.mark.slow)])
def test_killed_when_all_is_computed(source: Path, tmp_path: Path, computed: list[str], kill: str) -> None:
    assert elsewhere(*command(tmp_path, source), before=kill).code == -9
    assert "x.bw.partial" in listing(tmp_path)
    assert genoscan(*command(tmp_path, source)).err.startswith("resuming: 3 of 3 regions done\n")
    assert computed == []
    assert_finished(tmp_path, source)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), pytest.param("SIGTERM", 143, marks=pytest.mark.slow)])
def test_interrupted(source: Path, tmp_path: Path, computed: list[str], name: str, code: int) -> None:
    done = elsewhere(*command(tmp_path, source), before=SIGNAL_AFTER_FIRST_BATCH.format(name))
    assert (done.code, done.out) == (code, "")
    ended = {"SIGINT": "interrupted", "SIGTERM": "terminated"}[name]
    kept = f"finished work is kept in {tmp_path / 'x.bw.partial'}; the same command continues the run"
    assert done.err == f"genoscan: {ended}: {kept}\n"
    assert listing(tmp_path) == {"x.bw.partial"}
    assert genoscan(*command(tmp_path, source)).code == 0
    assert computed == ["chr1:301-420", "chr2:51-110"]
    assert_finished(tmp_path, source)


def stop_after_one_batch(folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = store.ScoreStore.commit

    def interrupted(self, *given):  # type: ignore[no-untyped-def]
        keep(self, *given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.ScoreStore, "commit", interrupted)
        assert genoscan(*command(folder, source)).code == 130
    assert listing(folder) == {"x.bw.partial"}


def test_a_model_whose_configuration_was_changed_is_another(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after_one_batch(tmp_path, source, monkeypatch)
    changed = edited_model(tmp_path / "elsewhere" / "tiny")
    done = genoscan(*command(tmp_path, source), "-m", changed)
    assert done.code == 1
    assert "has an unfinished run with model_sha256" in done.err
    assert genoscan(*command(tmp_path, source)).code == 0


@pytest.mark.parametrize(
    ("settings", "error", "noted"),
    [
        ({}, KeyboardInterrupt, True),
        ({}, SystemExit, True),
        ({}, NonFiniteError, False),
        ({"score": "observed"}, InputError, False),
    ],
)
def test_only_what_the_same_command_continues_is_noted(
    settings: dict[str, str], error: type[BaseException], noted: bool, tmp_path: Path
) -> None:
    """Other errors would come again."""
    region = Region("chr1", 0, 5)

    def attempt(settings: dict[str, str], error: type[BaseException]) -> list[str]:
        with (
            pytest.raises(error) as ended,
            store.open_store(tmp_path / "x.bw", [region], settings, columns=False) as opened,
        ):
            opened.commit(0, [0.0], [region])
            raise error
        return getattr(ended.value, "__notes__", [])

    attempt({}, KeyboardInterrupt)
    kept = f"finished work is kept in {tmp_path / 'x.bw.partial'}; the same command continues the run"
    assert attempt(settings, error) == [kept] * noted
    assert (tmp_path / "x.bw.partial").is_dir()


@pytest.fixture
def unfinished(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where a run was interrupted after its first batch."""
    stop_after_one_batch(tmp_path, source, monkeypatch)
    return tmp_path


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--score", "magnitude"], "score centred, this one has magnitude"),
        (["--tile", 51], "tile 50, this one has 51"),
        (["--batch", 1], "batch 4, this one has 1"),
        (["--strand", "-"], "strand both, this one has -"),
        (["--context", 10], "context 64, this one has 10"),
        (["--reach", 10], "reach 32, this one has 10"),
        (["--dtype", "float64"], "dtype float32, this one has float64"),
        (["-t", 2], "threads 1, this one has 2"),
        (["-r", "chr2:120-130"], "all_regions "),
    ],
    ids=str,
)
def test_other_settings_are_refused(
    unfinished: Path, source: Path, computed: list[str], more: list[object], named: str
) -> None:
    """In one line, and the unfinished run can still be taken up."""
    before = {path.name: path.read_bytes() for path in (unfinished / "x.bw.partial").iterdir()}
    done = genoscan(*command(unfinished, source, *more))
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert named in done.err
    after = {path.name: path.read_bytes() for path in (unfinished / "x.bw.partial").iterdir()}
    assert after == before
    assert computed == []


def test_slots_may_change(unfinished: Path, source: Path) -> None:
    """They cost time, and never a bit."""
    assert genoscan(*command(unfinished, source, "--slots", 1)).code == 0
    name = "x.npz"
    assert (unfinished / name).read_bytes() == (source / "unbroken" / name).read_bytes()


def test_another_model_is_refused(unfinished: Path, source: Path, tmp_path: Path) -> None:
    other = shutil.copytree(source / "tiny", tmp_path / "other" / "tiny")
    weights = other / "model.safetensors"
    spoiled = bytearray(weights.read_bytes())
    spoiled[-1] ^= 1
    weights.write_bytes(spoiled)
    config = other / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"weights": None}))
    done = genoscan(*command(unfinished, source, "-m", other))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "with model_sha256 " in done.err


def test_another_genome_is_refused(unfinished: Path, source: Path, tmp_path: Path) -> None:
    other = write_fasta(tmp_path / "other.fa", {"chr1": bases(500, 1), "chr2": bases(200, 3)})
    arguments = command(unfinished, source)
    arguments[1] = other
    done = genoscan(*arguments)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "with sequences " in done.err


@pytest.mark.parametrize("torn", ['{"batch": 1, "val', '{"batch": 1, "values": [0.5]}'])
def test_a_torn_note(
    unfinished: Path, source: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    """A note without its line end was not finished; the next one begins a line of its own."""
    notes = unfinished / "x.bw.partial" / "done"
    notes.write_text(notes.read_text() + torn)
    stop_after_one_batch(unfinished, source, monkeypatch)
    assert genoscan(*command(unfinished, source)).code == 0
    assert computed == ["chr1:301-420", "chr2:51-110"]
    assert_finished(unfinished, source)


@pytest.mark.parametrize("name", ["settings.json", "done", "scores", "codes", "columns"])
def test_damage_is_found(unfinished: Path, source: Path, name: str) -> None:
    (unfinished / "x.bw.partial" / name).write_text("x\n")
    done = genoscan(*command(unfinished, source))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"x.bw.partial/{name}: damaged: remove" in done.err


def test_one_run_at_a_time(unfinished: Path, source: Path) -> None:
    """The claim of a run that was killed is lifted by the system."""
    with locked_folder(unfinished / "x.bw.partial"):
        done = genoscan(*command(unfinished, source))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "in use by another run" in done.err
    assert genoscan(*command(unfinished, source)).code == 0


def test_nothing_finished_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sink, "_store", interrupted)
    done = genoscan(*command(tmp_path, source))
    assert (done.code, done.out) == (130, "")
    assert not listing(tmp_path)


def test_what_a_kill_left_of_the_first_batch_is_no_run(source: Path, tmp_path: Path) -> None:
    """Nothing is kept of it, so other settings are as good as the same."""
    (tmp_path / "x.bw.partial").mkdir()
    (tmp_path / "x.bw.partial" / "settings.json").write_text('{"score": "observed"}')
    (tmp_path / "x.bw.partial" / "scores").write_bytes(bytes(4000))
    (tmp_path / "x.bw.partial" / "done").write_text('{"batch": 0, "va')
    assert genoscan(*command(tmp_path, source)).code == 0
    assert_finished(tmp_path, source)


def test_old_files_stay_until_the_new_are_whole(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.bw").write_text("old")

    def interrupted(*_given: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("genoscan.tracks.bigwig.BigWigWriter.finish", interrupted)
        assert genoscan(*command(tmp_path, source)).code == 130
    assert listing(tmp_path) == {"x.bw", "x.bw.partial"}
    assert (tmp_path / "x.bw").read_text() == "old"
    assert genoscan(*command(tmp_path, source)).code == 0
    assert_finished(tmp_path, source)


@pytest.mark.parametrize(("length", "shown"), [(40, "x" * 40), (41, "x" * 37 + "...")])
def test_long_settings_are_cut_short_in_messages(tmp_path: Path, length: int, shown: str) -> None:
    output, regions = tmp_path / "x.bw", [Region("chr1", 0, 8)]
    with (
        suppress(KeyboardInterrupt),
        store.open_store(output, regions, {"target": "x" * length}, columns=False) as kept,
    ):
        kept.commit(0, [0.0], regions)
        raise KeyboardInterrupt
    with pytest.raises(InputError) as refused, store.open_store(output, regions, {"target": "y"}, columns=False):
        pass
    assert f"an unfinished run with target {shown}, this one has y:" in str(refused.value)
