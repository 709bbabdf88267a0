"""Trains the recipe mnist for one epoch in each process that torchrun starts, and says which rows each one took.

torchrun --nproc-per-node 2 mnist_ranks.py FOLDER
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed
from torch.utils.data import DistributedSampler

from naiad.export import load_recipe

SAW: list[int] = []


class Watched(DistributedSampler):
    def __iter__(self) -> Iterator[int]:
        rows = list(super().__iter__())
        SAW.extend(rows)
        return iter(rows)


def main() -> None:
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
    recipe = load_recipe("mnist").module
    recipe.DistributedSampler = Watched
    net = recipe.build(epochs=1)
    rank, processes = recipe.place()
    state = {**net.state_dict(), "rows": torch.tensor(SAW)}
    save_file(state, Path(sys.argv[1]) / f"rank-{rank}-of-{processes}.safetensors")
    if rank == 0:
        print("{}")
    if distributed.is_initialized():
        recipe.leave()


if __name__ == "__main__":
    main()
