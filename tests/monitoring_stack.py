"""Prometheus, Alertmanager and who is told of alerts, as processes of a test."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from typing import Any

import httpx

from deploy_helpers import program

Series = list[dict[str, Any]]


def free_address() -> str:
    """An address of loopback that nothing listens at."""
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@dataclass
class Told:
    """What Alertmanager posted, as a chat or a pager would be told."""

    url: str = ""
    alerts: list[dict[str, Any]] = field(default_factory=list)

    def fired(self, name: str, **labels: str) -> list[dict[str, Any]]:
        """The alerts of that name, with those labels among theirs, that were told as firing."""
        return [alert for alert in self.alerts if alert["status"] == "firing" and _matches(alert, name, labels)]

    def resolved(self, name: str, **labels: str) -> list[dict[str, Any]]:
        """Those that were told to be over."""
        return [alert for alert in self.alerts if alert["status"] == "resolved" and _matches(alert, name, labels)]


def _matches(alert: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    wanted = {"alertname": name, **labels}
    return wanted.items() <= alert["labels"].items()


@contextmanager
def webhook() -> Iterator[Told]:
    """An HTTP server that hears of alerts."""
    told = Told()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.alerts.extend(json.loads(body)["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_address[1]}/"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        yield told
        server.shutdown()


class Prometheus:
    """A running Prometheus."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._http = httpx.Client(base_url=f"http://{address}", timeout=20)

    def close(self) -> None:
        self._http.close()

    def ask(self, path: str, **params: str | list[str]) -> Any:
        """An answer of the API; a query that is wrong is an error."""
        answer = self._http.get(f"/api/v1/{path}", params=params)
        content = answer.json()
        assert content["status"] == "success", content
        return content["data"]

    def query(self, expression: str) -> Series:
        """The series that an expression has now."""
        found = self.ask("query", query=expression)["result"]
        return found if isinstance(found, list) else [found]

    def values(self, expression: str) -> list[float]:
        """The numbers of those series."""
        return [float(series["value"][1]) for series in self.query(expression)]


@contextmanager
def running(name: str, command: list[str | Path], ready: Callable[[], bool], folder: Path) -> Iterator[None]:
    """A program that must come up, and whose end is waited for."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            wait_until(lambda: process.poll() is not None or _quietly(ready), f"{name} to be ready")
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


@contextmanager
def prometheus(folder: Path, address: str) -> Iterator[Prometheus]:
    """Prometheus with `prometheus.yml` of a folder."""
    command: list[str | Path] = [program("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address={address}", "--log.level=warn"]
    with running("prometheus", command, _answers(f"http://{address}/-/ready"), folder), ExitStack() as stack:
        client = Prometheus(address)
        stack.callback(client.close)
        yield client


@contextmanager
def alertmanager(folder: Path, address: str) -> Iterator[None]:
    """Alertmanager with `alertmanager.yml` of a folder."""
    command: list[str | Path] = [program("prometheus-alertmanager", "alertmanager")]
    command += ["--config.file=alertmanager.yml", "--storage.path=alerts", "--cluster.listen-address="]
    command += [f"--web.listen-address={address}", "--log.level=warn"]
    with running("alertmanager", command, _answers(f"http://{address}/-/ready"), folder):
        yield


def wait_until(condition: Callable[[], Any], what: str, *, within_s: float = 45.0) -> Any:
    """Ask until the answer is true; says what was waited for when it never is."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {within_s:g} s for {what}"
        time.sleep(0.1)
    return found


def _answers(url: str) -> Callable[[], bool]:
    return lambda: httpx.get(url, timeout=2).status_code == 200


def _quietly(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except httpx.HTTPError:
        return False
