"""The names that services may rely on."""

import naiad.client


def test_the_public_names_are_these():
    """A name is added or removed here on purpose, never by accident."""
    found = {name for name in vars(naiad.client) if not name.startswith("_") and name[0].isupper()}
    assert found == {
        "AccessDenied",
        "AsyncBatched",
        "AsyncClient",
        "AsyncModel",
        "AsyncSequence",
        "AsyncStream",
        "Balancing",
        "BatchStatistics",
        "Batched",
        "Call",
        "CallInfo",
        "Cancelled",
        "Client",
        "ClientClosed",
        "ClientError",
        "CudaMemory",
        "CudaOutputs",
        "CudaTensor",
        "DeadlineExceeded",
        "Duration",
        "Hedge",
        "InferenceFailed",
        "InvalidInput",
        "InvalidResponse",
        "Limits",
        "LogSettings",
        "Model",
        "ModelConfig",
        "ModelMetadata",
        "ModelNotFound",
        "ModelState",
        "ModelStatistics",
        "Observation",
        "Observer",
        "Output",
        "Overloaded",
        "RankedClass",
        "Result",
        "Retry",
        "Sequence",
        "SequenceLost",
        "ServerMetadata",
        "ServerState",
        "ServerUnavailable",
        "SharedMemory",
        "Stream",
        "TLS",
        "TensorMetadata",
        "Timeout",
        "Timing",
        "TraceSettings",
        "Unsupported",
    }


def test_both_clients_offer_the_same_methods():
    """What the blocking client can do, the asyncio client can do; a task is its `submit`."""

    def methods(cls):
        return {name for name in dir(cls) if not name.startswith("_")}

    assert methods(naiad.client.Client) == methods(naiad.client.AsyncClient)
    assert methods(naiad.client.Model) == methods(naiad.client.AsyncModel) | {"submit"}
