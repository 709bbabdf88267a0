"""Good and bad entries of a model repository, by what they are about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lint_writers import (
    PART,
    ROW,
    SINGLE,
    Write,
    copy_version,
    ensemble,
    entry,
    files,
    gpu,
    instances,
    package,
    put,
    python,
    ragged,
    remove,
    rename,
    scalar,
    sequence,
    stamped,
    start,
    step,
    text,
    two_inputs,
    warm,
    with_default,
)
from repository_helpers import graph, identity, node

_STATE = {"input_name": "b", "output_name": "y", "data_type": "TYPE_FP32", "dims": [3]}
_FIRST = {"name": "first", "data_type": "TYPE_FP32", "dims": [3]}
_CONTROL = {"fp32_false_true": [0, 1]}
_FLAT = {"tensor": "FP32[6]", "reshape": {"shape": [2, 3]}}
_MADE = {
    "kind": "BATCH_ACCUMULATED_ELEMENT_COUNT",
    "target_name": ["ends"],
    "data_type": "TYPE_FP32",
    "source_input": ["x"],
}
_RAGGED = {
    "max_batch_size": 4,
    "inputs": {"x": {"tensor": "FP32[-1]", "allow_ragged_batch": True}},
    "outputs": {"y": "FP32[-1]", "end": "FP32[1]"},
}
_CUT = {"kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "target_name": ["y"], "source_input": ["x"]}


FILES: Mapping[str, Write] = {
    "zero_version": files(rename("1", "0")),
    "two_versions": files(copy_version("2"), version_policy={"all": {}}),
    "specific": files(copy_version("2"), version_policy={"specific": {"versions": [1, 2]}}),
    "specific_some_missing": entry(version_policy={"specific": {"versions": [1, 9]}}),
    "specific_all_missing": entry(version_policy={"specific": {"versions": [9]}}),
    "latest_none": text("", "version_policy { latest { } }"),
    "no_version": files(remove("1")),
    "leading_zero": files(rename("1", "01")),
    "letter_version": files(rename("1", "v1")),
    "ignored_beside": files(copy_version("01", "old")),
    "unfinished_alone": files(rename("1", "3.tmp")),
    "unfinished_beside": files(copy_version("1.tmp")),
    "unfinished_newer": files(copy_version("3.tmp")),
    "negative_version": files(rename("1", "-1")),
    "special_directories": files(lambda directory: [(directory / name).mkdir() for name in ("warmup", "configs")]),
    "no_model_file": files(remove("1/model.onnx")),
    "other_filename": files(rename("1/model.onnx", "1/net.onnx"), default_model_filename="net.onnx"),
    "filename_not_there": entry(default_model_filename="net.onnx"),
    "model_directory": files(
        lambda directory: [
            (directory / "1" / "model.onnx").rename(directory / "file"),
            (directory / "1" / "model.onnx").mkdir(),
            (directory / "file").rename(directory / "1" / "model.onnx" / "model.onnx"),
        ]
    ),
    "external_data": entry(external_data=True),
    "external_data_missing": files(remove("1/model.onnx.data"), external_data=True),
    "external_data_short": files(put("1/model.onnx.data", b"\0"), external_data=True),
    "garbage": entry(b"this is no model"),
    "empty_file": entry(b""),
    "second_version_broken": files(
        lambda directory: [copy_version("2")(directory), put("2/model.onnx", b"none")(directory)],
        version_policy={"all": {}},
    ),
    "labels": files(
        put("labels.txt", b"a\nb\nc\n"), outputs={"y": {"tensor": "FP32[3]", "label_filename": "labels.txt"}}
    ),
    "labels_missing": entry(outputs={"y": {"tensor": "FP32[3]", "label_filename": "labels.txt"}}),
    "no_config": files(remove("config.pbtxt")),
}
CONFIG: Mapping[str, Write] = {
    "no_name": text('name: "no_name"', ""),
    "other_name": text('name: "other_name"', 'name: "another"'),
    "unknown_field": text("", "max_batch: 4"),
    "unknown_word": text("KIND_CPU", "KIND_TPU"),
    "unknown_type": text("TYPE_FP32", "TYPE_FLOAT"),
    "syntax": text("input {", "input {{"),
    "not_utf8": files(lambda directory: (directory / "config.pbtxt").write_bytes(b"\xff\xfe")),
    "two_schedulers": text("", "dynamic_batching { } sequence_batching { }"),
    "platform_only": entry(backend="", platform="onnxruntime_onnx"),
    "file_only": entry(backend=""),
    "platform_of_another": entry(platform="pytorch_libtorch"),
    "platform_made_up": entry(platform="onnx"),
    "negative_batch": text("max_batch_size: 4", "max_batch_size: -1"),
    "metrics_of_later": text("", 'model_metrics { metric_control { metric_identifier { family: "f" } } }'),
    "no_inputs": entry(inputs={}),
    "no_outputs": entry(outputs={}),
    "runtime": entry(runtime="libtriton_other.so"),
    "decoupled": entry(model_transaction_policy={"decoupled": True}),
    "cuda_graphs": entry(optimization={"cuda": {"graphs": True}}),
    "extras": entry(
        optimization={"graph": {"level": 1}}, metric_tags={"team": "vision"}, response_cache={"enable": True}
    ),
    "cache_and_decoupled": entry(response_cache={"enable": True}, model_transaction_policy={"decoupled": True}),
}
TENSORS: Mapping[str, Write] = {
    "narrowed_input": entry(identity({"x": "FP32[batch,width]"}), outputs={"x_out": "FP32[-1]"}),
    "narrowed_output": entry(
        identity({"x": "FP32[batch,width]"}), inputs={"x": "FP32[-1]"}, outputs={"x_out": "FP32[3]"}
    ),
    "narrower_than_declared": entry(
        graph(
            [node("MatMul", "x", "matrix", to="y")],
            {"x": "FP32[batch,3]"},
            {"y": "FP32[batch,width]"},
            constants={"matrix": np.ones((3, 5), np.float32)},
        ),
        outputs={"y": "FP32[-1]"},
    ),
    "unbatched": entry(max_batch_size=0, **SINGLE),
    "batch_in_dims": entry(**SINGLE),
    "static_batch": entry(identity({"x": "FP32[1,3]"}), outputs={"x_out": "FP32[3]"}),
    "wrong_size": entry(inputs={"x": "FP32[4]"}),
    "wrong_output_size": entry(outputs={"y": "FP32[4]"}),
    "wrong_input_type": entry(inputs={"x": "FP16[3]"}),
    "wrong_output_type": entry(outputs={"y": "FP64[3]"}),
    "wrong_input_name": entry(inputs={"image": "FP32[3]"}),
    "wrong_output_name": entry(outputs={"z": "FP32[3]"}),
    "missing_input": entry(two_inputs(), inputs={"a": "FP32[3]"}),
    "extra_input": entry(inputs={"x": "FP32[3]", "mask": "FP32[3]"}),
    "fewer_outputs": entry(
        graph(
            [node("Neg", "x", to="y"), node("Abs", "x", to="z")],
            {"x": "FP32[batch,3]"},
            {"y": "FP32[batch,3]", "z": "FP32[batch,3]"},
        )
    ),
    "input_twice": text("", 'input { name: "x" data_type: TYPE_FP32 dims: [3] }'),
    "zero_dim": entry(inputs={"x": "FP32[0]"}),
    "negative_dim": entry(inputs={"x": "FP32[-2]"}),
    "no_dims": text("dims: 3", ""),
    "no_type": text("data_type: TYPE_FP32", ""),
    "reshaped": entry(identity({"x": "FP32[batch,2,3]"}), inputs={"x": _FLAT}, outputs={"x_out": _FLAT}),
    "reshape_other_size": entry(inputs={"x": {"tensor": "FP32[4]", "reshape": {"shape": [3]}}}),
    "reshape_other_dynamic": entry(
        identity({"x": "FP32[batch,n,3]"}),
        inputs={"x": {"tensor": "FP32[-1]", "reshape": {"shape": [-1, 3]}}},
        outputs={"x_out": "FP32[-1,3]"},
    ),
    "reshape_to_nothing": entry(
        scalar("batch"),
        inputs={"x": {"tensor": "FP32[1]", "reshape": {"shape": []}}},
        outputs={"y": {"tensor": "FP32[1]", "reshape": {"shape": []}}},
    ),
    "reshape_to_scalar": entry(
        scalar(),
        max_batch_size=0,
        inputs={"x": {"tensor": "FP32[1]", "reshape": {"shape": []}}},
        outputs={"y": "FP32[1]"},
    ),
    "scalar": entry(scalar(), max_batch_size=0, inputs={"x": "FP32[1]"}, outputs={"y": "FP32[1,1]"}),
    "scalar_of_two": entry(scalar(), max_batch_size=0, inputs={"x": "FP32[2]"}, outputs={"y": "FP32[1]"}),
    "optional": entry(
        with_default(),
        max_batch_size=0,
        inputs={"x": "FP32[-1]", "scale": {"tensor": "FP32[1]", "optional": True}},
        outputs={"y": "FP32[-1]"},
    ),
    "optional_left_out": entry(with_default(), max_batch_size=0, inputs={"x": "FP32[-1]"}, outputs={"y": "FP32[-1]"}),
    "optional_not_said": entry(
        with_default(), max_batch_size=0, inputs={"x": "FP32[-1]", "scale": "FP32[1]"}, outputs={"y": "FP32[-1]"}
    ),
    "optional_without_default": entry(
        max_batch_size=0,
        inputs={"x": {"tensor": "FP32[-1,3]", "optional": True}},
        outputs={"y": "FP32[-1,3]"},
    ),
    "optional_and_batched": entry(inputs={"x": {"tensor": "FP32[3]", "optional": True}}),
    "ragged": entry(ragged(), **_RAGGED, batch_input=[_MADE], batch_output=[_CUT]),
    "ragged_of_rows": entry(inputs={"x": {"tensor": "FP32[3]", "allow_ragged_batch": True}}),
    "made_type": entry(ragged(), **_RAGGED, batch_input=[{**_MADE, "data_type": "TYPE_INT64"}], batch_output=[_CUT]),
    "made_for_nobody": entry(
        ragged(), **_RAGGED, batch_input=[{**_MADE, "target_name": ["tops"]}], batch_output=[_CUT]
    ),
    "made_from_nothing": entry(
        ragged(), **_RAGGED, batch_input=[{**_MADE, "source_input": ["z"]}], batch_output=[_CUT]
    ),
    "made_from_two": entry(
        ragged(), **_RAGGED, batch_input=[{**_MADE, "source_input": ["x", "x"]}], batch_output=[_CUT]
    ),
    "cut_unknown": entry(ragged(), **_RAGGED, batch_input=[_MADE], batch_output=[{**_CUT, "target_name": ["z"]}]),
    "scalar_batched": entry(scalar(), inputs={"x": "FP32[1]"}, outputs={"y": "FP32[1]"}),
    "made_for_two": entry(
        graph(
            [node("Identity", each, to=f"{each}_out") for each in ("x", "ends", "tops")],
            dict.fromkeys(("x", "ends", "tops"), "FP32[-1]"),
            {f"{each}_out": "FP32[-1]" for each in ("x", "ends", "tops")},
        ),
        max_batch_size=4,
        inputs=_RAGGED["inputs"],
        outputs={"x_out": "FP32[-1]"},
        batch_input=[{**_MADE, "target_name": ["ends", "tops"]}],
        batch_output=[{**_CUT, "target_name": ["x_out"]}],
    ),
    "image_format": entry(inputs={"x": {"tensor": "FP32[3]", "format": "FORMAT_NCHW"}}),
    "shape_tensor": entry(inputs={"x": {"tensor": "FP32[3]", "is_shape_tensor": True}}),
    "strings": entry(identity({"x": "STRING[batch,3]"}), inputs={"x": "STRING[3]"}, outputs={"x_out": "STRING[3]"}),
}
SCHEDULING: Mapping[str, Write] = {
    "dynamic": entry(dynamic_batching={"preferred_batch_size": [2, 4], "max_queue_delay_microseconds": 100}),
    "preferred_too_large": entry(dynamic_batching={"preferred_batch_size": [8]}),
    "preferred_zero": entry(dynamic_batching={"preferred_batch_size": [0]}),
    "dynamic_unbatched": entry(max_batch_size=0, **SINGLE, dynamic_batching={}),
    "preferred_unbatched": entry(max_batch_size=0, **SINGLE, dynamic_batching={"preferred_batch_size": [1]}),
    "priorities": entry(
        dynamic_batching={
            "priority_levels": 2,
            "default_priority_level": 2,
            "priority_queue_policy": {1: {"max_queue_size": 8}},
        }
    ),
    "no_default_priority": entry(dynamic_batching={"priority_levels": 2}),
    "default_priority_too_high": entry(dynamic_batching={"priority_levels": 2, "default_priority_level": 3}),
    "policy_for_no_level": entry(
        dynamic_batching={
            "priority_levels": 2,
            "default_priority_level": 1,
            "priority_queue_policy": {3: {"max_queue_size": 1}},
        }
    ),
    "order_and_priorities": entry(
        dynamic_batching={"preserve_ordering": True, "priority_levels": 2, "default_priority_level": 1}
    ),
    "order_and_delay": entry(
        dynamic_batching={
            "preserve_ordering": True,
            "default_queue_policy": {"timeout_action": "DELAY", "default_timeout_microseconds": 1},
        }
    ),
    "order": entry(dynamic_batching={"preserve_ordering": True}),
    "auto_instance": entry(**instances(kind="KIND_AUTO", count=1)),
    "gpu_instance": entry(**instances(kind="KIND_GPU", count=1)),
    "auto_with_gpus": entry(**instances(kind="KIND_AUTO", count=1, gpus=[0])),
    "cpu_with_gpus": entry(**instances(kind="KIND_CPU", count=1, gpus=[0])),
    "model_with_gpus": entry(**instances(kind="KIND_MODEL", count=1, gpus=[0])),
    "model_instance": entry(**instances(kind="KIND_MODEL", count=1)),
    "profile": entry(**instances(kind="KIND_CPU", count=1, profile=["1"])),
    "sequence": entry(sequence(), sequence_batching={**start(**_CONTROL), "direct": {}}),
    "sequence_oldest": entry(
        sequence(), sequence_batching={**start(**_CONTROL), "oldest": {"preferred_batch_size": [4]}}
    ),
    "sequence_oldest_too_large": entry(
        sequence(), sequence_batching={**start(**_CONTROL), "oldest": {"preferred_batch_size": [5]}}
    ),
    "sequence_cached": entry(sequence(), sequence_batching=start(**_CONTROL), response_cache={"enable": True}),
    "sequence_other_name": entry(sequence_batching=start(**_CONTROL)),
    "sequence_other_type": entry(sequence(), sequence_batching=start(int32_false_true=[0, 1])),
    "sequence_other_shape": entry(sequence("FP32[batch,2]"), sequence_batching=start(**_CONTROL)),
    "sequence_no_values": entry(sequence(), sequence_batching=start()),
    "sequence_one_value": entry(sequence(), sequence_batching=start(fp32_false_true=[1])),
    "sequence_two_pairs": entry(sequence(), sequence_batching=start(**_CONTROL, bool_false_true=[False, True])),
    "sequence_without_control": entry(sequence(), sequence_batching={}),
    "sequence_control_as_input": entry(
        sequence(), inputs={"x": "FP32[3]", "start": "FP32[1]"}, sequence_batching=start(**_CONTROL)
    ),
    "sequence_slots": entry(
        sequence(), sequence_batching={**start(**_CONTROL), "direct": {"minimum_slot_utilization": 2}}
    ),
    "correlation": entry(
        sequence("UINT64[batch,1]"),
        sequence_batching={
            "control_input": [
                {"name": "start", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_UINT64"}]}
            ]
        },
    ),
    "correlation_of_floats": entry(
        sequence(),
        sequence_batching={
            "control_input": [
                {"name": "start", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_FP32"}]}
            ]
        },
    ),
    "state": entry(two_inputs(), inputs={"a": "FP32[3]"}, sequence_batching={"state": [_STATE]}),
    "state_of_nothing": entry(
        two_inputs(), inputs={"a": "FP32[3]"}, sequence_batching={"state": [{**_STATE, "output_name": "z"}]}
    ),
    "state_from_file": files(
        put("initial_state/first", bytes(12)),
        two_inputs(),
        inputs={"a": "FP32[3]"},
        sequence_batching={"state": [{**_STATE, "initial_state": [{**_FIRST, "data_file": "first"}]}]},
    ),
    "state_of_other_size": entry(
        two_inputs(),
        inputs={"a": "FP32[3]"},
        sequence_batching={"state": [{**_STATE, "initial_state": [{**_FIRST, "dims": [4], "zero_data": True}]}]},
    ),
}
WARMUP: Mapping[str, Write] = {
    "warm_batch": entry(**warm(batch_size=4, count=2)),
    "warm_batch_too_large": entry(**warm(batch_size=5)),
    "warm_batch_zero": entry(**warm(batch_size=0)),
    "warm_unbatched": entry(max_batch_size=0, **SINGLE, **warm(data={"dims": [2, 3]})),
    "warm_extra_input": entry(
        **warm(inputs={name: {"data_type": "TYPE_FP32", "dims": [3], "zero_data": True} for name in ("x", "z")})
    ),
    "warm_missing_input": entry(
        two_inputs(),
        inputs={"a": "FP32[3]", "b": "FP32[3]"},
        **warm(inputs={"a": {"data_type": "TYPE_FP32", "dims": [3], "zero_data": True}}),
    ),
    "warm_other_type": entry(**warm(data={"data_type": "TYPE_FP64"})),
    "warm_other_shape": entry(**warm(data={"dims": [4]})),
    "warm_with_batch": entry(**warm(data={"dims": [1, 3]})),
    "warm_dynamic": entry(
        identity({"x": "FP32[batch,n]"}),
        inputs={"x": "FP32[-1]"},
        outputs={"x_out": "FP32[-1]"},
        **warm(data={"dims": [-1]}),
    ),
    "warm_no_data": entry(
        model_warmup=[{"name": "first", "batch_size": 1, "inputs": {"x": {"data_type": "TYPE_FP32", "dims": [3]}}}]
    ),
    "warm_file": files(put("warmup/x", bytes(12)), **warm(data={"zero_data": None, "input_data_file": "x"})),
    "warm_file_missing": entry(**warm(data={"zero_data": None, "input_data_file": "x"})),
    "warm_file_short": files(put("warmup/x", bytes(8)), **warm(data={"zero_data": None, "input_data_file": "x"})),
}
ACCELERATORS: Mapping[str, Write] = {
    "parameters": entry(
        parameters={"execution_mode": "0", "intra_op_thread_count": "1", "enable_mem_arena": "off", "notes.owner": "me"}
    ),
    "unknown_parameter": entry(parameters={"intra_op_threads": "1"}),
    "execution_mode": entry(parameters={"execution_mode": "2"}),
    "arena": entry(parameters={"enable_mem_arena": "maybe"}),
    "conv_search": entry(parameters={"cudnn_conv_algo_search": "3"}),
    "accelerators": entry(
        optimization={
            "execution_accelerators": {
                "gpu_execution_accelerator": [
                    {"name": "tensorrt", "parameters": {"precision_mode": "FP16", "trt_engine_cache_enable": "1"}},
                    {"name": "cuda", "parameters": {"enable_cuda_graph": "1"}},
                ]
            }
        }
    ),
    "tensorrt_unknown_key": entry(**gpu("tensorrt", trt_fp16="1")),
    "tensorrt_unknown_precision": entry(**gpu("tensorrt", precision_mode="FP8")),
    "unknown_gpu_accelerator": entry(**gpu("magic")),
    "unknown_cpu_accelerator": entry(
        optimization={"execution_accelerators": {"cpu_execution_accelerator": [{"name": "magic"}]}}
    ),
    "openvino": entry(optimization={"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}}),
    "operator_library": entry(model_operations={"op_library_filename": ["/nowhere/operators.so"]}),
    "unknown_domain": entry(
        graph([node("Spin", "x", to="y", domain="my.own")], {"x": "FP32[batch,3]"}, {"y": "FP32[batch,3]"})
    ),
    "older_graph": entry(stamped(opset=14, ir_version=8)),
}
PYTHON: Mapping[str, Write] = {
    "python": python(),
    "python_syntax": python("def execute(:\n"),
    "python_no_class": python("class Model:\n    pass\n"),
    "python_raises": python("raise ImportError('no such package')\n"),
    "python_no_execute": python("class TritonPythonModel:\n    pass\n"),
    "python_environment": python(parameters={"EXECUTION_ENV_PATH": "$$TRITON_MODEL_DIRECTORY/env.tar.gz"}),
    "python_file_only": python(backend=""),
}
ENSEMBLES: Mapping[str, Write] = {
    "ensemble_of_two": ensemble([step(PART, result="mid"), step(PART, source="mid")]),
    "ensemble_platform": ensemble([step(PART)], platform="onnxruntime_onnx"),
    "ensemble_backend": ensemble([step(PART)], backend="onnxruntime"),
    "ensemble_instances": ensemble([step(PART)], **instances(kind="KIND_CPU", count=1)),
    "ensemble_optimized": ensemble([step(PART)], optimization={"graph": {"level": 1}}),
    "ensemble_warm": ensemble([step(PART)], **warm()),
    "ensemble_no_steps": ensemble([]),
    "ensemble_no_scheduling": ensemble([], ensemble_scheduling=None),
    "ensemble_no_inputs": ensemble([step(PART, input_map={})]),
    "ensemble_unknown": ensemble([step("{name}_nobody")]),
    "ensemble_unused_input": ensemble([step(PART)], inputs={**ROW, "z": "FP32[3]"}),
    "ensemble_unwritten_output": ensemble([step(PART)], outputs={"y": "FP32[3]", "z": "FP32[3]"}),
    "ensemble_left_over": ensemble([step(PART), step(PART, result="unread")]),
    "ensemble_written_twice": ensemble([step(PART), step(PART)]),
    "ensemble_circle": ensemble(
        [step(PART, source="b", result="a"), step(PART, source="a", result="b"), step(PART)],
    ),
    "ensemble_of_itself": ensemble([step("{name}")]),
    "ensemble_other_type": ensemble([step(PART)], inputs={"x": "FP16[3]"}),
    "ensemble_other_shape": ensemble([step(PART)], outputs={"y": "FP32[4]"}),
    "ensemble_any_shape": ensemble([step(PART)], outputs={"y": "FP32[-1]"}),
    "ensemble_larger_batch": ensemble([step(PART)], max_batch_size=8),
    "ensemble_unbatched_part": ensemble(
        [step("unbatched_part")], parts={"unbatched_part": entry(max_batch_size=0, **SINGLE)}
    ),
    "ensemble_wrong_key": ensemble([step(PART, input_map={"image": "x"})]),
    "ensemble_wrong_output_key": ensemble([step(PART, output_map={"z": "y"})]),
    "ensemble_input_left_out": ensemble(
        [step("two_inputs_part", input_map={"a": "x"})],
        parts={"two_inputs_part": entry(two_inputs(), inputs={"a": "FP32[3]", "b": "FP32[3]"})},
    ),
    "ensemble_other_version": ensemble([step(PART, model_version=2)]),
    "ensemble_broken_part": ensemble([step("broken_part")], parts={"broken_part": entry(outputs={"y": "FP32[4]"})}),
    "ensemble_no_version": lambda repository, name: [
        ensemble([step(PART)])(repository, name),
        remove("1")(repository / name),
    ],
}
FORMATS: Mapping[str, Write] = {
    "newer_opset": entry(stamped(opset=22)),
    "newer_format": entry(stamped(ir_version=11)),
    "bfloat16": entry(identity({"x": "BF16[batch,3]"}), inputs={"x": "BF16[3]"}, outputs={"x_out": "BF16[3]"}),
}
"""What depends on the release, which the embedded server's own ONNX Runtime is newer than."""

