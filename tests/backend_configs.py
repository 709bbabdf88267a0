"""Configurations as Triton hands them to its backends, for tests of the backend's own modules."""

from typing import Any

from _ort_config import ModelConfig, parse
from google.protobuf import json_format

from repository_helpers import config_message


def config(**fields: Any) -> ModelConfig:
    """The configuration of a model named `model`; see ``repository_helpers.write_model`` for the fields."""
    message = config_message("model", **fields)
    # As Triton writes it: names as in config.pbtxt, and fields that were not set too.
    described = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return parse(described)
