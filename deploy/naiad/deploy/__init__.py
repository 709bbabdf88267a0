"""From the description of a service to one that is safe, watched and highly available."""

from naiad.deploy.errors import DeployError as DeployError
from naiad.deploy.errors import GatewayError as GatewayError
from naiad.deploy.errors import InvalidCertificate as InvalidCertificate
from naiad.deploy.errors import InvalidKeys as InvalidKeys
from naiad.deploy.errors import InvalidService as InvalidService
from naiad.deploy.errors import OutputNotWritable as OutputNotWritable
from naiad.deploy.errors import ToolMissing as ToolMissing
from naiad.deploy.keys import Key as Key
from naiad.deploy.keys import KeyFile as KeyFile
from naiad.deploy.load import load_service as load_service
from naiad.deploy.place import Endpoint as Endpoint
from naiad.deploy.place import Place as Place
from naiad.deploy.service import Canary as Canary
from naiad.deploy.service import Identity as Identity
from naiad.deploy.service import Issuer as Issuer
from naiad.deploy.service import Limits as Limits
from naiad.deploy.service import Objective as Objective
from naiad.deploy.service import Pool as Pool
from naiad.deploy.service import Rights as Rights
from naiad.deploy.service import Service as Service
from naiad.deploy.service import Shadow as Shadow
from naiad.deploy.service import Triton as Triton
