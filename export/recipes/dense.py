"""A dense classifier, 100 → 128 → 64 → 10 with softmax, on rows that scikit-learn makes: ten classes in 100 features.

Input `features`: FP32 [batch, 100], as `make_classification` gives them.
Output `probabilities`: FP32 [batch, 10], one column for each class; a row sums to 1.

With `log_dir` the loss and the accuracy of every epoch are written there for TensorBoard (extra `gallery`).
"""

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split
from torch import nn

DYNAMIC = {"features": {0: "batch"}}
MAX_BATCH_SIZE = 64
OUTPUTS = ["probabilities"]
LABELS = [f"class {number}" for number in range(10)]

_BATCH = 64


class Dense(nn.Module):
    """Three linear layers; 21,834 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(100, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return scores that are not yet normalised, [batch, 10]."""
        return self.layers(features)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the probability of each class, [batch, 10]."""
        return self.logits(features).softmax(dim=-1)


def build(
    learning_rate: float = 1e-3,
    epochs: int = 20,
    weight_decay: float = 1e-2,
    seed: int = 0,
    log_dir: str | None = None,
) -> Dense:
    """Train the net; the same options give the same weights on the same machine."""
    features, classes, held_out_features, held_out_classes = _data()
    with _logs(log_dir) as log, _one_thread(), torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Dense()
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
        for epoch in range(epochs):
            _train(model, optimizer, features, classes)
            if log is not None:
                _note(log, epoch, "training", _measure(model, features, classes))
                _note(log, epoch, "held_out", _measure(model, held_out_features, held_out_classes))
    return model.eval()


def samples() -> list[tuple[torch.Tensor]]:
    """Return rows that the net was not trained on, for the export's checks; versions are compared by them later."""
    return [(_data()[2][:64],)]


def held_out() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return 1,000 rows the net was not trained on, and their classes."""
    _, _, features, classes = _data()
    return {"features": features.numpy()}, classes.numpy()


def evaluate(predict) -> dict[str, float]:
    """Return the share of held-out rows that `predict` gets right, and the cross-entropy in nats."""
    inputs, classes = held_out()
    probabilities = np.asarray(predict(inputs)["probabilities"], np.float64)
    right = probabilities[np.arange(len(classes)), classes]
    return {
        "accuracy": float((probabilities.argmax(axis=1) == classes).mean()),
        "loss": float(-np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean()),
    }


def _train(model: Dense, optimizer: torch.optim.Optimizer, features: torch.Tensor, classes: torch.Tensor) -> None:
    for rows in torch.randperm(len(features)).split(_BATCH):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.logits(features[rows]), classes[rows]).backward()
        optimizer.step()


def _measure(model: Dense, features: torch.Tensor, classes: torch.Tensor) -> dict[str, float]:
    with torch.no_grad():
        logits = model.logits(features)
    accuracy = (logits.argmax(dim=1) == classes).float().mean()
    return {"loss": float(nn.functional.cross_entropy(logits, classes)), "accuracy": float(accuracy)}


def _note(log: Any, epoch: int, data: str, measured: dict[str, float]) -> None:
    for name, value in measured.items():
        log.add_scalar(f"{name}/{data}", value, epoch)


@contextlib.contextmanager
def _logs(log_dir: str | None) -> Iterator[Any]:
    """Give a writer of TensorBoard's event files; None without a folder."""
    if log_dir is None:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as exc:
        raise ImportError(f"log_dir={log_dir} needs TensorBoard: install naiad[gallery], or leave log_dir out") from exc
    with SummaryWriter(log_dir) as writer:
        yield writer


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A net this small trains no faster on more threads, and the sums come out the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    features, classes = make_classification(
        n_samples=5_000,
        n_features=100,
        n_informative=30,
        n_redundant=20,
        n_classes=10,
        n_clusters_per_class=1,
        class_sep=1.5,
        random_state=0,
    )
    split = train_test_split(
        features.astype(np.float32), classes.astype(np.int64), test_size=1_000, random_state=0, stratify=classes
    )
    train_features, test_features, train_classes, test_classes = map(torch.from_numpy, split)
    return train_features, train_classes, test_features, test_classes
