"""What can go wrong around the embedded Triton.

    ServerError
    ├── UnsupportedMachine          this machine or Python cannot run it at all
    ├── FetchError                  Triton's files could not be obtained
    │   └── HashMismatch            … what arrived is not what was pinned
    ├── PreflightFailed             something that the Python stub or Triton needs is missing
    ├── RepositoryError             (ValueError) the model repository cannot be served as it is
    │   ├── RepositoryNotFound
    │   ├── UnknownModel            a named model is not in it
    │   └── UnsafeName              a model or version name that Triton mistreats
    ├── InvalidOption               (ValueError) an argument that makes no sense
    ├── PortInUse                   another program listens there
    ├── StartError                  Triton started and did not become ready
    │   ├── ModelLoadFailed         one or more models did not load
    │   ├── ServerDied              the process ended
    │   └── StartTimeout
    ├── AdminRefused                a running server refused a control call
    ├── Unreachable                 it did not answer, as while it is being restarted
    ├── RestartUnderWay             a rolling restart was asked for while another one is under way
    ├── ReplicaLost                 a replica did not come back from its restart
    └── NotRunning                  used before `start()` or after `stop()`

Every field has a default, so that all of them survive pickling.
"""

from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "AdminRefused",
    "FetchError",
    "HashMismatch",
    "InvalidOption",
    "ModelLoadFailed",
    "NotRunning",
    "PortInUse",
    "PreflightFailed",
    "ReplicaLost",
    "RepositoryError",
    "RepositoryNotFound",
    "RestartUnderWay",
    "ServerDied",
    "ServerError",
    "StartError",
    "StartTimeout",
    "UnknownModel",
    "Unreachable",
    "UnsafeName",
    "UnsupportedMachine",
]


class ServerError(Exception):
    """Root of everything that `naiad.server` raises on purpose."""


class UnsupportedMachine(ServerError):
    """The embedded Triton has no build for this machine or this Python."""


class FetchError(ServerError):
    """A pinned file could not be downloaded or unpacked."""

    def __init__(self, message: str, *, project: str = "", version: str = "") -> None:
        super().__init__(message)
        self.project = project
        self.version = version


class HashMismatch(FetchError):
    """What was downloaded is not what is pinned; nothing of it was kept."""

    def __init__(
        self, message: str, *, project: str = "", version: str = "", expected: str = "", found: str = ""
    ) -> None:
        super().__init__(message, project=project, version=version)
        self.expected = expected
        self.found = found


class PreflightFailed(ServerError):
    """A requirement is missing on which Triton would otherwise hang or abort; `check` names it."""

    def __init__(self, message: str, *, check: str = "") -> None:
        super().__init__(message)
        self.check = check


class RepositoryError(ServerError, ValueError):
    """The model repository cannot be served as it is."""

    def __init__(self, message: str, *, repository: Path | None = None, model: str = "") -> None:
        super().__init__(message)
        self.repository = repository
        self.model = model


class RepositoryNotFound(RepositoryError):
    """There is no directory at the given path."""


class UnknownModel(RepositoryError):
    """A model was named that the repository does not hold."""


class UnsafeName(RepositoryError):
    """A model or version directory has a name on which Triton misbehaves."""


class InvalidOption(ServerError, ValueError):
    """An argument has a value that makes no sense."""


class PortInUse(ServerError):
    """Another program already listens on a requested port."""

    def __init__(self, message: str, *, port: int = 0) -> None:
        super().__init__(message)
        self.port = port


class StartError(ServerError):
    """Triton was started and did not become ready; `log_tail` holds the end of its log."""

    def __init__(self, message: str, *, log_tail: str = "") -> None:
        super().__init__(message)
        self.log_tail = log_tail


class ModelLoadFailed(StartError):
    """Models failed to load; `reasons` maps each model to what Triton said about it."""

    def __init__(self, message: str, *, log_tail: str = "", reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(message, log_tail=log_tail)
        self.reasons = dict(reasons or {})


class ServerDied(StartError):
    """The Triton process ended by itself; `returncode` is negative for a signal."""

    def __init__(self, message: str, *, log_tail: str = "", returncode: int | None = None) -> None:
        super().__init__(message, log_tail=log_tail)
        self.returncode = returncode


class StartTimeout(StartError):
    """Triton was alive but not ready in time."""


class AdminRefused(ServerError):
    """A running server refused to load, unload or describe a model."""

    def __init__(self, message: str, *, model: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.model = model
        self.status = status


class Unreachable(ServerError):
    """The server did not answer: not up yet, being restarted, or gone."""


class RestartUnderWay(ServerError):
    """A rolling restart was asked for while another one is under way."""


class ReplicaLost(ServerError):
    """A replica did not come back from its restart; the rolling restart ended there, and the others serve."""

    def __init__(self, message: str, *, replica: str = "") -> None:
        super().__init__(message)
        self.replica = replica


class NotRunning(ServerError):
    """The server was used before `start()` or after `stop()`."""
