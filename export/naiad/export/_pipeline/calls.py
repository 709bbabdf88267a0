"""Steps that scripts call: run in this process, and every call kept, from which their models are made and checked."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from naiad.export._pipeline import reference as _reference
from naiad.export._pipeline.reference import Stage
from naiad.export._pipeline.samples import Case
from naiad.export._pipeline.served import calling as _calling
from naiad.export._pipeline.served import model as _served
from naiad.export._pipeline.served.model import Arrays
from naiad.export.errors import InvalidRecipe
from naiad.export.steps import Script

_KEPT = 8
"""Calls of equal shapes, for each kind of case: more would show nothing new."""


@dataclass(kw_only=True, slots=True)
class Called:
    """One step that scripts call."""

    stage: Stage
    largest: int
    """The largest batch of a call; 0 without batches."""
    first: Arrays | None = None
    """The tensors of the first call."""
    kept: list[Case] = field(default_factory=list)
    """The calls that were recorded."""
    recording: bool = False
    seen: Counter[Any] = field(default_factory=Counter)

    def __call__(self, tensors: Mapping[str, Any], case: Case) -> Arrays:
        """Answer a script's call as the server would: by the step's own names, with one type and rank each."""
        name = self.stage.step.name
        arrays = {key: _served.tensor(key, value) for key, value in tensors.items()}
        self._check(name, arrays)
        rows = _calling.check_rows(name, arrays, self.largest)
        own = Case(batch=rows, tensors=arrays, whole=case.whole)
        with contextlib.ExitStack() as stack:
            if self.first is None:
                _reference.connect(self.stage, arrays, stack)
            elif self.stage.subject is not None:
                stack.enter_context(self.stage.subject.evaluating())
            results = _reference.call(self.stage, arrays, own, self.first)
        own = replace(own, tensors=arrays | {self.stage.outputs[key]: array for key, array in results.items()})
        self.first = self.first or own.tensors
        self._keep(own)
        return {key: array.copy() for key, array in results.items()}

    def _check(self, name: str, arrays: Arrays) -> None:
        if self.first is None:
            required, optional = _reference.arguments(self.stage)
            expected = [*required, *(key for key in optional if key in arrays)]
        else:
            expected = list(self.stage.inputs)
        _calling.check_names(name, arrays, expected)
        for key, array in arrays.items() if self.first is not None else ():
            before = self.first[key] if self.first is not None else array
            if (before.dtype, before.ndim) != (array.dtype, array.ndim):
                raise TypeError(
                    f"it calls {name!r} with {key!r} as {array.dtype} of rank {array.ndim}, and as {before.dtype} of "
                    f"rank {before.ndim} before"
                )

    def _keep(self, case: Case) -> None:
        if not self.recording:
            return
        kind = (case.whole, *(array.shape for array in case.tensors.values()))
        self.seen[kind] += 1
        if self.seen[kind] <= _KEPT:
            self.kept.append(case)

    def cases(self) -> list[Case]:
        """Return the calls.

        Raises:
            InvalidRecipe: There was none.
        """
        if not self.kept:
            raise InvalidRecipe(
                f"{self.stage.label} was never called with these samples, so that nothing is known of its tensors; "
                "give a sample at which the script calls it, or leave it out"
            )
        if any(case.whole for case in self.kept):
            return self.kept
        return [replace(case, whole=True) for case in self.kept]


def connect(stages: Sequence[Stage], largest: int) -> tuple[list[Stage], list[Called]]:
    """Return the steps of the chain and those that scripts call, which are known to the scripts now.

    Raises:
        InvalidRecipe: A script calls what is no other step, or what is a script, or nothing is left to call it.
    """
    by_name = {stage.step.name: stage for stage in stages}
    wanted = {name: stage for stage in stages for name in _wanted(stage)}
    called = {name: Called(stage=_callable(name, by_name, wanted[name]), largest=largest) for name in wanted}
    for stage in stages:
        stage.calls = {name: called[name] for name in _wanted(stage)}
    # In the order of the recipe, in which they are published too.
    return [stage for stage in stages if stage.step.name not in wanted], [
        called[name] for name in by_name if name in called
    ]


def _wanted(stage: Stage) -> tuple[str, ...]:
    return (*stage.step.calls, *stage.step.optional) if isinstance(stage.step, Script) else ()


def _callable(name: str, stages: Mapping[str, Stage], by: Stage) -> Stage:
    found = stages.get(name)
    if found is None:
        others = ", ".join(each for each in stages if each != by.step.name) or "none"
        raise InvalidRecipe(f"{by.label} calls {name!r}, which is no step of the pipeline; the others are: {others}")
    if isinstance(found.step, Script):
        whom = "itself" if found is by else f"the script {name!r}"
        raise InvalidRecipe(f"{by.label} calls {whom}; a script calls models and functions, so that no call is endless")
    if found.step.inputs or isinstance(found.step.outputs, Mapping):
        raise InvalidRecipe(
            f"{found.label} is called by {by.label}, by its own arguments' and results' names; leave out inputs=, and "
            "let outputs= be a list"
        )
    return found


@contextlib.contextmanager
def recording(called: Sequence[Called]) -> Iterator[None]:
    """Keep every call that is made meanwhile."""
    for each in called:
        each.recording = True
    yield
    for each in called:
        each.recording = False


def without(stages: Sequence[Stage], given: Sequence[Case], done: Sequence[Case]) -> tuple[Case, ...]:
    """Return the cases as they are answered when no optional step is served; empty where none is optional.

    Raises:
        InvalidRecipe: A tensor has another type or rank then.
    """
    optional = tuple(name for stage in stages if isinstance(stage.step, Script) for name in stage.step.optional)
    if not optional:
        return ()
    cases = _reference.run(stages, [replace(case, without=optional) for case in given])
    for name, array in cases[0].tensors.items():
        before = done[0].tensors[name]
        if (before.dtype, before.ndim) != (array.dtype, array.ndim):
            raise InvalidRecipe(
                f"{name!r} is {array.dtype} of rank {array.ndim} without {', '.join(optional)}, and {before.dtype} of "
                f"rank {before.ndim} with it; a tensor of Triton has one type and rank"
            )
    return tuple(cases)
