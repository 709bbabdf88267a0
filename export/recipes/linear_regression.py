"""y = 2x, learnt from five points: the smallest recipe.

Input `input`: FP32 [batch, 1]. Output `y`: FP32 [batch, 1].
"""

import torch
from torch import nn

OUTPUTS = ["y"]
X = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]])


def build() -> nn.Module:
    """Fit a line to the points; wherever it starts, it ends at y = 2x."""
    line = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(line.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.mse_loss(line(X), 2 * X).backward()
        optimizer.step()
    return line


def samples() -> list[tuple[torch.Tensor]]:
    """Return the points for the export's checks."""
    return [(X,)]
