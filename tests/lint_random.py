"""Ensembles put together at random, most of them wrong in some way."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from lint_writers import SINGLE, Write, ensemble, entry, two_inputs

PARTS: Mapping[str, Write] = {
    "part": entry(),
    "two": entry(two_inputs(), inputs={"a": "FP32[3]", "b": "FP32[3]"}),
    "flat": entry(max_batch_size=0, **SINGLE),
}
_TENSORS = ("x", "y", "m", "n", "z")
_SHAPES = ("FP32[3]",) * 6 + ("FP32[-1]", "FP32[4]", "FP16[3]", "FP32[-1,3]")


def ensembles(number: int, seed: int) -> dict[str, Write]:
    """Writers of so many ensembles of `PARTS`, and of one that is not there, always the same for a seed."""
    chance = random.Random(seed)
    return {f"random_{index}": _ensemble(chance) for index in range(number)}


def _ensemble(chance: random.Random) -> Write:
    steps = [_step(chance) for _ in range(chance.choice((1, 1, 2, 2, 3)))]
    if chance.random() < 0.5:
        _chain(steps)
    batch = chance.choice((4, 4, 4, 2, 0, 8))
    shapes = _SHAPES if batch else ("FP32[-1,3]", "FP32[2,3]", "FP32[3]")
    inputs, outputs = {"x": chance.choice(shapes)}, {"y": chance.choice(shapes)}
    return ensemble(steps, parts=PARTS, max_batch_size=batch, inputs=inputs, outputs=outputs)


def _step(chance: random.Random) -> dict[str, Any]:
    model = chance.choice(("part", "part", "two", "flat") + (("nobody",) if chance.random() < 0.15 else ()))
    taken = {name: chance.choice(_TENSORS) for name in (("a", "b") if model == "two" else ("x",))}
    given = {"y": chance.choice(_TENSORS)}
    if chance.random() < 0.1:
        taken = chance.choice(({}, {**taken, "unknown": "x"}))
    if chance.random() < 0.04:
        given = {"unknown": "y"}
    version = chance.choice((-1, -1, -1, -1, 1, 2))
    return {"model_name": model, "model_version": version, "input_map": taken, "output_map": given}


def _chain(steps: list[dict[str, Any]]) -> None:
    """Connect each step with the one before, from `x` to `y`."""
    source = "x"
    for index, step in enumerate(steps):
        step["input_map"] = dict.fromkeys(step["input_map"], source)
        source = "y" if index == len(steps) - 1 else "mn"[index]
        step["output_map"] = dict.fromkeys(step["output_map"], source)
