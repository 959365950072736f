"""Size of the activations that are kept for the backward pass over a tile."""

from torch import Tensor, autograd, enable_grad

from genoscan.layer import Layer


def activation_bytes(layer: Layer, x: Tensor) -> int:
    """Return the number of bytes per position that the autograd graph of a tile keeps in memory.

    Parameters
    ----------
    layer
        Causal layer whose weights are constants.
    x
        Input over a tile of one window, of shape (1, tile, d_in).

    Returns
    -------
    int
        Total size of the distinct tensors that are saved for the backward pass, except the weights of the layer,
        divided by the number of positions.
    """
    weights = {weight.untyped_storage().data_ptr() for weight in layer.parameters()}
    sizes: dict[int, int] = {}

    def note(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return saved

    with enable_grad(), autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        outputs, _ = layer.forward(x.detach().requires_grad_(), layer.begin(1))
    return sum(sizes.values()) // x.shape[1] + 1 if outputs.requires_grad else 1
