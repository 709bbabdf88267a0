"""Models for the tests of the backend `onnxruntime`, and a short way to call and load them.

tritonclient is the client here, so that the backend is tested against a reference that is not ours.
"""

import os
import re
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc as triton_grpc
from onnx import helper
from tritonclient.utils import np_to_triton_dtype

from naiad.server import EmbeddedTriton
from naiad.server._stub import find_libpython, libpython_name
from repository_helpers import ONNX_TYPES, affine, graph, identity, node, write_model

NUMBER_TYPES = tuple(each for each in ONNX_TYPES if each != "STRING")
MIXED_TYPES = ("BOOL", "FP16", "FP32", "INT64", "STRING")
BATCHED = "FP32[batch,3]"


class Caller:
    """Calls one server: numpy arrays in and out, and Triton's own words where a load fails."""

    def __init__(self, triton: EmbeddedTriton) -> None:
        self._metrics_url = triton.metrics_url
        self.client = triton_grpc.InferenceServerClient(triton.grpc_address)
        self._secret = {"triton-grpc-protocol-admin-key": triton.admin_secret}

    def __call__(
        self, model: str, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Answer of one request, by output name."""
        asked = [triton_grpc.InferRequestedOutput(name) for name in outputs] if outputs is not None else None
        result = self.client.infer(model, tensors(inputs), outputs=asked, client_timeout=60.0, **options)
        return answer(result)

    def start(self, model: str, inputs: Mapping[str, Any], **options: Any) -> tuple[Future[dict[str, Any]], Any]:
        """A request under way: the future of its answer, and what can cancel it."""
        future: Future[dict[str, Any]] = Future()

        def done(result: Any, error: Any) -> None:
            future.set_exception(error) if error is not None else future.set_result(answer(result))

        context = self.client.async_infer(model, tensors(inputs), done, client_timeout=60.0, **options)
        return future, context

    def load(self, model: str) -> None:
        """Load a model; raises ``InferenceServerException`` with the server's reason."""
        self.client.load_model(model, headers=self._secret, client_timeout=60.0)

    def failure(self, model: str) -> str:
        """Why the server did not load a model when it started."""
        index = self.client.get_model_repository_index(headers=self._secret).models
        return str(next(each.reason for each in index if each.name == model))

    def config(self, model: str) -> Any:
        """The configuration as served."""
        return self.client.get_model_config(model).config

    def statistics(self, model: str, until: Callable[[Any], bool] = lambda _: True) -> Any:
        """The statistics of a model with one version, once they are as expected: they follow an answer with a delay."""
        deadline = time.monotonic() + 60
        while not until(found := self.client.get_inference_statistics(model).model_stats[0].inference_stats):
            assert time.monotonic() < deadline, f"the statistics stay {found}"
            time.sleep(0.01)
        return found

    def await_pending(self, model: str, number: int) -> None:
        """Return when at least that many requests wait for the model, beside those that run."""
        line = re.compile(rf'^nv_inference_pending_request_count{{model="{model}",version="1"}} (\d+)', re.MULTILINE)
        deadline = time.monotonic() + 60
        while int(line.search(httpx.get(self._metrics_url).text)[1]) < number:
            assert time.monotonic() < deadline, f"fewer than {number} requests wait for {model}"

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


def tensors(inputs: Mapping[str, Any]) -> list[Any]:
    """The inputs of a request for tritonclient."""
    made = []
    for name, value in inputs.items():
        array = np.asarray(value)
        data_type = "BF16" if array.dtype.name == "bfloat16" else np_to_triton_dtype(array.dtype)
        tensor = triton_grpc.InferInput(name, list(array.shape), data_type)
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def answer(result: Any) -> dict[str, Any]:
    """The outputs of a response."""
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def write_serving_models(repository: Path) -> None:
    """Every model that the tests of serving call."""
    _write_types(repository)
    _write_shapes(repository)
    _write_outputs(repository)
    _write_batching(repository)
    _write_ragged(repository)
    _write_sequences(repository)
    _write_states(repository)
    _write_lifecycle(repository)


def _write_types(repository: Path) -> None:
    for name, types in (("numbers", NUMBER_TYPES), ("mixed", MIXED_TYPES)):
        model = identity({each.lower(): f"{each}[batch,width]" for each in types})
        ins = {each.lower(): f"{each}[-1]" for each in types}
        outs = {f"{each.lower()}_out": f"{each}[-1]" for each in types}
        write_model(
            repository, name, model, max_batch_size=8, inputs=ins, outputs=outs, dynamic_batching=_gather_queue(4)
        )
        ins, outs = ({key: text.replace("[", "[-1,") for key, text in each.items()} for each in (ins, outs))
        write_model(repository, f"unbatched_{name}", model, inputs=ins, outputs=outs)


def _gather_queue(size: int) -> dict[str, Any]:
    """Batches of exactly ``size`` rows: fewer wait for two minutes, so an answer before then came from a full batch."""
    return {"preferred_batch_size": [size], "max_queue_delay_microseconds": 120_000_000}


def _write_shapes(repository: Path) -> None:
    scalar = graph([node("Mul", "x", "two", to="y")], {"x": "FP32[]"}, {"y": "FP32[]"}, constants={"two": 2.0})
    write_model(repository, "scalar", scalar, inputs={"x": "FP32[1]"}, outputs={"y": "FP32[1,1]"})
    column = graph(
        [node("Mul", "x", "two", to="y")], {"x": "FP32[batch]"}, {"y": "FP32[batch]"}, constants={"two": 2.0}
    )
    flat = {"tensor": "FP32[1]", "reshape": {"shape": []}}
    write_model(repository, "column", column, max_batch_size=4, inputs={"x": flat}, outputs={"y": flat})
    square = identity({"x": "FP32[batch,2,3]"})
    write_model(
        repository,
        "reshaped",
        square,
        max_batch_size=4,
        inputs={"x": {"tensor": "FP32[6]", "reshape": {"shape": [2, 3]}}},
        outputs={"x_out": {"tensor": "FP32[3,2]", "reshape": {"shape": [2, 3]}}},
    )


def _write_outputs(repository: Path) -> None:
    optional = graph(
        [node("Mul", "x", "scale", to="scaled"), node("Add", "scaled", "offset", to="y")],
        {"x": "FP32[n]"},
        {"y": "FP32[n]"},
        defaults={"scale": np.array([2.0], np.float32), "offset": np.array([10.0], np.float32)},
    )
    ins = {"x": "FP32[-1]", **{name: {"tensor": "FP32[1]", "optional": True} for name in ("scale", "offset")}}
    write_model(repository, "optional", optional, inputs=ins, outputs={"y": "FP32[-1]"})
    several = graph(
        [node("Neg", "x", to="minus"), node("Abs", "x", to="size"), node("Identity", "x", to="unconfigured")],
        {"x": BATCHED},
        {"minus": BATCHED, "size": BATCHED, "unconfigured": BATCHED},
    )
    outs = {"size": "FP32[3]", "minus": "FP32[3]"}
    write_model(
        repository,
        "several",
        several,
        max_batch_size=4,
        inputs={"x": "FP32[3]"},
        outputs=outs,
        dynamic_batching=_gather_queue(2),
    )
    labelled = identity({"x": BATCHED})
    labels = {"tensor": "FP32[3]", "label_filename": "labels.txt"}
    directory = write_model(
        repository, "labelled", labelled, max_batch_size=4, inputs={"x": "FP32[3]"}, outputs={"x_out": labels}
    )
    (directory / "labels.txt").write_text("ant\nbee\ncat\n")
    # Whatever the second input says becomes the output's shape, which the graph and the configuration deny.
    liar = graph([node("Reshape", "x", "shape", to="y")], {"x": "FP32[n]", "shape": "INT64[2]"}, {"y": "FP32[rows,3]"})
    write_model(repository, "liar", liar, inputs={"x": "FP32[-1]", "shape": "INT64[2]"}, outputs={"y": "FP32[-1,3]"})


def _write_batching(repository: Path) -> None:
    lookup = graph(
        [node("Gather", "table", "index", to="y")],
        {"index": "INT64[batch,width]"},
        {"y": "FP32[batch,width]"},
        constants={"table": np.arange(100, dtype=np.float32)},
    )
    write_model(
        repository,
        "lookup",
        lookup,
        max_batch_size=16,
        inputs={"index": "INT64[-1]"},
        outputs={"y": "FP32[-1]"},
        dynamic_batching=_gather_queue(8),
    )
    # Only the first row of a batch comes out, and the graph does not say so.
    mixing = graph(
        [node("Compress", "x", "first", to="y", axis=0)],
        {"x": BATCHED},
        {"y": BATCHED},
        constants={"first": np.array([True])},
    )
    write_model(
        repository,
        "mixing",
        mixing,
        max_batch_size=4,
        inputs={"x": "FP32[3]"},
        outputs={"y": "FP32[3]"},
        dynamic_batching=_gather_queue(2),
    )
    outs = {"y": "FP32[1]", "run": "FP32[1]"}
    write_model(repository, "slow", slow_model(), inputs={"turns": "INT64[1]"}, outputs=outs)


def slow_model() -> Any:
    """A model that multiplies matrices as often as its input says: as slow as a test wants it.

    Its output ``run`` is the next number of a random sequence, the same in every session, and so counts the runs.
    """
    float_type, int_type, bool_type = ONNX_TYPES["FP32"], ONNX_TYPES["INT64"], ONNX_TYPES["BOOL"]
    body = helper.make_graph(
        [node("MatMul", "state", "matrix", to="next"), node("Identity", "go", to="go_on")],
        "body",
        [
            helper.make_tensor_value_info("turn", int_type, []),
            helper.make_tensor_value_info("go", bool_type, []),
            helper.make_tensor_value_info("state", float_type, [256, 256]),
        ],
        [
            helper.make_tensor_value_info("go_on", bool_type, []),
            helper.make_tensor_value_info("next", float_type, [256, 256]),
        ],
    )
    nodes = [
        node("Squeeze", "turns", to="count"),
        node("Loop", "count", "yes", "matrix", to="last", body=body),
        node("ReduceSum", "last", to="y", keepdims=0),
        node("RandomUniform", to="run", shape=[1], seed=1.0),
    ]
    matrix = np.full((256, 256), 1 / 256, np.float32)
    outs = {"y": "FP32[]", "run": "FP32[1]"}
    return graph(nodes, {"turns": "INT64[1]"}, outs, constants={"yes": np.array(True), "matrix": matrix})


def _write_ragged(repository: Path) -> None:
    nodes = [node("Mul", "x", "two", to="doubled"), node("Unsqueeze", "ends", "axis", to="end")]
    model = graph(
        nodes,
        {"x": "FP32[-1]", "ends": "FP32[-1]"},
        {"doubled": "FP32[-1]", "end": "FP32[-1,1]"},
        constants={"two": 2.0, "axis": [1]},
    )
    write_model(
        repository,
        "ragged",
        model,
        max_batch_size=8,
        inputs={"x": {"tensor": "FP32[-1]", "allow_ragged_batch": True}},
        outputs={"doubled": "FP32[-1]", "end": "FP32[1]"},
        batch_input=[
            {
                "kind": "BATCH_ACCUMULATED_ELEMENT_COUNT",
                "target_name": ["ends"],
                "data_type": "TYPE_FP32",
                "source_input": ["x"],
            }
        ],
        batch_output=[{"kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "target_name": ["doubled"], "source_input": ["x"]}],
        dynamic_batching=_gather_queue(3),
    )


def _write_sequences(repository: Path) -> None:
    flags = {"start": "FP32[batch,1]", "end": "FP32[batch,1]", "ready": "FP32[batch,1]", "id": "UINT64[batch,1]"}
    nodes = [node("Identity", name, to=f"saw_{name}") for name in flags] + [node("Identity", "x", to="y")]
    model = graph(
        nodes,
        {"x": "FP32[batch,1]", **flags},
        {"y": "FP32[batch,1]", **{f"saw_{name}": text for name, text in flags.items()}},
    )
    outs = {"y": "FP32[1]", **{f"saw_{name}": text.replace("batch,", "") for name, text in flags.items()}}
    kinds = {name: f"CONTROL_SEQUENCE_{name.upper()}" for name in ("start", "end", "ready")}
    controls = [{"name": name, "control": [{"kind": kind, "fp32_false_true": [0, 1]}]} for name, kind in kinds.items()]
    controls.append({"name": "id", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_UINT64"}]})
    for strategy in ({"direct": {}}, {"oldest": {"max_candidate_sequences": 4}}):
        write_model(
            repository,
            f"sequence_{next(iter(strategy))}",
            model,
            max_batch_size=4,
            inputs={"x": "FP32[1]"},
            outputs=outs,
            sequence_batching={"control_input": controls, "max_sequence_idle_microseconds": 5_000_000, **strategy},
        )


def _write_states(repository: Path) -> None:
    model = graph(
        [node("Add", "x", "before", to="y"), node("Identity", "y", to="after")],
        {"x": "FP32[batch,1]", "before": "FP32[batch,1]"},
        {"y": "FP32[batch,1]", "after": "FP32[batch,1]"},
    )
    for strategy in ({"direct": {}}, {"oldest": {"max_candidate_sequences": 4}}):
        name = f"stateful_{next(iter(strategy))}"
        initial = {"name": "hundred", "data_type": "TYPE_FP32", "dims": [1], "data_file": "hundred"}
        state = {"input_name": "before", "output_name": "after", "data_type": "TYPE_FP32", "dims": [1]}
        batching = {"state": [state | {"initial_state": [initial]}], "max_sequence_idle_microseconds": 60_000_000}
        write_model(
            repository,
            name,
            model,
            max_batch_size=4,
            inputs={"x": "FP32[1]"},
            outputs={"y": "FP32[1]"},
            sequence_batching=batching | strategy,
        )
        (repository / name / "initial_state").mkdir()
        (repository / name / "initial_state" / "hundred").write_bytes(np.array([100], np.float32).tobytes())


def _write_lifecycle(repository: Path) -> None:
    ins, outs = {"x": "FP32[3]"}, {"y": "FP32[3]"}
    for version in (1, 2):
        write_model(
            repository,
            "versions",
            affine(scale=float(version)),
            version=version,
            max_batch_size=4,
            inputs=ins,
            outputs=outs,
            version_policy={"all": {}},
            instance_group=[{"kind": "KIND_CPU", "count": 2}],
        )
    warm = {
        "name": "warm",
        "batch_size": 4,
        "count": 3,
        "inputs": {"x": {"data_type": "TYPE_FP32", "dims": [3], "random_data": True}},
    }
    write_model(
        repository,
        "warmed",
        affine(),
        max_batch_size=4,
        inputs=ins,
        outputs=outs,
        model_warmup=[warm],
        response_cache={"enable": True},
    )
    write_model(
        repository,
        "settled",
        affine(),
        filename="net.onnx",
        external_data=True,
        max_batch_size=4,
        inputs=ins,
        outputs=outs,
        default_model_filename="net.onnx",
        optimization={
            "graph": {"level": 2},
            "execution_accelerators": {
                "gpu_execution_accelerator": [{"name": "tensorrt", "parameters": {"precision_mode": "FP16"}}]
            },
        },
        parameters=ALL_PARAMETERS,
    )


ALL_PARAMETERS = {
    "execution_mode": "1",
    "intra_op_thread_count": "1",
    "inter_op_thread_count": "1",
    "enable_mem_arena": "true",
    "enable_mem_pattern": "0",
    "memory.enable_memory_arena_shrinkage": "cpu:0",
    "session.use_device_allocator_for_initializers": "1",
    "session.intra_op.allow_spinning": "0",
    "cudnn_conv_algo_search": "1",
    "gpu_mem_limit": "1000000",
    "arena_extend_strategy": "1",
    "do_copy_in_default_stream": "1",
    "notes.owner": "somebody",
}
"""Every parameter that the backend honours, and a note of the user's."""


def write_incomplete_models(repository: Path) -> None:
    """Models whose configuration Triton has to complete, but for `whole`; `refused` cannot be."""
    write_model(repository, "batching", affine(), configured=False)
    write_model(repository, "sized", affine(), max_batch_size=16)
    write_model(repository, "fixed", identity({"x": "FP32[2,width]"}), configured=False)
    write_model(repository, "scalar", identity({"x": "FP32[]"}), configured=False)
    write_model(repository, "column", identity({"x": "FP32[batch]"}), configured=False)
    write_model(repository, "half", affine(), max_batch_size=2, inputs={"x": "FP32[3]"})
    write_model(repository, "whole", affine(), inputs={"x": "FP32[-1,3]"}, outputs={"y": "FP32[-1,3]"})
    write_model(repository, "refused", identity({"x": "FP32[2,width]"}), max_batch_size=8)


def write_broken_models(repository: Path, environment: Path) -> None:
    """Models that the backend must not load, named for what is wrong with them.

    ``environment`` becomes a Python environment for the stub of `numpy_2`: this one's packages, its numpy first.
    """
    _write_environment(environment)
    whole = {"max_batch_size": 4, "inputs": {"x": "FP32[3]"}, "outputs": {"y": "FP32[3]"}}
    write_model(repository, "garbage", b"this is no model", **whole)
    directory = write_model(repository, "no_file", affine(), **whole)
    (directory / "1" / "model.onnx").rename(directory / "1" / "other.onnx")
    directory = write_model(repository, "no_weights", affine(), external_data=True, **whole)
    (directory / "1" / "model.onnx.data").unlink()
    write_model(repository, "numpy_2", affine(), parameters={"EXECUTION_ENV_PATH": str(environment)}, **whole)
    write_model(repository, "wrong_name", affine(), **{**whole, "inputs": {"image": "FP32[3]"}})
    write_model(repository, "wrong_dims", affine(), **{**whole, "outputs": {"y": "FP32[4]"}})
    write_model(repository, "wrong_type", affine(), **{**whole, "inputs": {"x": "FP16[3]"}})
    write_model(repository, "unknown_parameter", affine(), parameters={"intra_op_threads": "1"}, **whole)
    write_model(repository, "unknown_accelerator", affine(), **whole, optimization=_accelerator("cpu", "magic"))
    write_model(repository, "no_openvino", affine(), **whole, optimization=_accelerator("cpu", "openvino"))
    no_library = {"op_library_filename": ["/nowhere/operators.so"]}
    write_model(repository, "no_library", affine(), **whole, model_operations=no_library)
    state = {"input_name": "x", "output_name": "nowhere", "data_type": "TYPE_FP32", "dims": [3]}
    stateful = {"max_batch_size": 4, "inputs": {}, "outputs": {"y": "FP32[3]"}}
    write_model(repository, "stateful", affine(), **stateful, sequence_batching={"state": [state]})


def _write_environment(path: Path) -> None:
    """An environment as Triton's EXECUTION_ENV_PATH wants it, with the packages that run the tests."""
    packages = path / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (path / "bin").mkdir()
    base = Path(os.path.realpath(sys.executable))
    (path / "bin" / "python3").symlink_to(base)
    (path / "bin" / "activate").write_text(f'export PATH="{path}/bin:$PATH"\n')
    (path / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (packages / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    libpython = find_libpython()
    assert libpython is not None, "the embedded Triton runs on interpreters with a libpython only"
    (path / "lib" / libpython_name()).symlink_to(libpython)


def _accelerator(kind: str, name: str) -> dict[str, Any]:
    return {"execution_accelerators": {f"{kind}_execution_accelerator": [{"name": name}]}}
