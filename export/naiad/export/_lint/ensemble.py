"""Rules about ensembles: each by itself, and with the models that it is made of.

Source: `ValidateEnsembleSchedulingConfig` in `model_config_utils.cc`, `ensemble_utils.cc`, and the dependency graph in
`model_repository_manager.cc` of Triton's core.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from naiad.export._lint.entry import Entry
from naiad.export._lint.flow import Flow, flow
from naiad.export._lint.problem import Problem, fails, wrong
from naiad.export._lint.tensors import data_type_name

_STEP = "ensemble_scheduling.step"


def consistent(entry: Entry) -> Iterator[Problem]:
    """Platform and steps go together, and an ensemble has no instances of its own."""
    config = entry.config
    if config.HasField("ensemble_scheduling") and config.platform != "ensemble":
        message = f"expected 'ensemble', because there are steps; found {config.platform!r}"
        yield fails("platform", message, 'set platform: "ensemble", and no backend')
    if config.platform == "ensemble" and not config.HasField("ensemble_scheduling"):
        yield fails("ensemble_scheduling", "the platform is 'ensemble', and there are no steps", "add the steps")
    if not config.HasField("ensemble_scheduling"):
        return
    for field in ("instance_group", "model_warmup"):
        if getattr(config, field):
            yield fails(field, "an ensemble has none: its steps do", "move it to the models of the steps")
    if entry.config.HasField("optimization"):
        yield fails("optimization", "an ensemble has none: its steps do", "move it to the models of the steps")


def complete_steps(entry: Entry) -> Iterator[Problem]:
    """Each step names a model, and what goes in and out."""
    if not entry.config.HasField("ensemble_scheduling"):
        return
    if not entry.config.ensemble_scheduling.step:
        yield fails(_STEP, "there are no steps", "add them")
    for index, step in enumerate(entry.config.ensemble_scheduling.step):
        for field in ("model_name", "input_map", "output_map"):
            if not getattr(step, field):
                yield fails(f"{_STEP}[{index}].{field}", "it is missing", "add it")


def written_once(entry: Entry) -> Iterator[Problem]:
    """No tensor is the output of two steps."""
    for name, writers in flow(entry.config).writers.items():
        if len(writers) > 1:
            message = f"{name!r} is written by the steps {' and '.join(map(str, writers))}"
            yield fails(f"{_STEP}.output_map", message, "give each step's output a name of its own")


def used_tensors(entry: Entry) -> Iterator[Problem]:
    """Every input is read, every output is written, and nothing between them is left over."""
    if not entry.config.ensemble_scheduling.step:
        return
    found = flow(entry.config)
    for tensor in entry.config.input:
        if tensor.name not in found.names:
            yield fails(f"input.{tensor.name}", "no step reads it", "map it into a step, or remove it")
    for tensor in entry.config.output:
        if tensor.name not in found.names:
            yield fails(f"output.{tensor.name}", "no step writes it", "map it from a step, or remove it")
        elif tensor.name not in found.ready:
            source = _first_missing(found, tensor.name)
            message = f"it depends on {source!r}, which no step and no input gives before it is needed"
            yield fails(f"output.{tensor.name}", message, "connect it")
    outputs = {tensor.name for tensor in entry.config.output}
    for name in sorted(found.names - outputs):
        if name not in found.ready or name not in found.readers:
            what = "nothing reads it" if name in found.ready else "nothing gives it before it is needed"
            message = f"the tensor {name!r} is left over: {what}"
            yield fails(_STEP, message, "leave it out of the maps: a step's outputs need not all be mapped")


def _first_missing(found: Flow, name: str) -> str:
    """Follow what is not ready to where it begins."""
    seen = set[str]()
    while name not in seen:
        seen.add(name)
        before = [each for each in found.sources.get(name, ()) if each not in found.ready and each not in seen]
        name = before[0] if before else name
    return name


def known_models(entry: Entry) -> Iterator[Problem]:
    """The models of the steps are in the repository, and serve the version that is asked for."""
    for index, step in enumerate(entry.config.ensemble_scheduling.step):
        field = f"{_STEP}[{index}].model_name"
        other = entry.sibling(step.model_name)
        if other is None:
            if step.model_name:
                yield fails(
                    field, f"there is no model {step.model_name!r} beside it", "publish it, or correct the name"
                )
        elif other.config is not None and step.model_version != -1 and step.model_version not in other.served:
            message = f"{step.model_name} does not serve version {step.model_version}"
            yield fails(f"{_STEP}[{index}].model_version", message, "set it to -1 for the newest that is served")


def no_circle(entry: Entry) -> Iterator[Problem]:
    """No ensemble is a step of itself, however far away."""
    circle = _circle(entry, (entry.name,))
    if circle:
        message = f"it is a step of itself: {' → '.join(circle)}"
        yield fails(_STEP, message, "take one of the steps out")


def _circle(entry: Entry, path: tuple[str, ...]) -> tuple[str, ...]:
    for step in entry.config.ensemble_scheduling.step if entry.config is not None else ():
        if step.model_name == path[0]:
            return (*path, step.model_name)
        other = entry.sibling(step.model_name)
        if other is not None and step.model_name not in path and (found := _circle(other, (*path, step.model_name))):
            return found
    return ()


def batch_sizes(entry: Entry) -> Iterator[Problem]:
    """A step that batches takes the ensemble's largest batch."""
    largest = entry.config.max_batch_size
    for index, _, other in _steps(entry):
        if 0 < other.max_batch_size < largest:
            message = f"the ensemble allows batches of {largest}, and {other.name} of {other.max_batch_size} at most"
            yield fails("max_batch_size", message, f"lower it to {other.max_batch_size} (step {index})")


