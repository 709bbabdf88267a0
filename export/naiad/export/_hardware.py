"""The GPU of an export for one: where its graphs are verified and timed, or why there is none."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from naiad.export import _device
from naiad.export._configure import cuda_graphs as _cuda_graphs
from naiad.export._configure import places as _places
from naiad.export._configure.accelerators import Subject
from naiad.export._configure.batching import Batching
from naiad.export._order import Captured, Order
from naiad.export._precision.feeds import timed
from naiad.export._runtime import gpu as _gpu
from naiad.export._runtime import placement as _placement
from naiad.export._runtime.place import PlaceOf, on_cpu
from naiad.export._runtime.session import session
from naiad.export.report import Choice, Finding


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Where the graphs of one export are run."""

    place_of: PlaceOf = on_cpu
    lacking: str = ""
    """Why no GPU is used, for an accelerator that is one; empty where the CPU was asked for."""

    @property
    def on_gpu(self) -> bool:
        """Whether graphs are run on a GPU."""
        return self.place_of("fp32").on_gpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Trying:
    """What running the published graph on the GPU showed of it."""

    findings: tuple[Finding, ...] = ()
    cuda_graph: Choice | None = None
    gpu_only: bool = False


def find(captured: Captured, order: Order, stage: Path) -> Hardware:
    """Return the hardware for an order.

    Raises:
        InvalidExport: A GPU was asked for and cannot be used.
    """
    if order.accelerator == "cpu":
        return Hardware()
    lacks = partial(_gpu.lacking, order.accelerator)
    if _device.resolve(order.device, order.accelerator, lacks) == "cpu":
        return Hardware(lacking=lacks() if order.device == "auto" else "")
    largest = max(captured.samples.max_batch_size, 1)
    subject = Subject(
        graph=captured.graph,
        samples=captured.samples,
        answers=captured.answers,
        batching=Batching(preferred=(), delay_us=0, gain=1.0, knee=largest),
        precision="fp32",
    )
    place_of = _places.places(
        order.accelerator, subject, order.settings, device=_gpu.device_name(), engines=stage / "engines"
    )
    return Hardware(place_of=place_of)


def try_out(captured: Captured, order: Order, hardware: Hardware, level: int) -> Trying:
    """Run the graph that is to be published once more, to see which nodes are not on the GPU, and with CUDA graphs."""
    if not hardware.on_gpu:
        return Trying()
    path, place = captured.graph.path, hardware.place_of(captured.precision)
    feeds = timed(captured.samples)
    nodes = _placement.providers_of_nodes(path, next(iter(feeds.values())), level=level, place=place)
    choice, found = None, _placement.findings(nodes, place)
    if order.accelerator == "cuda" and not order.states and _cuda_graphs.is_fixed(captured.graph, captured.samples):
        tolerance = order.tolerances.of(captured.precision)
        choice, why = _cuda_graphs.attempt(
            path, captured.samples, captured.answers, tolerance, feeds, level=level, place=place
        )
        found = (*found, *why)
    return Trying(findings=found, cuda_graph=choice, gpu_only=not _loads_on_cpu(path, level))


def _loads_on_cpu(path: Path, level: int) -> bool:
    try:
        session(path, level=level)
    except Exception:  # noqa: BLE001 - ONNX Runtime's errors share no public base class
        return False
    return True
