"""Conversions to integers with ONNX Runtime's quantisers, each with the settings that its pitfalls ask for.

Weights have 7 bits of the 8: with all 8 the sums of int8 kernels overflow on processors without VNNI, silently, so that
a file that is right on the machine that made it would be wrong on an older one (ONNX Runtime's `reduce_range`).
"""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    create_calibrator,
)
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.quantize import quantize_dynamic

Feeds = Mapping[str, np.ndarray[Any, Any]]

DYNAMIC_OPS = ["MatMul", "LSTM", "Attention"]
"""Not Conv: its dynamic kernel made a net five times slower. Gemm becomes MatMul and Add."""
_COMPUTE_OPS = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
_PASSING_OPS = [
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Relu",
    "Clip",
    "Concat",
    "Reshape",
    "Flatten",
    "Squeeze",
]
_PASSING_OPS += ["Unsqueeze", "Transpose"]
_FLOAT_OUTPUTS = ["MatMul", "Gemm"]
"""Rounded only for those that read them: half the error on an encoder, as fast. Conv's kernel needs int8 out."""
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_BLOCK_SIZE = 32
_INT8_ACTIVATIONS = 4
"""MatMulNBits' accuracy level: it multiplies in int8, which is its fastest kernel on a CPU."""


class _OneByOne(CalibrationDataReader):  # type: ignore[misc]
    """The calibration feeds as ONNX Runtime wants them."""

    def __init__(self, feeds: Iterable[Feeds]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Any:
        return next(self._feeds, None)


class _Finite:
    """A session whose infinities are cut to its finite values: a mask of -inf has no histogram, and needs none."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Any, feeds: Feeds) -> list[Any]:
        return [_finite(value) for value in self._session.run(names, feeds)]


class _Largest:
    """A session whose only answer is the value of largest magnitude that each tensor has in any feed.

    A histogram whose first feed is silence would grow by millions of bins when the first sound comes.
    """

    def __init__(self, session: _Finite, feeds: Iterable[Feeds]) -> None:
        self._session = session
        self._largest: list[Any] = []
        for feed in feeds:
            values = [_largest(value) for value in session.run(None, feed)]
            self._largest = [_larger(*pair) for pair in zip(self._largest or values, values, strict=True)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Any, feeds: Feeds) -> list[Any]:
        del names, feeds
        return self._largest


def _largest(value: Any) -> Any:
    """Return the value of largest magnitude as an array of one; nothing of a tensor that is empty or no number."""
    if not _is_float(value):
        return value
    return value.reshape(-1)[[np.abs(value).argmax()]] if value.size else value.reshape(-1)


def _larger(first: Any, second: Any) -> Any:
    return _largest(np.concatenate([first, second])) if _is_float(first) and _is_float(second) else first


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _finite(value: Any) -> Any:
    if not _is_float(value):
        return value
    known = np.isfinite(value)
    if known.all():
        return value
    low, high = (value[known].min(), value[known].max()) if known.any() else (0.0, 0.0)
    return np.nan_to_num(value, nan=low, neginf=low, posinf=high)


def quantise_dynamic(prepared: Path, target: Path, excluded: Collection[str], *, external: bool) -> None:
    """Write the model with int8 weights, and activations quantised as they come, for each channel of the weights."""
    quantize_dynamic(
        str(prepared),
        str(target),
        op_types_to_quantize=DYNAMIC_OPS,
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        # A Gemm is replaced by a MatMul before the list is read.
        nodes_to_exclude=[*excluded, *(f"{name}_MatMul" for name in excluded)],
        use_external_data_format=external,
    )


def calibrate(prepared: Path, method: str, feeds: Sequence[Feeds], augmented: Path, *, external: bool) -> Any:
    """Return the range of every tensor that is quantised, from real feeds, one at a time to bound the memory."""
    calibrator = create_calibrator(
        str(prepared),
        static_ops(onnx.load(prepared, load_external_data=False).graph),
        augmented_model_path=str(augmented),
        calibrate_method=_METHODS[method],
        use_external_data_format=external,
        extra_options={"symmetric": False},
    )
    finite = _Finite(calibrator.infer_session)
    if method != "minmax":
        calibrator.infer_session = _Largest(finite, feeds)
        calibrator.collect_data(_OneByOne(feeds[:1]))
    calibrator.infer_session = finite
    for feed in feeds:
        calibrator.collect_data(_OneByOne([feed]))
    return calibrator.compute_data()


def quantise_static(
    prepared: Path,
    target: Path,
    ranges: Any,
    excluded: Collection[str],
    *,
    external: bool,
    symmetric: bool = False,
) -> None:
    """Write the model with pairs of QuantizeLinear and DequantizeLinear around its operators with weights.

    `symmetric` is for TensorRT: 8 bits around 0 for weights and activations, and biases in fp32.
    """
    model = onnx.load(prepared)
    options = {"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": _FLOAT_OUTPUTS}
    if symmetric:
        options |= {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    quantizer = QDQQuantizer(
        model,
        True,  # for each channel of the weights
        not symmetric,  # 7 bits, for the sums of older x86 processors
        QuantType.QInt8,
        QuantType.QInt8 if symmetric else QuantType.QUInt8,
        copy.deepcopy(ranges),  # the quantiser adjusts them to what it quantises
        [],
        list(excluded),
        static_ops(model.graph),
        options,
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(target), external)


def quantise_weights(prepared: Path, target: Path, excluded: Collection[str], *, external: bool) -> None:
    """Write the model with 4-bit weights in blocks, for each MatMul with constant weights."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # loads much

    model = ONNXModel(onnx.load(prepared))
    model.replace_gemm_with_matmul()
    quantizer = MatMulNBitsQuantizer(
        model.model,
        bits=4,
        block_size=_BLOCK_SIZE,
        is_symmetric=True,
        accuracy_level=_INT8_ACTIVATIONS,
        nodes_to_exclude=[*excluded, *(f"{name}_MatMul" for name in excluded)],
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), external)


def static_ops(graph: Any) -> list[str]:
    """Return the operators to quantise: those with weights, and what only passes values on between them.

    Sums too where there are convolutions, whose residuals then stay in int8. Norms, softmax and a transformer's
    residuals stay in floats: quantised, they cost a sentence encoder its meaning (cosine 0.10).
    """
    sums = ["Add"] if any(node.op_type == "Conv" for node in graph.node) else []
    return [*_COMPUTE_OPS, *_PASSING_OPS, *sums]