def mapped_tensors(entry: Entry) -> Iterator[Problem]:
    """What a step maps are inputs and outputs of its model, all inputs that it needs among them."""
    for index, step, other in _steps(entry):
        field = f"{_STEP}[{index}]"
        inputs = {tensor.name: tensor for tensor in other.input}
        outputs = {tensor.name for tensor in other.output}
        for name in sorted(set(step.input_map) - set(inputs)):
            yield fails(f"{field}.input_map", f"{other.name} has no input {name!r}", "use the model's name as the key")
        for name in sorted(set(step.output_map) - outputs):
            yield fails(
                f"{field}.output_map", f"{other.name} has no output {name!r}", "use the model's name as the key"
            )
        for name in sorted(set(inputs) - set(step.input_map)):
            if not inputs[name].optional:
                yield fails(f"{field}.input_map", f"{other.name} needs the input {name!r}", "map a tensor to it")


def equal_tensors(entry: Entry) -> Iterator[Problem]:
    """A tensor has one type and one shape wherever it appears; -1 fits any size."""
    seen = _own_tensors(entry)
    for index, step, other in _steps(entry):
        pairs = [(step.input_map, other.input), (step.output_map, other.output)]
        for names, described in pairs:
            for tensor in described:
                if tensor.name not in names:
                    continue
                name, place = names[tensor.name], f"{other.name}.{tensor.name}"
                here = _Seen(place, tensor.data_type, tuple(tensor.dims), other.max_batch_size > 0)
                before = seen.setdefault(name, here)
                yield from _differences(f"{_STEP}[{index}]", name, before, here)


class _Seen:
    """Where a tensor was met first, with its type and shape there."""

    def __init__(self, place: str, data_type: int, dims: tuple[int, ...], batched: bool) -> None:
        self.place, self.data_type, self.dims = place, data_type, dims
        self.whole = (-1, *dims) if batched else dims


def _own_tensors(entry: Entry) -> dict[str, _Seen]:
    found: dict[str, _Seen] = {}
    for tensor in (*entry.config.input, *entry.config.output):
        dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        found.setdefault(
            tensor.name, _Seen(f"the ensemble's {tensor.name}", tensor.data_type, tuple(dims), entry.batched)
        )
    return found


def _differences(field: str, name: str, before: _Seen, here: _Seen) -> Iterator[Problem]:
    if before.data_type != here.data_type:
        words = data_type_name(before.data_type), data_type_name(here.data_type)
        message = f"{name!r} is {words[0]} in {before.place} and {words[1]} in {here.place}"
        yield fails(field, message, "use one type, or convert it in a step between")
    elif not _compatible(before.dims, here.dims) and not _compatible(before.whole, here.whole):
        message = f"{name!r} is {list(before.whole)} in {before.place} and {list(here.whole)} in {here.place}"
        yield fails(field, message, "use one shape, or reshape it in a step between")


def _compatible(ours: Sequence[int], theirs: Sequence[int]) -> bool:
    return len(ours) == len(theirs) and all(-1 in pair or pair[0] == pair[1] for pair in zip(ours, theirs, strict=True))


def response_cache(entry: Entry) -> Iterator[Problem]:
    """The cache of an ensemble hides its steps."""
    decoupled = [other.name for _, _, other in _steps(entry) if other.model_transaction_policy.decoupled]
    if decoupled and entry.config.response_cache.enable:
        message = f"the cache does not go with the decoupled model {decoupled[0]}"
        yield wrong("response_cache", message, "leave it out")


def _steps(entry: Entry) -> Iterator[tuple[int, Any, Any]]:
    """Give the steps whose model can be read, with that model's configuration."""
    for index, step in enumerate(entry.config.ensemble_scheduling.step):
        other = entry.sibling(step.model_name)
        if other is None or other.config is None:
            continue
        if (other.config.input and other.config.output) or not entry.auto_complete:
            yield index, step, other.config


RULES = (
    consistent,
    complete_steps,
    written_once,
    used_tensors,
    known_models,
    no_circle,
    batch_sizes,
    mapped_tensors,
    equal_tensors,
    response_cache,
)
