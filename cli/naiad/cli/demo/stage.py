"""What every system of the gallery does: train and publish, serve, call, load-test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape

from naiad.cli._console import err
from naiad.cli.demo.summary import Summary

if TYPE_CHECKING:
    from naiad.client import Client
    from naiad.export import Recipe, Repository, Version
    from naiad.loadtest import Report
    from naiad.server import EmbeddedTriton

__all__ = ["Predict", "Stage", "in_pytorch", "served"]

Arrays = Mapping[str, Any]
Predict = Callable[[Arrays], Any]
"""What a recipe's ``evaluate`` asks: arrays by input name to arrays by output name."""

_ROWS: Final = 50


class Stage:
    """A run of one system: its repository, its folder for reports, and what it found so far.

    * ``repository``: the model repository that everything is published to.
    * ``folder``: for the load test's report and whatever else people should look at.
    * ``options``: what ``--option NAME=VALUE`` gave.
    * ``summary``: rows, figures, failures.
    """

    def __init__(
        self,
        name: str,
        *,
        repository: Repository,
        folder: Path,
        duration_s: float | None,
        options: Mapping[str, str],
    ) -> None:
        self.name, self.repository, self.folder = name, repository, folder
        self.duration_s, self.options = duration_s, options
        self.summary = Summary()

    @contextmanager
    def step(self, what: str, *, spinner: bool = True) -> Iterator[Callable[[str], None]]:
        """Show a step while it runs, and one line with its result (what the block called ``done`` with) afterwards."""
        started, result = time.monotonic(), [""]
        with err.status(f"{escape(what)} …") if spinner else nullcontext():
            yield result.append
        err.print(f"[green]✓[/] {escape(what)} [dim]{time.monotonic() - started:.1f} s[/] {escape(result[-1])}")

    def publish(self, recipe: str | Recipe, *, what: str = "", model: Any = None, **arguments: Any) -> Version:
        """Export a recipe, checked against PyTorch, as the next version; ``arguments`` are `export_recipe`'s."""
        from naiad.export import export_recipe, load_recipe

        found = load_recipe(recipe) if isinstance(recipe, str) else recipe
        with self.step(what or f"export {found.name}, checked against PyTorch") as done:
            version = export_recipe(found, repository=self.repository, model=model, **arguments)
            assert version.report is not None
            error = max((parity.max_abs_error for parity in version.report.parity), default=0.0)
            done(f"version {version.number}, largest error {error:.1g} at batches {version.report.batches}")
        self.summary.paths.setdefault("models", Path(version.path).parent.parent)
        return version

    @contextmanager
    def serve(self, *models: str, **options: Any) -> Iterator[EmbeddedTriton]:
        """Serve models of the repository with the real Triton for the time of a block."""
        from naiad.server import EmbeddedTriton

        triton = EmbeddedTriton(self.repository.path, models=list(models), **options)
        try:
            with self.step("serve with the real Triton", spinner=False) as done:  # the fetch has a bar of its own
                triton.start()
                done(f"gRPC {triton.grpc_url}")
            yield triton
        finally:
            triton.stop()

    def load_test(
        self,
        url: str,
        *,
        scenario: str = "",
        model: str = "",
        golden: Path | None = None,
        report: str = "report",
        **options: Any,
    ) -> Report:
        """Run the system's scenario, write its report, and note rate, latencies, what failed and what is doubtful.

        With a ``model`` it is a load on that model, without a scenario. ``options`` are more options of
        ``naiad loadtest`` by name. With a ``report`` of another name, rows and figures carry that name.

        Raises:
            KeyboardInterrupt: Ctrl-C ended the load; the report has what was measured until then.
        """
        from dataclasses import replace

        from naiad.cli._load_options import settings_of
        from naiad.loadtest import Scenario, find_scenario, run

        what = model or str(find_scenario(scenario or f"gallery/{self.name}.toml"))
        given = {"url": url, "golden": golden, **options}
        if self.duration_s is not None:
            given["duration"] = f"{self.duration_s:g}s"
        plan = Scenario.of(settings_of(what, given))
        with self.step(f"load-test it: {plan.test.name or Path(what).stem}") as done:
            found = replace(run(plan.test), command=f"naiad demo {self.name}", scenario=plan.text or None)
            results = found.to_json()["results"]
            done(f"{results['throughput_per_s']:,.0f} requests/s")
        prefix = "" if report == "report" else f"{report}: "
        self._note(results, prefix)
        html, json = self.folder / f"{report}.html", self.folder / f"{report}.json"
        found.write(html=html, json=json)
        if found.interrupted:  # it has ended the load in order, to write the report; now for the demo
            raise KeyboardInterrupt
        self.summary.paths |= {f"{prefix}report": html, f"{prefix}report for programs": json}
        # A busy machine makes figures doubtful, and not the model bad.
        (self.summary.warnings if found.verdict == "invalid" else self.summary.failures).extend(found.failures())
        self.summary.warnings += found.warnings()
        return found

    def _note(self, results: Mapping[str, Any], prefix: str) -> None:
        latency, rate = results["latency_us"], results["throughput_per_s"]
        figures = {"throughput_per_s": rate, "latency_us": latency}
        name = prefix.rstrip(": ")
        self.summary.row(
            f"{prefix}throughput",
            f"{rate:,.0f} requests/s, {results['failed']} failed",
            **({name: figures} if name else figures),
        )
        if results["completed"]:
            text = ", ".join(f"{name} {latency[name] / 1000:.1f} ms" for name in ("p50", "p99", "p99.9"))
            self.summary.row(f"{prefix}latency", text)


def in_pytorch(model: Any, *outputs: str) -> Predict:
    """Return what asks a module, whose outputs are named in order."""
    import torch

    def predict(inputs: Arrays) -> Any:
        with torch.inference_mode():
            found = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        found = found if isinstance(found, tuple) else (found,)
        return {name: tensor.numpy() for name, tensor in zip(outputs, found, strict=True)}

    return predict


def served(client: Client, model: str, rows: int = _ROWS, *, version: int | None = None) -> Predict:
    """Return what asks a server, ``rows`` at a time; the newest version it serves unless one is named."""
    import numpy as np

    handle = client.model(model, version)

    def predict(inputs: Arrays) -> Any:
        count = len(next(iter(inputs.values())))
        parts = [
            handle.infer({name: array[at : at + rows] for name, array in inputs.items()})
            for at in range(0, count, rows)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return predict
