"""Import of checkpoints from other projects, and conversion of torch modules to models."""

import json
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save_file

from genoscan.errors import InputError, ModelError
from genoscan.layers.catalogue import named_models, user_model_directory
from genoscan.layers.config import CONFIG, ModelConfig
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.foreign.hub import locate_checkpoint
from genoscan.layers.foreign.tokens import parse_tokens
from genoscan.layers.heads import Pooling
from genoscan.layers.weights import write_model
from genoscan.model import Model
from genoscan.model import load_model as load_native
from genoscan.temporary import scratch_folder
from genoscan.tracks.atomic import atomic_directory, os_errors

_NAME = re.compile(r"[^.\-/\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")
_MAX_NAME = 100
"""Maximum length, in bytes, of the name of a model, which is also the name of the model's folder."""

_TOLERANCE = 1e-4
"""Maximum relative L2 difference between the logits of a torch module and those of the converted model."""


def import_model(
    source: str | Path, *, name: str | None = None, tokens: str | None = None, pooling: Pooling | None = None
) -> Path:
    """Convert a checkpoint from another project and store it as a named model.

    Parameters
    ----------
    source
        Folder, file or Hugging Face id of a checkpoint. The checkpoint contains a language model
        (Caduceus, Mamba or Mamba-2), or a model that was fine-tuned from a language model and has a
        classification or segmentation head.
    name
        Name under which to store the model. If None, the name of the source is used.
    tokens
        Token id of each base, such as "A=7,C=8,G=9,T=10,N=11". Token ids are needed only for
        checkpoints without a vocabulary.
    pooling
        Reduction over positions in the classification head: "mean", "max", "first" or "last". Checkpoints
        do not state the reduction. If None, the default of the project that defines the head is used.

    Returns
    -------
    Path
        Folder of the stored model.

    Raises
    ------
    InputError
        If the name is invalid or already in use, or `pooling` has an invalid value.
    ModelError
        If the checkpoint is not found, is damaged, or is of a model family that is not supported.
    """
    source_name = Path(source).resolve().name
    name = name or source_name
    if not _NAME.fullmatch(name) or len(os.fsencode(name)) > _MAX_NAME:
        raise InputError(
            f"--name {name!r}: expected at most {_MAX_NAME} bytes without / \\ and control characters, "
            "not starting with . or -"
        )
    if name in named_models():
        raise InputError(f"--name {name}: {named_models()[name]} exists: give another name")
    folder = user_model_directory() / name
    if folder.exists():
        raise InputError(f"--name {name}: {folder} exists: give another name")
    config, weights = _read(source, source_name, tokens, pooling)
    with os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    shown = source_name if Path(source).is_absolute() else source
    with os_errors(folder), atomic_directory(folder) as partial:
        write_model(partial, config, weights, f"# {name}\n\nImported from `{shown}`.\n")
        load_native(partial)
    return folder


def _read(
    source: str | Path, name: str, tokens: str | None, pooling: Pooling | None
) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    if pooling not in (None, *get_args(Pooling)):
        raise InputError(f"--pooling {pooling}: expected {', '.join(get_args(Pooling))}")
    given = None if tokens is None else parse_tokens(tokens)
    return read_foreign(locate_checkpoint(str(source)), given, name=name, pooling=pooling)


def load_model(
    model: str | Path, *, tokens: str | None = None, pooling: Pooling | None = None, **options: Any
) -> Model:
    """Load a model from a name, a folder, a checkpoint from another project or a Hugging Face id.

    Parameters
    ----------
    model
        Name listed by `genoscan models list`, path of a model folder, or any source that `import_model`
        accepts. A checkpoint from another project is converted on each call, and the converted model is
        not stored.
    tokens, pooling
        As in `import_model`.
    **options
        Keyword arguments of `genoscan.model.load_model`: device, dtype, kernels, tile, slots, memory and
        spill.

    Returns
    -------
    Model
        The loaded model.

    Raises
    ------
    ModelError
        If the model does not exist, is damaged, or is of a model family that is not supported.
    InputError
        If an option is invalid.
    """
    path = Path(model)
    if str(model) in named_models() or ((path / CONFIG).is_file() and _is_native(path)):
        for option, given in (("tokens", tokens), ("pooling", pooling)):
            if given is not None:
                raise InputError(f"{option}: {model} is a model folder of genoscan, which states them itself")
        return load_native(model, **options)
    if not path.exists() and "/" not in str(model):
        return load_native(model, **options)  # raises ModelError with the known names
    with scratch_folder(Path(tempfile.gettempdir())) as folder:
        native = folder / path.resolve().name
        config, weights = _read(model, native.name, tokens, pooling)
        write_model(native, config, weights, "")
        return replace(load_native(native, **options), path=path)


