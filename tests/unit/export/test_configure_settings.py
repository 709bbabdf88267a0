"""Fields of config.pbtxt by dotted name: every kind of field, and what is said about a wrong one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2

from naiad.export import InvalidExport, parse_setting
from naiad.export._configure import settings

Get = Callable[[Any], object]


def configured(**assignments: object) -> Any:
    """A configuration as the export derives it, with settings whose names have `__` for dots."""
    config = model_config_pb2.ModelConfig(name="m", max_batch_size=8)
    config.instance_group.add(count=1, kind="KIND_AUTO")
    config.dynamic_batching.preferred_batch_size.extend([4, 8])
    config.parameters["intra_op_thread_count"].string_value = "1"
    settings.apply(config, {name.replace("__", "."): value for name, value in assignments.items()})
    return config


@pytest.mark.parametrize(
    ("name", "value", "get", "expected"),
    [
        (
            "dynamic_batching.max_queue_delay_microseconds",
            500,
            lambda c: c.dynamic_batching.max_queue_delay_microseconds,
            500,
        ),
        (
            "dynamic_batching.preferred_batch_size",
            [2],
            lambda c: list(c.dynamic_batching.preferred_batch_size),
            [2],
        ),
        (
            "dynamic_batching.preferred_batch_size.1",
            6,
            lambda c: list(c.dynamic_batching.preferred_batch_size),
            [4, 6],
        ),
        ("dynamic_batching", None, lambda c: c.HasField("dynamic_batching"), False),
        (
            "dynamic_batching.priority_queue_policy.2.timeout_action",
            "DELAY",
            lambda c: c.dynamic_batching.priority_queue_policy[2].timeout_action,
            model_config_pb2.ModelQueuePolicy.DELAY,
        ),
        ("instance_group.0.count", 3, lambda c: (c.instance_group[0].count, len(c.instance_group)), (3, 1)),
        ("instance_group.1", {"kind": "KIND_CPU", "count": 2}, lambda c: c.instance_group[1].count, 2),
        ("instance_group.0", None, lambda c: len(c.instance_group), 0),
        (
            "instance_group.0.rate_limiter.resources",
            [{"name": "R", "count": 2, "global": True}],
            lambda c: c.instance_group[0].rate_limiter.resources[0].count,
            2,
        ),
        (
            "parameters.session.intra_op.allow_spinning",
            0,
            lambda c: parameter(c, "session.intra_op.allow_spinning"),
            "0",
        ),
        ("parameters.intra_op_thread_count", None, lambda c: dict(c.parameters), {}),
        ("metric_tags.team.name", "vision", lambda c: dict(c.metric_tags), {"team.name": "vision"}),
        (
            "optimization.execution_accelerators.gpu_execution_accelerator.0",
            {"name": "tensorrt", "parameters": {"precision_mode": "FP16"}},
            lambda c: gpu(c)[0].parameters["precision_mode"],
            "FP16",
        ),
        (
            "optimization.execution_accelerators.gpu_execution_accelerator.0.parameters.trt_dla_core",
            "1",
            lambda c: dict(gpu(c)[0].parameters),
            {"trt_dla_core": "1"},
        ),
        ("model_transaction_policy.decoupled", True, lambda c: c.model_transaction_policy.decoupled, True),
        ("response_cache.enable", True, lambda c: c.response_cache.enable, True),
        ("optimization.graph.level", -1, lambda c: c.optimization.graph.level, -1),
        (
            "model_warmup.0.inputs.x.random_data",
            True,
            lambda c: c.model_warmup[0].inputs["x"].random_data,
            True,
        ),
        ("cc_model_filenames.8.9", "other.onnx", lambda c: dict(c.cc_model_filenames), {"8.9": "other.onnx"}),
    ],
)
def test_a_field_of_any_kind_is_set(name: str, value: object, get: Get, expected: object) -> None:
    """Numbers, words, lists, elements of lists, maps, messages; null removes, and the check beforehand agrees."""
    config = configured()
    settings.check({name: value})
    settings.apply(config, {name: value})
    assert get(config) == expected


def parameter(config: Any, name: str) -> str:
    return str(config.parameters[name].string_value)


def gpu(config: Any) -> Any:
    return config.optimization.execution_accelerators.gpu_execution_accelerator


def test_the_order_of_settings_is_kept() -> None:
    """A later setting sees what an earlier one made."""
    config = configured(instance_group=[], instance_group__0__kind="KIND_CPU", instance_group__1__kind="KIND_GPU")
    assert [group.kind for group in config.instance_group] == [2, 1]


def test_another_scheduler_takes_the_place_of_the_first() -> None:
    """A model has one scheduler: asking for sequences ends dynamic batching."""
    config = configured(sequence_batching__oldest__max_candidate_sequences=4)
    assert config.WhichOneof("scheduling_choice") == "sequence_batching"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dynamic_batching.max_queue_delay_us", 1, "did you mean 'dynamic_batching.max_queue_delay_microseconds'"),
        ("dynamic_batching.max_delay", 1, "did you mean 'dynamic_batching.max_queue_delay_microseconds'"),
        ("dynamic_batching.qqqq", 1, "expected one of preferred_batch_size, max_queue_delay_microseconds"),
        ("max_queue_delay_microseconds", 1, r"did you mean '[\w.]+\.max_queue_delay_microseconds'"),
        ("instance_groups.0.count", 1, "did you mean 'instance_group'"),
        ("instance_group.0.counts", 1, "did you mean 'instance_group.0.count'"),
        ("optimization.cuda.graph", True, "did you mean 'optimization.cuda.graphs'"),
        ("zzz", 1, "expected one of"),
        ("instance_group.first.count", 1, "as in instance_group.0"),
        ("instance_group.3.count", 1, "has 1 elements"),
        ("instance_group.0.kind", "KIND_TPU", "expected one of KIND_AUTO, KIND_GPU, KIND_CPU, KIND_MODEL"),
        ("instance_group.0.count", "many", "does not fit"),
        ("instance_group", 3, "does not fit"),
        ("dynamic_batching.preferred_batch_size", "8", "does not fit"),
        ("response_cache.enable.now", True, "is a single value"),
        ("dynamic_batching.priority_queue_policy.high.timeout_action", "DELAY", "is not a number"),
        ("model_warmup.0.inputs.x", 4, "does not fit"),
        ("max_batch_size", 4, "give max_batch_size to the export"),
        ("input.0.dims", [4], "read from the model"),
        ("version_policy.latest.num_versions", 2, "promote and rollback"),
        ("default_model_filename", "net.onnx", "the export writes the file"),
        ("", 1, "no field ''"),
        ("dynamic_batching.", 1, "no field 'dynamic_batching.'"),
    ],
)
def test_a_wrong_setting_says_what_would_be_right(name: str, value: object, message: str) -> None:
    """The nearest field, the words of an enumeration, or the argument that does it instead."""
    with pytest.raises(InvalidExport, match=message):
        configured(**{name.replace(".", "__"): value})


def test_a_place_beyond_a_list_is_not_refused_before_there_is_one() -> None:
    """How many elements a configuration has is known after it was derived."""
    settings.check({"instance_group.3.count": 1})
    with pytest.raises(InvalidExport, match="no field"):
        settings.check({"instance_group.3.cuont": 1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=500", ("a.b", 500)),
        ("a=[1, 2]", ("a", [1, 2])),
        ("a=null", ("a", None)),
        ("a=DELAY", ("a", "DELAY")),
        ("a=x=y", ("a", "x=y")),
        ('a="1"', ("a", "1")),
    ],
)
def test_values_on_the_command_line_are_json_or_text(text: str, expected: tuple[str, object]) -> None:
    """What is JSON is read as such, everything else is text."""
    assert parse_setting(text) == expected
