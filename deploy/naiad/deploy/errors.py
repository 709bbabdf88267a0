"""What deployment raises.

DeployError
├── InvalidService        the description of the service is wrong (also a ValueError)
├── InvalidKeys           the file of API keys is wrong (also a ValueError)
├── GatewayError          the gateway refused its configuration, did not start, or ended
└── ToolMissing           a program that this needs is not installed
"""


class DeployError(Exception):
    """Any failure of this room."""


class InvalidService(DeployError, ValueError):
    """The description of the service is wrong; says which key, which line, and what was expected."""


class InvalidKeys(DeployError, ValueError):
    """The file of API keys is wrong, or a change to it would be."""


class GatewayError(DeployError):
    """The gateway refused its configuration, did not start, or ended."""


class ToolMissing(DeployError):
    """A program that this needs is not installed; says which, and how to get it."""
