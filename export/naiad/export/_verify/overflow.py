"""Tensors that half precision cannot hold: on a CPU they pass unnoticed.

ONNX Runtime computes most fp16 operators of a CPU in fp32 and keeps the values between them so, as long as nobody reads
them there. A GPU stores each in fp16. Reading every tensor makes the CPU store them too.
"""

from pathlib import Path

import numpy as np

from naiad.export._source.reference import Answer, describe
from naiad.export._verify.diverge import divergence_of, of_graph
from naiad.export._verify.graphs import Graph
from naiad.export._verify.parity import Failure


def find(path: Path, base: Path, answer: Answer, *, batch: int, model: str) -> Failure | None:
    """Return the first tensor of a candidate that overflows in one case, where the fp32 graph `base` has numbers."""
    graph, feeds = Graph(path), answer.case.feeds()
    reference = of_graph(base, feeds)
    for chunk in graph.stream(feeds, graph.tensors()):
        infinite = [name for name, value in chunk.items() if value.dtype.kind == "f" and np.isinf(value).any()]
        right = reference(infinite) if infinite else {}
        for name in infinite:
            if name in right and right[name].shape == chunk[name].shape and np.isfinite(right[name]).all():
                found = divergence_of(graph, name, chunk[name], right[name], "precision")
                return Failure(
                    answer=answer,
                    batch=batch,
                    output=None,
                    reason=f"{model} overflows at {describe(answer.case)} on a machine that computes in half precision",
                    divergence=found,
                )
    return None
