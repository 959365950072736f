"""The Snakemake workflow: the bytes of one run, whatever the shards."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from commands import ROOT, Outcome, bases, edited_model, genoscan, tiny_model, write_fasta

SNAKEFILE = ROOT / "workflows" / "Snakefile"
HOSTILE = """$(touch ran) `touch ran`;touch ran;'x' "y" & #*"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Return a config of one run, of eight batches, whose paths contain what a shell interprets."""
    genome = write_fasta(tmp_path / f"g {HOSTILE}.fa", {"chr1": bases(4_000, seed=1)})
    bed = tmp_path / f"{HOSTILE} peaks.bed"
    bed.write_text("".join(f"chr1\t{at}\t{at + 90 + at // 400}\n" for at in range(200, 3_400, 400)))
    calls = tmp_path / f"{HOSTILE} calls.tsv"
    calls.write_text("chrom\tpos\tref\talt\nchr1\t2000\tN\tA\nchr1\t2001\t\tAC\n")
    few = tmp_path / f"{HOSTILE} few.bed"
    few.write_text("chr1\t900\t903\n")
    model = str(tiny_model(tmp_path / f"{HOSTILE} model"))
    config = {
        "genome": str(genome),
        "annotation": str(bed),
        "shards": 2,
        "threads": 1,
        "runs": {"peaks": {"regions": str(bed), "model": model, "strand": "both", "batch": 2}},
        "variants": {"calls": {"file": str(calls), "model": model, "strand": "both"}},
        "mutations": {"few": {"regions": str(few), "model": model, "reach": 9}},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def snakemake(config: Path, folder: Path, *options: str, snakefile: Path = SNAKEFILE) -> str:
    """Run a workflow; return what it said."""
    here = Path(sys.executable).parent  # where the command is
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "snakemake",
            "-s",
            str(snakefile),
            "-d",
            str(folder),
            "--configfile",
            str(config),
            "--cores",
            "2",
            *options,
        ],
        env=os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def whole(job: Path) -> bytes:
    """Return the track of one run."""
    config = yaml.safe_load(job.read_text())
    run, output = config["runs"]["peaks"], job.with_name("whole.bw")
    done = genoscan(
        "attribute",
        config["genome"],
        "--bed",
        run["regions"],
        "-m",
        run["model"],
        "--strand",
        "both",
        "--batch",
        "2",
        "-t",
        "1",
        "-o",
        output,
    )
    assert done.code == 0, done.err
    return output.read_bytes()


@pytest.mark.slow
def test_shards_make_the_track_of_one_run(job: Path, tmp_path: Path) -> None:
    snakemake(job, tmp_path / "run")
    assert (tmp_path / "run" / "results" / "peaks.bw").read_bytes() == whole(job)
    assert "igv.createBrowser" in (tmp_path / "run" / "results" / "peaks.html").read_text()
    overview = (tmp_path / "run" / "results" / "index.html").read_text()
    for link in ("peaks.html", "peaks.report.html", "variants/calls.vcf.gz", "mutations/few.tsv"):
        assert f'href="{link}"' in overview
    assert not list((tmp_path / "run" / "results" / "shards").rglob("*.bw"))
    assert not (tmp_path / "run" / "ran").exists()
    assert "Nothing to be done" in snakemake(job, tmp_path / "run")
    check_effects(job, tmp_path / "run" / "results")


@pytest.mark.slow
def test_another_model_in_the_same_folder_is_read(job: Path, tmp_path: Path) -> None:
    snakemake(job, tmp_path / "run")
    edited_model(Path(yaml.safe_load(job.read_text())["runs"]["peaks"]["model"]))
    said = snakemake(job, tmp_path / "run", "-n")
    for rule in ("attribute", "merge", "variants", "mutate"):
        assert f"rule {rule}:" in said
    snakemake(job, tmp_path / "run")
    assert (tmp_path / "run" / "results" / "peaks.bw").read_bytes() == whole(job)


