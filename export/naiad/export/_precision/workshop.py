"""The conversions on disk: a model in, a candidate out. Runs in the worker, whose tools print and log as they like."""

import functools
from pathlib import Path
from typing import Any

import onnx

from naiad.export._precision import changed as _changed
from naiad.export._precision import floats as _floats
from naiad.export._precision import integers as _integers
from naiad.export._precision import sensitivity as _sensitivity
from naiad.export._precision.conversion import Conversion
from naiad.export._precision.feeds import read_calibration

EXTERNAL_BYTES = 1_500_000_000
"""From this size on the weights lie beside the graph; a single file ends at 2 GB."""


class NothingToConvert(Exception):
    """The graph has nothing that this conversion could change; the message says what it looks for."""


class ContractBroken(Exception):
    """A conversion changed what clients see."""


class Workshop:
    """One verified graph and the candidates made from it, in a directory of their own."""

    def __init__(self, source: Path, directory: Path) -> None:
        self._source = source
        self._directory = directory
        self._external = sum(file.stat().st_size for file in source.parent.glob("model.onnx*")) > EXTERNAL_BYTES
        self._ranges: dict[str, Any] = {}

    @functools.cached_property
    def _plain(self) -> Path:
        """The graph with all nodes named, and without the exporter's notes of shapes: quantisers stumble over them."""
        model = onnx.load(self._source)
        del model.graph.value_info[:]
        taken: set[str] = set()
        for index, node in enumerate(model.graph.node):
            if not node.name or node.name in taken:
                node.name = f"{node.op_type}_{index}_"
            taken.add(node.name)
        return self._save(model, "plain.onnx")

    @functools.cached_property
    def _prepared(self) -> Path:
        """The plain graph with constants folded, normalisation fused into convolutions, and shapes inferred."""
        from onnxruntime.quantization.shape_inference import quant_pre_process

        prepared = self._directory / "prepared.onnx"
        try:
            # Symbolic inference fails on many graphs ("Incomplete symbolic shape inference"); ONNX's own does not.
            quant_pre_process(
                str(self._plain),
                str(prepared),
                skip_symbolic_shape=True,
                save_as_external_data=self._external,
                all_tensors_to_one_file=True,
                external_data_location="prepared.onnx.data",
            )
        except Exception:  # noqa: BLE001 - it is a help, not a must
            return self._plain
        return prepared

    def convert(self, conversion: Conversion, target: Path) -> dict[str, Any]:
        """Write a candidate, and return how many nodes it changed and which formats it has."""
        target.parent.mkdir(parents=True, exist_ok=True)
        kind = (conversion.precision, conversion.method.partition(" ")[0])
        before = self._convert(kind, conversion, target)
        model = onnx.load(target, load_external_data=False)
        declared = _declared(self._graph(self._plain))
        if _declared(model.graph) != declared:
            raise ContractBroken(f"inputs or outputs became {_declared(model.graph)}; expected {declared}")
        return {
            "num_changed": _changed.changed(model.graph, before),
            "opset": next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx")),
            "ir_version": model.ir_version,
        }

    def _convert(self, kind: tuple[str, str], conversion: Conversion, target: Path) -> Any:
        excluded, external = conversion.excluded, self._external
        match kind:
            case ("fp16" | "bf16" as precision, _):
                convert = _floats.to_fp16 if precision == "fp16" else _floats.to_bf16
                self._save(convert(onnx.load(self._plain), excluded), target)
                return self._graph(self._plain)
            case ("fp32", "fused"):
                self._fuse(target)
            case ("int8", "dynamic"):
                _integers.quantise_dynamic(self._prepared, target, excluded, external=external)
            case ("int8", "static"):
                ranges = self._calibrated(conversion.method.partition(" ")[2])
                _integers.quantise_static(
                    self._prepared, target, ranges, excluded, external=external, symmetric=conversion.symmetric
                )
            case ("int4", _):
                _integers.quantise_weights(self._prepared, target, excluded, external=external)
            case _:
                raise AssertionError(f"no conversion {kind}")
        return self._graph(self._prepared)

    def rank(self, conversion: Conversion, candidate: Path) -> list[list[str]]:
        """Return the nodes by how much of the candidate's error each adds, the worst first; see `sensitivity.rank`."""
        graph = self._graph(self._prepared)
        ops = {
            "int8 dynamic": frozenset({*_integers.DYNAMIC_OPS, "Gemm"}),
            "int8 static": frozenset(_integers.static_ops(graph)),
            "int4 weights": frozenset({"MatMul", "Gemm"}),
        }.get(conversion.family)
        base = self._prepared if conversion.precision.startswith("int") else self._plain
        return _sensitivity.rank(base, candidate, next(read_calibration(self._directory)), ops)

    def _calibrated(self, method: str) -> Any:
        if method not in self._ranges:
            augmented = self._directory / f"augmented-{method}.onnx"
            self._ranges[method] = _integers.calibrate(
                self._prepared, method, list(read_calibration(self._directory)), augmented, external=self._external
            )
            for file in augmented.parent.glob(f"{augmented.name}*"):
                file.unlink()
        return self._ranges[method]

    def _fuse(self, target: Path) -> None:
        if "Softmax" not in {node.op_type for node in self._graph(self._plain).node}:
            raise NothingToConvert("the graph has no attention to be fused")
        from onnxruntime.transformers.optimizer import optimize_model  # takes a second to import

        # Level 0: the rest is left to the server's own ONNX Runtime, which knows its hardware.
        fused = optimize_model(str(self._plain), model_type="bert", num_heads=0, hidden_size=0, opt_level=0)
        operators = {node.op_type for node in fused.model.graph.node}
        if not operators & {"Attention", "MultiHeadAttention"}:
            raise NothingToConvert("no attention was recognised to be fused")
        fused.save_model_to_file(str(target), use_external_data_format=self._external)

    def _graph(self, path: Path) -> Any:
        return onnx.load(path, load_external_data=False).graph

    def _save(self, model: Any, path: str | Path) -> Path:
        target = self._directory / path
        onnx.save(model, target, save_as_external_data=self._external, location=f"{target.name}.data")
        return target


def _declared(graph: Any) -> list[tuple[str, int, tuple[int, ...]]]:
    """Return names, types and dimensions of inputs and outputs; -1 for one that varies."""
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim),
        )
        for value in (*graph.input, *graph.output)
    ]
