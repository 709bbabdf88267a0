"""`naiad serve`: the embedded Triton in the foreground."""

from __future__ import annotations

import json
import logging
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.logging import RichHandler
from rich.table import Table

from naiad.cli._console import err, out

if TYPE_CHECKING:
    from naiad.server import EmbeddedTriton

_CHECK_EVERY_S = 0.5
_USUAL_PORTS = {"grpc_port": 8001, "http_port": 8000, "metrics_port": 8002}


def serve(
    repository: Annotated[
        str,
        typer.Argument(help="What to serve: a directory, or s3://bucket/prefix.", metavar="REPOSITORY"),
    ] = "model_repository",
    models: Annotated[
        str | None, typer.Option(help="Names of the models to load, separated by commas; all if not given.")
    ] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of the gRPC service; 8001 or a free one.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of the HTTP service; 8000 or a free one.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Port of the metrics; 8002 or a free one.")] = None,
    gpus: Annotated[
        str | None, typer.Option(help="GPUs to use: all, none, or numbers such as 0,1; by default what there is.")
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one line of JSON.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more, also in Triton's log.")] = False,
) -> None:
    """Serve a model repository with the real Triton, on this machine only.

    Triton is fetched on first use. The command runs until Ctrl-C, which lets the requests in flight finish; a second
    Ctrl-C ends it at once. Models whose Python process died are repaired, and Triton is restarted if it dies. Other
    naiad commands find this server, and the secret for model control, by its address.

    Examples:

        naiad serve

        naiad serve model_repository --models digits --grpc-port 0 --json

        naiad serve --no-watch --log-file triton.log

        naiad serve s3://bucket/models
    """
    _show_log(verbose)
    asked = _Asked()
    triton = _start(
        {"grpc_port": grpc_port, "http_port": http_port, "metrics_port": metrics_port},
        repository=repository,
        models=None if models is None else [name.strip() for name in models.split(",") if name.strip()],
        auto_complete=auto_complete,
        response_cache_bytes=response_cache,
        ready_timeout_s=ready_timeout,
        drain_timeout_s=drain_timeout,
        watch=watch,
        exit_on_load_error=not keep_going,
        extra_args=["--log-verbose=1"] if verbose else [],
        log_path=log_file,
        gpus=gpus,
    )
    with triton:
        # Before anything is printed: whoever reads the addresses may ask us to stop at once.
        asked.ready = True
        triton.announce()
        _show(triton, repository, as_json)
        _wait(triton, asked)
        err.print("[dim]Stopping: requests in flight may finish. Ctrl-C again ends at once.[/]")


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


def _wait(triton: EmbeddedTriton, asked: _Asked) -> None:
    while not asked.stop.wait(_CHECK_EVERY_S):
        if triton.failure is not None:
            raise triton.failure


def _show(triton: EmbeddedTriton, repository: str, as_json: bool) -> None:
    if as_json:
        addresses = {
            "grpc_url": triton.grpc_url,
            "http_url": triton.http_url,
            "metrics_url": triton.metrics_url,
            "pid": triton.pid,
            "repository": repository if "://" in repository else str(Path(repository).absolute()),
            "models": triton.models,
            "log_path": str(triton.log_path),
        }
        out.print(json.dumps(addresses), markup=False)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_row("gRPC", triton.grpc_url)
    table.add_row("HTTP", triton.http_url)
    table.add_row("metrics", triton.metrics_url)
    table.add_row("models", ", ".join(triton.models) or "none")
    table.add_row("log", str(triton.log_path))
    out.print(table)
    err.print("[dim]Ctrl-C stops it.[/]")


def _show_log(verbose: bool) -> None:
    logger = logging.getLogger("naiad.server")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.addHandler(RichHandler(console=err, show_path=False, markup=False, log_time_format="%X"))
