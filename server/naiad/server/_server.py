"""A Triton with everything it needs around it: prepared, launched, restarted on the same ports, removed."""

import contextlib
import logging
import math
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

from naiad.server import _calls, _command, _gpus, _home, _kinds, _log, _machine, _newer, _pools, _ports, _stub
from naiad.server._admin import Admin, ModelStatus
from naiad.server._options import Options
from naiad.server._private import PrivateDirectory, remove_abandoned
from naiad.server._process import Process
from naiad.server._source import open_source
from naiad.server.errors import AdminRefused, ModelLoadFailed, PortInUse, ServerDied, ServerError, StartError

_log_to = logging.getLogger("naiad.server")
_ATTEMPTS: Final = 4
_EXIT_GRACE_S: Final = 4.0
_NO_VERSION: Final = "no version of it is served"


class Server:
    """One private directory with one Triton in it; a restart puts another process there."""

    def __init__(self, options: Options, stopping: threading.Event | None = None) -> None:
        self.options = options
        self.source = open_source(options.repository)
        self.models = self.source.select(options.models)
        if options.models is not None:
            self.models = self.source.select(_calls.with_called(self.source, self.models))
        self.restarts = 0
        self.failure: ServerError | None = None
        self.admin_secret = options.admin_secret or secrets.token_urlsafe(24)
        self.stopping = stopping or threading.Event()
        self._swap = threading.Lock()
        self._untranslated: dict[str, str] = {}
        requested = (options.grpc_port, options.http_port, options.metrics_port)
        self.ports = _chosen(requested)
        self.gpus = _gpus.choose(options.gpus)
        if self.gpus.gpus:
            _log_to.info("Using %s", ", ".join(f"{gpu.name} ({gpu.uuid})" for gpu in self.gpus.gpus))
        _pools.check(self.gpus.gpus, options.cuda_memory_pool_bytes)
        if options.exit_on_load_error and not self.gpus.gpus:
            _kinds.check(self.source.configs(self.models), self.gpus.why_none)
        self._home = _home.find(options.home)
        numpy = _home.find_numpy()
        _machine.check_supported()
        _machine.preflight()
        remove_abandoned()
        self.private = PrivateDirectory()
        with self._removed_on_error():
            self._prepare(numpy)
            self._launch(requested)
            self._report_gpus()
            self._report_failures()

    @property
    def log_path(self) -> Path:
        """Where the server's output goes."""
        return self.options.log_path or self.private / "triton.log"

    def explain(self, text: str) -> str:
        """`text` with the paths that the user knows."""
        return text.replace(self._settings.repository, str(self.source.repository))

    def restart(self, models: Sequence[str]) -> None:
        """Put a new process in the place of a dead one, on the same ports, with `models` as far as they load.

        Raises: `ServerDied`, `StartTimeout`.
        """
        self.private.sweep()
        with self._swap:
            if self.stopping.is_set():
                return
            self.process = self._spawn(models)
            self.restarts += 1
        self._await(self.process)
        self._load_translated(models)
        for model, reason in self.load_failures(models).items():
            _log_to.warning("After the restart, model %s did not load: %s", model, reason)

    def load_failures(self, models: Sequence[str]) -> dict[str, str]:
        """For each of `models` that is not served as it should be: why."""
        index = self.admin.index()
        served = {status.name for status in index if status.state == "READY"}
        failures = {model: _NO_VERSION for model in models if model not in served}
        failures |= {
            status.name: self.explain(status.reason) for status in index if status.name in models and _failed(status)
        }
        refused = _log.refused_models(self.process.log_text()) | self._untranslated
        return {model: self.explain(refused.get(model, reason)) for model, reason in failures.items()}

    def load(self, model: str) -> None:
        """Load a model, or load it again. Raises `AdminRefused` with the reason, `Unreachable`."""
        try:
            self.admin.load(model, self._translated([model]).get(model))
        except AdminRefused as exc:
            # What is wrong with a configuration stands in the log only.
            refused = _log.refused_models(self.process.log_text())
            said = f"{exc}: {refused[model]}" if "failed to poll" in str(exc) and model in refused else str(exc)
            raise AdminRefused(self.explain(said), model=model, status=exc.status) from exc

    def stop(self) -> None:
        """Let requests in flight finish, then end the process group and remove everything."""
        with self._swap:
            self.stopping.set()
        started = time.monotonic()
        timeout_s = self._exit_timeout_s + _EXIT_GRACE_S
        try:
            if not self.process.terminate(timeout_s):
                _log_to.warning("Triton did not end within %.0f s; killing it.", timeout_s)
        finally:
            self.remove()
        _log_to.info("Triton stopped after %.1f s", time.monotonic() - started)

    def remove(self) -> None:
        """End whatever still runs at once, and remove everything."""
        self.stopping.set()
        if hasattr(self, "process"):
            self.process.kill()
        self.private.remove()

    @property
    def _exit_timeout_s(self) -> int:
        return max(1, math.ceil(self.options.drain_timeout_s))

    def _prepare(self, numpy: Path) -> None:
        _stub.build_environment(self.private / "env", numpy)
        _stub.build_backends(self.private / "be", self._home)
        _stub.link_libpython(self.private / "lib")
        if self.gpus.library:
            _stub.link_driver(self.private / "lib", self.gpus.library)
        self._settings = _command.Settings(
            home=self._home,
            private=self.private.path,
            repository=self.source.prepare(self.private.path),
            region_prefix=self.private.region_prefix,
            admin_secret=self.admin_secret,
            auto_complete=self.options.auto_complete,
            response_cache_bytes=self.options.response_cache_bytes,
            exit_timeout_s=self._exit_timeout_s,
            gpus=self.gpus,
            cuda_memory_pool_bytes=self.options.cuda_memory_pool_bytes,
            pinned_memory_pool_bytes=self.options.pinned_memory_pool_bytes,
            extra_args=tuple(self.options.extra_args),
        )
        _stub.preflight(self._home.stub(sys.version_info[:2]), _command.environment(self._settings))

    def _launch(self, requested: tuple[int, int, int]) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            self.admin = Admin(self.ports, self.admin_secret)
            self.process = self._spawn(self.models)
            try:
                self._await(self.process)
            except ServerDied as exc:
                taken = _log.port_taken(exc.log_tail)
                self.private.sweep()
                if taken is None:
                    raise
                if taken in requested or taken not in astuple(self.ports) or attempt == _ATTEMPTS:
                    raise PortInUse(f"Port {taken} was taken while Triton started. Name another.", port=taken) from exc
                self.ports = _chosen(requested)
            else:
                if self.stopping.is_set():
                    raise StartError("Triton was stopped while it started.")
                self._load_translated(self.models)
                return

    def _report_gpus(self) -> None:
        reason = _log.gpus_out_of_reach(self.process.log_text()) if self.gpus.gpus else ""
        if reason:
            _log_to.warning(
                "The driver shows GPUs, but Triton cannot use them: %s. Models go to the CPU, or do not load. `naiad "
                "doctor gpu` says what the driver is; this Triton needs one for CUDA 12 or newer.",
                reason,
            )

    def _report_failures(self) -> None:
        failures = self.load_failures(self.models)
        if not failures:
            return
        listed = "\n".join(f"  {model}: {reason}" for model, reason in sorted(failures.items()))
        if not self.options.exit_on_load_error:
            _log_to.warning("Models that did not load:\n%s", listed)
            return
        raise ModelLoadFailed(
            f"Expected every model in {self.source.repository} to load, but:\n{listed}\n"
            "Repair or remove them, or name the models to serve.",
            log_tail=self.explain(_log.tail(self.log_path, 40)),
            reasons=failures,
        )

    def _spawn(self, models: Sequence[str]) -> Process:
        later = self._translated(models)
        models = [model for model in models if model not in later]
        try:
            return Process(
                _command.command(self._settings, self.ports, models),
                secret=self.admin_secret,
                environment=_command.environment(self._settings),
                directory=self.private / "cwd",
                log_path=self.log_path,
            )
        except OSError as exc:
            raise ServerDied(f"Triton could not be started: {exc}. Look at the file named, then try again.") from exc

    def _translated(self, models: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Configurations of models which Triton would refuse to load with their own."""
        pairs = ((model, _newer.translated(config)) for model, config in self.source.configs(models).items())
        return {model: config for model, config in pairs if config is not None}

    def _load_translated(self, models: Sequence[str]) -> None:
        self._untranslated.clear()
        for model, config in self._translated(models).items():
            try:
                self.admin.load(model, config)
            except AdminRefused as exc:
                self._untranslated[model] = str(exc)

    def _await(self, process: Process) -> None:
        before = _backend_directories()
        process.wait_live(self.admin, self.options.ready_timeout_s, self.stopping)
        self.private.claim(temporary=_backend_directories() - before)

    @contextlib.contextmanager
    def _removed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.remove()
            raise


def _chosen(requested: tuple[int, int, int]) -> _command.Ports:
    grpc, http, metrics = _ports.choose(requested)
    return _command.Ports(grpc=grpc, http=http, metrics=metrics)


def _failed(status: ModelStatus) -> bool:
    return status.state != "READY" and status.reason not in ("", "unloaded")


def _backend_directories() -> set[str]:
    return {str(path) for path in Path("/tmp").glob("python_env_*")}  # noqa: S108 - where Triton puts them
