"""Download of checkpoints from the Hugging Face Hub."""

import re
from pathlib import Path

from genoscan.errors import ModelError

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = [
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model-*.bin",
    "pytorch_model.bin.index.json",
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
]


def locate_checkpoint(source: str) -> Path:
    """Return the path of a checkpoint, after downloading it if a Hugging Face id is given.

    Parameters
    ----------
    source
        Folder, file or Hugging Face id (OWNER/NAME) of the checkpoint.

    Returns
    -------
    Path
        Folder or file of the checkpoint.

    Raises
    ------
    ModelError
        If there is no such file or folder, and the checkpoint cannot be downloaded.
    """
    path = Path(source)
    if path.exists():
        return path
    if not _ID.fullmatch(source):
        raise ModelError(f"{source}: file or folder not found; on the Hugging Face hub, names are OWNER/NAME")
    by_hand = (
        f"download config.json and model.safetensors (or pytorch_model.bin) from "
        f"https://huggingface.co/{source} into a folder, and give its path"
    )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelError(
            f"{source}: folder not found; to download it, pip install huggingface_hub, or {by_hand}"
        ) from None
    try:
        return Path(snapshot_download(source, allow_patterns=_FILES))
    except Exception as error:  # the client's exceptions have no common base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{source}: download from the hub failed ({reason}); {by_hand}") from None
