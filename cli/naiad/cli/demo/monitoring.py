"""What watches a service of the gallery: the shipped rules in a real Prometheus, or its metrics where there is none."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from naiad.cli.demo.metrics import Sample, get, quantile, read_metrics, total

if TYPE_CHECKING:
    from naiad.cli.demo.service import RunningService
    from naiad.cli.demo.stage import Stage

__all__ = ["Prometheus", "measure", "prometheus"]

_HOST: Final = "127.0.0.1"
_START_TIMEOUT_S: Final = 20.0
_VALUES_TIMEOUT_S: Final = 20.0
_RULES_LATER_S: Final = 3.0
_POLL_S: Final = 0.1
_REQUESTS: Final = "envoy_naiad_requests"
_DURATION: Final = "envoy_naiad_request_duration_us"
_NOBODY: Final = f"{_HOST}:9"
"""Where alerts would be posted: nobody is woken by a demonstration."""
_PATIENCE: Final = 1 / 60
"""Alerts that wait minutes in production wait seconds."""
_FAULTS: Final = frozenset({"2", "4", "13", "14", "15"})
"""gRPC's statuses that are the service's fault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prometheus:
    """A running Prometheus that watches a service by the shipped rules."""

    address: str

    def query(self, expression: str) -> list[Sample]:
        """Return the series that an expression has now.

        Raises:
            DeployError: Prometheus does not answer, or refuses the expression.
        """
        found = self._ask("query", query=expression)["result"]
        return [
            Sample(name=each["metric"].pop("__name__", ""), labels=each["metric"], value=float(each["value"][1]))
            for each in found
        ]

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        return {each["labels"]["alertname"] for each in self._ask("alerts")["alerts"] if each["state"] == "firing"}

    def wait_for(self, expression: str, *, timeout_s: float) -> list[Sample]:
        """Return the series of an expression as soon as it has some; none when the time is over."""
        deadline = time.monotonic() + timeout_s
        while not (found := self.query(expression)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return found

    def _ask(self, path: str, **params: str) -> Any:
        return get(f"http://{self.address}/api/v1/{path}", **params).json()["data"]


@contextmanager
def prometheus(stage: Stage, service: RunningService) -> Iterator[Prometheus | None]:
    """Watch a service for the time of a block by the rules that ship with Naiad; None where Prometheus is not there.

    It looks every second, and alerts wait a sixtieth of their time. It is on loopback, and keeps its data in the
    service's private directory.
    """
    from naiad.deploy.errors import DeployError

    program = shutil.which("prometheus")
    if program is None:
        _do_without(stage, "prometheus is not on the PATH")
        yield None
        return
    folder = service.directory / "prometheus"
    try:
        with stage.step("watch it with Prometheus and the shipped rules") as done:
            address = _configure(service, folder)
            process = _start(program, folder, address)
            done(f"http://{address}")
    except DeployError as exc:
        _do_without(stage, str(exc))
        yield None
        return
    try:
        yield Prometheus(address=address)
    finally:
        process.terminate()
        process.wait()


def _do_without(stage: Stage, reason: str) -> None:
    stage.summary.warnings.append(
        f"{reason}: the figures are read from the service's own metrics, and no rule was tried"
    )


def _configure(service: RunningService, folder: Path) -> str:
    """Write the service's monitoring, as `naiad deploy render` does, for the addresses of this run."""
    from naiad.deploy._envoy.ports import free
    from naiad.deploy._files import write_all
    from naiad.deploy.monitoring import Pace, Targets, render_monitoring

    address = f"{_HOST}:{free(_HOST, set())}"
    targets = Targets(
        endpoints=service.stack.gateway.endpoints,
        gateway=urllib.parse.urlsplit(service.metrics_url).netloc,
        prometheus=address,
        alertmanager=_NOBODY,
        pace=Pace(scrape_s=1, evaluate_s=1, patience=_PATIENCE),
    )
    rendered = render_monitoring(service.stack.service, targets)
    write_all(folder, {name: text for name, text in rendered.items() if not name.startswith("grafana")})
    return address


def _start(program: str, folder: Path, address: str) -> subprocess.Popen[bytes]:
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--web.listen-address={address}"],
            cwd=folder,  # which is private: what still runs there ends with it
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in the terminal is ours to handle
        )
    try:
        _wait_until_ready(process, address, log)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    from naiad.deploy.errors import DeployError

    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            get(f"http://{address}/-/ready")
        except DeployError as exc:
            ended = process.poll()
            if ended is not None or time.monotonic() > deadline:
                state = f"ended with {ended}" if ended is not None else f"is not ready after {_START_TIMEOUT_S:g} s"
                raise DeployError(f"expected Prometheus to start, it {state}: {log.read_text()[-2000:]}") from exc
            time.sleep(_POLL_S)
        else:
            return


