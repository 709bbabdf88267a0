"""MNIST with reasons: beside the probabilities, how much each pixel did for the digit that is the likeliest.

Input `image`: FP32 [batch, 784] as for the recipe `mnist`, whose net and data these are. Outputs `probabilities`: FP32
[batch, 10]; `attribution`: FP32 [batch, 784], integrated gradients (Sundararajan, Taly and Yan, 2017,
arXiv:1703.01365) of the likeliest digit's probability, from a black image to this one. A positive value speaks for the
digit, a negative one against it, and the sum of all is the probability less that of the black image.

The gradients are part of the graph, so the server answers and explains in one request.
"""

import numpy as np
import torch
from mnist import EPOCHS
from mnist import LABELS as DIGITS
from mnist import build as build_net
from mnist import held_out as test_images
from mnist import samples as images
from torch import nn
from torch._decomp import core_aten_decompositions
from torch.func import functional_call, grad
from torch.fx.experimental.proxy_tensor import make_fx

DYNAMIC = {"image": {0: "batch"}}
MAX_BATCH_SIZE = 64
OUTPUTS = ["probabilities", "attribution"]
LABELS = {"probabilities": DIGITS}

STEPS = 64
_TESTED = 500


class IntegratedGradients(nn.Module):
    """A net that gives probabilities, with the reasons for the likeliest class.

    It may have linear layers, norms and activations; ONNX has no operator for the gradient of a convolution.
    The integral of the gradients along the straight line from `baseline` is taken at `steps` points by Gauss and
    Legendre's rule; the points of all rows are one batch of the net.
    """

    def __init__(self, net: nn.Module, example: torch.Tensor, *, steps: int = STEPS, baseline: float = 0.0) -> None:
        super().__init__()
        self.net, self.slopes, self.baseline = net, slopes_of(net, example), baseline
        places, weights = np.polynomial.legendre.leggauss(steps)  # of the interval from -1 to 1
        self.register_buffer("places", torch.tensor((places + 1) / 2, dtype=torch.float32)[:, None, None])
        self.register_buffer("weights", torch.tensor(weights / 2, dtype=torch.float32)[:, None, None])

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities, [batch, classes], and what each value of the input did for the likeliest class."""
        probabilities = self.net(image)
        likeliest = probabilities.argmax(dim=1, keepdim=True)
        way = image - self.baseline
        points = (self.baseline + self.places * way).flatten(0, 1)  # [steps · batch, values]
        classes = likeliest.expand(len(self.places), -1, -1).flatten(0, 1)
        slopes = self.slopes(*self.net.parameters(), points, classes).unflatten(0, (len(self.places), -1))
        return probabilities, way * (self.weights * slopes).sum(0)


def slopes_of(net: nn.Module, example: torch.Tensor) -> nn.Module:
    """Return the gradient of a class's probability by the input, written out as a module that an exporter can read.

    It is called with the net's parameters, the input and the classes, [batch, 1].
    """
    names = [name for name, _ in net.named_parameters()]

    def probability(points: torch.Tensor, weights: list[torch.Tensor], classes: torch.Tensor) -> torch.Tensor:
        answer = functional_call(net, dict(zip(names, weights, strict=True)), points)
        return answer.gather(1, classes).sum()  # rows know nothing of each other, so each gets its own gradient

    def slopes(*given: torch.Tensor) -> torch.Tensor:
        *weights, points, classes = given
        return grad(probability)(points, weights, classes)

    classes = torch.zeros(len(example), 1, dtype=torch.int64)
    trace = make_fx(slopes, core_aten_decompositions(), tracing_mode="symbolic")(*net.parameters(), example, classes)
    plain = torch.fx.Graph()  # without what only the trace needed, so that it can go to another process
    plain.output(plain.graph_copy(trace.graph, {}))
    for node in plain.nodes:
        node.meta.clear()
    return torch.fx.GraphModule(trace, plain)


def build(seed: int = 0, epochs: int = EPOCHS, data: str = "", steps: int = STEPS) -> IntegratedGradients:
    """Train the net of the recipe `mnist`, and let it say why."""
    return explained(build_net(seed=seed, epochs=epochs, data=data), steps=steps)


def explained(net: nn.Module, *, steps: int = STEPS) -> IntegratedGradients:
    """Return a trained net with its reasons."""
    return IntegratedGradients(net, samples()[0][0][:3], steps=steps).eval()


def samples() -> list[tuple[torch.Tensor]]:
    """Return real images for the export's checks."""
    return [(images()[0][0][:MAX_BATCH_SIZE],)]


def held_out() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return 500 of the test images and their digits."""
    inputs, digits = test_images()
    return {"image": inputs["image"][:_TESTED]}, digits[:_TESTED]


def evaluate(predict) -> dict[str, float]:
    """Return the share of digits that are right, and how much of their probabilities the attributions miss.

    By the axiom of completeness they sum to the probability less that of the black image; `unexplained` is the mean of
    the absolute difference, which more steps make smaller.
    """
    inputs, digits = held_out()
    black = np.zeros_like(inputs["image"][:1])
    answer = predict({"image": np.concatenate([inputs["image"], black])})
    probabilities, attribution = np.asarray(answer["probabilities"]), np.asarray(answer["attribution"])[:-1]
    likeliest = probabilities[:-1].argmax(axis=1)
    gained = probabilities[np.arange(len(likeliest)), likeliest] - probabilities[-1, likeliest]
    return {
        "accuracy": float((likeliest == digits).mean()),
        "unexplained": float(np.abs(attribution.sum(axis=1) - gained).mean()),
    }
