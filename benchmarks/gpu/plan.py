"""What is measured, in which order, and what each piece of it depends on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

IN_PROCESS, MEMORY, GRPC = "in_process", "shared_memory", "grpc"
SATURATION = "saturation"
NETS = ("resnet50", "bert_base")
PRECISIONS = ("fp16", "bf16")


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One net in one precision for one runtime; it is a model of its own."""

    net: str
    precision: str
    runtime: str

    @property
    def name(self) -> str:
        """The model's name in its repository."""
        return f"{self.net}_{self.precision}_{self.runtime}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How large the nets and batches are, and how long is measured."""

    tiny: bool
    batches: tuple[int, ...]
    full_batch: int
    inflight: tuple[int, ...]
    """Requests in flight to choose from; saturation goes on to `sweep`."""
    sweep: tuple[int, ...]
    grpc_clients: int
    rounds: int
    fewer_rounds: int
    """At other batch sizes than 1 and the full one."""
    window_s: float
    saturated_s: float

    @property
    def key_batches(self) -> tuple[int, ...]:
        """The batch sizes that the goals are about."""
        return self.full_batch, self.batches[0]

    @property
    def sizes(self) -> Any:
        """The sizes of the nets; loads PyTorch."""
        from gpu import nets

        return nets.TINY if self.tiny else nets.FULL

    def depends(self) -> dict[str, Any]:
        """Return what a measurement depends on; lists as they are in JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


FULL = Scale(
    tiny=False,
    batches=(1, 2, 4, 8, 16, 32, 64, 128),
    full_batch=64,
    inflight=(2, 4, 8),
    sweep=(1, 2, 4, 8, 16),
    grpc_clients=4,
    rounds=5,
    fewer_rounds=3,
    window_s=0.3,
    saturated_s=3.0,
)
QUICK = Scale(
    tiny=True,
    batches=(1, 4, 8),
    full_batch=8,
    inflight=(2, 4),
    sweep=(1, 2, 4),
    grpc_clients=2,
    rounds=3,
    fewer_rounds=2,
    window_s=0.1,
    saturated_s=0.6,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What is done in one go: the export of some variants, or the cells of one that share a server."""

    variants: tuple[Variant, ...]
    cells: tuple[str, ...] = ()
    """None where the step is the export."""


def variants(runtimes: Sequence[str]) -> list[Variant]:
    """Return every variant, the more important ones first."""
    return [
        Variant(net=net, precision=precision, runtime=runtime)
        for precision in PRECISIONS
        for runtime in runtimes
        for net in NETS
    ]


def steps(runtimes: Sequence[str], scale: Scale, jobs: int) -> Iterator[Step]:
    """Give the steps, those first that the goals are about: they should be done when the time ends.

    So many variants are exported at once as there are `jobs`, at least both nets, and measured next.
    """
    rest = tuple(str(batch) for batch in scale.batches if batch not in scale.key_batches)
    keys = (*map(str, scale.key_batches), SATURATION)
    every, at_once = variants(runtimes), max(len(NETS), jobs)
    for begin in range(0, len(every), at_once):
        chosen = tuple(every[begin : begin + at_once])
        yield Step(variants=chosen)
        for variant in chosen:
            yield Step(variants=(variant,), cells=keys)
    for variant in every:
        yield Step(variants=(variant,), cells=rest)


def cells(scale: Scale) -> tuple[str, ...]:
    """Return the cells of a variant: batch sizes as text, and saturation."""
    return (*map(str, scale.batches), SATURATION)


def cell_name(variant: Variant, cell: str) -> str:
    """Return the name of a cell in the state."""
    return f"cell {variant.name} {cell if cell == SATURATION else f'batch {cell}'}"


def model_name(variant: Variant) -> str:
    """Return the name of an export in the state."""
    return f"model {variant.name}"


class Budget:
    """The time of one call: what would not end within it is not begun, except for the first thing."""

    def __init__(self, seconds: float | None, now: float) -> None:
        self.until = None if seconds is None else now + seconds
        self._begun = False

    def allows(self, expected_s: float, now: float) -> bool:
        """Whether to begin something that takes about so long. The first one is, or short calls would never get on."""
        fits = self.until is None or now + expected_s <= self.until or (not self._begun and now < self.until)
        self._begun = self._begun or fits
        return fits
