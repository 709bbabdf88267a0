"""MNIST with half of the hidden units: the net of the recipe `mnist`, pruned in structures and trained a little longer.

Units whose weights are small go, with their row in the first layer and their column in the second: the matrices are
smaller, not just sparser, which is what makes a graph faster. Inputs, outputs and the test images are those of `mnist`,
so it can be the next version of the same model.
"""

import copy

from digits_pruned import smaller, strongest
from mnist import DYNAMIC, EPOCHS, LABELS, MAX_BATCH_SIZE, OUTPUTS, Mnist, evaluate, held_out, samples
from mnist import build as build_dense
from mnist import train as train_more

__all__ = ["DYNAMIC", "LABELS", "MAX_BATCH_SIZE", "OUTPUTS", "build", "evaluate", "held_out", "samples"]


def build(seed: int = 0, epochs: int = EPOCHS, data: str = "", share: float = 0.5, tuning_epochs: int = 2) -> Mnist:
    """Train the net, take away `share` of its hidden units, and train what is left."""
    return pruned(build_dense(seed=seed, epochs=epochs, data=data), share, seed=seed, epochs=tuning_epochs)


def pruned(dense: Mnist, share: float = 0.5, *, seed: int = 0, epochs: int = 2) -> Mnist:
    """Return a trained net without `share` of its hidden units; the net that is given stays as it is."""
    model = copy.deepcopy(dense)
    normalise, hidden, relu, last = model.logits
    kept = strongest(hidden, share)
    model.logits = type(dense.logits)(normalise, smaller(hidden, kept), relu, smaller(last, None, kept))
    return train_more(model, seed=seed, epochs=epochs, learning_rate=2e-3)
