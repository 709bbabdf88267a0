"""Models that scripts call.

Triton loads the parts of an ensemble with it, and knows nothing of what a script calls: that is in the script's
configuration, as the parameter `naiad.calls`.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from tritonclient.grpc import model_config_pb2

from naiad.server._source import Source

_PARAMETER: Final = "naiad.calls"
_OPTIONAL: Final = "naiad.optional_calls"


def with_called(source: Source, models: Sequence[str]) -> tuple[str, ...]:
    """Return models, and those that they call or that are called further on, as far as there are any."""
    found = list(models)
    for model in found:  # which grows meanwhile
        found += [name for name, _ in called(source, model) if name not in found and source.configs([name])]
    return tuple(found)


def called(source: Source, model: str) -> Iterator[tuple[str, bool]]:
    """Give the models that a script, or a script in an ensemble, calls, and whether it does without."""
    models = [model]
    for name in models:  # which grows meanwhile, by ensembles within ensembles; Triton refuses those in a circle
        config = source.configs([name]).get(name)
        if config is None:
            continue
        models += [step.model_name for step in config.ensemble_scheduling.step if step.model_name not in models]
        optional = _list(config, _OPTIONAL)
        names = dict.fromkeys(call.rpartition(":")[0] for call in _list(config, _PARAMETER))
        yield from ((each, each in optional) for each in names if each)


def _list(config: model_config_pb2.ModelConfig, parameter: str) -> list[str]:
    text = config.parameters[parameter].string_value if parameter in config.parameters else ""
    return [part.strip() for part in text.split(",")]
