"""What an embedded Triton may be started with."""

from pathlib import Path

import pytest

from naiad.server._options import Options
from naiad.server.errors import InvalidOption


@pytest.mark.parametrize(
    "arguments",
    [
        ["--http-address=0.0.0.0"],
        ["--http-addr", "0.0.0.0"],
        ["--log-verbose=1", "--grpc-address", "10.0.0.7"],
        ["--metrics-a=::"],
        ["--allow-sagemaker=true"],
        ["--allow-s", "true"],
        ["--allow-vertex-ai=true"],
    ],
)
def test_further_arguments_cannot_let_others_in(arguments):
    """Every option that listens beyond loopback is refused, abbreviated ones too, which Triton understands."""
    with pytest.raises(InvalidOption, match="on loopback"):
        Options(repository=Path("models"), extra_args=tuple(arguments))


@pytest.mark.parametrize(
    "argument",
    ["--http-port=0", "--http-thread-count=2", "--allow-metrics=false", "--allow-grpc=true", "--log-verbose=1",
     "--grpc-keepalive-time=1000", "--metrics-config=summary_latencies=true", "--metrics-interval-ms=100", "--model"],
)  # fmt: skip
def test_other_arguments_are_passed_on(argument):
    """They are Triton's to judge."""
    assert Options(repository=Path("models"), extra_args=(argument,)).extra_args == (argument,)