def check_effects(job: Path, results: Path) -> None:
    """Check that effects of variants and substitutions are those of the commands."""
    config = yaml.safe_load(job.read_text())
    calls, few = config["variants"]["calls"], config["mutations"]["few"]
    machine = "-m", calls["model"], "-t", "1"
    one, other = job.with_name("one.tsv"), job.with_name("other.tsv")
    done = genoscan("variants", config["genome"], calls["file"], "--strand", "both", *machine, "-o", one)
    assert done.code == 0, done.err
    assert (results / "variants" / "calls.tsv").read_text() == one.read_text()
    assert (results / "variants" / "calls.vcf.gz").stat().st_size
    done = genoscan("mutate", config["genome"], "--bed", few["regions"], "--reach", 9, *machine, "-o", other)
    assert done.code == 0, done.err
    assert (results / "mutations" / "few.tsv").read_text() == other.read_text()
    assert len(np.load(results / "mutations" / "few.npz")) > 1


def test_variants_without_runs(job: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(job.read_text())
    del config["runs"], config["mutations"]
    job.write_text(yaml.safe_dump(config))
    said = snakemake(job, tmp_path / "run", "-n")
    assert "results/variants/calls.vcf.gz" in said
    assert "model/model.safetensors" in said
    assert "attribute" not in said
    del config["variants"]
    job.write_text(yaml.safe_dump(config))
    with pytest.raises(AssertionError, match="found nothing to compute, expected runs, variants or mutations"):
        snakemake(job, tmp_path / "run", "-n")


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 7])
def test_any_number_of_shards(job: Path, tmp_path: Path, shards: int) -> None:
    snakemake(job, tmp_path / "run", "--config", f"shards={shards}")
    assert (tmp_path / "run" / "results" / "peaks.bw").read_bytes() == whole(job)


@pytest.mark.slow
def test_killed_and_run_again(job: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    here = Path(sys.executable).parent
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        str(SNAKEFILE),
        "-d",
        str(folder),
        "--configfile",
        str(job),
        "--cores",
        "1",
    ]
    running = subprocess.Popen(
        command,
        env=os.environ | {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    shards = folder / "results" / "shards" / "peaks"
    while not list(shards.glob("*.bw.json")):
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not (folder / "results" / "peaks.bw").exists()
    snakemake(job, folder, "--unlock")
    again = snakemake(job, folder, "--rerun-incomplete")
    assert again.count("rule attribute:") == 1  # only of the shard that was not finished
    assert (folder / "results" / "peaks.bw").read_bytes() == whole(job)


@pytest.mark.slow
def test_a_cluster_gets_a_job_a_shard(job: Path, tmp_path: Path) -> None:
    """A scheduler that is a shell script: it notes what it is given, and runs it there and then."""
    log = tmp_path / "submitted"
    submit = tmp_path / "submit"
    submit.write_text(f'#!/bin/sh\ngrep -o \'"rule": "[a-z]*"\' "$1" >> {log}\nsh "$1" >&2\necho 1\n')
    submit.chmod(0o755)
    options = ["--executor", "cluster-generic", "--jobs", "1", "--cores", "1", "--seconds-between-status-checks", "1"]
    options += ["--cluster-generic-submit-cmd", str(submit)]
    with pytest.raises(AssertionError, match="rename it"):
        snakemake(job, tmp_path / "run", *options)
    assert not log.exists()
    # Snakemake does not quote ' itself.
    config = json.loads(json.dumps(yaml.safe_load(job.read_text())).replace("'", ""))
    job.write_text(yaml.safe_dump(config))
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("'", "")))
    snakemake(job, tmp_path / "run", *options)
    rules = [line.split('"')[3] for line in log.read_text().splitlines()]
    assert sorted(rules) == ["attribute"] * 2 + ["merge", "mutate", "overview", "page", "report", "variants"]
    assert (tmp_path / "run" / "results" / "peaks.bw").read_bytes() == whole(job)
    assert not list(tmp_path.rglob("ran"))


