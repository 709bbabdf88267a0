"""The public face of the server's room."""

import inspect
import pickle

import pytest

import naiad.server
from naiad.server import ServerError, errors

PUBLIC = {
    "AdminRefused",
    "Balancer",
    "EmbeddedTriton",
    "FetchError",
    "HashMismatch",
    "InvalidOption",
    "ModelLoadFailed",
    "NotRunning",
    "PortInUse",
    "PreflightFailed",
    "ReplicaLost",
    "Replicas",
    "RepositoryError",
    "RepositoryNotFound",
    "RestartStep",
    "RestartUnderWay",
    "RunningServer",
    "ServerDied",
    "ServerError",
    "StartError",
    "StartTimeout",
    "UnknownModel",
    "Unreachable",
    "UnsafeName",
    "UnsupportedMachine",
    "find_running",
}

ERRORS = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, ServerError)]


def test_public_names_are_pinned() -> None:
    """What the room exports changes only on purpose."""
    found = {
        name for name, value in vars(naiad.server).items() if not (name.startswith("_") or inspect.ismodule(value))
    }
    assert found == PUBLIC


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_public_and_drawn_in_the_tree(error: type[ServerError]) -> None:
    """The module's docstring shows every class, and the room exports it."""
    assert error.__name__ in (errors.__doc__ or "")
    assert getattr(naiad.server, error.__name__) is error


@pytest.mark.parametrize("error", ERRORS)
def test_errors_survive_pickling_with_their_fields(error: type[ServerError]) -> None:
    """An error that crosses a process boundary keeps its message and its fields."""
    fields = getattr(error.__init__, "__kwdefaults__", None) or {}
    original = error("what happened", **{name: {"digits": "why"} for name in fields})
    copy = pickle.loads(pickle.dumps(original))
    assert (type(copy), str(copy), vars(copy)) == (error, "what happened", vars(original))
