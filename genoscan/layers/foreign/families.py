"""Which family a foreign checkpoint is of, and what it is here."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from genoscan.errors import ModelError
from genoscan.layers.config import ModelConfig
from genoscan.layers.foreign import caduceus, language_models
from genoscan.layers.foreign.source import CONFIG, Source, shown


def read_foreign(
    path: Path, tokens: Mapping[str, int] | None = None, *, name: str | None = None
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read a checkpoint of a known family: its config here, and its tensors under our names.

    `tokens` says which token a base is, where the checkpoint does not; `name` is the checkpoint's,
    if not its folder's.

    Raises
    ------
    ModelError
        If it is of none, is damaged, or is not what its config says.
    """
    source = Source(path, name or path.resolve().name)
    _refuse_others(source)
    kind, place = source.config.get("model_type"), source.folder / CONFIG
    if kind == "caduceus":
        if tokens is not None:
            raise ModelError(f"{place}: --tokens is for models that do not know their own")
        return caduceus.read(source)
    settings = set(source.config)
    # state-spaces has no model_type.
    of_mamba = bool(settings & {"d_model", "n_layer", "ssm_cfg"})
    state_spaces = kind is None and of_mamba and not settings & {"rcps", "bidirectional"}
    if kind in ("mamba", "mamba2") or state_spaces:
        return language_models.read(source, tokens)
    found = "missing" if kind is None else shown(kind)
    raise ModelError(
        f"{place}: model_type is {found}: expected caduceus, mamba, mamba2, or none with d_model "
        "and n_layer (state-spaces); no other family is read"
    )


def _refuse_others(source: Source) -> None:
    """Refuse what looks like a family that is known, and has more in it."""
    if source.config.get("quantization_config"):
        raise ModelError(
            f"{source.folder / CONFIG}: quantization_config: quantized weights are not read; save "
            "the model in float32 or bfloat16"
        )
    ssm = source.config.get("ssm_cfg")
    layer = ssm.get("layer", "Mamba1") if isinstance(ssm, dict) else "Mamba1"
    if layer not in ("Mamba1", "Mamba2"):
        raise ModelError(
            f"{source.folder / CONFIG}: ssm_cfg.layer is {shown(layer)}, which is not supported"
        )
    attention = [name for name in source.names if ".mixer.Wqkv" in name or ".mlp.fc1" in name]
    if source.config.get("attn_layer_idx") or attention:
        found = min(attention, default="attn_layer_idx")
        raise ModelError(
            f"{source.path}: {found}: a hybrid with attention or an MLP, which is not supported"
        )
