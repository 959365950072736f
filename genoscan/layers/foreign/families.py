"""Detection of the model family of a checkpoint from another project, and conversion of the checkpoint."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from genoscan.errors import ModelError
from genoscan.json_input import first_problem
from genoscan.layers.config import ModelConfig
from genoscan.layers.foreign import caduceus, language_models, orthrus
from genoscan.layers.foreign.source import CONFIG, Source, format_value
from genoscan.layers.heads import Pooling


def read_foreign(
    path: Path, tokens: Mapping[str, int] | None = None, *, name: str | None = None, pooling: Pooling | None = None
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Read a checkpoint of a supported family and convert it to this package's format.

    Parameters
    ----------
    path
        Folder of the checkpoint, or file that contains its weights.
    tokens
        Token ids of the bases, for checkpoints without a vocabulary.
    name
        Name of the checkpoint. If None, the name of `path` is used.
    pooling
        Pooling of the classification head, which is not stated in checkpoints. If None, the default for the
        name of the head is used.

    Returns
    -------
    config
        Configuration of the model.
    tensors
        Weights by name. A weight is float64 if it is stored as float64; otherwise, it is float32.

    Raises
    ------
    ModelError
        If the model family is not supported, or if the checkpoint is damaged or does not match its
        configuration.
    """
    source = Source(path, name or path.resolve().name)
    _check_supported(source)
    try:
        return _read(source, tokens, pooling)
    except ValidationError as error:  # settings that are valid for the family but not here
        raise ModelError(f"{source.folder / CONFIG}: {first_problem(error)}") from None


def _read(
    source: Source, tokens: Mapping[str, int] | None, pooling: Pooling | None
) -> tuple[ModelConfig, dict[str, Tensor]]:
    kind, place = source.config.get("model_type"), source.folder / CONFIG
    if kind in ("caduceus", "orthrus"):
        if tokens is not None:
            raise ModelError(f"{place}: --tokens is only for models without a vocabulary")
        return (caduceus if kind == "caduceus" else orthrus).read(source, pooling)
    settings = set(source.config)
    # Configurations of state-spaces have no model_type.
    of_mamba = bool(settings & {"d_model", "n_layer", "ssm_cfg"})
    state_spaces = kind is None and of_mamba and not settings & {"rcps", "bidirectional"}
    if kind in ("mamba", "mamba2") or state_spaces:
        return language_models.read(source, tokens, pooling)
    found = "missing" if kind is None else format_value(kind)
    raise ModelError(
        f"{place}: model_type is {found}: expected caduceus, mamba, mamba2, orthrus, or none with d_model "
        "and n_layer (state-spaces); other families are not supported"
    )


def _check_supported(source: Source) -> None:
    """Raise `ModelError` if a checkpoint has features that are not supported in any model family.

    These features are quantized weights, mixers other than Mamba and Mamba-2, attention, and MLPs.
    """
    if source.config.get("quantization_config"):
        raise ModelError(
            f"{source.folder / CONFIG}: quantization_config: quantized weights are not supported; "
            "save the model in float32 or bfloat16"
        )
    ssm = source.config.get("ssm_cfg")
    layer = ssm.get("layer", "Mamba1") if isinstance(ssm, dict) else "Mamba1"
    if layer not in ("Mamba1", "Mamba2"):
        raise ModelError(f"{source.folder / CONFIG}: ssm_cfg.layer is {format_value(layer)}: expected Mamba1 or Mamba2")
    attention = [name for name in source.names if ".mixer.Wqkv" in name or ".mlp.fc1" in name]
    if source.config.get("attn_layer_idx") or attention:
        found = min(attention, default="attn_layer_idx")
        raise ModelError(f"{source.path}: {found}: hybrid with attention or an MLP, which is not supported")
