"""``naiad demo``: the whole way on a small real model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from naiad.cli._console import err, out, print_error, print_json

if TYPE_CHECKING:
    from naiad.client import Client
    from naiad.export import Recipe, Repository, Version
    from naiad.loadtest import Report
    from naiad.server import EmbeddedTriton

_MODEL = "digits"
_ROWS = 50  # per request while the held-out images are sent
_CALLERS = 4
_SWITCH_TIMEOUT_S = 30.0
_USERS = 64


def demo(
    repository: Annotated[
        Path, typer.Option("--repository", "-r", help="Where the model is published; created if it is missing.")
    ] = Path("model_repository"),
    report: Annotated[Path, typer.Option(help="The folder that the load test's report goes to.")] = Path("runs/demo"),
    duration: Annotated[float, typer.Option(min=1, help="Length of the load test in seconds.")] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Train, export, serve, call, promote, roll back and load-test a classifier of handwritten digits.

    Everything is real: a convolutional net on the 1,797 digits that come with scikit-learn, the real Triton, gRPC,
    and requests that flow while versions change. Takes one to two minutes; the first time, Triton (55 MB) is fetched.

    Examples:

        naiad demo

        naiad demo --repository /tmp/models --report /tmp/report --duration 30
    """
    from naiad.export import Repository, load_recipe
    from naiad.loadtest import check_writable
    from naiad.server import EmbeddedTriton

    started = time.monotonic()
    try:
        report.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise typer.BadParameter(
            f"expected a folder that can be written to, found {exc.strerror}", param_hint="--report"
        ) from exc
    html = report / "report.html"
    check_writable(html)
    repo, recipe, summary = Repository(repository), load_recipe(_MODEL), _Summary()
    with repo.stage():  # refuse what cannot be written to before anything is trained
        pass
    first = _publish(recipe, repo, summary, seed=0, promote=True)
    with _step("serve it with the real Triton", spinner=False) as done:  # the fetch has a bar of its own
        triton = EmbeddedTriton(repo.path, models=[_MODEL]).start()
        done(f"gRPC {triton.grpc_url}")
    try:
        _call_held_out(recipe, triton, summary)
        second = _publish(recipe, repo, summary, seed=1, promote=False)
        _switch_versions(repo, triton, first, second, recipe, summary)
        result = _load_test(triton, first, duration, summary)
    finally:
        triton.stop()
    result.write(html=html, json=report / "report.json")
    summary.rows["took"] = f"{time.monotonic() - started:.0f} s"
    summary.paths = {"model": first.path.parent, "report": html, "report for programs": report / "report.json"}
    _show(summary, repository, json)
    if not summary.passed:
        raise typer.Exit(1)


@dataclass(kw_only=True, slots=True)
class _Summary:
    """What the demo found, in the order in which it is shown."""

    rows: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not self.failures


@contextmanager
def _step(what: str, *, spinner: bool = True) -> Iterator[Callable[[str], None]]:
    """Show a step while it runs, and one line with its result afterwards."""
    started, result = time.monotonic(), [""]
    with err.status(f"{what} …") if spinner else nullcontext():
        yield result.append
    err.print(f"[green]✓[/] {what} [dim]{time.monotonic() - started:.1f} s[/] {escape(result[-1])}")


def _publish(recipe: Recipe, repo: Repository, summary: _Summary, *, seed: int, promote: bool) -> Version:
    from naiad.export import export_recipe

    with _step(f"train a net on handwritten digits (seed {seed})") as done:
        model = recipe.build(seed=seed)
        accuracy = recipe.evaluate(_in_pytorch(model))["accuracy"]
        done(f"{accuracy:.2%} right on held-out digits")
    with _step("export it, checked against PyTorch") as done:
        version = export_recipe(recipe, repository=repo, model=model, options={"seed": seed}, promote=promote)
        assert version.report is not None
        error = max(parity.max_abs_error for parity in version.report.parity)
        done(f"version {version.number}, largest error {error:.1g} at batches {version.report.batches}")
    if promote:
        summary.figures["accuracy_pytorch"] = accuracy
        summary.rows["accuracy in PyTorch"] = f"{accuracy:.2%}"
    return version


def _in_pytorch(model: Any) -> Callable[[Any], Any]:
    import torch

    def predict(inputs: Any) -> Any:
        with torch.inference_mode():
            outputs = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return {"probabilities": outputs.numpy()}

    return predict


def _call_held_out(recipe: Recipe, triton: EmbeddedTriton, summary: _Summary) -> None:
    import numpy as np

    with triton.client() as client, _step("send the held-out digits through the client") as done:
        digits = client.model(_MODEL)

        def predict(inputs: Any) -> Any:
            rows = len(next(iter(inputs.values())))
            parts = [
                digits.infer({name: array[at : at + _ROWS] for name, array in inputs.items()})
                for at in range(0, rows, _ROWS)
            ]
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

        accuracy = recipe.evaluate(predict)["accuracy"]
        done(f"{accuracy:.2%} right")
    summary.figures["accuracy_served"] = accuracy
    summary.rows["accuracy as served"] = f"{accuracy:.2%}"
    if accuracy != summary.figures["accuracy_pytorch"]:
        summary.failures.append("the served model is not as accurate as the one in PyTorch")


