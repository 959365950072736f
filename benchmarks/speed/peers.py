"""Other programs' Mamba with our weights: the same function, checked by `parity`.

Both are used as intended by their authors: evaluation mode, frozen weights, no extra outputs.
Symbols enter as one-hot rows times their embedding, which makes the input differentiable.
"""

from collections.abc import Callable

from torch import Tensor

from benchmarks.speed.settings import Settings
from benchmarks.speed.windows import Prepare, by_autograd
from genoscan.errors import UnsupportedModelError
from genoscan.layers.mamba import MambaConfig
from genoscan.model import Model


def transformers(*, use_mambapy: bool) -> Callable[[Model, Settings], Prepare]:
    """Return a builder of transformers' MambaForCausalLM, with its own loop or mambapy's scan."""

    def build(model: Model, settings: Settings) -> Prepare:
        from transformers import MambaConfig as Config
        from transformers import MambaForCausalLM, logging

        logging.set_verbosity_error()  # it would warn that its CUDA kernels are not installed
        block, config = alike(model), model.config
        peer = MambaForCausalLM(
            Config(
                vocab_size=len(config.symbols),
                hidden_size=config.d_model,
                state_size=block.d_state,
                num_hidden_layers=len(config.layers),
                layer_norm_epsilon=config.norm.eps,
                expand=block.expand,
                conv_kernel=block.d_conv,
                time_step_rank=block.dt_rank,
                tie_word_embeddings=False,
                use_cache=False,
                use_mambapy=use_mambapy,
            )
        )
        weights = model.causal.state_dict()
        peer.load_state_dict(
            _blocks(weights, "backbone.layers")
            | {
                "backbone.embeddings.weight": weights["embed.weight"].T,
                "backbone.norm_f.weight": weights["norm.weight"],
                "lm_head.weight": weights["head.weight"],
            }
        )
        peer.to(settings.device).eval().requires_grad_(False)
        table = peer.get_input_embeddings().weight

        def logits(x: Tensor) -> Tensor:
            found: Tensor = peer(inputs_embeds=x @ table, use_cache=False).logits
            return found

        return by_autograd(model, logits)

    return build


def mambapy(model: Model, settings: Settings) -> Prepare:
    """Build mambapy's Mamba with its parallel scan; embedding, last norm and head are torch's."""
    from mambapy.mamba import Mamba, RMSNorm
    from mambapy.mamba import MambaConfig as Config

    block, config = alike(model), model.config
    peer = Mamba(
        Config(
            d_model=config.d_model,
            n_layers=len(config.layers),
            dt_rank=block.dt_rank,
            d_state=block.d_state,
            expand_factor=block.expand,
            d_conv=block.d_conv,
            rms_norm_eps=config.norm.eps,
            pscan=True,
        )
    )
    norm = RMSNorm(config.d_model, config.norm.eps)
    weights = model.causal.state_dict()
    peer.load_state_dict(_blocks(weights, "layers"))
    norm.load_state_dict({"weight": weights["norm.weight"]})
    for part in (peer, norm):
        part.to(settings.device).eval().requires_grad_(False)
    table, head = weights["embed.weight"].T.contiguous(), weights["head.weight"].T.contiguous()
    return by_autograd(model, lambda x: norm(peer(x @ table)) @ head)


def alike(model: Model) -> MambaConfig:
    """Return the configuration shared by all blocks.

    Raises
    ------
    UnsupportedModelError
        If blocks differ, which the peers do not support.
    """
    first, *others = model.config.layers
    if not isinstance(first, MambaConfig) or any(other != first for other in others):
        raise UnsupportedModelError(
            f"{model.path}: its blocks differ in kind or shape; the peers know only Mamba blocks of one shape"
        )
    return first


def _blocks(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the blocks' tensors under the names and in the shapes of both peers."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if not name.startswith("layers."):
            continue
        _, number, place = name.split(".", 2)
        if place == "conv.weight":
            tensor = tensor[:, None]
        inside = "" if place == "norm.weight" else "mixer."
        found[f"{prefix}.{number}.{inside}{place.replace('conv.', 'conv1d.')}"] = tensor
    return found
