"""Models from elsewhere: foreign checkpoints and torch modules, as models of our own format."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from genoscan.errors import InputError, ModelError
from genoscan.layers.catalogue import names, user_models
from genoscan.layers.config import CONFIG
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.foreign.hub import fetched
from genoscan.layers.foreign.tokens import parse_tokens
from genoscan.layers.weights import write_model
from genoscan.model import Model
from genoscan.model import load_model as load_native
from genoscan.tracks.atomic import atomic_directory

_TOLERANCE = 1e-4
"""Largest difference of logits, relative to their L2 norm, between a module and its copy."""


def import_model(source: str | Path, *, name: str | None = None, tokens: str | None = None) -> Path:
    """Convert a foreign checkpoint and keep it under a name; return its folder.

    Parameters
    ----------
    source
        Folder, file or Hugging Face id of a Caduceus, Mamba or Mamba-2 checkpoint.
    name
        What it is called from now on; None: the source's name.
    tokens
        Which token is which base, such as "A=7,C=8,G=9,T=10,N=11", where no vocabulary says so.

    Raises
    ------
    InputError
        If there is a model of that name.
    ModelError
        If the checkpoint is of no known family, or damaged.
    """
    told = Path(source).resolve().name
    name = name or told
    folder = user_models() / name
    if folder.exists() or name in ("", ".", "..") or Path(name).name != name:
        raise InputError(f"--name {name}: there is one at {folder}, or it is no name: give another")
    given = None if tokens is None else parse_tokens(tokens)
    config, weights = read_foreign(fetched(str(source)), given, name=told)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_directory(folder) as made:
        write_model(made, config, weights, f"# {name}\n\nImported from `{source}`.\n")
        load_native(made)
    return folder


def load_model(model: str | Path, *, tokens: str | None = None, **options: Any) -> Model:
    """Load a model by name, folder, foreign checkpoint or Hugging Face id.

    Parameters
    ----------
    model
        A name of `genoscan models list`, a model folder, or what `import_model` takes; such a
        checkpoint is converted in memory at every call and not kept.
    tokens
        As of `import_model`.
    **options
        device, dtype, kernels, tile, slots, memory, spill: as of `genoscan.model.load_model`.

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged.
    """
    path = Path(model)
    if str(model) in names() or ((path / CONFIG).is_file() and _is_native(path)):
        return load_native(model, **options)
    if not path.exists() and "/" not in str(model):
        return load_native(model, **options)  # which says what names there are
    given = None if tokens is None else parse_tokens(tokens)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.resolve().name
        config, weights = read_foreign(fetched(str(model)), given, name=made.name)
        write_model(made, config, weights, "")
        return replace(load_native(made, **options), path=path)


def _is_native(folder: Path) -> bool:
    return b"genoscan-model/" in (folder / CONFIG).read_bytes()


def wrap(module: torch.nn.Module, *, tokens: str | None = None, **options: Any) -> Model:
    """Return a model of a torch module made of Mamba blocks, checked on a random sequence.

    Parameters
    ----------
    module
        A language model of mambapy (`mambapy.lm.LM` of Mamba blocks), or one that can save itself
        (`save_pretrained`): of transformers (Mamba, Mamba-2), of state-spaces
        (`MambaLMHeadModel`), or Caduceus.
    tokens
        As of `import_model`.
    **options
        As of `load_model`.

    Raises
    ------
    ModelError
        If the module is of no known family, or the copy's logits are not the module's.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / type(module).__name__
        if hasattr(module, "save_pretrained"):
            module.save_pretrained(saved)  # type: ignore[operator]
        elif type(module).__module__.startswith("mambapy."):
            _save_mambapy(module, saved)
        else:
            raise InputError(
                f"{type(module).__name__}: expected a language model of mambapy, or one that has "
                "save_pretrained: of transformers, state-spaces or Caduceus"
            )
        model = load_model(saved, tokens=tokens, **options)
    _check_logits(module, model)
    return model


def _save_mambapy(module: torch.nn.Module, folder: Path) -> None:
    """Save a mambapy.lm.LM as transformers saves its own Mamba, whose tensors have other names."""
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
    """Compare logits on a random sequence of 64 bases."""
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
            f"{type(module).__name__}: its logits and the copy's differ by {error:.1e}, expected "
            f"{_TOLERANCE:.0e}: the module computes something else"
        )
