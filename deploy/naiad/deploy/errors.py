"""What deployment raises.

::

    DeployError
    ├── InvalidService (ValueError)    the description of the service is wrong: says which key, and which line
    ├── InvalidKeys (ValueError)       the file of API keys is wrong, or a change to it would be
    ├── InvalidCertificate (ValueError)  a certificate or key is none, or does not fit the other one
    ├── OutputNotWritable              a file cannot be written where it was asked for
    ├── UnsafeAddress (ValueError)     others could reach an address without TLS or identity
    ├── InvalidTarget (ValueError)     what should be audited is no address, or nothing of Triton's listens there
    ├── GatewayError                   the gateway refused its configuration, did not start, or ended
    └── ToolMissing                    a program that this needs is not installed
"""

from __future__ import annotations

__all__ = [
    "DeployError",
    "GatewayError",
    "InvalidCertificate",
    "InvalidKeys",
    "InvalidService",
    "InvalidTarget",
    "OutputNotWritable",
    "ToolMissing",
    "UnsafeAddress",
    "dotted",
]


class DeployError(Exception):
    """Any failure of this room."""


class InvalidService(DeployError, ValueError):
    """The description of the service is wrong: what was expected there, what was found, what to do.

    ``key`` leads to the value from the root of the description (a number is the place in an array); ``path`` and
    ``line`` say where it is written, once a file is known.
    """

    def __init__(self, reason: str, *, key: tuple[str | int, ...] = (), path: str = "", line: int = 0) -> None:
        where = [f"{path}:{line}" if line else path, dotted(key)]
        super().__init__(": ".join([part for part in where if part] + [reason]))
        self.reason = reason
        self.key = key
        self.path = path
        self.line = line


class InvalidKeys(DeployError, ValueError):
    """The file of API keys is wrong, or a change to it would be."""


class InvalidCertificate(DeployError, ValueError):
    """A certificate or its private key cannot be read, or they are not each other's."""


class OutputNotWritable(DeployError):
    """A file cannot be written where it was asked for; what was there before is as it was."""


class UnsafeAddress(DeployError, ValueError):
    """Others could reach what listens there, without TLS or without saying who they are."""


class InvalidTarget(DeployError, ValueError):
    """What should be audited is no address, or nothing of Triton's listens there."""


class GatewayError(DeployError):
    """The gateway refused its configuration, did not start, or ended."""


class ToolMissing(DeployError):
    """A program that this needs is not installed; says which, and how to get it."""


def dotted(key: tuple[str | int, ...]) -> str:
    """Return ``key`` as people write it, counting from one: ``identities[2].rights.infer``."""
    text = ""
    for step in key:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if text else step
    return text
