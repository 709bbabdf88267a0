"""From the description of a service to one that is safe, watched and highly available."""

from naiad.deploy.errors import DeployError as DeployError
from naiad.deploy.service import Service as Service
