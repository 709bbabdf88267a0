"""Tolerances as they are asked for: some values, for some precisions and some outputs; the rest are defaults."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from naiad.export.errors import InvalidExport
from naiad.export.report import Tolerance

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
_NUMBERS = ("rtol", "atol", "cosine")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerances:
    """What was asked for: a Tolerance for every precision, or a dict of the values that differ from the defaults.

    The dict has `rtol`, `atol` and `cosine` for every precision and output; under `outputs` the same by output; and
    under the name of a precision (`int8`) the same again, for that precision alone.
    """

    given: Tolerance | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for precision in PRECISIONS:  # so that a wrong value is refused before a model is built
            self.of(precision)

    def of(self, precision: str) -> Tolerance:
        """Return the tolerance of a candidate of this precision, such as "fp16" or "int8-static"."""
        if isinstance(self.given, Tolerance):
            return self.given
        values, base = dict(self.given or {}), Tolerance.of(precision)
        family = precision.replace("_", "-").partition("-")[0]
        own = {name: values.pop(name) for name in PRECISIONS if name in values}
        return _changed(_changed(base, values), own.get(family, {}))

    def check_outputs(self, names: Iterable[str]) -> None:
        """Refuse a tolerance for an output that the model does not have.

        Raises:
            InvalidExport: With the outputs that there are.
        """
        known = list(names)
        unknown = [name for precision in PRECISIONS for name in self.of(precision).outputs if name not in known]
        if unknown:
            raise InvalidExport(f"a tolerance is given for the output {unknown[0]!r}; the model has {known}")


def parse_tolerance(texts: Iterable[str]) -> dict[str, Any]:
    """Read `rtol=1e-2,cosine=0.99`, or the same for one output as `probs:atol=1e-3`; later ones win.

    Raises:
        InvalidExport: It is neither.
    """
    values: dict[str, Any] = {}
    for text in texts:
        output, colon, numbers = text.rpartition(":")
        target = values.setdefault("outputs", {}).setdefault(output, {}) if colon else values
        for item in numbers.split(","):
            name, _, number = item.partition("=")
            if name.strip() not in _NUMBERS or not _is_number(number):
                raise InvalidExport(
                    f"{text!r} is not a tolerance; expected rtol=…, atol=… or cosine=…, joined by commas, and "
                    "before them OUTPUT: for one output only"
                )
            target[name.strip()] = float(number)
    return values


def merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with those in `over` in their place, within outputs and precisions too."""
    result = dict(values)
    for name, value in over.items():
        before = result.get(name)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[name] = merged(before, value) if both else value  # type: ignore[arg-type]
    return result


def _changed(base: Tolerance, values: Any) -> Tolerance:
    if not isinstance(values, Mapping):
        raise InvalidExport(f"a tolerance is a dict with rtol, atol and cosine; found {values!r}")
    unknown = sorted(set(map(str, values)) - {*_NUMBERS, "outputs"})
    if unknown:
        raise InvalidExport(
            f"a tolerance has no {unknown[0]!r}; expected rtol, atol and cosine, outputs with the same by output, or "
            f"the same by precision ({', '.join(PRECISIONS)})"
        )
    numbers = {name: values[name] for name in _NUMBERS if name in values}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidExport(f"a tolerance is a number; found {name}={value!r}")
    changed = replace(base, **numbers)
    outputs = values.get("outputs", {})
    if not isinstance(outputs, Mapping):
        raise InvalidExport(f"outputs of a tolerance is a dict by output; found {outputs!r}")
    own = dict.fromkeys([*changed.outputs, *outputs])
    by_output = {
        name: _changed(replace(changed.outputs.get(name, changed), outputs={}), outputs.get(name, {})) for name in own
    }
    return replace(changed, outputs=by_output)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
