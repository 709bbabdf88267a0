"""The task metric: what the model is for, measured with PyTorch and with the file that would be published."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from naiad.export.errors import InvalidExport
from naiad.export.report import MetricResult

if TYPE_CHECKING:
    from naiad.export._runtime.place import Place

Arrays = Mapping[str, np.ndarray[Any, Any]]
Predict = Callable[[Arrays], Arrays]
"""Takes arrays by input name and gives arrays by output name, of any number of rows."""

DEFAULT_LIMIT = "1%"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that says how well a predictor does its task, and by how much it may become worse."""

    name: str
    evaluate: Callable[[Predict], Mapping[str, float] | float]
    """Computes it; a dict of several has it under `name`."""
    max_drop: str | float | None = field(default=None, kw_only=True)
    """How far it may fall below PyTorch's: `"0.5%"` of PyTorch's value, or a number in the metric's own unit. One per
    cent where neither this nor `max_rise` is given."""
    max_rise: str | float | None = field(default=None, kw_only=True)
    """The same for a metric that is better when lower, such as an error rate."""

    def __post_init__(self) -> None:
        if self.max_drop is not None and self.max_rise is not None:
            raise InvalidExport(
                f"metric {self.name!r} has max_drop and max_rise; give max_drop where more is better, else max_rise"
            )
        self.allowed(1.0)

    @property
    def limit(self) -> str:
        """What was allowed, in words: `max drop 0.5%`."""
        if self.max_rise is not None:
            return f"max rise {self.max_rise}"
        return f"max drop {DEFAULT_LIMIT if self.max_drop is None else self.max_drop}"

    def allowed(self, pytorch: float) -> float:
        """Return by how much the metric may become worse, in its own unit."""
        given = self.max_rise if self.max_rise is not None else self.max_drop
        text = str(DEFAULT_LIMIT if given is None else given).strip()
        try:
            value = float(text.removesuffix("%"))
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise InvalidExport(
                f"{given!r} does not say how much worse metric {self.name!r} may be; expected a share of PyTorch's "
                "value such as 0.5%, or a number in the metric's own unit such as 0.005"
            )
        return abs(pytorch) * value / 100 if text.endswith("%") else value

    def measure(self, predict: Predict) -> float:
        """Return the metric of a predictor.

        Raises:
            InvalidExport: `evaluate` gives no such metric, or no number.
        """
        found = self.evaluate(predict)
        if isinstance(found, Mapping):
            if self.name not in found:
                raise InvalidExport(f"there is no metric {self.name!r}; evaluate() gives {', '.join(map(str, found))}")
            found = found[self.name]
        value = float(found)
        if not math.isfinite(value):
            raise InvalidExport(f"metric {self.name!r} is {value}; expected a finite number")
        return value

    def compare(self, pytorch: float, candidate: float) -> MetricResult:
        """Return both values with the verdict."""
        change = candidate - pytorch
        worse = change if self.max_rise is not None else -change
        # Both are sums over the same rows: a difference of rounding alone is none.
        passed = worse <= self.allowed(pytorch) + 1e-9 * max(1.0, abs(pytorch))
        return MetricResult(
            name=self.name, pytorch=pytorch, candidate=candidate, limit=self.limit, change=change, passed=passed
        )


def predictor(run: Callable[[dict[str, Any]], Mapping[str, Any]], max_batch_size: int) -> Predict:
    """Return a predictor that asks at most `max_batch_size` rows at once, as a server would; 0 for no batches."""

    def predict(inputs: Arrays) -> Arrays:
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        num_rows = len(next(iter(arrays.values())))
        if not max_batch_size or num_rows <= max_batch_size:
            return run(arrays)
        starts = range(0, num_rows, max_batch_size)
        parts = [run({name: value[at : at + max_batch_size] for name, value in arrays.items()}) for at in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return predict


def of_file(path: Path, *, level: int, max_batch_size: int, place: "Place | None" = None) -> Predict:
    """Return a predictor that runs an ONNX file, by default on the CPU."""
    from naiad.export._runtime.place import CPU
    from naiad.export._runtime.session import session

    runtime = session(path, level=level, place=place or CPU)
    names = [output.name for output in runtime.get_outputs()]
    known = {each.name for each in runtime.get_inputs()}

    def run(arrays: dict[str, Any]) -> Mapping[str, Any]:
        feeds = {name: value for name, value in arrays.items() if name in known}
        return dict(zip(names, runtime.run(names, feeds), strict=True))

    return predictor(run, max_batch_size)
