"""The chain as Triton will run it: generated models and graphs, each fed with what came out before it."""

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from naiad.export._pipeline.reference import Stage
from naiad.export._pipeline.samples import Case
from naiad.export._pipeline.served import model as _served
from naiad.export._pipeline.served import runner as _runner
from naiad.export._pipeline.served.model import Arrays
from naiad.export._runtime.place import CPU, Place
from naiad.export._runtime.session import optimization, session
from naiad.export._verify import measures as _measures
from naiad.export.errors import VerificationFailed
from naiad.export.report import CaseParity, OutputParity, Tolerance

_TIMEOUT_S = 600.0
_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "ORT_DISABLE_TELEMETRY", "PATH", "TMPDIR", "TZ")
"""What a server has; other variables of this process are none of its business."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A stage with the files of its version."""

    stage: Stage
    files: Path
    level: int | None = None
    """`optimization.graph.level` of a graph; None for a function."""
    place: Place = CPU
    """Where a graph is run."""
    called: Mapping[str, "Link"] = field(default_factory=dict)
    """By step, what a script calls."""


def verify(
    links: Sequence[Link], cases: Sequence[Case], outputs: Sequence[str], tolerance: Tolerance, *, pipeline: str
) -> tuple[tuple[OutputParity, ...], tuple[CaseParity, ...]]:
    """Run the chain on every case, and compare each tensor with the Python pipeline's.

    Returns:
        The worst difference of each output, and every comparison of an output.

    Raises:
        VerificationFailed: With the step whose result is the first that differs, or that failed.
    """
    parity: list[tuple[OutputParity, CaseParity]] = []

    def compare(stage: Stage, actual: Sequence[Arrays]) -> None:
        for tensor in stage.outputs.values():
            found = _compare(stage, tensor, actual, cases, tolerance.for_output(tensor), pipeline)
            parity.extend(found if tensor in outputs else [])

    run(links, cases, pipeline=pipeline, after=compare)
    worst: dict[str, OutputParity] = {}
    for item, _ in parity:
        if item.output not in worst or item.max_rel_error > worst[item.output].max_rel_error:
            worst[item.output] = item
    return tuple(worst[name] for name in outputs), tuple(item for _, item in parity)


def run(
    links: Sequence[Link],
    cases: Sequence[Case],
    *,
    pipeline: str,
    after: Callable[[Stage, Sequence[Arrays]], None] | None = None,
) -> list[Arrays]:
    """Run the chain on every case and return all tensors; `after` gets those there are after each step.

    Raises:
        VerificationFailed: With the step that failed.
    """
    made = {tensor for link in links for tensor in link.stage.outputs.values()}
    actual = [{name: array for name, array in case.tensors.items() if name not in made} for case in cases]
    for link in links:
        results = _run(link, [link.stage.takes(tensors) for tensors in actual], cases, pipeline)
        for tensors, result in zip(actual, results, strict=True):
            tensors |= {link.stage.outputs[name]: array for name, array in result.items()}
        if after is not None:
            after(link.stage, actual)
    return actual


def _run(link: Link, inputs: Sequence[Arrays], cases: Sequence[Case], pipeline: str) -> list[Arrays]:
    answer = _run_function if link.level is None else _run_graph
    return answer(link, inputs, cases, pipeline)


def _run_graph(link: Link, inputs: Sequence[Arrays], cases: Sequence[Case], pipeline: str) -> list[Arrays]:
    runtime = session(link.files / "model.onnx", level=link.level or 0, place=link.place)
    names = [output.name for output in runtime.get_outputs()]
    found = []
    for case, arrays in zip(cases, inputs, strict=True):
        try:
            answers = runtime.run(names, {name: _text(array) for name, array in arrays.items()})
        except Exception as exc:  # ONNX Runtime's errors share no public base class
            raise _failed(link.stage, pipeline, f"fails in ONNX Runtime at {case}: {exc}", case) from exc
        found.append(
            {name: _served.tensor(name, np.asarray(array)) for name, array in zip(names, answers, strict=True)}
        )
    return found