@pytest.mark.slow
def test_as_a_part_of_another_workflow(job: Path, tmp_path: Path) -> None:
    snakefile = tmp_path / "Snakefile"
    snakefile.write_text(
        f"module genoscan:\n    snakefile: {str(SNAKEFILE)!r}\n    config: config\n"
        '    prefix: "sensitivity"\n\nuse rule * from genoscan as genoscan_*\n'
    )
    snakemake(job, tmp_path / "run", "genoscan_all", snakefile=snakefile)
    track = tmp_path / "run" / "sensitivity" / "results" / "peaks.bw"
    assert track.read_bytes() == whole(job)


@pytest.mark.slow
def test_a_wrapper_is_a_step_of_any_workflow(job: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(job.read_text())
    run, snakefile = config["runs"]["peaks"], tmp_path / "Snakefile"
    option = f"--model {shlex.quote(run['model'])}"
    snakefile.write_text(
        "rule attribute:\n"
        f"    input: genome={config['genome']!r}, regions={run['regions']!r}\n"
        '    output: "peaks.bw", "peaks.bw.json"\n'
        '    log: "the $(touch ran).log"\n'
        "    threads: 1\n"
        f"    params: extra={f'{option} --strand both --batch 2'!r}\n"
        f"    wrapper: 'file:{SNAKEFILE.parent / 'wrapper'}'\n"
    )
    snakemake(job, tmp_path / "run", snakefile=snakefile)
    assert (tmp_path / "run" / "peaks.bw").read_bytes() == whole(job)
    assert "bases/s" in (tmp_path / "run" / "the $(touch ran).log").read_text()
    assert not (tmp_path / "run" / "ran").exists()


def test_the_workflow_that_comes_along(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert genoscan("workflow", "path").out == f"{SNAKEFILE}\n"
    folder = tmp_path / "mine"
    done = genoscan("workflow", "init", folder)
    assert (done.code, done.out) == (0, f"{folder / 'config' / 'config.yaml'}\n"), done.err
    assert (folder / "Snakefile").read_bytes() == SNAKEFILE.read_bytes()
    assert not (folder / ".snakemake").exists()
    example = yaml.safe_load((folder / "config" / "config.yaml").read_text())
    for path in (example["genome"], example["annotation"], example["runs"]["example"]["regions"]):
        assert (folder / path).is_file()
    assert "already exists" in genoscan("workflow", "init", folder).err
    assert genoscan("workflow", "run", "--version").code == 0
    assert capfd.readouterr().out.startswith("9.")
    assert genoscan("workflow", "run", "--no-such").code not in (0, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert "pip install snakemake" in genoscan("workflow", "run").err


def test_jobs_run_the_genoscan_that_runs_the_workflow(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    done = genoscan("workflow", "run", "--configfile", job, "--cores", "1", "results/plan.json")
    assert done.code == 0, done.err
    assert (tmp_path / "results" / "plan.json").exists()


def test_a_misspelt_key_is_an_error(job: Path, tmp_path: Path) -> None:
    job.write_text(job.read_text().replace("shards:", "sahrds:"))
    with pytest.raises(AssertionError, match="Error: config: top level: found the key sahrds, did you mean shards\\?"):
        snakemake(job, tmp_path / "run", "-n")


def test_missing_inputs_are_listed_at_once(job: Path, tmp_path: Path) -> None:
    """Snakemake alone ignores them if the results exist."""
    config = yaml.safe_load(job.read_text())
    config["annotation"] = "none.gff3"
    config["mutations"]["few"]["regions"] = "none.bed"
    job.write_text(yaml.safe_dump(config))
    with pytest.raises(
        AssertionError, match=r"Error: config: annotation: none\.gff3: file not found\s+Error: config: mut"
    ):
        snakemake(job, tmp_path / "run", "-n")


PROBLEM = (SNAKEFILE.parent / "rules" / "config.smk").read_text().split("\ntry:\n")[0]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"shards": "2"}, 'shards: found the text "2", expected a whole number'),
        ({"shards": 0}, "shards: found 0, expected at least 1"),
        ({"shards": None}, "shards: found nothing, expected a whole number"),
        ({"device": "gpu"}, "device: found gpu, expected auto, cpu, cuda or cuda:N"),
        ({"genome": {"fasta": "g.fa"}}, "genome: found a mapping, expected text"),
        ({"runs": {}}, "runs: found no entry, expected at least one"),
        ({"runs": {"a": "b.bed"}}, 'runs.a: found the text "b.bed", expected a mapping of keys to values'),
        ({"runs": {"a": {"region": "b"}}}, "runs.a: found the key region, did you mean regions?"),
        ({"runs": {"a": {"model": "m"}}}, "runs.a: the key regions is missing: BED"),
        (
            {"runs": {"a": {"regions": "b", "score": "max"}}},
            "runs.a.score: found max, expected one of centred, observed, magnitude, substitution",
        ),
        ({"runs": {"a": {"regions": "b", "clip": "yes"}}}, 'runs.a.clip: found the text "yes", expected true or false'),
        (
            {"runs": {"index": {"regions": "b"}}},
            "runs: found index, expected letters, digits and _ . -, neither index nor ending in .report",
        ),
        ({"runs": {2024: {"regions": "b"}}}, "runs: found 2024, expected text: write the name in quotation marks"),
        ({"variants": {1.5: {"file": "b"}}}, "variants: found 1.5, expected text: write the name in quotation marks"),
        ({"runs": {"x" * 200: {"regions": "b"}}}, f"runs: found {'x' * 200}, expected at most 100 characters"),
    ],
)
def test_errors_of_the_config_in_words(change: dict[str, Any], line: str) -> None:
    names: dict[str, Any] = {}
    exec(PROBLEM, names)
    config = {"genome": "g.fa", "runs": {"a": {"regions": "b.bed"}}} | change
    assert line in names["all_problems"](config, SCHEMA)


