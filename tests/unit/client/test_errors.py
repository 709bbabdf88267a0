"""One class for each thing a caller would do differently."""

import pickle

import grpc
import pytest

import naiad.client
from naiad.client.errors import STATUS_TABLE, CallContext, from_status

CONTEXT = CallContext(
    endpoint="grpc://host:1", method="ModelInfer", model="m", version="2", request_id="r", timeout_s=0.5
)


def test_no_grpc_status_is_missing_from_the_table():
    """Every status but OK has its error."""
    assert set(STATUS_TABLE) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize("status", sorted(STATUS_TABLE))
def test_every_error_keeps_its_fields_and_survives_pickling(status):
    """An error from another process says what it said where it was raised."""
    error = pickle.loads(pickle.dumps(from_status(status, "text", CONTEXT)))
    assert type(error) is STATUS_TABLE[status]
    assert (error.model, error.version, error.endpoint, error.request_id) == ("m", "2", "grpc://host:1", "r")
    assert error.status == status
    assert "grpc://host:1" in str(error)


@pytest.mark.parametrize(
    ("details", "name"),
    [
        ("This protocol is restricted, expecting header 'x'", "AccessDenied"),
        ("[request id: 1] Exceeds maximum queue size", "Overloaded"),
        ("Request timeout expired", "Overloaded"),
        ("explicit model load / unload is not allowed if polling is enabled", "Unsupported"),
        ("failed to connect to all addresses; last error: UNKNOWN: Connection refused", "ServerUnavailable"),
    ],
)
def test_what_triton_calls_unavailable_is_told_apart(details, name):
    """A refused secret or a full queue is no server that is away."""
    assert type(from_status("UNAVAILABLE", details, CONTEXT)).__name__ == name


def test_only_an_unavailable_server_is_worth_another_try():
    """No refusal and no wrong input is retried."""
    retryable = {status for status in STATUS_TABLE if from_status(status, "", CONTEXT).retryable}
    assert retryable == {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}


def test_wrong_input_and_time_outs_are_pythons_own_kinds_too():
    """Code that knows ValueError and TimeoutError needs no import from here."""
    assert issubclass(naiad.client.InvalidInput, ValueError)
    assert issubclass(naiad.client.DeadlineExceeded, TimeoutError)
