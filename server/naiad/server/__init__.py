"""The real Triton on this machine: fetched, started, supervised, stopped."""

from naiad.server._admission import Balancer as Balancer
from naiad.server._embedded import EmbeddedTriton as EmbeddedTriton
from naiad.server._replicas import Replicas as Replicas
from naiad.server._replicas import RestartStep as RestartStep
from naiad.server._running import RunningServer as RunningServer
from naiad.server._running import find_running as find_running
from naiad.server.errors import AdminRefused as AdminRefused
from naiad.server.errors import FetchError as FetchError
from naiad.server.errors import HashMismatch as HashMismatch
from naiad.server.errors import InvalidOption as InvalidOption
from naiad.server.errors import ModelLoadFailed as ModelLoadFailed
from naiad.server.errors import NotRunning as NotRunning
from naiad.server.errors import PortInUse as PortInUse
from naiad.server.errors import PreflightFailed as PreflightFailed
from naiad.server.errors import ReplicaLost as ReplicaLost
from naiad.server.errors import RepositoryError as RepositoryError
from naiad.server.errors import RepositoryNotFound as RepositoryNotFound
from naiad.server.errors import RestartUnderWay as RestartUnderWay
from naiad.server.errors import ServerDied as ServerDied
from naiad.server.errors import ServerError as ServerError
from naiad.server.errors import StartError as StartError
from naiad.server.errors import StartTimeout as StartTimeout
from naiad.server.errors import UnknownModel as UnknownModel
from naiad.server.errors import Unreachable as Unreachable
from naiad.server.errors import UnsafeName as UnsafeName
from naiad.server.errors import UnsupportedMachine as UnsupportedMachine
