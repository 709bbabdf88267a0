"""The configuration that an earlier version published: it is kept, so a new version has to get along with it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from naiad.export._configure import settings as _settings
from naiad.export._configure import warmup as _warmup
from naiad.export._runtime.place import CPU, Place
from naiad.export._runtime.session import session
from naiad.export.errors import CheckFailed
from naiad.export.report import Finding

if TYPE_CHECKING:
    from naiad.export.repository import Repository

_COMPARED = ("instance_group", "optimization", "parameters", "dynamic_batching", "sequence_batching")


def check_warmup(
    repository: "Repository", model: str, settings: Mapping[str, object], graph: Path, place: Place = CPU
) -> Any:
    """Return the configuration that an earlier version published, with `settings` applied; None before the first one.

    A graph that fails on the warm-up requests of that configuration is refused: Triton would not load it.

    Raises:
        CheckFailed: With what ONNX Runtime says.
    """
    if model not in repository.models():
        return None
    config = repository.config(model)
    _settings.apply(config, settings)
    _run_warmup(config, lambda name: repository.warmup_data(model, name), graph, place)
    return config


def _run_warmup(config: Any, read: Callable[[str], bytes], graph: Path, place: Place) -> None:
    try:
        runtime = session(graph, place=place) if config.model_warmup else None
    except Exception:  # noqa: BLE001 - ONNX Runtime's errors share no public base class
        return  # it has been verified, so that the CPU alone lacks kernels for it
    for request in config.model_warmup:
        feeds = _warmup.decode(request, read, batched=config.max_batch_size > 0)
        if runtime is None or feeds is None:
            continue
        ranks = {tensor.name: len(tensor.shape) for tensor in runtime.get_inputs()}
        try:  # a dimension of 1 that stands for none in Triton is not in the graph
            runtime.run(None, {name: array.reshape(array.shape[: ranks.get(name)]) for name, array in feeds.items()})
        except Exception as exc:
            raise CheckFailed(
                f"the warm-up request {request.name!r} of {config.name}, which came with an earlier version and is "
                f"run by every version, fails in this graph: {_first_line(exc)}. Triton would refuse to load it; "
                "publish this model under a new name",
                model=config.name,
            ) from exc


def kept(config: Any, derived: Any) -> tuple[Finding, ...]:
    """Say where the published configuration differs from what this export derived."""
    fields = [name for name in _COMPARED if _value(config, name) != _value(derived, name)]
    if not fields:
        return ()
    message = (
        f"the published configuration has another {' and '.join(fields)} than this export derived; it is kept, as its "
        "owner tuned it: change it with --set"
    )
    return (Finding(check="kept configuration", message=message),)


def _value(config: Any, name: str) -> Any:
    value = getattr(config, name)
    return list(value) if name == "instance_group" else dict(value) if name == "parameters" else value


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0]
