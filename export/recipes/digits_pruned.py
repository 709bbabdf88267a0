"""Handwritten digits with half of the channels: the net of the recipe `digits`, pruned in structures and tuned again.

Masks alone make no graph faster, since zeros are multiplied like other numbers. So the channels that
`torch.nn.utils.prune` masks are cut out of every layer that knows them. Inputs and outputs are those of `digits`, and
so are the held-out digits that both are judged by: it can be the next version of the same model.
"""

import torch
from digits import DYNAMIC, LABELS, MAX_BATCH_SIZE, OUTPUTS, Digits, evaluate, held_out, samples
from digits import build as build_dense
from digits import train as train_more
from torch import nn
from torch.nn.utils import prune

__all__ = ["DYNAMIC", "LABELS", "MAX_BATCH_SIZE", "OUTPUTS", "build", "evaluate", "held_out", "samples"]

_PIXELS_AFTER_POOLING = 16


def build(seed: int = 0, epochs: int = 25, share: float = 0.5, tuning_epochs: int = 15) -> Digits:
    """Train the net, take away `share` of its channels and of its hidden units, and train what is left."""
    model = build_dense(seed=seed, epochs=epochs)
    first, norm, _, second, second_norm, *_ = model.features
    hidden, _, _, last = model.classifier
    kept, second_kept, hidden_kept = (strongest(layer, share) for layer in (first, second, hidden))
    pixels = (second_kept[:, None] * _PIXELS_AFTER_POOLING + torch.arange(_PIXELS_AFTER_POOLING)).flatten()
    model.features[0], model.features[1] = smaller(first, kept), smaller_norm(norm, kept)
    model.features[3] = smaller(second, second_kept, kept)
    model.features[4] = smaller_norm(second_norm, second_kept)
    model.classifier[0], model.classifier[3] = smaller(hidden, hidden_kept, pixels), smaller(last, None, hidden_kept)
    return train_more(model, seed=seed, epochs=tuning_epochs, learning_rate=3e-3)


def strongest(layer: nn.Module, share: float) -> torch.Tensor:
    """Return the output channels that structured pruning by their L2 norm leaves."""
    prune.ln_structured(layer, "weight", amount=share, n=2, dim=0)
    kept = layer.weight_mask.flatten(1).any(dim=1).nonzero().flatten()
    prune.remove(layer, "weight")
    return kept


def smaller(layer: nn.Module, outputs: torch.Tensor | None, inputs: torch.Tensor | None = None) -> nn.Module:
    """Return a convolution or linear layer with some of its outputs and inputs."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    if outputs is not None:
        weight, bias = weight[outputs], bias[outputs]
    if inputs is not None:
        weight = weight[:, inputs]
    size = (weight.shape[1], weight.shape[0])
    if isinstance(layer, nn.Conv2d):
        cut: nn.Module = nn.Conv2d(*size, layer.kernel_size, layer.stride, layer.padding)
    else:
        cut = nn.Linear(*size)
    cut.weight, cut.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return cut


def smaller_norm(norm: nn.BatchNorm2d, kept: torch.Tensor) -> nn.BatchNorm2d:
    """Return a batch normalisation of some of its channels."""
    cut = nn.BatchNorm2d(len(kept))
    state = {name: value if value.dim() == 0 else value[kept] for name, value in norm.state_dict().items()}
    cut.load_state_dict(state)
    return cut
