"""The Python pipeline: the functions and models themselves, one after the other, in this process."""

import contextlib
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from naiad.export._pipeline.samples import Case
from naiad.export._pipeline.served import calling as _calling
from naiad.export._pipeline.served import model as _served
from naiad.export._pipeline.served.model import Arrays
from naiad.export._source import subject as _subject
from naiad.export._source.module import ModuleSubject
from naiad.export.errors import InvalidRecipe, RecipeFailed
from naiad.export.steps import Function, Model, Script, Step

Call = Callable[[Mapping[str, Any], Case], Arrays]
"""How a script calls a step in Python, for a case of its own."""


@dataclass(kw_only=True, slots=True)
class Stage:
    """A step in its place: the tensors it takes and gives, as they turn out when it runs first."""

    step: Step
    model: str
    """Its name in the repository."""
    subject: Any = None
    """Of a `Model`: what answers."""
    inputs: dict[str, str] = field(default_factory=dict)
    """The tensor by argument."""
    outputs: dict[str, str] = field(default_factory=dict)
    """The tensor by result."""
    calls: dict[str, Call] = field(default_factory=dict)
    """Of a `Script`: the steps that it calls, by name."""

    @property
    def label(self) -> str:
        """Its name in messages."""
        return f"step {self.step.name!r}"

    def takes(self, tensors: Arrays) -> Arrays:
        """Return its inputs by argument."""
        return {argument: tensors[tensor] for argument, tensor in self.inputs.items()}

    def gives(self, tensors: Arrays) -> Arrays:
        """Return its outputs by result."""
        return {result: tensors[tensor] for result, tensor in self.outputs.items()}


def stages(pipeline: str, steps: Sequence[Step]) -> list[Stage]:
    """Return the steps in their places.

    Raises:
        InvalidRecipe: There is none, or two have one name, or one is something else.
    """
    if not isinstance(steps, list | tuple) or not steps:
        raise InvalidRecipe("a pipeline is a list of at least one step, of naiad.export.steps")
    for step in steps:
        if not isinstance(step, Function | Model):
            raise InvalidRecipe(f"a pipeline has {type(step).__name__} as a step; expected Function, Model or Script")
    names = [step.name for step in steps]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InvalidRecipe(f"two steps are called {twice[0]!r}; give each its own name")
    return [_stage(pipeline, step) for step in steps]


def _stage(pipeline: str, step: Step) -> Stage:
    subject = None
    if isinstance(step, Model):
        subject = _subject.open_subject(step.model, None if isinstance(step.outputs, Mapping) else step.outputs or None)
    return Stage(step=step, model=f"{pipeline}_{step.name}", subject=subject)


def run(pipeline: Sequence[Stage], cases: Sequence[Case]) -> list[Case]:
    """Run every case through every step, and return the cases with all tensors.

    Raises:
        InvalidRecipe: The steps do not fit together.
        RecipeFailed: A step raised.
    """
    with contextlib.ExitStack() as stack:
        done: list[Case] = []
        for index, case in enumerate(cases):
            tensors = dict(case.tensors)
            for stage in pipeline:
                if index == 0:
                    connect(stage, tensors, stack)
                results = call(stage, tensors, case, done[0].tensors if done else None)
                tensors |= {stage.outputs[result]: array for result, array in results.items()}
            done.append(replace(case, tensors=tensors))
    return done


def call(stage: Stage, tensors: Arrays, case: Case, first: Arrays | None) -> Arrays:
    """Return the results of a step that is connected; `first` has the tensors of its first call, if there was one."""
    results = _call(stage, tensors, case)
    if first is None:
        _name_outputs(stage, results, tensors)
    _check(stage, results, case, first)
    return results


def connect(stage: Stage, tensors: Arrays, stack: contextlib.ExitStack) -> None:
    """Find the tensors that a step takes, and make it ready to be called until the stack unwinds."""
    step = stage.step
    required, optional = arguments(stage)
    unknown = sorted(set(step.inputs) - {*required, *optional})
    if unknown:
        known = ", ".join([*required, *optional]) or "none"
        raise InvalidRecipe(f"{stage.label} maps the input {unknown[0]!r}, which it does not have; it takes: {known}")
    for argument in required:
        name = step.inputs.get(argument, argument)
        if name not in tensors:
            raise InvalidRecipe(
                f"{stage.label} needs the tensor {name!r}, which neither the samples nor an earlier step gives; there "
                f"are {', '.join(tensors)}: map it with inputs={{{argument!r}: …}}"
            )
        stage.inputs[argument] = name
    stage.inputs |= {
        argument: name for argument in optional if (name := step.inputs.get(argument, argument)) in tensors
    }
    if not stage.inputs:
        raise InvalidRecipe(f"{stage.label} takes no tensor; expected an argument that is named after one")
    if stage.subject is not None:
        with _blamed(stage, "binding its inputs"):
            stage.subject.bind([_text(stage.takes(tensors))])
        stack.enter_context(stage.subject.evaluating())


