"""Call models on NVIDIA Triton, or any KServe v2 server, over gRPC.

::

    from naiad.client import Client

    with Client("grpc://localhost:8001") as triton:
        answer = triton.model("digits")(x=images)      # numpy in, checked before a byte is sent
        answer["probabilities"]                        # numpy out, writable
"""

from naiad.client._async_client import AsyncClient as AsyncClient
from naiad.client._calling.call import Call as Call
from naiad.client._client import Client as Client
from naiad.client._device.tensor import CudaOutputs as CudaOutputs
from naiad.client._device.tensor import CudaTensor as CudaTensor
from naiad.client._model.async_batched import AsyncBatched as AsyncBatched
from naiad.client._model.async_model import AsyncModel as AsyncModel
from naiad.client._model.async_sequences import AsyncSequence as AsyncSequence
from naiad.client._model.async_streams import AsyncStream as AsyncStream
from naiad.client._model.batched import Batched as Batched
from naiad.client._model.model import Model as Model
from naiad.client._model.sequences import Sequence as Sequence
from naiad.client._model.streams import Stream as Stream
from naiad.client._observe import CallInfo as CallInfo
from naiad.client._observe import Observation as Observation
from naiad.client._observe import Observer as Observer
from naiad.client._protocol.request import Output as Output
from naiad.client.config import ModelConfig as ModelConfig
from naiad.client.control import LogSettings as LogSettings
from naiad.client.control import TraceSettings as TraceSettings
from naiad.client.errors import AccessDenied as AccessDenied
from naiad.client.errors import Cancelled as Cancelled
from naiad.client.errors import ClientClosed as ClientClosed
from naiad.client.errors import ClientError as ClientError
from naiad.client.errors import DeadlineExceeded as DeadlineExceeded
from naiad.client.errors import InferenceFailed as InferenceFailed
from naiad.client.errors import InvalidInput as InvalidInput
from naiad.client.errors import InvalidResponse as InvalidResponse
from naiad.client.errors import ModelNotFound as ModelNotFound
from naiad.client.errors import Overloaded as Overloaded
from naiad.client.errors import SequenceLost as SequenceLost
from naiad.client.errors import ServerUnavailable as ServerUnavailable
from naiad.client.errors import Unsupported as Unsupported
from naiad.client.metadata import ModelMetadata as ModelMetadata
from naiad.client.metadata import ModelState as ModelState
from naiad.client.metadata import ServerMetadata as ServerMetadata
from naiad.client.metadata import TensorMetadata as TensorMetadata
from naiad.client.options import TLS as TLS
from naiad.client.options import Balancing as Balancing
from naiad.client.options import CudaMemory as CudaMemory
from naiad.client.options import Hedge as Hedge
from naiad.client.options import Limits as Limits
from naiad.client.options import Retry as Retry
from naiad.client.options import SharedMemory as SharedMemory
from naiad.client.options import Timeout as Timeout
from naiad.client.result import RankedClass as RankedClass
from naiad.client.result import Result as Result
from naiad.client.result import Timing as Timing
from naiad.client.statistics import BatchStatistics as BatchStatistics
from naiad.client.statistics import Duration as Duration
from naiad.client.statistics import ModelStatistics as ModelStatistics
from naiad.client.statistics import ServerState as ServerState