def test_all_errors_of_the_config_are_listed(job: Path, tmp_path: Path) -> None:
    config = {"shards": 0, "genomes": "g.fa", "thread": 2, "runs": {"a": {"score": "max", "strand": "x"}, "b": {}}}
    job.write_text(yaml.safe_dump(config))
    with pytest.raises(AssertionError) as failed:
        snakemake(job, tmp_path / "run", "-n")
    assert re.findall("^ *Error: config: (.*)$", str(failed.value), re.MULTILINE) == [
        "runs.a.score: found max, expected one of centred, observed, magnitude, substitution",
        "runs.a.strand: found x, expected one of +, -, both, separate, bed",
        "runs.a: the key regions is missing: BED",
        "runs.b: the key regions is missing: BED",
        "shards: found 0, expected at least 1",
        "top level: found the key genomes, did you mean genome?",
        "top level: found the key thread, did you mean threads?",
        "top level: the key genome is missing: FASTA (plain or bgzip) or GenBank",
    ]


# ---- the check before anything is computed


def check(job: Path, change: dict[str, Any] | None = None) -> Outcome:
    """Run genoscan workflow check on the job's configuration with other sections."""
    config = job.with_suffix(".json")
    config.write_text(json.dumps(yaml.safe_load(job.read_text()) | (change or {})))
    return genoscan("workflow", "check", config, "-o", job.with_name("plan.json"))


def test_a_run_has_at_most_as_many_shards_as_batches(job: Path) -> None:
    done = check(job, {"shards": 50})
    assert done.code == 0, done.err
    assert "regions: 8, batches: 8, shards: 8 (not 50: a shard has at least one batch)" in done.err
    assert json.loads(job.with_name("plan.json").read_text()) == {"runs": {"peaks": {"batches": 8, "shards": 8}}}
    assert (check(job).code, "(not" in check(job).err) == (0, False)
    assert json.loads(job.with_name("plan.json").read_text())["runs"]["peaks"]["shards"] == 2