class _Traffic:
    """Callers that never pause, and what they were answered: by version, and how often they were not."""

    def __init__(self, client: Client, inputs: dict[str, Any]) -> None:
        self.answers: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self._model, self._inputs = client.model(_MODEL), inputs
        self._lock, self._stop = Lock(), Event()
        self._threads = [Thread(target=self._call, daemon=True) for _ in range(_CALLERS)]

    def _call(self) -> None:
        from naiad.client import ClientError

        while not self._stop.is_set():
            try:
                version = int(self._model.infer(self._inputs).model_version)
            except ClientError as exc:
                with self._lock:
                    self.errors[str(exc)] += 1
            else:
                with self._lock:
                    self.answers[version] += 1

    def __enter__(self) -> _Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, version: int) -> None:
        """Return when ``version`` has answered a hundred more requests."""
        wanted, deadline = self.answers[version] + 100, time.monotonic() + _SWITCH_TIMEOUT_S
        while self.answers[version] < wanted and time.monotonic() < deadline:
            time.sleep(0.01)


def _switch_versions(
    repo: Repository, triton: EmbeddedTriton, first: Version, second: Version, recipe: Recipe, summary: _Summary
) -> None:
    one_digit = {name: array[:1] for name, array in recipe.held_out()[0].items()}
    with triton.client() as client, _step("promote the second version and roll back, under load") as done:
        with _Traffic(client, one_digit) as traffic:
            traffic.wait_for(first.number)
            repo.promote(_MODEL, second.number)
            client.load(_MODEL)
            traffic.wait_for(second.number)
            repo.rollback(_MODEL)
            client.load(_MODEL)
            traffic.wait_for(first.number)
        failed, sent = traffic.errors.total(), traffic.answers.total() + traffic.errors.total()
        done(f"{sent:,} requests, {failed} failed")
    by_version = ", ".join(f"{count:,} by version {number}" for number, count in sorted(traffic.answers.items()))
    summary.figures |= {"switch_requests": sent, "switch_failed": failed}
    summary.rows["promote and roll back"] = f"{failed} of {sent:,} requests failed ({by_version})"
    if failed:
        summary.failures.append(f"requests failed while versions changed: {traffic.errors.most_common(1)[0][0]}")
    if not traffic.answers[second.number]:
        summary.failures.append(f"version {second.number} never answered after it was promoted")


def _load_test(triton: EmbeddedTriton, version: Version, duration_s: float, summary: _Summary) -> Report:
    from naiad.loadtest import Connection, Golden, LoadTest, Traffic, Users, run

    with _step(f"load-test it with {_USERS} users for {duration_s:g} s") as done:
        test = LoadTest(
            traffic=Traffic(model=_MODEL, data=Golden(path=version.path / "golden.npz")),
            load=Users(users=_USERS),
            connection=Connection(url=triton.grpc_url),
            duration_s=duration_s,
            warmup_s=1.0,
            name="naiad demo",
        )
        report = run(test)
        measured = report.to_json()["results"]
        done(f"{measured['throughput_per_s']:,.0f} requests/s")
    latency = measured["latency_us"]
    summary.figures |= {"throughput_per_s": measured["throughput_per_s"], "latency_us": latency}
    summary.rows["throughput"] = f"{measured['throughput_per_s']:,.0f} requests/s, {measured['failed']} failed"
    if measured["completed"]:
        summary.rows["latency"] = ", ".join(f"{name} {latency[name] / 1000:.1f} ms" for name in ("p50", "p99", "p99.9"))
    # A busy machine makes figures doubtful, and not the model bad.
    (summary.warnings if report.verdict == "invalid" else summary.failures).extend(report.failures())
    summary.warnings += report.warnings()
    return report


def _show(summary: _Summary, repository: Path, as_json: bool) -> None:
    if as_json:
        paths = {name: str(path) for name, path in summary.paths.items()}
        verdict = {"passed": summary.passed, "failures": summary.failures, "warnings": summary.warnings}
        print_json({**summary.figures, **verdict, "paths": paths})
        return
    table = Table(show_header=False, title="naiad demo", title_justify="left")
    table.add_column(style="bold")
    for name, value in summary.rows.items():
        table.add_row(name, value)
    for name, path in summary.paths.items():
        table.add_row(name, str(path))
    out.print(table)
    for warning in summary.warnings:
        out.print(f"[yellow]note:[/] {escape(warning)}")
    for failure in summary.failures:
        print_error(failure)
    if summary.passed:
        out.print(f"Serve it yourself: naiad serve {repository}", markup=False)
