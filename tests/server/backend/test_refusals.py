"""A model that cannot be served is refused with what was expected, what was found, and what to do."""

import pytest

from backend_helpers import Caller

REASONS = {
    "garbage": ["expected a valid ONNX model", "model.onnx (16 bytes)", "found", "export the model again"],
    "no_file": ["expected an ONNX file at", "found only other.onnx", "default_model_filename"],
    "no_weights": ["model.onnx.data", "check that external data files lie beside it"],
    "numpy_2": ["expected numpy 1.26", "found numpy 2", "silently wrong", "start the server with `naiad serve`"],
    "wrong_name": ["input 'image': expected one of 'x', found no such input", "correct config.pbtxt"],
    "wrong_dims": ["output 'y': expected dims [3], the batch dimension apart, as in the model, found [4]"],
    "wrong_type": ["input 'x': expected data_type TYPE_FP32 as in the model, found TYPE_FP16"],
    "unknown_parameter": ["parameter 'intra_op_threads'", "did you mean 'intra_op_thread_count'?", "notes."],
    "unknown_accelerator": ["cpu_execution_accelerator: expected openvino, found 'magic'"],
    "no_openvino": ["expected ONNX Runtime's OpenVINOExecutionProvider", "install onnxruntime-openvino"],
    "no_library": ["op_library_filename", "/nowhere/operators.so", "give the absolute path"],
    "stateful": ["state output 'nowhere': expected one of 'y', found no such output"],
}


@pytest.mark.parametrize("model", REASONS)
def test_broken_model_is_refused_with_its_reason(serving: Caller, model: str) -> None:
    """The server's own list of models says why one did not load, in the backend's words."""
    reason = serving.failure(model)
    for part in REASONS[model]:
        assert part in reason, reason
