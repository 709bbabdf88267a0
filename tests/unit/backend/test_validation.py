"""The load rules, checked without a server."""

from typing import Any

import pytest
from _ort_errors import ConfigurationError, UnsupportedError
from _ort_graph import Graph, TensorInfo
from _ort_support import check_supported
from _ort_validation import validate

from backend_configs import config
from repository_helpers import parse_tensor


def infos(tensors: dict[str, str]) -> tuple[TensorInfo, ...]:
    found = []
    for name, text in tensors.items():
        data_type, dims = parse_tensor(text)
        shape = tuple(dim if isinstance(dim, int) else -1 for dim in dims)
        found.append(TensorInfo(name=name, data_type=f"TYPE_{data_type}", shape=shape))
    return tuple(found)


def graph(inputs: dict[str, str], outputs: dict[str, str], defaults: dict[str, str] | None = None) -> Graph:
    return Graph(inputs=infos(inputs), outputs=infos(outputs), initializers=infos(defaults or {}))


PLAIN = graph({"x": "FP32[batch,3]"}, {"y": "FP32[batch,width]"})
RAGGED = {"tensor": "FP32[-1]", "allow_ragged_batch": True}
COUNT = {"kind": "BATCH_ELEMENT_COUNT", "target_name": ["n"], "data_type": "TYPE_INT32", "source_input": ["x"]}
OPTIONAL = {"tensor": "FP32[1]", "optional": True}


def control(name: str, kind: str = "START", **values: Any) -> dict[str, Any]:
    described = {"kind": f"CONTROL_SEQUENCE_{kind}", **(values or {"fp32_false_true": [0, 1]})}
    return {"sequence_batching": {"control_input": [{"name": name, "control": [described]}]}}


STATEFUL = graph({"x": "FP32[b,3]", "s": "FP32[b,5]"}, {"y": "FP32[b,w]", "s_out": "FP32[b,5]"})


def state(source: str, target: str, dims: tuple[int, ...] = (5,)) -> dict[str, Any]:
    described = {"input_name": source, "output_name": target, "data_type": "TYPE_FP32", "dims": list(dims)}
    return {"sequence_batching": {"state": [described]}}


@pytest.mark.parametrize(
    ("fields", "loaded"),
    [
        ({"max_batch_size": 4, "inputs": {"x": "FP32[3]"}, "outputs": {"y": "FP32[-1]"}}, PLAIN),
        ({"inputs": {"x": "FP32[-1,3]"}, "outputs": {"y": "FP32[-1,-1]"}}, PLAIN),
        ({"inputs": {"x": "FP32[7,3]"}, "outputs": {"y": "FP32[-1,-1]"}}, PLAIN),
        (
            {
                "max_batch_size": 4,
                "inputs": {"x": {"tensor": "FP32[3,1]", "reshape": {"shape": [3]}}},
                "outputs": {"y": "FP32[-1]"},
            },
            PLAIN,
        ),
        ({"inputs": {"x": "FP32[1]"}, "outputs": {"y": "FP32[1,1]"}}, graph({"x": "FP32[]"}, {"y": "FP32[]"})),
        (
            {"inputs": {"x": "FP32[2]", "scale": OPTIONAL}, "outputs": {"y": "FP32[2]"}},
            graph({"x": "FP32[2]"}, {"y": "FP32[2]"}, {"scale": "FP32[1]"}),
        ),
        (
            {"inputs": {"x": "FP32[2]"}, "outputs": {"y": "FP32[2]"}},
            graph({"x": "FP32[2]"}, {"y": "FP32[2]", "z": "FP32[2]"}, {"scale": "FP32[1]"}),
        ),
        (
            {"max_batch_size": 4, "inputs": {"x": "FP32[3]"}, "outputs": {"y": "FP32[3]"}} | control("start"),
            graph({"x": "FP32[b,3]", "start": "FP32[b,1]"}, {"y": "FP32[b,3]"}),
        ),
        (
            {"max_batch_size": 4, "inputs": {"x": RAGGED}, "outputs": {"y": "FP32[3]"}},
            graph({"x": "FP32[n]"}, {"y": "FP32[b,3]"}),
        ),
        (
            {"max_batch_size": 4, "inputs": {"x": "FP32[3]"}, "outputs": {"y": "FP32[-1]"}} | state("s", "s_out"),
            STATEFUL,
        ),
    ],
    ids=["batched", "unbatched", "narrowed", "reshape", "scalar", "optional", "subset", "control", "ragged", "state"],
)
def test_what_fits_is_accepted(fields: dict[str, Any], loaded: Graph) -> None:
    """Configurations that the C++ backend loads are loaded."""
    validate(config(**fields), loaded)


BATCHED = {"max_batch_size": 4, "inputs": {"x": "FP32[3]"}, "outputs": {"y": "FP32[-1]"}}


