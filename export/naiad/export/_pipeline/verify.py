"""The whole pipeline against Python: every tensor of the chain, and the task metric."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from naiad.export._pipeline import chain as _chain
from naiad.export._pipeline import reference as _reference
from naiad.export._pipeline import samples as _samples
from naiad.export._pipeline.run import Run
from naiad.export._pipeline.served.model import Arrays
from naiad.export._verify.metric import Metric
from naiad.export._verify.tolerances import Tolerances
from naiad.export.errors import VerificationFailed
from naiad.export.report import MetricResult, Report, Tolerance


def verify(run: Run, links: Sequence[_chain.Link], models: Sequence[tuple[Tolerance, str]]) -> Report:
    """Compare the chain with the Python pipeline; `models` has the tolerance and the precision of each model.

    Raises:
        VerificationFailed: With the first step that fails or differs, or the metric that is worse than allowed.
    """
    tolerance = _tolerance(run, models)
    parity, compared = _chain.verify(links, run.cases, run.outputs, tolerance, pipeline=run.order.pipeline)
    if run.without:
        _chain.verify(links, run.without, run.outputs, tolerance, pipeline=run.order.pipeline)
    return Report(
        batches=tuple(sorted({case.batch for case in run.cases if case.batch})),
        num_cases=len(run.cases),
        parity=parity,
        latency=(),
        findings=(),
        size_bytes=sum(path.stat().st_size for link in _every(links) for path in link.files.rglob("*")),
        cases=compared,
        tolerance=tolerance,
        metric=_measured(run, links, run.order.metric) if run.order.metric else None,
    )


def verify_called(run: Run, link: _chain.Link, models: Sequence[tuple[Tolerance, str]]) -> None:
    """Compare a step that scripts call, for itself, with what Python answered them.

    Raises:
        VerificationFailed: It fails, or differs.
    """
    _chain.verify([link], run.cases, run.outputs, _tolerance(run, models), pipeline=run.order.pipeline)


def _every(links: Sequence[_chain.Link]) -> list[_chain.Link]:
    found = {link.files: link for link in links}
    found |= {called.files: called for link in links for called in link.called.values()}
    return list(found.values())


def _tolerance(run: Run, models: Sequence[tuple[Tolerance, str]]) -> Tolerance:
    """Return what was asked for, or what the pipeline's models may differ by: together no more than the loosest."""
    given = run.order.tolerance
    if given is not None:
        asked = Tolerances(given=given)
        found = [asked.of(precision) for _, precision in models] or [asked.of("fp32")]
    else:
        found = [tolerance for tolerance, _ in models] or [Tolerance()]
    return replace(
        found[0],
        rtol=max(tolerance.rtol for tolerance in found),
        atol=max(tolerance.atol for tolerance in found),
        cosine=min(tolerance.cosine for tolerance in found),
        outputs=found[0].outputs if given is not None else {},
    )


def _measured(run: Run, links: Sequence[_chain.Link], metric: Metric) -> MetricResult:
    """Compare a task metric of the Python pipeline with that of the chain."""
    pipeline, size = run.order.pipeline, run.order.max_batch_size

    def in_python(inputs: Mapping[str, Any]) -> Arrays:
        cases = _reference.run(run.stages, _samples.chunks(inputs, size))
        return _samples.joined([case.tensors for case in cases], run.outputs)

    def in_chain(inputs: Mapping[str, Any]) -> Arrays:
        return _samples.joined(_chain.run(links, _samples.chunks(inputs, size), pipeline=pipeline), run.outputs)

    result = metric.compare(metric.measure(in_python), metric.measure(in_chain))
    if not result.passed:
        raise VerificationFailed(
            f"{result.name} of {pipeline} is {result.candidate:g} on the server's side and {result.pytorch:g} in "
            f"Python; {result.limit} was allowed: nothing was published",
            model=pipeline,
        )
    return result
