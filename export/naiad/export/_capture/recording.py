"""The answers of a package's CUDA graphs, in the capture process: as the server will record and replay them."""

from collections.abc import Callable, Sequence

import torch

_WARM_UPS = 2

Run = Callable[[list[torch.Tensor]], list[torch.Tensor]]


def answers(run: Run, cases: Sequence[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """Record a run for each case, on other values than its own, and return what replaying it with its own gives.

    Raises what CUDA raises where the work cannot be recorded, as where the host has to look at a result.
    """
    return [_replayed(run, case) for case in cases]


def _replayed(run: Run, case: list[torch.Tensor]) -> list[torch.Tensor]:
    static = [torch.zeros_like(tensor) for tensor in case]
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            run(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run(static)
    for place, tensor in zip(static, case, strict=True):
        place.copy_(tensor)
    graph.replay()
    copies = [output.clone() for output in outputs]
    torch.cuda.synchronize()  # the graph and its memory go away here
    return copies
