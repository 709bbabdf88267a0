"""The one object of this room: a real Triton that lives as long as a `with` block."""

import logging
import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from naiad.client import Client
from naiad.server import _log, _source
from naiad.server._canary import first_trouble
from naiad.server._options import ALONE, Company, Options
from naiad.server._ports import LOOPBACK
from naiad.server._running import RunningServer, announce
from naiad.server._server import Server
from naiad.server._supervisor import Supervisor
from naiad.server.errors import NotRunning, ServerError, StartError

_log_to = logging.getLogger("naiad.server")


class EmbeddedTriton:
    """The real Triton, on this machine's loopback interface only, with every model of a repository.

    `repository` is a directory or `s3://bucket/prefix`, which Triton reads itself; endpoint and credentials come from
    the AWS variables of the environment.

    It is ready when `start()` (or entering the `with` block) returns, and leaves nothing behind when it stops, also if
    this process is killed. Ports of 0 are chosen freely. Loading models and the other administrative APIs need
    `admin_secret`, which `admin_url` and `client()` carry.

    * `models`: names to load; None for all.
    * `auto_complete`: let Triton complete unfinished configurations (costs more than a second a load).
    * `response_cache_bytes`: size of the response cache for models that ask for one; 0 for none.
    * `ready_timeout_s`, `drain_timeout_s`: how long to wait for the start, and for requests in flight at the stop.
    * `supervise`: repair models whose Python process died, and restart a server that died.
    * `watch`: load models again when their files in the repository change.
    * `exit_on_load_error`: refuse to start when a model does not load; False logs a warning.
    * `extra_args`: further arguments of `tritonserver`.
    * `home`: an unpacked Triton to use instead of the one that is found or fetched.
    * `log_path`: where Triton's output goes (appended); by default a file that goes with the server.
    * `gpus`: "all", "none", numbers as in "0,1", or UUIDs as in "GPU-8932f937-…"; None for what there is. Numbers count
      what CUDA_VISIBLE_DEVICES of the environment leaves visible, as CUDA's own do.
    * `cuda_memory_pool_bytes`: what Triton reserves on each GPU for tensors between its processes; it cannot grow. None
      for 1/32 of the GPU's memory, between 64 MiB and 4 GiB.
    * `pinned_memory_pool_bytes`: host memory for copies from and to GPUs; None for Triton's 256 MiB.
    * `admin_secret`: what the administrative APIs ask for; None for a random one.
    """

    def __init__(
        self,
        repository: str | os.PathLike[str],
        *,
        models: Sequence[str] | None = None,
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        auto_complete: bool = False,
        response_cache_bytes: int = 0,
        ready_timeout_s: float = 60.0,
        drain_timeout_s: float = 10.0,
        supervise: bool = True,
        watch: bool = False,
        exit_on_load_error: bool = True,
        extra_args: Sequence[str] = (),
        home: str | os.PathLike[str] | None = None,
        log_path: str | os.PathLike[str] | None = None,
        gpus: str | None = None,
        cuda_memory_pool_bytes: int | None = None,
        pinned_memory_pool_bytes: int | None = None,
        admin_secret: str | None = None,
    ) -> None:
        self._options = Options(
            repository=_source.parse(repository),
            models=models,
            grpc_port=grpc_port,
            http_port=http_port,
            metrics_port=metrics_port,
            auto_complete=auto_complete,
            response_cache_bytes=response_cache_bytes,
            ready_timeout_s=ready_timeout_s,
            drain_timeout_s=drain_timeout_s,
            supervise=supervise,
            watch=watch,
            exit_on_load_error=exit_on_load_error,
            extra_args=tuple(extra_args),
            home=Path(home) if home else None,
            log_path=Path(log_path).absolute() if log_path else None,
            gpus=gpus,
            cuda_memory_pool_bytes=cuda_memory_pool_bytes,
            pinned_memory_pool_bytes=pinned_memory_pool_bytes,
            admin_secret=admin_secret,
        )
        self._company: Company = ALONE
        self._stopping = threading.Event()
        self._announced = False
        self._running: Server | None = None

    def start(self) -> Self:
        """Start Triton and return when it is ready.

        Raises: a `naiad.server.ServerError` that says what is missing; nothing is left behind then.
        """
        if self._running is None:
            self._stopping = threading.Event()
            self._running = Server(self._options, self._stopping)
            self._owner = os.getpid()
            self._supervisor = self._look_after(self._running)
            _log_to.info("Triton is ready: gRPC %s, HTTP %s", self.grpc_address, self.http_url)
        return self

    def stop(self) -> None:
        """Let requests in flight finish, end Triton and remove what it made; without effect if it is stopped.

        Called by another thread while Triton starts, it ends the start: `start()` raises `StartError` there.
        """
        self._stopping.set()
        running, self._running = self._running, None
        # A forked child has a copy of this object, but the server is its parent's.
        if running is not None and self._owner == os.getpid():
            running.stop()
            if self._supervisor is not None:
                self._supervisor.join()

    def restart(self) -> None:
        """Let requests in flight finish, end Triton, and start it again on the same ports.

        It takes its models anew from the repository, and so serves what a fresh start would. Started again after a
        restart that failed, too.

        Raises: as `start()`; Triton is stopped then.
        """
        if self._running is not None:
            ports = self._running.ports
            self._options = replace(
                self._options, grpc_port=ports.grpc, http_port=ports.http, metrics_port=ports.metrics
            )
            self.stop()
        self.start()
        if self._announced:
            self.announce()

    def _check(self) -> None:
        """Raise `StartError` unless every model answers an inference."""
        trouble = first_trouble(self._server.admin)
        if trouble:
            raise StartError(f"Triton is ready, but its models do not answer: {trouble}", log_tail=self.log_tail())

    def _look_after(self, running: Server) -> Supervisor | None:
        supervise, watch = self._options.supervise, self._options.watch
        return Supervisor(running, self._company, supervise=supervise, watch=watch) if supervise or watch else None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __del__(self) -> None:
        if getattr(self, "_running", None) is not None and self._owner == os.getpid():
            warnings.warn(f"{self!r} was never stopped", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        where = self.grpc_address if self._running else "not running"
        return f"<EmbeddedTriton {str(self._options.repository)!r}, {where}>"

    @property
    def grpc_address(self) -> str:
        """Host and port of the gRPC service."""
        return f"{LOOPBACK}:{self._server.ports.grpc}"

    @property
    def grpc_url(self) -> str:
        """The URL for `naiad.client.Client`, for inference."""
        return f"grpc://{self.grpc_address}"

    @property
    def admin_url(self) -> str:
        """As `grpc_url`, with the secret for model control: do not log it."""
        return f"grpc://:{self.admin_secret}@{self.grpc_address}"

    @property
    def admin_secret(self) -> str:
        """What the restricted APIs ask for: gRPC metadata `triton-grpc-protocol-admin-key`, HTTP header `admin-key`."""
        return self._server.admin_secret

    @property
    def http_url(self) -> str:
        """The root of the HTTP service."""
        return f"http://{LOOPBACK}:{self._server.ports.http}"

    @property
    def metrics_url(self) -> str:
        """The Prometheus endpoint."""
        return f"http://{LOOPBACK}:{self._server.ports.metrics}/metrics"

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that are served now. Raises `Unreachable` while the server is being restarted."""
        return tuple(sorted(self._server.admin.ready_models()))

    @property
    def pid(self) -> int:
        """The process id of Triton; a restart changes it."""
        return self._server.process.pid

    @property
    def log_path(self) -> Path:
        """The file with Triton's output."""
        return self._server.log_path

    @property
    def failure(self) -> ServerError | None:
        """Why the supervisor gave up, if it did: Triton died too often, or did not come back."""
        return self._server.failure

    def announce(self) -> None:
        """Let `find_running` of other processes of this user find this server, until it stops."""
        server = RunningServer(
            grpc_address=self.grpc_address,
            http_url=self.http_url,
            metrics_url=self.metrics_url,
            admin_secret=self.admin_secret,
            repository=self._server.source.repository,
            pid=os.getpid(),
        )
        self._server.private.claim(state_files=[str(announce(server))])
        self._announced = True

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of Triton's output."""
        return self._server.explain(_log.tail(self.log_path, lines))

    @property
    def restarts(self) -> int:
        """How often the supervisor had to start Triton again."""
        return self._server.restarts

    def stub_pids(self) -> tuple[int, ...]:
        """Process ids of the living Python processes that run the models' instances."""
        return tuple(stub.pid for stub in self._server.process.stubs() if not stub.dead)

    def client(self, **options: Any) -> Client:
        """A client that may also load and unload models; `options` are those of `naiad.client.Client`."""
        return Client(self.grpc_url, admin_secret=self.admin_secret, **options)

    @property
    def _server(self) -> Server:
        if self._running is None:
            raise NotRunning("Triton is not running: call start(), or use this object in a `with` statement.")
        return self._running
