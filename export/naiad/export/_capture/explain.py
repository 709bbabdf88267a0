"""Failures of PyTorch's exporters in plain words: what, and which line of the model."""

import re
import traceback
from pathlib import Path
from typing import Any

_FOREIGN = {"torch", "onnxscript", "onnx_ir", "sympy", "<frozen runpy>"}
_FIXED = re.compile(
    r"You marked L\['(\w+)'\](?:\[(\d+)\])?\.size\(\)\[(\d+)\] as dynamic but your code specialized it .*\((\d+)\)"
)
_NO_FUNCTION = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
_NOT_SUPPORTED = re.compile(r"Exporting the operator '?([\w:]+)'? to ONNX opset version \d+ is not supported")


class NotConverted(Exception):
    """ONNX lacks an operator, or the conversion failed for another reason; the cause is chained."""

    def __init__(self, operator: str | None, source: str | None) -> None:
        super().__init__("the conversion to ONNX failed")
        self.operator = operator
        self.source = source


def explain(exc: BaseException) -> dict[str, Any]:
    """Return what failed, for the parent process; `fixed` names an input's dimension that the model does not vary."""
    chain, said = _chain(exc), texts(exc)
    known = next((item for item in chain if hasattr(item, "source")), None)
    operator = operator_without_onnx(said)
    fixed = next((match for text in said if (match := _FIXED.search(text))), None)
    return {
        "errno": next((item.errno for item in chain if isinstance(item, OSError) and item.errno), None),
        "message": _message(chain, said, operator),
        "operator": operator,
        "source": known.source if known is not None else _source(exc),
        "fixed": {"input": fixed[1], "index": fixed[2], "axis": int(fixed[3]), "size": int(fixed[4])}
        if fixed
        else None,
    }


def texts(exc: BaseException) -> list[str]:
    """Return what an exception and its causes say."""
    return [str(item) for item in _chain(exc) if not isinstance(item, NotConverted)]


def operator_without_onnx(said: list[str]) -> str | None:
    """Return the operator for which ONNX has nothing, if that was the reason."""
    found = (_NO_FUNCTION.search(text) or _NOT_SUPPORTED.search(text) for text in said)
    return next((match.group(1).replace("::", ".") for match in found if match), None)


def _chain(exc: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = exc
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _message(chain: list[BaseException], said: list[str], operator: str | None) -> str:
    if operator:
        return f"ONNX has no operator for {operator}; compute it outside the model, or from other operations"
    names = {type(item).__name__ for item in chain}
    if "GuardOnDataDependentSymNode" in names:
        return (
            "a Python `if`, loop or number depends on the values in a tensor, which a graph cannot follow; use "
            "torch.where or torch.cond, or keep the number a tensor"
        )
    if "Baked" in names:
        return f"{said[0]} would be baked in; use torch.where, or keep what depends on the input a tensor"
    lines = [line.strip() for line in said[0].splitlines() if line.strip()]
    return re.sub(r"\x1b\[\d*m", "", lines[0]) if lines else "no reason given"


def _source(exc: BaseException) -> str | None:
    """Return the innermost line of code outside PyTorch and Naiad that the failure passed through."""
    for frame in reversed(traceback.extract_tb(exc.__traceback__)):
        parts = Path(frame.filename).parts
        own = "naiad" in parts and parts[parts.index("naiad") + 1 :][:1] == ("export",)
        if not _FOREIGN.intersection(parts) and not own and parts[0] != "<":
            return f"{frame.filename}:{frame.lineno}"
    return None
