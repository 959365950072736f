"""The documentation site is complete: pages, commands, options, names, and the keys of files."""

import importlib
import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import click
import nbformat
import numpy as np
import pytest
from commands import ROOT, bases, genoscan, tiny_model, write_fasta
from test_docs import COMMANDS, find

import genoscan as package
from genoscan.effects.variant_output import COLUMNS, STATUS_TAG
from genoscan.layers.bidirectional import BidirectionalConfig
from genoscan.layers.config import ModelConfig
from genoscan.layers.mamba import MambaConfig
from genoscan.layers.mamba2 import Mamba2Config
from genoscan.layers.pd_ssm import PdSsmConfig
from genoscan.tracks.record_schema import RegionRecord, SequenceRecord, TrackRecord


def documented(page: str, heading: str) -> set[str]:
    """Return the words set as code in a section of a page of docs/."""
    _, _, text = (ROOT / "docs" / page).read_text().partition(f"\n## {heading}\n")
    codes = re.findall(r"`([^`\n]+)`", text.partition("\n## ")[0])
    assert codes, f"no section {heading} in {page}"
    return {word for code in codes for word in re.findall(r"\w+", code)}


def test_the_site_builds_and_has_every_command_option_and_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}  # an advertisement of the theme
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = {page.relative_to(tmp_path / "site").as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    for names in COMMANDS:
        if names[0] == "genoscan":
            page = pages["/".join(["commands", *names[1:2], "index.html"])]
            assert f">{' '.join(names)}<" in page or len(names) == 1
            for parameter in find(names).params:
                if isinstance(parameter, click.Option) and not parameter.hidden:
                    long = max(parameter.opts, key=len)
                    assert f'id="{"-".join(names[1:])}{long}"' in page, (names, long)
    api = "".join(text for name, text in pages.items() if name.startswith("api/"))
    assert [name for name in package.__all__ if f'id="genoscan.{name}"' not in api] == []
    assert 'href="../notebooks/genes/"' in pages["python/index.html"]
    # Addresses in raw HTML, which MkDocs does not check.
    for name, text in pages.items():
        for address in re.findall(r'(?:src|href)="([^"#?]+)', text):
            if not re.match(r"[a-z]+:|//", address) and name != "404.html":
                target = (tmp_path / "site" / name).parent / unescape(address)
                assert target.exists(), (name, address)


def test_a_notebook_becomes_a_page_with_its_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs/site")
    notebook_page = importlib.import_module("notebook_pages").notebook_page
    cells = [nbformat.v4.new_markdown_cell("# A title\n\nText."), nbformat.v4.new_code_cell("found.plot()")]
    table = {"text/html": "<table>\n\n<tr><td>1</td></tr></table>", "text/plain": "1"}
    figure = {"application/vnd.plotly.v1+json": {"data": [{"type": "bar", "y": [1, 2]}], "layout": {}}}
    picture = {"image/png": "iVBORw0K\n", **figure}
    cells[1].outputs = [
        nbformat.v4.new_output("stream", text="\x1b[31mred\x1b[0m\n"),
        *(nbformat.v4.new_output("display_data", data) for data in (table, figure, picture)),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "x.ipynb")
    page = notebook_page(tmp_path / "x.ipynb")
    parts = "# A title", "](x.ipynb)", "Text.", "```python\nfound.plot()\n```", "```text\nred\n```", "<td>1</td>"
    parts += "site/plotly.min.js", '"bar"', "data:image/png;base64,iVBORw0K"
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every command that writes a record or an archive."""
    folder = tmp_path_factory.mktemp("keys")
    write_fasta(folder / "g.fa", {"chr1": bases(400, 1)})
    tiny_model(folder / "tiny")
    part = [folder / "g.fa", "-m", folder / "tiny", "-r", "chr1:201-220"]
    base = bases(400, 1)[249]
    change = *part[:3], "--variant", f"chr1:250:{base}>{'A' if base != 'A' else 'C'}"
    for command, *arguments in (
        ["attribute", *part, "-o", folder / "a.npz", "-o", folder / "a.bw"],
        ["attribute", *part, "--method", "integrated-gradients", "--steps", 2, "-o", folder / "ig.bw"],
        ["predict", *part, "-o", folder / "p.npz", "-o", folder / "p.bw"],
        ["response", *part[:3], "--at", "chr1:250", "-o", folder / "r.bw"],
        ["mutate", *part, "--screen", 5, "-o", folder / "m.npz", "-o", folder / "m.bw"],
        ["dependency", *part, "-o", folder / "d.npz", "-o", folder / "d.bw"],
        ["dependency", *part, "--band", 5, "-o", folder / "b.npz"],
        ["variants", *change, "-o", folder / "v.tsv", "--tracks", folder / "tracks"],
    ):
        done = genoscan(command, *arguments)
        assert done.code == 0, done.err
    return folder


def test_every_key_of_a_record_is_documented(folder: Path) -> None:
    written = {
        key for path in folder.rglob("*.json") if path.name != "config.json" for key in json.loads(path.read_text())
    }
    read = {key for schema in (TrackRecord, RegionRecord, SequenceRecord) for key in schema.model_fields}
    assert written >= {"model_sha256", "completeness", "variant", "dependency", "response", "predicted", "track_sha256"}
    assert sorted((written | read) - documented("files.md", "OUT.json: the record of a track")) == []


def test_every_array_of_an_archive_is_documented(folder: Path) -> None:
    arrays = {name for path in folder.glob("*.npz") for name in np.load(path).files}
    own = documented("files.md", "OUT.npz: four derivatives, or predictions, per base")
    assert sorted(arrays - own - documented("dependency.md", "Files") - documented("mutagenesis.md", "Files")) == []


def test_every_setting_of_a_model_and_tag_of_a_variant_is_documented() -> None:
    assert sorted(set(ModelConfig.model_fields) - documented("files.md", "Model folders")) == []
    names = {name for column in COLUMNS for name in (column.name, column.tag)} | {STATUS_TAG}
    assert sorted(names - documented("variants.md", "Columns and INFO tags")) == []


def test_every_setting_of_a_block_is_documented() -> None:
    """With its default, as JSON."""
    _, _, table = (ROOT / "docs" / "files.md").read_text().partition("\n| block | key | default | meaning |\n")
    found, kind = set(), ""
    for line in table.partition("\n\n")[0].splitlines()[1:]:
        block, keys, default, _ = (cell.strip().strip("`") for cell in line.strip("|").split("|"))
        kind = block or kind
        keys = keys.split("`, `")
        defaults = default.split(", ") if len(keys) > 1 else [default]
        found |= {(kind, key, value) for key, value in zip(keys, defaults, strict=True)}
    expected = set()
    for config in (MambaConfig, Mamba2Config, PdSsmConfig, BidirectionalConfig):
        fields = dict(config.model_fields)
        kind = fields.pop("kind").default
        for name, field in fields.items():
            value = "required" if field.is_required() else json.dumps(field.default).strip('"[]')
            expected.add((kind, name, value))
    assert found == expected
