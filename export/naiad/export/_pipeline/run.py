"""The Python pipeline's run, from which everything else is made: names, types, dims and the right answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from naiad.export._pipeline import calls as _calls
from naiad.export._pipeline import reference as _reference
from naiad.export._pipeline import samples as _samples
from naiad.export._pipeline import shapes as _shapes
from naiad.export._verify.metric import Metric
from naiad.export.errors import InvalidExport, InvalidRecipe
from naiad.export.report import Tolerance
from naiad.export.steps import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What was asked for."""

    pipeline: str
    steps: Sequence[Step]
    samples: Sequence[Any]
    outputs: tuple[str, ...] | None
    dynamic: _shapes.Dynamic
    max_batch_size: int
    settings: Mapping[str, object]
    tolerance: Tolerance | Mapping[str, Any] | None
    metric: Metric | None
    options: Mapping[str, Any]
    """For the export of every model among the steps."""
    source: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What the Python pipeline did."""

    order: Order
    stages: list[_reference.Stage]
    cases: list[_samples.Case]
    inputs: list[str]
    """The tensors that go into the pipeline."""
    outputs: tuple[str, ...]
    """Those that come out."""
    shapes: _shapes.Shapes
    called: "tuple[Run, ...]" = ()
    """One for each step that scripts call, with the calls that they made as its cases."""
    without: tuple[_samples.Case, ...] = ()
    """The same cases as the scripts answer them without their optional steps; empty where there are none."""


def run(order: Order) -> Run:
    """Run the pipeline in this process.

    Raises:
        InvalidRecipe: The steps do not fit together.
        InvalidExport: The samples do not fit them.
        RecipeFailed: A step raised.
    """
    stages, called = _calls.connect(_reference.stages(order.pipeline, order.steps), order.max_batch_size)
    given = _samples.cases(order.samples, order.max_batch_size)
    with _calls.recording(called):
        cases = _reference.run(stages, given)
        without = _calls.without(stages, given, cases)
    inputs, outputs = _ends(stages, cases[0], order)
    shapes = _shapes.shapes(stages, cases, order.dynamic)
    return Run(
        order=order,
        stages=stages,
        cases=cases,
        inputs=inputs,
        outputs=outputs,
        shapes=shapes,
        called=tuple(_of_calls(each, order) for each in called),
        without=without,
    )


def _of_calls(called: _calls.Called, order: Order) -> Run:
    stage, cases = called.stage, called.cases()
    return Run(
        order=order,
        stages=[stage],
        cases=cases,
        inputs=list(stage.inputs.values()),
        outputs=tuple(stage.outputs.values()),
        shapes=_shapes.shapes([stage], cases, {}),
    )


def _ends(stages: Sequence[_reference.Stage], case: _samples.Case, order: Order) -> tuple[list[str], tuple[str, ...]]:
    made = {tensor for stage in stages for tensor in stage.outputs.values()}
    taken = {tensor for stage in stages for tensor in stage.inputs.values()}
    inputs = [name for name in case.tensors if name not in made]
    unused = [name for name in inputs if name not in taken]
    if unused:
        raise InvalidExport(f"the samples have {unused[0]!r}, which no step of {order.pipeline} takes; leave it out")
    outputs = order.outputs or tuple(stages[-1].outputs.values())
    wrong = [name for name in outputs if name not in made]
    if wrong or len(set(outputs)) != len(outputs):
        raise InvalidRecipe(
            f"the outputs of {order.pipeline} are {list(outputs)}; expected distinct names among those that its steps "
            f"give: {', '.join(name for name in case.tensors if name in made)}"
        )
    for stage in stages:
        if not {*taken, *outputs} & set(stage.outputs.values()):
            given = ", ".join(stage.outputs.values())
            raise InvalidRecipe(f"{stage.label} gives {given}, which nothing uses; leave the step out")
    return inputs, outputs
