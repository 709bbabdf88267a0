"""The first diverging node: where on its way a refused graph leaves what it should give.

The graph is run on the failing case without optimisation. If that is right, the optimiser is to blame, and the graph as
optimised is compared with itself. Otherwise every tensor that a reference knows by the same name is compared in the
order of the nodes: PyTorch's own program for a graph it was made from, the fp32 graph for a candidate of lower
precision. The first that is beyond the tolerance is named; where several are, the first whose correction makes the
outputs right, because a tensor of pure rounding noise may differ and mean nothing.
"""

import logging
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from naiad.export._runtime.place import CPU, Place
from naiad.export._runtime.session import session
from naiad.export._verify import measures as _measures
from naiad.export._verify.graphs import UNOPTIMISED, Array, Graph
from naiad.export._verify.parity import Failure
from naiad.export.report import Divergence, Tolerance

_logger = logging.getLogger("naiad.export")

Reference = Callable[[Sequence[str]], Mapping[str, Array]]
"""Gives the right values of some tensors by name; what it does not know it leaves out."""

_LEVELS = {-1: "basic", 1: "extended", 0: "all"}
_MAX_SUSPECTS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class _Suspect:
    tensor: str
    found: _measures.Difference
    actual: Array
    expected: Array


def locate(
    path: Path,
    failure: Failure,
    tolerance: Tolerance,
    *,
    level: int = 0,
    reference: Reference | None = None,
    cause: str = "conversion",
    place: Place = CPU,
) -> Divergence | None:
    """Return where a graph first differs; None where that cannot be told.

    Args:
        path: The refused graph.
        failure: The comparison that it failed.
        tolerance: What it failed.
        level: `optimization.graph.level` that it was run at.
        reference: The right values of tensors inside the graph.
        cause: What to call it when the graph differs without any optimisation: "conversion", "precision" or "provider".
        place: Where it was run.
    """
    try:
        graph = Graph(path, place)
        feeds = failure.answer.case.feeds()
        plain = graph.run(feeds, graph.outputs)
        if _all_close(plain, failure, tolerance):
            return _optimiser(graph, feeds, failure, tolerance, level)
        if reference is None:
            return None
        suspect = _first(graph, feeds, failure, tolerance, reference)
        return None if suspect is None else _divergence(graph, suspect, cause)
    except Exception as exc:  # noqa: BLE001 - a failed diagnosis must not hide what it was to explain
        _logger.warning("where %s differs could not be found: %s", path.name, exc)
        return None


def of_graph(path: Path, feeds: Mapping[str, Array]) -> Reference:
    """Return the tensors of another graph of the same model, run without optimisation: the fp32 graph's."""
    graph = Graph(path)
    known = {*graph.tensors(), *graph.outputs}

    def values(names: Sequence[str]) -> Mapping[str, Array]:
        wanted = [name for name in names if name in known]
        return graph.run(feeds, wanted) if wanted else {}

    return values


def _all_close(outputs: Mapping[str, Array], failure: Failure, tolerance: Tolerance) -> bool:
    expected = failure.answer.outputs
    return all(
        _measures.difference(outputs[name], expected[name], tolerance.for_output(name), scale).ok
        for name, scale in failure.scales.items()
        if name in outputs and (name == failure.output or _measures.is_float(expected[name].dtype))
    )


def _first(
    graph: Graph, feeds: Mapping[str, Array], failure: Failure, tolerance: Tolerance, reference: Reference
) -> _Suspect | None:
    suspects = _suspects(graph, feeds, graph.tensors(), tolerance, reference)
    for suspect in suspects[: _MAX_SUSPECTS if len(suspects) > 1 else 0]:
        value = suspect.expected.astype(suspect.actual.dtype)
        try:
            corrected = graph.substitute(feeds, suspect.tensor, value)
        except Exception as exc:  # noqa: BLE001 - a graph that cannot be cut there is not cut there
            _logger.debug("%s cannot be replaced: %s", suspect.tensor, exc)
            continue
        if _all_close(corrected, failure, tolerance):
            return suspect
    return suspects[0] if suspects else None


def _suspects(
    graph: Graph, feeds: Mapping[str, Array], names: Sequence[str], tolerance: Tolerance, reference: Reference
) -> list[_Suspect]:
    """Return the first tensors that are beyond the tolerance; an infinity alone ends the search."""
    limits, suspects = replace(tolerance, cosine=-1.0, outputs={}), list[_Suspect]()
    for chunk in graph.stream(feeds, names):
        right = reference(list(chunk))
        for name, actual in chunk.items():
            expected = right.get(name)
            if expected is None or actual.shape != expected.shape:
                continue
            found = _measures.difference(actual, expected, limits, _measures.scale_of(expected))
            if not found.ok:
                suspects.append(_Suspect(tensor=name, found=found, actual=actual, expected=expected))
        if len(suspects) >= _MAX_SUSPECTS:
            break
    return suspects


