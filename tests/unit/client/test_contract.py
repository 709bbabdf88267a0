"""What a model's configuration says about its requests."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from naiad.client import ModelMetadata
from naiad.client._protocol.contract import Contract


def contract(config: str) -> Contract:
    metadata = ModelMetadata(name="m", versions=("1",), platform="", inputs=(), outputs=())
    return Contract.of(metadata, text_format.Parse(config, ModelConfig()))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", False),
        ("dynamic_batching {}", False),
        ("dynamic_batching { default_queue_policy { allow_timeout_override: true } }", False),
        ("dynamic_batching { default_queue_policy { default_timeout_microseconds: 9 } }", False),
        (
            "dynamic_batching { default_queue_policy { allow_timeout_override: true "
            "default_timeout_microseconds: 9 } }",
            True,
        ),
        (
            "dynamic_batching { priority_queue_policy { key: 2 value { allow_timeout_override: true "
            "default_timeout_microseconds: 9 } } }",
            True,
        ),
        ("sequence_batching {}", False),
    ],
)
def test_requests_bring_their_own_limit_where_it_shortens_one(config, expected):
    """Triton ignores a request's limit where none is configured, even if it may be overridden."""
    assert contract(config).queue_timeout is expected


def test_optional_inputs_and_the_largest_batch_come_from_the_configuration():
    """The metadata has neither."""
    known = contract('max_batch_size: 4 input { name: "a" } input { name: "b" optional: true }')
    assert known.optional == {"b"}
    assert known.max_batch_size == 4
