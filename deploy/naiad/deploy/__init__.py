"""From a description of a service to one that is safe, watched and highly available: gateway, containers, monitoring."""

from naiad.deploy.errors import DeployError as DeployError
from naiad.deploy.service import Service as Service
