"""Rules about scripts: models of the Python backend that call others, named in the parameter `naiad.calls`.

Triton does not know of these calls: it loads a script also where its models are missing, and every request fails.
"""

from collections.abc import Iterator

from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import Problem, wrong
from naiad.export._repository.calls import OPTIONAL, PARAMETER, Call, described

_FIELD = f"parameters.{PARAMETER}"


def readable_calls(entry: Entry) -> Iterator[Problem]:
    """The parameter names models and versions, and those that are optional are among them."""
    try:
        calls = described(entry.config)
    except ValueError as exc:
        yield wrong(_FIELD, str(exc), 'write it as "detector:1,classifier:3"')
        return
    if OPTIONAL in entry.config.parameters:
        named = set(filter(None, entry.config.parameters[OPTIONAL].string_value.split(",")))
        for model in sorted(named - {call.model for call in calls}):
            message = f"{model!r} is not among the calls"
            yield wrong(f"parameters.{OPTIONAL}", message, f"name it in {PARAMETER} too, or remove it")


def known_calls(entry: Entry) -> Iterator[Problem]:
    """The models that a script calls are beside it, and serve the version; an optional one may be missing."""
    for call in _calls(entry):
        other = entry.sibling(call.model)
        if other is None:
            if not call.optional:
                yield wrong(_FIELD, f"there is no model {call.model!r} beside it", "publish it, or correct the name")
        elif other.fields is not None and call.version not in other.served:
            message = f"{call.model} does not serve version {call.version}"
            yield wrong(_FIELD, message, "promote the pipeline again, and its steps follow")


def no_endless_calls(entry: Entry) -> Iterator[Problem]:
    """No script calls itself, however far away."""
    circle = _circle(entry, (entry.name,)) if _calls(entry) else ()
    if circle:
        yield wrong(_FIELD, f"it calls itself: {' → '.join(circle)}", "take one of the calls out")


def _circle(entry: Entry, path: tuple[str, ...]) -> tuple[str, ...]:
    for model in _asked(entry):
        if model == path[0]:
            return (*path, model)
        other = entry.sibling(model)
        if other is not None and model not in path and (found := _circle(other, (*path, model))):
            return found
    return ()


def _asked(entry: Entry) -> Iterator[str]:
    """Give the models that an entry hands requests to; a circle of ensembles alone is another rule's."""
    if entry.config is None:
        return
    yield from (call.model for call in _calls(entry))
    yield from (step.model_name for step in entry.config.ensemble_scheduling.step)


def _calls(entry: Entry) -> tuple[Call, ...]:
    try:
        return described(entry.config)
    except ValueError:
        return ()


RULES = (readable_calls, known_calls, no_endless_calls)