def test_all_errors_are_listed_before_anything_is_computed(job: Path, tmp_path: Path) -> None:
    past, elsewhere = tmp_path / "past.bed", tmp_path / "elsewhere.bed"
    past.write_text("chr1\t3990\t4010\n")
    elsewhere.write_text("chr9\t10\t20\n")
    config = yaml.safe_load(job.read_text())
    model = config["runs"]["peaks"]["model"]
    done = check(
        job,
        {
            "annotation": str(elsewhere),
            "runs": {
                "past": {"regions": str(past), "model": model},
                "clipped": {"regions": str(past), "model": model, "clip": True},
                "unknown": {"regions": str(past), "model": "bactria"},
                "score": config["runs"]["peaks"] | {"score": "max"},
                "context": config["runs"]["peaks"] | {"context": "many"},
            },
            "variants": {"calls": {"file": str(past), "model": model}},
            "mutations": {"few": config["mutations"]["few"] | {"target": "genes:CDS+"}},
        },
    )
    assert done.code == 1
    problems = [line for line in done.err.splitlines() if line.startswith("config: ")]
    places = [
        "annotation",
        "runs.past",
        "runs.unknown",
        "runs.score",
        "runs.context",
        "variants.calls",
        "mutations.few",
    ]
    assert [line.split(": ")[1] for line in problems] == places
    assert "no feature lies within the genome: is it of another assembly?" in problems[0]
    assert problems[1].endswith(
        'is past the end of chr1, which has 4,000 bases; "chr1:3991-" means "to the end", and clip trims regions'
    )
    assert "score max: expected one of" in problems[3]
    assert done.err.splitlines()[-1] == "genoscan: error: config: 7 errors, listed above; nothing was computed"
    assert not job.with_name("plan.json").exists()