@pytest.mark.parametrize(
    ("fields", "loaded", "message"),
    [
        (BATCHED | {"inputs": {"z": "FP32[3]"}}, PLAIN, r"input 'z': expected one of 'x', found no such input"),
        (BATCHED | {"inputs": {}}, PLAIN, r"inputs: expected exactly 'x'.*found none configured"),
        (
            BATCHED,
            graph({"x": "FP32[b,3]", "w": "FP32[b,3]"}, {"y": "FP32[b,w]"}),
            r"expected exactly 'x', 'w'.*found 'x' configured",
        ),
        (BATCHED | {"inputs": {"x": "INT64[3]"}}, PLAIN, r"expected data_type TYPE_FP32.*found TYPE_INT64"),
        (BATCHED | {"inputs": {"x": "FP32[4]"}}, PLAIN, r"input 'x': expected dims \[3\].*found \[4\]"),
        (BATCHED | {"inputs": {"x": "FP32[-1]"}}, PLAIN, r"input 'x': expected dims \[3\].*found \[-1\]"),
        (BATCHED | {"inputs": {"x": "FP32[3,1]"}}, PLAIN, r"expected dims \[3\].*found \[3, 1\]"),
        (BATCHED | {"outputs": {"y": "FP32[5]"}}, PLAIN, r"output 'y': expected dims \[-1\].*found \[5\]"),
        (BATCHED | {"outputs": {"z": "FP32[5]"}}, PLAIN, r"output 'z': expected one of 'y', found no such output"),
        (BATCHED | {"outputs": {}}, PLAIN, r"outputs: expected at least one of 'y', found none"),
        (BATCHED, graph({"x": "FP32[8,3]"}, {"y": "FP32[b,w]"}), r"dynamic first dimension.*found shape \[8, 3\]"),
        (BATCHED, graph({"x": "FP32[]"}, {"y": "FP32[b,w]"}), r"dynamic first dimension.*found shape \[\]"),
        (
            BATCHED | {"inputs": {"x": "FP32[3]", "s": OPTIONAL}},
            graph({"x": "FP32[b,3]"}, {"y": "FP32[b,w]"}, {"s": "FP32[1]"}),
            r"optional inputs only with max_batch_size 0, found 4",
        ),
        (
            {"inputs": {"x": OPTIONAL}, "outputs": {"y": "FP32[1]"}},
            graph({"x": "FP32[1]"}, {"y": "FP32[1]"}),
            r"inputs: expected exactly 'x'.*optional may only be nothing",
        ),
        (
            {"inputs": {"x": "FP32[2]"}, "outputs": {"y": "FP32[1]"}},
            graph({"x": "FP32[]"}, {"y": "FP32[]"}),
            r"input 'x': expected dims \[1\].*found \[2\]",
        ),
        (BATCHED | {"inputs": {"x": RAGGED}}, PLAIN, r"expected shape \[-1\] in the model.*found \[-1, 3\]"),
        (
            BATCHED | {"batch_input": [COUNT]},
            graph({"x": "FP32[b,3]", "n": "FP32[n]"}, {"y": "FP32[b,w]"}),
            r"batch_input 'n': expected TYPE_FP32 as in the model, found TYPE_INT32",
        ),
        (
            BATCHED | {"batch_input": [COUNT | {"target_name": ["n", "m"]}]},
            graph({"x": "FP32[b,3]", "n": "INT32[n]", "m": "INT32[n]"}, {"y": "FP32[b,w]"}),
            r"batch_input: expected one target_name in each, found n, m",
        ),
        (BATCHED | control("start"), PLAIN, r"sequence control 'start' \(CONTROL_SEQUENCE_START\).*no such input"),
        (BATCHED | state("memory", "y"), PLAIN, r"inputs: expected exactly 'x'.*found 'x', 'memory'"),
        (BATCHED | state("s", "z"), STATEFUL, r"state output 'z': expected one of 'y', 's_out'"),
        (BATCHED | state("s", "s_out", dims=(4,)), STATEFUL, r"input 's': expected dims \[5\].*found \[4\]"),
        (BATCHED | state("s", "y"), STATEFUL, r"output 'y': expected dims"),
        (BATCHED | control("x"), PLAIN, r"sequence control 'x'.*expected shape \[1\].*found \[3\]"),
        (
            BATCHED | control("s", int32_false_true=[0, 1]),
            graph({"x": "FP32[b,3]", "s": "FP32[b,1]"}, {"y": "FP32[b,w]"}),
            r"sequence control 's'.*expected TYPE_FP32 as in the model, found TYPE_INT32",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], loaded: Graph, message: str) -> None:
    """Each contradiction is one error that says what was expected and what was found."""
    with pytest.raises(ConfigurationError, match=message):
        validate(config(**fields), loaded)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_transaction_policy": {"decoupled": True}}, r"model_transaction_policy.decoupled"),
        ({"optimization": {"cuda": {"graphs": True}}}, r"optimization.cuda.graphs.*naiad.cuda_graph"),
        (
            {"inputs": {"x": "STRING[3]"}, "outputs": {"y": "BF16[3]"}},
            r"TYPE_BF16 output beside a TYPE_STRING input.*TYPE_FP32",
        ),
    ],
)
def test_unsupported_fields_are_refused_by_name(fields: dict[str, Any], message: str) -> None:
    """What would be silently wrong or ignored is refused, with its name and a way out."""
    with pytest.raises(UnsupportedError, match=message):
        check_supported(config(**fields), gpu=False)


def test_files_by_capability_are_refused_on_a_gpu_only() -> None:
    """cc_model_filenames means nothing on the CPU, and a GPU would need it; the supervisor's mark is nobody's file."""
    fields = {"cc_model_filenames": {"8.0": "other.onnx"}}
    check_supported(config(**fields), gpu=False)
    check_supported(config(cc_model_filenames={"naiad-repair": "1"}), gpu=True)
    with pytest.raises(UnsupportedError, match="cc_model_filenames"):
        check_supported(config(**fields), gpu=True)


def test_every_batch_kind_is_supported() -> None:
    """Every kind of batch_input and batch_output that Triton knows is supported."""
    kinds = [
        "BATCH_ELEMENT_COUNT",
        "BATCH_ACCUMULATED_ELEMENT_COUNT",
        "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
        "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
        "BATCH_ITEM_SHAPE",
        "BATCH_ITEM_SHAPE_FLATTEN",
    ]
    entries = [{"kind": kind, "target_name": ["t"], "data_type": "TYPE_INT32", "source_input": ["x"]} for kind in kinds]
    scattered = {"kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "target_name": ["y"], "source_input": ["x"]}
    check_supported(config(batch_input=entries, batch_output=[scattered]), gpu=False)
