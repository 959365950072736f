"""Which family a foreign checkpoint is of, and what it is here."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.foreign import caduceus
from genoscan.layers.foreign.source import CONFIG, Source
from genoscan.layers.weights import ModelConfig

_Read = Callable[[Source], tuple[ModelConfig, dict[str, Tensor]]]
_FAMILIES: dict[str, _Read] = {"caduceus": caduceus.read}


def read_foreign(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read a checkpoint of a known family: its config here, and its tensors under our names.

    Raises
    ------
    ModelError
        If it is of none, is damaged, or is not what its config says.
    """
    source = Source(path)
    _refuse_others(source)
    kind = source.config.get("model_type")
    if kind not in _FAMILIES:
        raise ModelError(
            f'{source.folder / CONFIG}: model_type is "{kind}": expected '
            f"{' or '.join(_FAMILIES)}; no other family is read"
        )
    return _FAMILIES[kind](source)


def _refuse_others(source: Source) -> None:
    """Refuse what looks like a family that is known, and has more in it."""
    layer = str((source.config.get("ssm_cfg") or {}).get("layer", "Mamba1"))
    if layer not in ("Mamba1", "Mamba2"):
        raise ModelError(
            f"{source.folder / CONFIG}: ssm_cfg.layer is {layer}, which is not supported"
        )
    attention = [name for name in source.names if ".mixer.Wqkv" in name or ".mlp.fc1" in name]
    if source.config.get("attn_layer_idx") or attention:
        found = min(attention, default="attn_layer_idx")
        raise ModelError(
            f"{source.path}: {found}: a hybrid with attention or an MLP, which is not supported"
        )
