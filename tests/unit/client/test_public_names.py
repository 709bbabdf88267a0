"""The names that services may rely on."""

import naiad.client


def test_the_public_names_are_these():
    """A name is added or removed here on purpose, never by accident."""
    found = {name for name in vars(naiad.client) if not name.startswith("_") and name[0].isupper()}
    assert found == {
        "AccessDenied",
        "AsyncClient",
        "AsyncModel",
        "BatchStatistics",
        "Cancelled",
        "Client",
        "ClientClosed",
        "ClientError",
        "DeadlineExceeded",
        "Duration",
        "InferenceFailed",
        "InvalidInput",
        "InvalidResponse",
        "Model",
        "ModelMetadata",
        "ModelNotFound",
        "ModelState",
        "ModelStatistics",
        "Output",
        "Overloaded",
        "Result",
        "Retry",
        "ServerMetadata",
        "ServerUnavailable",
        "TLS",
        "TensorMetadata",
        "Timeout",
        "Unsupported",
    }


def test_both_clients_offer_the_same_methods():
    """What the blocking client can do, the asyncio client can do."""

    def methods(cls):
        return {name for name in dir(cls) if not name.startswith("_")}

    assert methods(naiad.client.Client) == methods(naiad.client.AsyncClient)
    assert methods(naiad.client.Model) == methods(naiad.client.AsyncModel)