def _run_function(link: Link, inputs: Sequence[Arrays], cases: Sequence[Case], pipeline: str) -> list[Arrays]:
    place = Path(tempfile.mkdtemp(prefix="run-", dir=link.files.parent))
    task, result = place / "cases", place / "results"
    called = {each.stage.model: _callable(each) for each in link.called.values()}
    absent = [[link.called[name].stage.model for name in case.without if name in link.called] for case in cases]
    task.write_bytes(
        pickle.dumps({"inputs": list(inputs), "outputs": list(link.stage.outputs), "called": called, "absent": absent})
    )
    empty = place / "empty"
    empty.mkdir()
    command = [sys.executable, "-I", _runner.__file__, str(link.files), str(task), str(result)]
    try:
        done = subprocess.run(
            command,
            cwd=empty,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise _failed(link.stage, pipeline, f"did not answer within {_TIMEOUT_S:.0f} s", cases[0]) from exc
    answer: Mapping[str, Any] = {}
    with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
        answer = pickle.loads(result.read_bytes())  # noqa: S301 - of our own process
    if "outputs" in answer:
        return list(answer["outputs"])
    if "error" in answer:
        case = cases[answer["case"]] if answer["case"] is not None else cases[0]
        when = f"at {case}" if answer["case"] is not None else "when it is loaded"
        raise _failed(link.stage, pipeline, f"fails on the server's side {when}: {answer['error']}", case)
    end = " | ".join(done.stderr.decode(errors="replace").strip().splitlines()[-3:])
    raise _failed(link.stage, pipeline, f"ended its process with code {done.returncode}: {end}", cases[0])


def _callable(link: Link) -> dict[str, Any]:
    """Return what the process of a script needs to answer its calls."""
    level = None if link.level is None else optimization(link.level).name
    return {"files": str(link.files), "level": level}


def _in_words(reason: str) -> str:
    """Return a reason about one graph as one about a step, which may be a function."""
    return reason.replace("ONNX Runtime", "the chain").replace("PyTorch", "Python")


def _text(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype != object:
        return array
    return np.array([item.decode() for item in array.flat], object).reshape(array.shape)


def _failed(stage: Stage, pipeline: str, what: str, case: Case) -> VerificationFailed:
    return VerificationFailed(
        f"{stage.label} of {pipeline} {what}; in this process the same code answers. It must not lean on what only "
        "this process has: modules beside the recipe, the working directory, variables set elsewhere. Nothing was "
        "published",
        model=pipeline,
        step=stage.step.name,
        batch=case.batch,
    )


def _compare(
    stage: Stage, tensor: str, actual: Sequence[Arrays], cases: Sequence[Case], tolerance: Tolerance, pipeline: str
) -> list[tuple[OutputParity, CaseParity]]:
    scale = max(_measures.scale_of(case.tensors[tensor]) for case in cases)
    found = []
    for tensors, case in zip(actual, cases, strict=True):
        difference = _measures.difference(tensors[tensor], case.tensors[tensor], tolerance, scale)
        if not difference.ok:
            raise VerificationFailed(
                f"{stage.label} of {pipeline} is the first whose result differs from the Python pipeline, in "
                f"{tensor!r} at {case}: {_in_words(difference.reason)}; nothing was published",
                model=pipeline,
                step=stage.step.name,
                output=tensor,
                batch=case.batch,
                max_abs_error=difference.max_abs_error,
                max_rel_error=difference.max_rel_error,
            )
        worst = OutputParity(
            output=tensor,
            max_abs_error=difference.max_abs_error,
            max_rel_error=difference.max_rel_error,
            worst_batch=case.batch,
            cosine=difference.cosine,
            worst_sizes=str(case),
        )
        one = CaseParity(
            output=tensor,
            sizes=str(case),
            max_abs_error=difference.max_abs_error,
            max_rel_error=difference.max_rel_error,
            cosine=difference.cosine,
        )
        found.append((worst, one))
    return found