def _optimiser(
    graph: Graph, feeds: Mapping[str, Array], failure: Failure, tolerance: Tolerance, level: int
) -> Divergence | None:
    right, wrong = UNOPTIMISED, level
    for each in [-1, 1, 0][: [-1, 1, 0].index(level if level in (-1, 1) else 0) + 1]:
        wrong = each
        if not _all_close(graph.run(feeds, graph.outputs, level=each), failure, tolerance):
            break
        right = each
    advice = (
        "without this optimisation the graph is right, so it is ONNX Runtime's optimiser and not the export; publish "
        f"with --set optimization.graph.level={right} ({_LEVELS.get(right, 'none')})"
    )
    suspect, optimised = _in_optimised(graph, feeds, tolerance, wrong)
    if suspect is None or optimised is None:
        return Divergence(
            cause="optimiser",
            tensor=failure.output or "",
            node=f"optimisation level {_LEVELS[wrong]}",
            operator="optimised",
            detail=advice,
        )
    found = _divergence(optimised, suspect, "optimiser")
    named = _named(graph, suspect.tensor)
    return replace(found, module=named.get("module", ""), source=named.get("source", ""), detail=advice)


def _in_optimised(
    graph: Graph, feeds: Mapping[str, Array], tolerance: Tolerance, level: int
) -> tuple[_Suspect | None, Graph | None]:
    """Compare the graph as the optimiser left it with the graph as it is, tensor by tensor."""
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "optimised.onnx"
        session(graph.path, level=level, dump=dump, place=graph.place)
        optimised = Graph(dump, graph.place)
        known = set(graph.tensors())
        shared = [name for name in optimised.tensors() if name in known]
        found = _suspects(optimised, feeds, shared, tolerance, lambda names: graph.run(feeds, names))
        return (found[0] if found else None), optimised


def divergence_of(graph: Graph, tensor: str, actual: Array, expected: Array, cause: str) -> Divergence:
    """Return what there is to say about a tensor that differs."""
    found = _measures.difference(actual, expected, Tolerance(cosine=-1.0), _measures.scale_of(expected))
    return _divergence(graph, _Suspect(tensor=tensor, found=found, actual=actual, expected=expected), cause)


def _divergence(graph: Graph, suspect: _Suspect, cause: str) -> Divergence:
    node = graph.producers[suspect.tensor]
    return Divergence(
        cause=cause,
        tensor=suspect.tensor,
        node=node.name or suspect.tensor,
        operator=node.op_type,
        detail=_detail(suspect, cause, node),
        **_named(graph, suspect.tensor),
    )


def _detail(suspect: _Suspect, cause: str, node: Any) -> str:
    largest = float(np.abs(suspect.expected[np.isfinite(suspect.expected)]).max(initial=0.0))
    if cause == "precision":
        if not np.isfinite(suspect.actual).all() and np.isfinite(suspect.expected).all():
            return f"its values reach {largest:.3g} in fp32 and overflow here; keep this node in fp32"
        return f"it is off by {suspect.found.max_rel_error:.3g} of its largest value; keep this node in fp32"
    if cause == "provider":
        wrong = suspect.found.reason.partition(", expected")[0]
        return f"{wrong}; the CPU is right there, so the provider's kernel is wrong"
    operator = _metadata(node).get("namespace", "").rpartition(": ")[2]
    made = f"the conversion of {operator} to {node.op_type}" if operator.startswith("aten") else "this node"
    reason = suspect.found.reason.partition(", expected")[0]
    if not operator:
        made += ", or one before it in the same module,"
    return f"{reason}; PyTorch is right there, so {made} is wrong"


def _named(graph: Graph, tensor: str) -> dict[str, str]:
    """Return the module and the line of the model that a node was made from, as the exporter noted them."""
    node = graph.producers.get(tensor)
    metadata = _metadata(node) if node is not None else {}
    scopes = re.findall(r"'([^']*)'", metadata.get("pkg.torch.onnx.name_scopes", ""))
    module = next((scope for scope in reversed(scopes[:-1]) if scope), "")
    if not metadata and node is not None:
        module = module_of(node.name)
    return {"module": module, "source": source_line(metadata.get("pkg.torch.onnx.stack_trace", ""))}


def module_of(node: str) -> str:
    """Return the module in the name of a node of the legacy exporter: `blocks.0` of `/blocks/blocks.0/Add`."""
    parts: list[str] = []
    before = ""
    for part in node.split("/")[1:-1]:
        parts.append(part.removeprefix(f"{before}."))
        before = part
    return ".".join(parts).removeprefix("model.")


def source_line(stack_trace: str) -> str:
    """Return the innermost line outside PyTorch of a stack trace, as `model.py:41: return self.norm(x)`."""
    found = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)', stack_trace)
    if not found:
        return ""
    own = [frame for frame in found if "/site-packages/torch/" not in frame[0]]
    file, line, code = (own or found)[-1]
    path = Path(file)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}:{line}: {code}" if code else f"{shown}:{line}"


def _metadata(node: Any) -> dict[str, str]:
    return {prop.key: prop.value for prop in node.metadata_props}
