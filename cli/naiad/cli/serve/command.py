"""`naiad serve`: what it is asked for, and the embedded Triton alone."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from naiad.cli._console import err
from naiad.cli.serve import _shown
from naiad.cli.serve._sizes import parse_size

if TYPE_CHECKING:
    from naiad.cli.serve._stack import Wanted
    from naiad.server import EmbeddedTriton

_CHECK_EVERY_S = 0.5
_USUAL_PORTS = {"grpc_port": 8001, "http_port": 8000, "metrics_port": 8002}
_ALONE = "The embedded Triton"
_GATEWAY = "The gateway"
_GPUS = "GPUs"


def serve(
    repository: Annotated[
        str,
        typer.Argument(help="What to serve: a directory, or s3://bucket/prefix.", metavar="REPOSITORY"),
    ] = "model_repository",
    models: Annotated[
        str | None, typer.Option(help="Names of the models to load, separated by commas; all if not given.")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(help="Port of the gRPC service; 8001 or a free one.", rich_help_panel=_ALONE)
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Port of the HTTP service; 8000 or a free one.", rich_help_panel=_ALONE)
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of the metrics; 8002 (of the gateway 9901) or a free one.")
    ] = None,
    gateway: Annotated[
        bool,
        typer.Option("--gateway", help="Serve replicas behind a gateway (Envoy).", rich_help_panel=_GATEWAY),
    ] = False,
    replicas: Annotated[
        int | None,
        typer.Option(
            help="Tritons behind the gateway; as the description says, or 2.", min=1, rich_help_panel=_GATEWAY
        ),
    ] = None,
    service: Annotated[
        Path | None,
        typer.Option(
            help="Description of the service, such as deploy/service.toml; by default everybody on this machine may "
            "use it.",
            exists=True,
            dir_okay=False,
            rich_help_panel=_GATEWAY,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; one that others can reach needs TLS and identity.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            help="Port of gRPC and HTTP; 8001 (with TLS 8443) or a free one.", min=0, rich_help_panel=_GATEWAY
        ),
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option(
            help="Directory with keys and certificates; secrets beside the description.", rich_help_panel=_GATEWAY
        ),
    ] = None,
    access_log: Annotated[
        Path | None,
        typer.Option(help="Append a line of JSON for each request to this file.", rich_help_panel=_GATEWAY),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let others reach what lacks TLS or identity.", rich_help_panel=_GATEWAY),
    ] = False,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="Have the service that runs read its description again and restart its replicas, one after the "
            "other and without losing a request.",
            rich_help_panel=_GATEWAY,
        ),
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(help="With --reload: the service's address, where several run.", rich_help_panel=_GATEWAY),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Load a model again when its files change.")] = True,
    auto_complete: Annotated[
        bool, typer.Option("--auto-complete", help="Let Triton complete unfinished configurations (slower).")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Serve the other models when one does not load.")
    ] = False,
    response_cache: Annotated[
        int, typer.Option(help="Size of the response cache in bytes, for models that ask for one.", min=0)
    ] = 0,
    ready_timeout: Annotated[float, typer.Option(help="Seconds to wait until every model is loaded.")] = 60.0,
    drain_timeout: Annotated[float, typer.Option(help="Seconds that requests in flight get at the end.")] = 10.0,
    log_file: Annotated[Path | None, typer.Option(help="Append Triton's log to this file.")] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            help="GPUs to use: all, none, numbers such as 0,1, or UUIDs such as GPU-8932f937-…; by default what there "
            "is. Where CUDA_VISIBLE_DEVICES is set, numbers count what it names.",
            rich_help_panel=_GPUS,
        ),
    ] = None,
    cuda_memory_pool: Annotated[
        int | None,
        typer.Option(
            help="What each Triton reserves on each GPU for tensors between its processes, such as 512MB or 2GiB; it "
            "cannot grow. By default 1/32 of the GPU's memory, between 64 MiB and 4 GiB.",
            parser=parse_size,
            metavar="SIZE",
            rich_help_panel=_GPUS,
        ),
    ] = None,
    pinned_memory_pool: Annotated[
        int | None,
        typer.Option(
            help="Memory of the host for copies from and to GPUs; by default Triton's 256MiB.",
            parser=parse_size,
            metavar="SIZE",
            rich_help_panel=_GPUS,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one line of JSON.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more, also in Triton's log.")] = False,
) -> None:
    """Serve a model repository with the real Triton, on this machine only, or behind a gateway.

    Triton is fetched on first use. The command runs until Ctrl-C, which lets the requests in flight finish; a second
    Ctrl-C ends it at once. Models whose Python process died are repaired, and Triton is restarted if it dies. Other
    naiad commands find this server, and the secret for model control, by its address.

    With --gateway, several Tritons serve side by side and Envoy spreads the requests, so that none is lost while one
    of them is away. Each of them uses all the GPUs, and has memory pools of its own there.

    Examples:

        naiad serve

        naiad serve model_repository --models digits --grpc-port 0 --json

        naiad serve --no-watch --log-file triton.log

        naiad serve s3://bucket/models

        naiad serve --gpus 0,1 --cuda-memory-pool 2GiB

        naiad serve --replicas 2 --gateway

        naiad serve --gateway --service deploy/service.toml --host 0.0.0.0

        naiad serve --reload
    """
    if reload:
        from naiad.cli.serve._reload import reload as reload_running

        reload_running(server, as_json=as_json)
        return
    _shown.show_log(verbose=verbose)
    triton: dict[str, Any] = {
        "models": None if models is None else [name.strip() for name in models.split(",") if name.strip()],
        "auto_complete": auto_complete,
        "response_cache_bytes": response_cache,
        "ready_timeout_s": ready_timeout,
        "watch": watch,
        "exit_on_load_error": not keep_going,
        "extra_args": ["--log-verbose=1"] if verbose else [],
        "gpus": gpus,
        "cuda_memory_pool_bytes": cuda_memory_pool,
        "pinned_memory_pool_bytes": pinned_memory_pool,
    }
    if gateway:
        from naiad.cli.serve._stack import Wanted

        _refuse("--gateway", {"--grpc-port": grpc_port, "--http-port": http_port}, "name --port instead")
        _serve_behind_gateway(
            Wanted(
                repository=repository,
                description=service,
                num_replicas=replicas,
                host=host,
                port=port,
                metrics_port=metrics_port,
                secrets=secrets,
                access_log=access_log,
                log_file=log_file,
                insecure=insecure,
                drain_timeout_s=drain_timeout,
                triton=triton,
            ),
            as_json=as_json,
        )
        return
    several = None if replicas == 1 else replicas
    behind = {"--replicas": several, "--service": service, "--port": port, "--secrets": secrets}
    _refuse("no --gateway", {**behind, "--access-log": access_log}, "add --gateway")
    _guard_alone(host)
    _serve_alone(
        {"grpc_port": grpc_port, "http_port": http_port, "metrics_port": metrics_port},
        as_json=as_json,
        repository=repository,
        drain_timeout_s=drain_timeout,
        log_path=log_file,
        **triton,
    )


def _refuse(what: str, options: dict[str, object], instead: str) -> None:
    found = [name for name, value in options.items() if value is not None]
    if found:
        raise typer.BadParameter(f"expected none of it with {what}: {instead}", param_hint=", ".join(found))


def _guard_alone(host: str) -> None:
    if host == "127.0.0.1":
        return
    from naiad.deploy.exposure import check_exposure

    check_exposure(host, None)


def _serve_alone(named: dict[str, int | None], *, as_json: bool, repository: str, **options: Any) -> None:
    asked = _Asked()
    with _start(named, repository=repository, **options) as triton:
        # Before anything is printed: whoever reads the addresses may ask us to stop at once.
        asked.ready = True
        triton.announce()
        _shown.show_triton(triton, repository, as_json=as_json)
        _wait(triton, asked)
        err.print(_STOPPING)


def _serve_behind_gateway(wanted: Wanted, *, as_json: bool) -> None:
    from naiad.cli.serve._stack import Stack
    from naiad.cli.serve.control import Control

    asked = _Asked()
    with Stack(wanted) as stack, Control(stack, stack.directory / "control") as control:
        asked.ready = True
        stack.announce(control.path)
        _shown.show_stack(stack, control.path, as_json=as_json)
        _wait(stack, asked)
        err.print(_STOPPING)


_STOPPING = "[dim]Stopping: requests in flight may finish. Ctrl-C again ends at once.[/]"


class _Asked:
    """Notes Ctrl-C and SIGTERM once the server is ready; before that, and the second time, they interrupt."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.ready = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        if not self.ready or self.stop.is_set():
            raise KeyboardInterrupt
        self.stop.set()


def _start(named: dict[str, int | None], **options: Any) -> EmbeddedTriton:
    """Start with Triton's usual ports where none are named, or free ones where those are taken."""
    from naiad.server import EmbeddedTriton, PortInUse

    ports = {name: _USUAL_PORTS[name] if port is None else port for name, port in named.items()}
    while True:
        arguments: dict[str, Any] = {**options, **ports}
        try:
            return EmbeddedTriton(**arguments).start()
        except PortInUse as exc:
            unlucky = [name for name, port in ports.items() if named[name] is None and port == exc.port]
            if not unlucky:
                raise
            ports |= dict.fromkeys(unlucky, 0)


class _Failing(Protocol):
    @property
    def failure(self) -> Exception | None: ...


def _wait(serving: _Failing, asked: _Asked) -> None:
    while not asked.stop.wait(_CHECK_EVERY_S):
        if serving.failure is not None:
            raise serving.failure
