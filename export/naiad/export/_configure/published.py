"""The configuration that an earlier version published: it is kept, so a new version has to get along with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from naiad.export._configure import warmup as _warmup
from naiad.export._runtime.session import session
from naiad.export.errors import CheckFailed
from naiad.export.report import Finding

_COMPARED = ("instance_group", "optimization", "parameters", "dynamic_batching", "sequence_batching")


def check_warmup(config: Any, read: Callable[[str], bytes], graph: Path) -> None:
    """Refuse a graph that fails on the warm-up requests which an earlier version brought: Triton would not load it.

    `config` is the published configuration, `read` returns a file of the model's `warmup/`.

    Raises:
        CheckFailed: With what ONNX Runtime says.
    """
    runtime = session(graph) if config.model_warmup else None
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
