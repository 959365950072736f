"""Causal Mamba classifiers as their definitions say them, whole windows in float64, and files in their layouts.

Tensors go by the names that they have in the file of a bare model: layers.0.mixer.in_proj.weight and so on.
"""

import torch
from torch import Tensor

from truth import mamba

Weights = dict[str, Tensor]


def tensors(
    *, d_model: int = 12, n_layer: int = 2, n_in: int, layer_norm: bool = False, bias: bool = False, seed: int = 1
) -> Weights:
    """Return seeded weights of a bare model of Mamba blocks with 16 states and 4 taps."""
    random = torch.Generator().manual_seed(seed)
    d, e, r = d_model, 2 * d_model, -(-d_model // 16)

    def normal(*shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        return mean + scale * torch.randn(*shape, generator=random)

    def norm(name: str) -> Weights:
        made = {f"{name}.weight": normal(d, scale=0.3, mean=1)}
        return made | ({f"{name}.bias": normal(d, scale=0.3)} if layer_norm else {})

    made = {"embeddings.weight": normal(n_in, d)} | norm("norm_f")
    for i in range(n_layer):
        m = f"layers.{i}.mixer."
        made |= norm(f"layers.{i}.norm") | {
            m + "in_proj.weight": normal(2 * e, d, scale=d**-0.5),
            m + "out_proj.weight": normal(d, e, scale=e**-0.5),
            m + "conv1d.weight": normal(e, 1, 4, scale=0.5),
            m + "conv1d.bias": normal(e, scale=0.1),
            m + "x_proj.weight": normal(r + 32, e, scale=e**-0.5),
            m + "dt_proj.weight": normal(e, r, scale=r**-0.5),
            m + "dt_proj.bias": normal(e, mean=-3),
            m + "A_log": torch.log(torch.rand(e, 16, generator=random) * 8 + 0.2),
            m + "D": normal(e),
        }
        if bias:
            made |= {m + "in_proj.bias": normal(2 * e), m + "out_proj.bias": normal(d)}
    return made


def hidden(w: Weights, x: Tensor, eps: float = 1e-5) -> Tensor:
    """Return the final, normalised features, (length, d_model), of embedded symbols."""
    w = {name: tensor.double() for name, tensor in w.items()}

    def normed(x: Tensor, name: str) -> Tensor:
        if f"{name}.bias" in w:
            x = x - x.mean(-1, keepdim=True)
        return mamba.rms_norm(x, w[f"{name}.weight"], eps) + w.get(f"{name}.bias", 0)

    for i in range(sum(name.endswith("A_log") for name in w)):
        m = f"layers.{i}.mixer."
        own = {name.removeprefix(m): tensor for name, tensor in w.items() if name.startswith(m)}
        own |= {"conv.weight": own["conv1d.weight"][:, 0], "conv.bias": own["conv1d.bias"]}
        x = x + mamba.mixer(own, normed(x, f"layers.{i}.norm"))
    return normed(x, "norm_f")