def measure(
    stage: Stage, service: RunningService, model: str, watching: Prometheus | None, *, num_requests: int
) -> None:
    """Note what monitoring says of a model that got so many requests: latency, errors, resources.

    With Prometheus the values are those of the shipped recording rules, over the last five minutes.
    """
    with stage.step("ask the monitoring what it saw") as done:
        ask = _by_rules(watching, model, num_requests) if watching else _by_metrics(service, model, num_requests)
        done("Prometheus" if watching else "the metrics themselves")
    missing = [name for name, value in ask.items() if value is None]
    stage.summary.check(not missing, f"monitoring has no value for: {', '.join(missing)}")
    found = {name: value for name, value in ask.items() if value is not None}
    rows = [{"measure": _label(name), "value": _text(name, value)} for name, value in found.items()]
    stage.summary.table("What monitoring saw", rows, monitoring={**found, "prometheus": watching is not None})
    told = "Prometheus, by the shipped rules" if watching else "the service's own metrics, without Prometheus"
    stage.summary.row("monitored by", told)


def _label(name: str) -> str:
    return name.rpartition("_")[0].replace("_", " ")


def _text(name: str, value: float) -> str:
    unit = {"ms": "ms", "percent": "%", "mib": "MiB"}[name.rpartition("_")[2]]
    return f"{value:,.2f} {unit}"


def _by_rules(watching: Prometheus, model: str, num_requests: int) -> dict[str, float | None]:
    only, parts = f'{{model="{model}"}}', f'{{model=~"{model}.*"}}'
    rules = {
        "latency_p50_ms": f"model:naiad_duration_ms:p50_5m{only}",
        "latency_p99_ms": f"model:naiad_duration_ms:p99_5m{only}",
        "failed_percent": f"model:naiad_error_ratio:rate5m{only} * 100",
        "queue_of_the_slowest_step_ms": f"max(replica:triton_queue_ms:mean5m{parts})",
        "computing_of_the_slowest_step_ms": f"max(replica:triton_compute_ms:mean5m{parts})",
        "processors_percent": "max(max_over_time(nv_cpu_utilization[1m])) * 100",
        "memory_of_the_machine_mib": "max(nv_cpu_memory_used_bytes) / 2^20",
        "memory_of_the_gateway_mib": "envoy_server_memory_physical_size / 2^20",
    }
    # The gateway counts together every five seconds, and a rule is a look behind that.
    counted = f'sum({_DURATION}_count{{model="{model}",right="infer"}} offset {_RULES_LATER_S:g}s) >= {num_requests}'
    watching.wait_for(counted, timeout_s=_VALUES_TIMEOUT_S)
    found = {name: watching.wait_for(f"{rule} >= 0", timeout_s=_RULES_LATER_S) for name, rule in rules.items()}
    return {name: samples[0].value if samples else None for name, samples in found.items()}


def _by_metrics(service: RunningService, model: str, num_requests: int) -> dict[str, float | None]:
    from naiad.deploy.errors import DeployError
    from naiad.server import ServerError

    chosen, deadline = {"model": model, "right": "infer"}, time.monotonic() + _VALUES_TIMEOUT_S
    while total(gateway := read_metrics(service.metrics_url), f"{_DURATION}_count", **chosen) < num_requests:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    triton = []
    for replica in service.replicas.values():
        with suppress(DeployError, ServerError):  # one that is being started again
            triton += read_metrics(replica.metrics_url)
    asked = [each for each in gateway if each.name == _REQUESTS and chosen.items() <= each.labels.items()]
    failed = sum(each.value for each in asked if each.labels.get("grpc_code") in _FAULTS)
    all_asked = sum(each.value for each in asked)
    return {
        "latency_p50_ms": _ms(quantile(gateway, _DURATION, 0.5, **chosen)),
        "latency_p99_ms": _ms(quantile(gateway, _DURATION, 0.99, **chosen)),
        "failed_percent": 100 * failed / all_asked if all_asked else None,
        "queue_of_the_slowest_step_ms": _slowest(triton, model, ("queue",)),
        "computing_of_the_slowest_step_ms": _slowest(
            triton, model, ("compute_input", "compute_infer", "compute_output")
        ),
        "processors_percent": 100
        * max((each.value for each in triton if each.name == "nv_cpu_utilization"), default=0),
        "memory_of_the_machine_mib": _mib(triton, "nv_cpu_memory_used_bytes"),
        "memory_of_the_gateway_mib": _mib(gateway, "envoy_server_memory_physical_size"),
    }


def _slowest(samples: list[Sample], model: str, parts: tuple[str, ...]) -> float | None:
    """Return the mean time in ms of a request in that part of the model, or step of it, that takes longest."""
    means = []
    for name in {each.labels["model"] for each in samples if each.labels.get("model", "").startswith(model)}:
        spent_us = sum(total(samples, f"nv_inference_{part}_duration_us", model=name) for part in parts)
        if answered := total(samples, "nv_inference_request_success", model=name):
            means.append(spent_us / answered / 1000)
    return max(means, default=None)


def _ms(duration_us: float | None) -> float | None:
    return None if duration_us is None else duration_us / 1000


def _mib(samples: list[Sample], name: str) -> float | None:
    return max((each.value / 2**20 for each in samples if each.name == name), default=None)