def as_model(model: Model | str | Path) -> Model:
    """Return a model, which is loaded if it is given as a name or a path.

    Parameters
    ----------
    model
        Loaded model, or a name or path accepted by `load_model`.

    Returns
    -------
    Model
        The model.

    Raises
    ------
    InputError
        If `model` is neither.
    ModelError
        If the model cannot be loaded.
    """
    if isinstance(model, Model):
        return model
    if not isinstance(model, str | Path):
        raise InputError(
            f"model is {type(model).__name__}: expected a Model, a name or a folder; "
            "use genoscan.wrap for torch modules"
        )
    return load_model(model)


def _is_native(folder: Path) -> bool:
    return b'"layers"' in (folder / CONFIG).read_bytes()


def wrap(module: torch.nn.Module, *, tokens: str | None = None, **options: Any) -> Model:
    """Convert a torch module that consists of Mamba blocks, and check the result on a random sequence.

    Parameters
    ----------
    module
        Language model from mambapy (`mambapy.lm.LM` with Mamba blocks), transformers (Mamba or
        Mamba-2), state-spaces (`MambaLMHeadModel`) or Caduceus. A module that is not from mambapy must
        have a `save_pretrained` method.
    tokens
        As in `import_model`.
    **options
        As in `load_model`.

    Returns
    -------
    Model
        Converted model, which has a copy of the module's weights.

    Raises
    ------
    InputError
        If the class of the module is not supported.
    ModelError
        If the model family is not supported, if the module has task heads instead of a language model, or
        if the logits of the converted model differ from those of the module.
    """
    with scratch_folder(Path(tempfile.gettempdir())) as folder:
        saved = folder / type(module).__name__
        if hasattr(module, "save_pretrained"):
            module.save_pretrained(saved)  # type: ignore[operator]
        elif type(module).__module__.startswith("mambapy."):
            _save_mambapy(module, saved)
        else:
            raise InputError(
                f"{type(module).__name__}: expected a language model of mambapy, or one with "
                "save_pretrained: of transformers, state-spaces or Caduceus"
            )
        model = load_model(saved, tokens=tokens, **options)
    _check_logits(module, model)
    return model


def _save_mambapy(module: torch.nn.Module, folder: Path) -> None:
    """Save a `mambapy.lm.LM` as a checkpoint, with the tensor names and settings of Mamba in transformers."""
    own: Any = module.config
    weights = {
        name.replace("embedding.", "backbone.embeddings.")
        .replace("mamba.layers.", "backbone.layers.")
        .replace("norm_f.", "backbone.norm_f."): weight.detach().contiguous()
        for name, weight in module.state_dict().items()
    }
    config = {
        "model_type": "mamba",
        "hidden_size": own.d_model,
        "num_hidden_layers": own.n_layers,
        "vocab_size": len(weights["lm_head.weight"]),
        "state_size": own.d_state,
        "conv_kernel": own.d_conv,
        "expand": own.expand_factor,
        "time_step_rank": own.dt_rank,
        "layer_norm_epsilon": own.rms_norm_eps,
        "use_bias": own.bias,
        "use_conv_bias": own.conv_bias,
        "tie_word_embeddings": False,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")


def _check_logits(module: torch.nn.Module, model: Model) -> None:
    """Check that a torch module and the converted model compute the same logits for 64 random bases.

    A `ModelError` is raised if they do not, or if the model has no language-model head.
    """
    if not model.config.language_model:
        raise ModelError(
            f"{type(module).__name__}: task heads, expected a language model; save the module with "
            "save_pretrained and load its folder"
        )
    codes = torch.randint(0, 4, (1, 64), generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor(model.config.base_columns)[codes]
    device = next(module.parameters()).device
    with torch.no_grad():
        outputs = module(tokens.to(device))
        theirs = getattr(outputs, "logits", outputs).double().cpu()
        ours = model.whole(model.table()[codes.to(model.device)]).double().cpu()
    theirs = theirs[..., : ours.shape[-1]]
    error = float((ours - theirs).norm() / theirs.norm())
    if not error <= _TOLERANCE:
        raise ModelError(
            f"{type(module).__name__}: logits of module and copy differ by {error:.1e}, expected "
            f"at most {_TOLERANCE:.0e}: the module computes another function"
        )
