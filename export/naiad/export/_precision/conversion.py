"""What can be asked for, and the conversions that are tried for it."""

from dataclasses import dataclass
from typing import Any

PRECISIONS = ("fp32", "auto", "fp16", "bf16", "int8", "int8-dynamic", "int8-static", "int4")
"""What `precision` may be; fp32 keeps the model's own types."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """One way to make a candidate; it travels to the worker as JSON."""

    precision: str
    method: str = ""
    """What is done, in words: `dynamic`, or `static entropy`."""
    excluded: tuple[str, ...] = ()
    """Nodes that stay as they are, by their names in the prepared graph."""
    symmetric: bool = False
    """Whether static int8 has zero points of 0 and biases in fp32, as TensorRT demands."""

    def __str__(self) -> str:
        """Return the name in messages: `int8 static entropy`."""
        return f"{self.precision} {self.method}".strip()

    @property
    def family(self) -> str:
        """What the conversion shares with those that differ in their calibration alone: the same operators."""
        return f"{self.precision} {self.method.partition(' ')[0]}".strip()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"precision": self.precision, "method": self.method, "excluded": list(self.excluded)} | (
            {"symmetric": True} if self.symmetric else {}
        )


_STATIC = tuple(
    Conversion(precision="int8", method=f"static {method}") for method in ("minmax", "entropy", "percentile")
)
_DYNAMIC = Conversion(precision="int8", method="dynamic")
_FUSED = Conversion(precision="fp32", method="fused")
_FP16, _BF16 = Conversion(precision="fp16"), Conversion(precision="bf16")
_INT4 = Conversion(precision="int4", method="weights")

_TRIED: dict[str, tuple[Conversion, ...]] = {
    "fp32": (),
    "auto": (_FUSED, _FP16, _BF16, _DYNAMIC, *_STATIC, _INT4),
    "fp16": (_FP16,),
    "bf16": (_BF16,),
    "int8": (_DYNAMIC, *_STATIC),
    "int8-dynamic": (_DYNAMIC,),
    "int8-static": _STATIC,
    "int4": (_INT4,),
}


def conversions(precision: str) -> tuple[Conversion, ...]:
    """Return what is tried for a precision beside the graph as it is."""
    return _TRIED[precision]