ENTRIES: Mapping[str, Write] = {
    **FILES,
    **CONFIG,
    **TENSORS,
    **SCHEDULING,
    **WARMUP,
    **ACCELERATORS,
    **PYTHON,
    **ENSEMBLES,
    **FORMATS,
}
INCOMPLETE: Mapping[str, Write] = {
    "nothing": files(remove("config.pbtxt")),
    "backend_alone": entry(max_batch_size=0, inputs={}, outputs={}),
    "inputs_alone": entry(outputs={}),
    "static": entry(identity({"x": "FP32[2,3]"}), max_batch_size=0, inputs={}, outputs={}),
    "static_and_batched": entry(identity({"x": "FP32[2,3]"}), inputs={}, outputs={}),
    "wrong_all_the_same": entry(inputs={"x": "FP16[3]"}, outputs={}),
}
"""What a server with auto-complete is given."""
_PT2 = {"max_batch_size": 0, "backend": "pytorch", "platform": "torch_aoti"}
_PT2_TENSORS = {"inputs": {"INPUT__0": "FP32[-1,3]"}, "outputs": {"OUTPUT__0": "FP32[-1,3]"}}
_PROFILE = {"trt_profile_min_shapes": "x:1x3", "trt_profile_opt_shapes": "x:4x3", "trt_profile_max_shapes": "x:64x3"}
_AUTO = instances(kind="KIND_AUTO", count=1)
_MANY = {"name": "R", "count": 1}
ELSEWHERE: Mapping[str, Write] = {
    ".hidden": entry(),
    "two words": entry(),
    "capability": entry(cc_model_filenames={"8.0": "other.onnx"}, **instances(kind="KIND_AUTO", count=1)),
    "labels_outside": entry(outputs={"y": {"tensor": "FP32[3]", "label_filename": "/etc/hostname"}}),
    "priority": entry(optimization={"priority": "PRIORITY_MAX"}),
    "metrics": entry(model_metrics={"metric_control": [{"metric_identifier": {"family": "f"}}]}),
    "agents": entry(model_repository_agents={"agents": [{"name": "checksum"}]}),
    "unknown_backend": entry(backend="onnxruntim"),
    "container_backend": entry(backend="fil"),
    "own_library": files(put("libtriton_mine.so", b""), backend="mine"),
    "no_backend": files(remove("1/model.onnx"), backend=""),
    "strings_and_bfloat16": entry(
        identity({"x": "STRING[batch,3]", "n": "BF16[batch,3]"}),
        inputs={"x": "STRING[3]", "n": "BF16[3]"},
        outputs={"n_out": "BF16[3]"},
    ),
    "no_cpu_operator": entry(
        graph([node("Relu", "x", to="y")], {"x": "BF16[batch,3]"}, {"y": "BF16[batch,3]"}),
        inputs={"x": "BF16[3]"},
        outputs={"y": "BF16[3]"},
    ),
    "waits": entry(dynamic_batching={"max_queue_delay_microseconds": 5_000_000}),
    "own_cores": entry(instance_group=[]),
    "two_scopes": entry(
        **instances(kind="KIND_CPU", count=1, rate_limiter={"resources": [_MANY, {**_MANY, "global": True}]})
    ),
    "nameless_control": entry(sequence(), sequence_batching={"control_input": [{"control": []}]}),
    "control_twice": entry(
        sequence(),
        sequence_batching={"control_input": [*start(fp32_false_true=[0, 1])["control_input"]] * 2},
    ),
    "strategy_and_sequence": entry(
        sequence(),
        sequence_batching=start(fp32_false_true=[0, 1]),
        parameters={"TRITON_BATCH_STRATEGY_PATH": "batch.so"},
    ),
    "strategy_not_there": entry(parameters={"TRITON_BATCH_STRATEGY_PATH": "batch.so"}),
    "python_state": python(sequence_batching={"state": [_STATE]}),
    "python_accelerated": python(**gpu("cuda")),
    "session_parameter": entry(parameters={"session.intra_op.allow_spinning": "0"}),
    "long_number": entry(parameters={"intra_op_thread_count": "2 threads"}),
    "negative_threads": entry(parameters={"intra_op_thread_count": "-1"}),
    "threads_between": entry(parameters={"inter_op_thread_count": "2"}),
    "device_initializers": entry(parameters={"session.use_device_allocator_for_initializers": "1"}),
    "input_memory": entry(parameters={"FORCE_CPU_ONLY_INPUT_TENSORS": "no"}),
    "input_memory_word": entry(parameters={"FORCE_CPU_ONLY_INPUT_TENSORS": "true"}),
    "python_input_memory_word": python(parameters={"FORCE_CPU_ONLY_INPUT_TENSORS": "No"}),
    "gpu_parameters": entry(parameters={"naiad.cuda_graph": "true", "naiad.output_memory": "gpu"}, **_AUTO),
    "gpu_parameters_words": entry(parameters={"naiad.cuda_graph": "1", "naiad.output_memory": "GPU"}, **_AUTO),
    "gpu_parameters_on_cpus": entry(parameters={"naiad.cuda_graph": "true", "naiad.output_memory": "gpu"}),
    "gpu_parameters_of_python": python(parameters={"naiad.output_memory": "gpu"}),
    "cuda_graph_of_lengths": entry(
        graph([node("Identity", "x", to="y")], {"x": "FP32[batch,length]"}, {"y": "FP32[batch,length]"}),
        inputs={"x": "FP32[-1]"},
        outputs={"y": "FP32[-1]"},
        parameters={"naiad.cuda_graph": "true"},
        **_AUTO,
    ),
    "cuda_graph_of_sequences": entry(
        sequence(),
        sequence_batching=start(fp32_false_true=[0, 1]),
        parameters={"naiad.cuda_graph": "true"},
        **_AUTO,
    ),
    "cuda_graph_twice": entry(**gpu("cuda", enable_cuda_graph="1"), parameters={"naiad.cuda_graph": "true"}, **_AUTO),
    "tensorrt_caches": entry(**gpu("tensorrt", trt_engine_cache_enable="1", trt_timing_cache_path="/cache"), **_AUTO),
    "tensorrt_int8": entry(**gpu("tensorrt", precision_mode="INT8"), **_AUTO),
    "tensorrt_dla_in_fp32": entry(**gpu("tensorrt", trt_dla_enable="1"), **_AUTO),
    "tensorrt_profile_backwards": entry(**gpu("tensorrt", **{**_PROFILE, "trt_profile_min_shapes": "x:9x3"}), **_AUTO),
    "tensorrt_profile_too_small": entry(**gpu("tensorrt", **_PROFILE), max_batch_size=65, **_AUTO),
    "tensorrt_alone": entry(**gpu("tensorrt"), instance_group=[]),
    "tensorrt_value": entry(**gpu("tensorrt", trt_dla_core="first"), **instances(kind="KIND_AUTO", count=1)),
    "tensorrt_value_unused": entry(**gpu("tensorrt", trt_dla_core="first")),
    "tensorrt_bfloat16": entry(**gpu("tensorrt", precision_mode="BF16"), **instances(kind="KIND_AUTO", count=1)),
    "tensorrt_profile": entry(**gpu("tensorrt", **_PROFILE), **instances(kind="KIND_AUTO", count=1)),
    "tensorrt_profile_in_part": entry(
        **gpu("tensorrt", trt_profile_min_shapes="x:1x3"), **instances(kind="KIND_AUTO", count=1)
    ),
    "tensorrt_profile_of_nothing": entry(
        **gpu("tensorrt", **{**_PROFILE, "trt_profile_max_shapes": "z:1x3"}), **instances(kind="KIND_AUTO", count=1)
    ),
    "cuda_key": entry(**gpu("cuda", cuda_graph="1"), **instances(kind="KIND_AUTO", count=1)),
    "cuda_overwritten": entry(**gpu("cuda", gpu_mem_limit="1"), **instances(kind="KIND_AUTO", count=1)),
    "package": package(**_PT2, **_PT2_TENSORS),
    "package_batched": package(**{**_PT2, "max_batch_size": 8}, **_PT2_TENSORS),
    "package_of_sequences": package(**_PT2, **_PT2_TENSORS, sequence_batching={}),
    "package_damaged": package(b"none", **_PT2, **_PT2_TENSORS),
    "package_of_names": package(**_PT2, inputs={"x": "FP32[-1,3]"}, outputs={"y": "FP32[-1,3]"}),
    "package_by_call": package(
        **_PT2, inputs={"ARGS[0]": "FP32[-1]", "KWARGS[mask]": "BOOL[-1]"}, outputs={"RESULT[a][0]": "FP32[-1]"}
    ),
    "package_of_strings": package(**_PT2, inputs={"INPUT__0": "STRING[-1]"}, outputs={"OUTPUT__0": "FP32[-1]"}),
    "package_without_outputs": package(**_PT2, inputs={"INPUT__0": "FP32[-1]"}, outputs={}),
    "own_operator": entry(
        graph([node("Spin", "x", to="y", domain="my.own")], {"x": "FP32[batch,3]"}, {"y": "FP32[batch,3]"})
    ),
    "cached_ensemble": ensemble(
        [step("decoupled_part")],
        parts={"decoupled_part": python(model_transaction_policy={"decoupled": True})},
        response_cache={"enable": True},
    ),
    "script": python(parameters={"naiad.calls": "package:1"}),
    "script_unreadable": python(parameters={"naiad.calls": "package"}),
    "script_of_nobody": python(parameters={"naiad.calls": "nobody:1"}),
    "script_of_nobody_needed": python(parameters={"naiad.calls": "nobody:1", "naiad.optional_calls": "nobody"}),
    "script_of_itself": python(parameters={"naiad.calls": "script_of_itself:1"}),
    "ensemble_of_gpus": ensemble([step("gpu_part")], parts={"gpu_part": entry(**instances(kind="KIND_GPU", count=1))}),
}
"""What a server without a GPU, or of the embedded release, would not tell apart."""
TOO_LARGE = "10000000000000000000"
STOPPING: Mapping[str, Write] = {"too_large_version": files(rename("1", TOO_LARGE))}
"""What ends a whole server."""


def write_all(repository: Path, entries: Mapping[str, Write]) -> None:
    """Write entries into a repository."""
    repository.mkdir(parents=True)
    for name, write in entries.items():
        write(repository, name)
