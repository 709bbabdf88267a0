"""`config.pbtxt` of a function step and of the ensemble, through its protobuf definition."""

from collections.abc import Sequence
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._configure import settings as _settings
from naiad.export._pipeline.reference import Stage
from naiad.export._pipeline.shapes import Shapes
from naiad.export.errors import InvalidRecipe
from naiad.export.steps import Function, Script

_OUTPUT_MEMORY = "naiad.output_memory"


def of_function(stage: Stage, shapes: Shapes, max_batch_size: int) -> Any:
    """Return the ModelConfig of a function on the Python backend.

    Its requests are not batched: it answers them one by one anyway, so that none depends on another. A script spends
    its time waiting for others, so that two of it are more than one even on one core.
    """
    step = stage.step
    assert isinstance(step, Function)
    config = model_config_pb2.ModelConfig(name=stage.model, backend="python", max_batch_size=max_batch_size)
    config.instance_group.add(
        count=2 if isinstance(step, Script) else 1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU
    )
    for argument, tensor in stage.inputs.items():
        _fill(config.input.add(name=argument), tensor, shapes, reshape=True)
    for result, tensor in stage.outputs.items():
        _fill(config.output.add(name=result), tensor, shapes, reshape=True)
    _settings.apply(config, step.settings)
    return config


def of_ensemble(
    pipeline: str,
    stages: Sequence[Stage],
    shapes: Shapes,
    inputs: Sequence[str],
    outputs: Sequence[str],
    max_batch_size: int,
) -> Any:
    """Return the ModelConfig of the ensemble; the versions of its steps are filled in when they are published."""
    config = model_config_pb2.ModelConfig(name=pipeline, platform="ensemble", max_batch_size=max_batch_size)
    for tensor in inputs:
        _fill(config.input.add(name=tensor), tensor, shapes, reshape=False)
    for tensor in outputs:
        _fill(config.output.add(name=tensor), tensor, shapes, reshape=False)
    # Triton refuses an ensemble in which a step gives a tensor that nobody takes.
    taken = {*outputs, *(tensor for stage in stages for tensor in stage.inputs.values())}
    for stage in stages:
        wired = config.ensemble_scheduling.step.add(model_name=stage.model, model_version=-1)
        wired.input_map.update(stage.inputs)
        wired.output_map.update({result: tensor for result, tensor in stage.outputs.items() if tensor in taken})
    return config


def keep_on_gpu(wired: Sequence[tuple[Stage, Any]]) -> None:
    """Leave what a model on a GPU gives in the GPU's memory where all who take it are models on a GPU, too."""
    for stage, config in wired:
        made = set(stage.outputs.values())
        takers = [other for each, other in wired if made & set(each.inputs.values())]
        if takers and all(map(_is_for_gpus, (config, *takers))) and _OUTPUT_MEMORY not in config.parameters:
            config.parameters[_OUTPUT_MEMORY].string_value = "gpu"


def _is_for_gpus(config: Any) -> bool:
    return bool(config.optimization.execution_accelerators.gpu_execution_accelerator)


def take_graph(stage: Stage, config: Any, shapes: Shapes) -> None:
    """Give a model's outputs the dims of its graph, and refuse a graph that fixes what varies before it."""
    for tensor in config.input:
        name = stage.inputs[tensor.name]
        graph, before = _dims(tensor), shapes.dims[name]
        if any(fixed != -1 and given == -1 for fixed, given in zip(graph, before, strict=True)):
            raise InvalidRecipe(
                f"{stage.label} takes {name!r} with the dims {graph}, and before it they are {before}: name what "
                "varies in the step's dynamic, or leave it out"
            )
    for tensor in config.output:
        shapes.dims[stage.outputs[tensor.name]] = _dims(tensor)


def _dims(tensor: Any) -> list[int]:
    return list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)


def _fill(message: Any, tensor: str, shapes: Shapes, *, reshape: bool) -> None:
    message.data_type = model_config_pb2.DataType.Value(f"TYPE_{shapes.datatypes[tensor]}")
    message.dims.extend(shapes.dims[tensor] or [1])  # a scalar a row: Triton knows no empty dims
    if reshape and shapes.batched and not shapes.dims[tensor]:
        message.reshape.SetInParent()
