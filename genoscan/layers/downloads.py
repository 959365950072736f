"""Detection of incomplete downloads: Git LFS pointers, web pages and error messages instead of data."""

from pathlib import Path

from genoscan.errors import ModelError

_START = 512
_POINTER = b"version https://git-lfs"


def check_downloaded(file: Path, content: str = "weights") -> None:
    """Check that a model file does not contain a Git LFS pointer, a web page or an error message instead of data.

    Parameters
    ----------
    file
        File of a model. If it does not exist or cannot be read, no error is raised.
    content
        Expected content of the file, which is named in the error message: "weights", or another noun such
        as "JSON".

    Raises
    ------
    ModelError
        If the file is a Git LFS pointer, HTML or XML, or if it is JSON although weights are expected.
    """
    try:
        if not file.is_file():
            return
        with file.open("rb") as opened:
            start = opened.read(_START)
    except OSError:
        return
    if b"\0" in start:  # binary: the size of a safetensors header can begin with "{"
        return
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    again = "download the file itself again"
    found = None
    if text.startswith(_POINTER):
        found = f"is a Git LFS pointer, not {content}: git lfs pull"
    elif text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")) or b"<html" in text:
        found = f"is an HTML page, not {content}: {again}"
    elif text.startswith(b"<?xml"):
        found = f"is XML, perhaps a server's error message, not {content}: {again}"
    elif content == "weights" and text.startswith((b"{", b"[")):
        found = f"is JSON, perhaps a server's error message, not {content}: {again}"
    if found is not None:
        raise ModelError(f"{file}: {found}")