def arguments(stage: Stage) -> tuple[list[str], list[str]]:
    """Return the arguments that must be tensors and those that may be."""
    step = stage.step
    if isinstance(step, Function):
        parameters = list(inspect.signature(step.function).parameters.values())
        return _tensors_of(stage, parameters), []
    if not isinstance(stage.subject, ModuleSubject):  # a file, which knows its inputs
        return list(stage.subject.inputs()), []
    signature = inspect.signature(stage.subject.model.forward)
    named = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = [p.name for p in named if p.default is p.empty or p.name in step.inputs]
    return required, [p.name for p in named if p.name not in required]


def _tensors_of(stage: Stage, parameters: Sequence[inspect.Parameter]) -> list[str]:
    step = stage.step
    assert isinstance(step, Function)
    given = {*step.options, *step.files, *(("models",) if isinstance(step, Script) else ())}
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    missing = [p.name for p in keywords if p.default is p.empty and p.name not in given]
    unknown = sorted(given - {p.name for p in keywords})
    wrong = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY and p.kind is not p.POSITIONAL_OR_KEYWORD]
    if missing or unknown or wrong:
        raise InvalidRecipe(
            f"the function of {stage.label} is {step.function.__name__}{inspect.signature(step.function)}, with the "
            f"options and files {sorted(given) or 'none'}; expected tensors by name, then a '*' and an argument for "
            "each option and file"
        )
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def _call(stage: Stage, tensors: Arrays, case: Case) -> Arrays:
    inputs = stage.takes(tensors)
    with _blamed(stage, f"at {case}"):
        if stage.subject is not None:
            answers = stage.subject.run(_text(inputs))
            return {name: _served.tensor(name, array) for name, array in answers.items()}
        step = stage.step
        assert isinstance(step, Function)
        files = {name: str(Path(path).absolute()) for name, path in step.files.items()}
        names = () if isinstance(step.outputs, Mapping) else tuple(step.outputs)
        copies = {name: array.copy() for name, array in inputs.items()}  # one that writes into them shall not matter
        more = {"models": _models(stage, step, case)} if isinstance(step, Script) else {}
        return _served.named(step.function(**copies, **step.options, **files, **more), tuple(stage.outputs) or names)


def _models(stage: Stage, step: Script, case: Case) -> _calling.Models:
    def caller(name: str) -> _calling.Caller:
        return lambda **tensors: stage.calls[name](tensors, case)

    served = {name: name not in case.without for name in step.optional}
    return _calling.Models(
        {name: caller(name) for name in stage.calls},
        {name: lambda found=found: found for name, found in served.items()},  # type: ignore[misc]
    )


def _name_outputs(stage: Stage, results: Arrays, tensors: Arrays) -> None:
    renamed = stage.step.outputs if isinstance(stage.step.outputs, Mapping) else {}
    unknown = sorted(set(renamed) - set(results))
    if unknown:
        raise InvalidRecipe(f"{stage.label} renames the output {unknown[0]!r}; it gives {', '.join(results)}")
    stage.outputs = {result: renamed.get(result, result) for result in results}
    names = list(stage.outputs.values())
    taken = [name for name in names if name in tensors or names.count(name) > 1]
    if taken:
        raise InvalidRecipe(
            f"{stage.label} gives the tensor {taken[0]!r}, which there is already; give it another name with outputs="
        )


def _check(stage: Stage, results: Arrays, case: Case, first: Arrays | None) -> None:
    for result, array in results.items():
        if case.batch and (not array.ndim or array.shape[0] != case.batch):
            raise InvalidRecipe(
                f"{stage.label} gives {result!r} with the shape {list(array.shape)} at {case}; its first dimension "
                "must be the batch: one row for each row of its inputs"
            )
        before = first[stage.outputs[result]] if first else array
        if (before.dtype, before.ndim) != (array.dtype, array.ndim):
            raise InvalidRecipe(
                f"{stage.label} gives {result!r} as {array.dtype} of rank {array.ndim} at {case}, and as "
                f"{before.dtype} of rank {before.ndim} before; a tensor of Triton has one type and rank"
            )


def _text(arrays: Arrays) -> Arrays:
    """Return text as ONNX Runtime takes it: str."""
    found = {}
    for name, array in arrays.items():
        found[name] = array
        if array.dtype == object:
            found[name] = np.array([item.decode() for item in array.flat], object).reshape(array.shape)
    return found


@contextlib.contextmanager
def _blamed(stage: Stage, when: str) -> Iterator[None]:
    """Turn what a step raises into one line that names the step and the line of its code."""
    try:
        yield
    except Exception as exc:  # whatever foreign code raises
        path, line = _place(stage, exc)
        where = f"{path}:{line}: " if line else ""
        detail = str(exc).strip().splitlines()
        reason = f"{type(exc).__name__}: {detail[0]}" if detail else type(exc).__name__
        raise RecipeFailed(f"{where}{stage.label} failed {when} with {reason}", path=path, line=line) from exc


def _place(stage: Stage, exc: BaseException) -> tuple[Path | None, int | None]:
    if not isinstance(stage.step, Function):
        return None, None
    file = inspect.getsourcefile(inspect.unwrap(stage.step.function))
    lines = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if frame.filename == file]
    return (Path(file), lines[-1]) if file and lines else (None, None)
