"""Checkpoints of the Hugging Face hub, by their id."""

import re
from pathlib import Path

from genoscan.errors import ModelError

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = [
    "config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model.bin",
    "pytorch_model-*.bin", "pytorch_model.bin.index.json", "tokenizer.json", "vocab.json",
]  # fmt: skip


def fetched(source: str) -> Path:
    """Return the folder or file of that name, or the hub's files of that id, downloaded.

    Raises
    ------
    ModelError
        If there is no such file, and nothing of that id can be had.
    """
    path = Path(source)
    if path.exists():
        return path
    if not _ID.fullmatch(source):
        raise ModelError(f"{source}: there is no such file or folder")
    by_hand = (
        f"download config.json and model.safetensors (or pytorch_model.bin) from "
        f"https://huggingface.co/{source} into a folder, and name that"
    )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelError(
            f'{source}: no such folder; for the hub, pip install "genoscan[hub]", or {by_hand}'
        ) from None
    try:
        return Path(snapshot_download(source, allow_patterns=_FILES))
    except Exception as error:  # the hub's client has many, and no common one
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{source}: cannot be had from the hub ({said}); {by_hand}") from None
