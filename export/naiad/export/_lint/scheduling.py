"""Rules about dynamic batching and instances.

Source: `ValidateModelConfig`, `NormalizeInstanceGroup` and `ValidateInstanceGroup` in `model_config_utils.cc`.
"""

from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import Problem, advice, fails, needs_gpu

_DELAY = model_config_pb2.ModelQueuePolicy.DELAY
_LONG_DELAY_US = 1_000_000
_GROUP = model_config_pb2.ModelInstanceGroup


def preferred_batches(entry: Entry) -> Iterator[Problem]:
    """Preferred batches are at most the largest one."""
    largest = entry.config.max_batch_size
    for size in entry.config.dynamic_batching.preferred_batch_size:
        if not 0 < size <= largest:
            message = f"expected 1 to max_batch_size, which is {largest}; found {size}"
            yield fails("dynamic_batching.preferred_batch_size", message, "lower it, or raise max_batch_size")


def batching_without_batches(entry: Entry) -> Iterator[Problem]:
    """Without a batch dimension there is nothing to put together."""
    if entry.config.HasField("dynamic_batching") and entry.config.max_batch_size in (0, 1):
        message = f"with max_batch_size {entry.config.max_batch_size} no batch is ever formed"
        yield advice("dynamic_batching", message, "remove it, or export with a batch dimension")


def queue_delay(entry: Entry) -> Iterator[Problem]:
    """The delay is in microseconds, which is easily mistaken."""
    delay_us = entry.config.dynamic_batching.max_queue_delay_microseconds
    if delay_us >= _LONG_DELAY_US:
        message = f"a request may wait {delay_us / 1e6:g} seconds for others"
        yield advice("dynamic_batching.max_queue_delay_microseconds", message, "check the unit: it is microseconds")


def priorities(entry: Entry) -> Iterator[Problem]:
    """With priority levels there is a default among them, and policies are for levels that exist."""
    batching = entry.config.dynamic_batching
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels == 0:
        return
    if not 1 <= default <= levels:
        message = f"expected 1 to {levels}, found {default}"
        yield fails("dynamic_batching.default_priority_level", message, "name the level of ordinary requests")
    for level in batching.priority_queue_policy:
        if not 1 <= level <= levels:
            message = f"there is no level {level} among {levels}"
            yield fails("dynamic_batching.priority_queue_policy", message, "correct the key")


def preserved_order(entry: Entry) -> Iterator[Problem]:
    """An order can be kept with one priority only, and when no request is put off."""
    batching = entry.config.dynamic_batching
    if not batching.preserve_ordering:
        return
    if batching.priority_levels > 1:
        message = f"it goes with one priority level only, found {batching.priority_levels}"
        yield fails("dynamic_batching.preserve_ordering", message, "leave one of them out")
    policies = [("default_queue_policy", batching.default_queue_policy)]
    policies += [(f"priority_queue_policy.{level}", each) for level, each in batching.priority_queue_policy.items()]
    for name, policy in policies:
        if policy.default_timeout_microseconds and policy.timeout_action == _DELAY:
            message = "requests that waited too long would be put off, which preserve_ordering forbids"
            yield fails(f"dynamic_batching.{name}.timeout_action", message, "use REJECT")


def instance_kinds(entry: Entry) -> Iterator[Problem]:
    """GPUs are named for GPU instances only, and then they must be there."""
    for index, group in enumerate(entry.config.instance_group):
        field, kind = f"instance_group[{index}]", _GROUP.Kind.Name(group.kind)
        numbers = ", ".join(map(str, group.gpus))
        if kind in ("KIND_CPU", "KIND_MODEL") and group.gpus:
            yield fails(f"{field}.gpus", f"{kind} has no GPUs, found {numbers}", "remove them, or use KIND_GPU")
        elif kind == "KIND_GPU":
            which = f"GPU {numbers}" if group.gpus else "a GPU"
            yield needs_gpu(f"{field}.kind", f"the server must have {which}", "use KIND_AUTO to serve on CPUs too")
        elif kind == "KIND_AUTO" and group.gpus:
            message = f"a server without GPU {numbers} makes it KIND_CPU, which must not name GPUs"
            yield needs_gpu(f"{field}.gpus", message, "leave gpus out, so that all that are there are used")


def instance_profiles(entry: Entry) -> Iterator[Problem]:
    """Optimisation profiles are TensorRT's."""
    for index, group in enumerate(entry.config.instance_group):
        if group.profile and entry.config.platform != "tensorrt_plan":
            message = "only TensorRT's own backend has profiles"
            yield fails(f"instance_group[{index}].profile", message, "remove them")


def rate_limits(entry: Entry) -> Iterator[Problem]:
    """A resource is counted for the whole server or for each device, not both."""
    scopes: dict[str, set[bool]] = {}
    for group in entry.config.instance_group:
        for resource in group.rate_limiter.resources:
            scopes.setdefault(resource.name, set()).add(getattr(resource, "global"))
    for name, both in sorted(scopes.items()):
        if len(both) > 1:
            message = f"the resource {name!r} is global in one place and a device's in another"
            yield fails("instance_group.rate_limiter.resources", message, "use one of the two, or two names")


def instances_and_threads(entry: Entry) -> Iterator[Problem]:
    """Each instance of an ONNX model on the CPU takes all cores, and holds all weights, unless it is told not to."""
    if not entry.is_onnx or entry.is_ensemble or "intra_op_thread_count" in entry.config.parameters:
        return
    count = num_cpu_instances(entry.config)
    if count > 1:
        unsaid = "" if any(group.count for group in entry.config.instance_group) else ", Triton's own default,"
        message = f"{count} instances{unsaid} run with all cores each, and hold the weights {count} times"
        fix = "set instance_group.count to 1, or the parameter intra_op_thread_count to cores / instances"
        yield advice("instance_group", message, fix)


def num_cpu_instances(config: Any) -> int:
    """Return how many instances an ONNX model gets on a CPU; a group without a count is two there."""
    groups = [group for group in config.instance_group if group.kind in (_GROUP.KIND_CPU, _GROUP.KIND_AUTO)]
    if not config.instance_group:
        return 2
    return sum(group.count if group.count > 0 else 2 for group in groups)


RULES = (
    preferred_batches,
    batching_without_batches,
    queue_delay,
    priorities,
    preserved_order,
    instance_kinds,
    instance_profiles,
    rate_limits,
    instances_and_threads,
)
