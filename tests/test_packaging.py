"""The files that packages are made from agree with pyproject.toml and with one another."""

import re
import tomllib
from typing import Any

import jinja2
import yaml
from commands import ROOT

import genoscan

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}


def recipe() -> dict[str, Any]:
    """Return the bioconda recipe as conda-build reads it."""
    template = jinja2.Template((ROOT / "packaging/bioconda/meta.yaml").read_text(), undefined=jinja2.StrictUndefined)
    text = template.render(PYTHON="python", pin_subpackage=lambda name, max_pin: f"{name} {max_pin}")
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def conda_requirement(requirement: str) -> str:
    """Return a requirement of pyproject.toml as conda writes it: torch>=2.11 as pytorch >=2.11."""
    name, version = re.fullmatch(r"([\w.-]+)(\W.*)", requirement).groups()
    return f"{CONDA_NAMES.get(name, name)} {version}"


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    label = re.search(r"^    Version (.*)$", (ROOT / "packaging/genoscan.def").read_text(), re.M)
    found = {
        "pyproject.toml": PROJECT["version"],
        "CITATION.cff": citation["version"],
        "bioconda/meta.yaml": str(recipe()["package"]["version"]),
        "genoscan.def": label and label[1],
    }
    assert found == dict.fromkeys(found, genoscan.__version__)


def test_the_recipe_requires_what_the_package_requires() -> None:
    requirements = recipe()["requirements"]
    python = f"python {PROJECT['requires-python']}"
    assert set(requirements["run"]) == {python, *map(conda_requirement, PROJECT["dependencies"])}
    assert python in requirements["host"]
    assert recipe()["build"]["entry_points"] == [f"{name} = {to}" for name, to in PROJECT["scripts"].items()]


def test_citation_and_recipe_describe_the_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["abstract"].strip() == recipe()["about"]["summary"] == f"{PROJECT['description']}."
    assert citation["license"] == recipe()["about"]["license"] == PROJECT["license"]
    assert citation["keywords"] == PROJECT["keywords"]


def test_images_copy_what_the_wheel_is_built_from() -> None:
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", PROJECT["readme"], "LICENSE", "constraints.txt", *hatch["packages"]}
    needed |= {path.split("/")[0] for path in hatch["force-include"]} | {"packaging/smoke_test.sh"}
    docker = (ROOT / "packaging/Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", docker, re.M) for name in line.split()}
    files = re.search(r"^%files\n((?:    .*\n)+)", (ROOT / "packaging/genoscan.def").read_text(), re.M)
    assert files is not None
    assert copied == {line.split()[0] for line in files[1].splitlines()} == needed
    ignored = (ROOT / "packaging/Dockerfile.dockerignore").read_text()
    assert set(re.findall(r"^!(.*)$", ignored, re.M)) == needed
    # What a run of the workflow in the checkout leaves is not packed; everything else is.
    left = {".snakemake", "benchmarks", "logs", "results"}
    packed = {path.removeprefix("workflows/") for path in hatch["force-include"] if path.startswith("workflows/")}
    assert {path.name for path in (ROOT / "workflows").iterdir()} - left == packed
    assert all(f"workflows/{name}\n" in ignored for name in left)


def test_ci_on_github_runs_ours() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    steps = [step.get("run") for job in jobs.values() for step in job["steps"]]
    assert ".ci/run" in steps
    for command in steps:
        assert command is None or command.startswith("pip ") or (ROOT / command.split()[0]).is_file()