def test_a_configuration_that_is_none(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for text, problem in (
        ("{", "expected JSON"),
        ("[]", "object"),
        ('{"genome": "g.fa", "runs": {"a": {}}}', "regions"),
    ):
        config.write_text(text)
        done = genoscan("workflow", "check", config, "-o", tmp_path / "plan.json")
        assert (done.code, problem in done.err) == (1, True), done.err


@pytest.mark.parametrize("file", [*SNAKEFILE.parent.rglob("*.smk"), SNAKEFILE], ids=lambda file: file.name)
def test_every_value_in_a_shell_block_is_quoted(file: Path) -> None:
    """A rule for new rules: {...} in a command has :q.

    And {threads} is in none: it is at most --cores, and results depend on the number.
    """
    commands = re.findall(r"^    shell:\n((?:        .*\n)+)", file.read_text(), re.M)
    assert len(commands) == file.read_text().count("shell:")
    for command in commands:
        assert not re.findall(r"{[^{}]*(?<!:q)}", command)
        assert "{output" in command


SCHEMA = yaml.safe_load((SNAKEFILE.parent / "schemas" / "config.schema.yaml").read_text())
EXECUTED = ["$(touch ran)", "`touch ran`", "2; touch ran", "a\nb", "", {"a": 1}, [1], True, None, 0.5, -1]


@pytest.mark.parametrize("value", EXECUTED, ids=repr)
def test_a_config_of_other_types_is_refused(value: object) -> None:
    """Numbers and choices have no other values; text has no line breaks."""
    config: dict[str, Any] = {"genome": "g.fa", "runs": {"a": {"regions": "b.bed"}}}
    jsonschema.validate(config, SCHEMA)
    for key in ("shards", "threads", "device"):
        assert_refused(config | {key: value})
    for key in ("score", "strand", "context", "reach", "batch"):
        assert_refused(config | {"runs": {"a": {"regions": "b.bed", key: value}}})
    if not isinstance(value, str) or value in ("", "a\nb"):
        for key in ("genome", "annotation"):
            assert_refused(config | {key: value})
        for key in ("regions", "model", "target"):
            assert_refused(config | {"runs": {"a": {"regions": "b.bed", key: value}}})
    for section, required in (("variants", "file"), ("mutations", "regions")):
        jsonschema.validate(config | {section: {"a": {required: "b"}}}, SCHEMA)
        for key in ("strand", "context", "reach", "background", "screen"):
            assert_refused(config | {section: {"a": {required: "b", key: value}}})
        if not isinstance(value, str) or value in ("", "a\nb"):
            for key in (required, "model", "target"):
                assert_refused(config | {section: {"a": {required: "b", key: value}}})
        if isinstance(value, str):
            assert_refused(config | {section: {value: {required: "b"}}})
    if isinstance(value, str):
        assert_refused(config | {"runs": {value: {"regions": "b.bed"}}})


@pytest.mark.parametrize("name", ["..", ".", "-n", "a/b", "a\n", "a b", "a.report", "index", "{run}", "x" * 200, "é"])
def test_runs_have_plain_names(name: str) -> None:
    assert_refused({"genome": "g.fa", "runs": {name: {"regions": "b.bed"}}})


@pytest.mark.parametrize("path", ["a{run}.fa", "a\tb.fa", "a\x00", "a\x7f"])
def test_paths_have_no_wildcards_and_control_characters(path: str) -> None:
    assert_refused({"genome": path, "runs": {"a": {"regions": "b.bed"}}})
    assert_refused({"genome": "g.fa", "runs": {"a": {"regions": path}}})


def assert_refused(config: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, SCHEMA)


def test_lint_and_format(job: Path, tmp_path: Path) -> None:
    assert "good condition" in snakemake(job, tmp_path / "run", "--lint")
    subprocess.run(
        [sys.executable, "-m", "snakefmt", "--check", str(SNAKEFILE.parent)], check=True, capture_output=True
    )


JOB = """
import os, pathlib, time
try:
    pathlib.Path("starting").write_text(str(os.getpid()))
    pathlib.Path("starting").rename("started")
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path("job ended").touch()
"""
SNAKEMAKE = f"""
import pathlib, subprocess, sys, time
job = subprocess.Popen([sys.executable, "-c", {JOB!r}])
try:
    job.wait()
except KeyboardInterrupt:
    job.wait()  # a second SIGINT here would leave the folder locked
    time.sleep(2.5)
    pathlib.Path("unlocked").touch()
"""


def start(folder: Path, interrupts: signal.Handlers) -> "subprocess.Popen[str]":
    """Start the workflow, in a folder, as the leader of a process group; wait until its job runs."""
    package = folder / "snakemake"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(SNAKEMAKE)
    process = subprocess.Popen(
        [sys.executable, "-m", "genoscan", "workflow", "run"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"},
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupts),
    )
    while not (folder / "started").exists():
        time.sleep(0.02)
        assert process.poll() is None
    return process


@pytest.mark.parametrize(
    ("number", "code", "ended"),
    [
        (signal.SIGINT, 130, "interrupted"),
        pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, "terminated", marks=pytest.mark.slow),
    ],
)
def test_snakemake_ends_by_itself(number: int, code: int, ended: str, tmp_path: Path) -> None:
    """It removes its lock, and ends its jobs, before the command ends."""
    # Shells start background jobs with SIGINT ignored.
    process = start(tmp_path, signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN)
    os.killpg(process.pid, number)  # to the group, as a terminal does
    err = process.communicate(timeout=30)[1]
    assert process.returncode == code
    assert err == f"genoscan: {ended}: finished files are kept; the same command continues the run\n"
    assert (tmp_path / "job ended").exists()
    assert (tmp_path / "unlocked").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_z_suspends_the_jobs(tmp_path: Path) -> None:
    process = start(tmp_path, signal.SIG_DFL)
    job = int((tmp_path / "started").read_text())

    def wait_for(states: str) -> None:
        while {Path(f"/proc/{one}/stat").read_text().rpartition(") ")[2][0] for one in (process.pid, job)} - set(
            states
        ):
            time.sleep(0.02)

    os.killpg(process.pid, signal.SIGTSTP)
    wait_for("T")
    os.killpg(process.pid, signal.SIGCONT)
    wait_for("RS")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert (tmp_path / "unlocked").exists()
