"""What this backend refuses by name, because to ignore it would give wrong or surprising answers."""

from collections.abc import Iterator

from _ort_config import ModelConfig
from _ort_datatypes import BF16, STRING
from _ort_errors import UnsupportedError, mismatch
from _ort_ragged import BATCH_INPUT_KINDS, BATCH_OUTPUT_KINDS

REPAIR_MARK = "naiad-repair"
"""The supervisor's key, which makes Triton load an unchanged model again; it names no file."""


def check_supported(config: ModelConfig, *, gpu: bool) -> None:
    """Refuse the first thing in ``config`` that this backend does not do (``UnsupportedError``)."""
    for field, found, advice in _refusals(config, gpu=gpu):
        message = mismatch(
            f"model '{config.name}', {field}", expected="nothing, it is not supported here", found=found, advice=advice
        )
        raise UnsupportedError(message)


def _refusals(config: ModelConfig, *, gpu: bool) -> Iterator[tuple[str, str, str]]:
    if config.decoupled:
        yield "model_transaction_policy.decoupled", "true", "an ONNX model answers once per request, remove it"
    if (config.optimization.get("cuda") or {}).get("graphs"):
        advice = "use the parameter naiad.cuda_graph"
        yield "optimization.cuda.graphs", "true", advice
    if BF16 in {each.data_type for each in config.outputs} and STRING in {each.data_type for each in config.inputs}:
        # ONNX Runtime's Python API takes strings only in the call that cannot return bfloat16.
        yield "a TYPE_BF16 output beside a TYPE_STRING input", "both", "cast the output to TYPE_FP32 in the model"
    capabilities = [key for key in config.capability_filenames if key != REPAIR_MARK]
    if gpu and capabilities:
        advice = "name one file for every GPU as default_model_filename"
        yield "cc_model_filenames", ", ".join(capabilities), advice
    forced = config.parameters.get("FORCE_CPU_ONLY_INPUT_TENSORS", "yes").lower() != "no"
    if gpu and not forced and STRING in {each.data_type for each in config.inputs}:
        advice = "remove it: ONNX Runtime binds no strings, so the inputs beside them are read in CPU memory too"
        yield "parameter 'FORCE_CPU_ONLY_INPUT_TENSORS' beside a TYPE_STRING input", "'no'", advice
    yield from _kinds(config)


def _kinds(config: ModelConfig) -> Iterator[tuple[str, str, str]]:
    for each in config.batch_inputs:
        if each.kind not in BATCH_INPUT_KINDS:
            yield "batch_input", f"kind {each.kind!r}", f"use one of {', '.join(BATCH_INPUT_KINDS)}"
    for each in config.batch_outputs:
        if each.kind not in BATCH_OUTPUT_KINDS:
            yield "batch_output", f"kind {each.kind!r}", f"use one of {', '.join(BATCH_OUTPUT_KINDS)}"
