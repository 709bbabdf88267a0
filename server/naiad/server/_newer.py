"""Configurations that later releases of Triton know, in words of the embedded one.

A package of PyTorch's compiler (`model.pt2`) has the platform `torch_aoti`, which Triton knows since 26.03 and which
24.10 refuses to see beside the backend `pytorch`. Without it, the backend knows the package by its file's name. Files
stay as they are: such a model is loaded with another configuration than the one on disk.
"""

from typing import Any, Final

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

_PLATFORM: Final = "torch_aoti"
_FILENAME: Final = "model.pt2"


def translated(config: model_config_pb2.ModelConfig) -> dict[str, Any] | None:
    """The configuration to load a model with; None where the embedded Triton understands the one on disk."""
    if config.platform != _PLATFORM:
        return None
    known = model_config_pb2.ModelConfig()
    known.CopyFrom(config)
    known.ClearField("platform")
    known.backend = known.backend or "pytorch"
    known.default_model_filename = known.default_model_filename or _FILENAME
    fields: dict[str, Any] = json_format.MessageToDict(known, preserving_proto_field_name=True)
    return fields
