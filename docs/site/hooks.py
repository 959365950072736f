"""Files and navigation of the site, for MkDocs.

Files are registered under their paths in the repository, so that relative links in README.md, docs/ and
benchmarks/ work on the site as they do in a checkout. README.md is the home page; addresses do not contain `docs/`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from command_pages import command_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from notebook_pages import PLOTLY, notebook_page
from plotly.offline import get_plotlyjs

from genoscan.cli import cli

_ROOT = Path(__file__).parents[2]
_PATTERNS = (
    "*.md",
    "LICENSE",
    "benchmarks/README.md",
    "benchmarks/results/**/*",
    "data/README.md",
    "docs/*.md",
    "docs/*.png",
    "docs/*.svg",
    "docs/api/*.md",
    "docs/site/style.css",
    "genoscan/ops/README.md",
    "models/**/README.md",
    "packaging/README.md",
    "workflows/README.md",
    "workflows/*/*.md",
    "workflows/*/*.yaml",
)
_NOTEBOOKS = "docs/notebooks"
_NOTEBOOK_LINK = re.compile(r"\]\(([^):]+)\.ipynb\)(?!\{)")  # without attributes, as that of the download has


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add generated pages, notebooks, and pages of docs/ without an entry, to the navigation."""
    named = set(_paths(config.nav))
    pages = (path.relative_to(_ROOT).as_posix() for path in sorted(_ROOT.glob("docs/*.md")))
    generated = {
        "Commands": [{name: path} for name, path, _ in command_pages(cli)],
        "Notebooks": [path.relative_to(_ROOT).with_suffix(".md").as_posix() for path in _notebooks()],
        "How to": [page for page in pages if page not in named],
    }
    _fill(config.nav, generated)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of docs_dir by those of the repository."""
    found = [file for file in files if file.generated_by is not None or file.src_dir != config.docs_dir]
    for pattern in _PATTERNS:
        for path in sorted(_ROOT.glob(pattern)):
            if path.is_file() and path.suffix != ".html":
                found.append(
                    _renamed(File.generated(config, path.relative_to(_ROOT).as_posix(), abs_src_path=str(path)))
                )
    for _, src_uri, text in command_pages(cli):
        found.append(_renamed(File.generated(config, src_uri, content=text)))
    if _notebooks():
        found.append(_renamed(File.generated(config, PLOTLY, content=get_plotlyjs())))
    for path in _notebooks():
        src_uri = path.relative_to(_ROOT).as_posix()
        found.append(_renamed(File.generated(config, src_uri, abs_src_path=str(path))))
        page = src_uri.removesuffix(".ipynb") + ".md"
        found.append(_renamed(File.generated(config, page, content=notebook_page(path))))
    if len({file.dest_uri for file in found}) < len(found):
        raise PluginError("two files have one address on the site")
    return Files(found)


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Leave the empty list of pages out of the home page; let links to notebooks lead to their pages."""
    if page.file.src_uri == "README.md":
        page.meta["hide"] = ["navigation"]
    return _NOTEBOOK_LINK.sub(r"](\1.md)", markdown)


def _renamed(file: File) -> File:
    """Choose the address of a file: that of docs/x.md is x/, that of models/README.md is repository/models/."""
    if file.src_uri != "README.md":
        file.dest_uri = f"repository/{file.dest_uri}".removeprefix("repository/docs/")
    return file


def _notebooks() -> list[Path]:
    return sorted((_ROOT / _NOTEBOOKS).glob("*.ipynb"))


def _paths(nav: Any) -> Iterator[str]:
    """Yield the paths of all entries."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _paths(part)


def _fill(nav: list[Any], generated: dict[str, list[Any]]) -> None:
    """Append generated entries to the sections of their names, and drop sections that stay empty."""
    for entry in list(nav):
        for title, content in entry.items() if isinstance(entry, dict) else ():
            if isinstance(content, list):
                content += generated.get(title, [])
                _fill(content, generated)
                if not content:
                    nav.remove(entry)
