"""Which tensors of an ensemble can be computed, one step after the other."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """The tensors of an ensemble by name."""

    names: frozenset[str]
    """All that a step reads or writes."""
    readers: frozenset[str]
    """Those that a step reads."""
    writers: dict[str, list[int]]
    """The steps that write each."""
    sources: dict[str, list[str]]
    """What must be there before each."""
    ready: frozenset[str]
    """Those that are an input, or that follow from the inputs."""


def flow(config: Any) -> Flow:
    """Return the flow of a configuration; empty for a model that is no ensemble."""
    steps = config.ensemble_scheduling.step
    writers, sources = dict[str, list[int]](), dict[str, list[str]]()
    for index, step in enumerate(steps):
        for name in step.output_map.values():
            writers.setdefault(name, []).append(index)
            sources.setdefault(name, []).extend(step.input_map.values())
    readers = frozenset(name for step in steps for name in step.input_map.values())
    return Flow(
        names=frozenset(writers) | readers,
        readers=readers,
        writers=writers,
        sources=sources,
        ready=_ready({tensor.name for tensor in config.input}, sources),
    )


def _ready(inputs: set[str], sources: dict[str, list[str]]) -> frozenset[str]:
    ready = set(inputs)
    while new := {name for name, needed in sources.items() if name not in ready and ready.issuperset(needed)}:
        ready |= new
    return frozenset(ready)
