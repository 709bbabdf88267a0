"""One call of the benchmark: what is left of it is done in order of importance, as far as its time goes."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu import environment, parts, report, suite
from gpu.environment import SetupError
from gpu.plan import FULL, QUICK, Budget, Scale, Variant, cell_name, cells, model_name, steps
from gpu.process import TaskFailed, answers, started, tail
from gpu.state import State, fingerprint

PARTS = ("setup", "inspect", "tests", "models", "matrix", "report")
DONE, FAILED, USAGE, OVER = 0, 1, 2, 3
_EXPECTED_S = {"inspect": 15.0, "tests": 40.0, "models": 90.0, "cells": 25.0}
_LIMIT_S = {"inspect": 120.0, "tests": 240.0, "models": 400.0, "cells": 400.0}
_PASSED, _FAILED_TESTS = 0, 1
"""Pytest's exit codes after which its counts hold."""
_OVERTIME_S = 30.0
"""How long after the end of the time something that was begun may go on."""
_NAMED = 8  # of what is left, in the last line
_SOURCES = ("nets.py", "models.py", "sides.py", "matrix.py")  # what a measurement depends on
_CORES_A_JOB = 4  # of the exports that run at once
_GPU = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The arguments of the command, checked."""

    work: Path
    wheels: Path | None
    results: Path
    parts: tuple[str, ...]
    budget_s: float | None
    device: str
    quick: bool
    command: str


class Run:
    """The state of one call."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        """Read what earlier calls left in the work directory. Raises: `ValueError`."""
        self._options, self._say = options, say
        self._scale: Scale = QUICK if options.quick else FULL
        self._state = State(options.work / "state.json")
        self._budget = Budget(options.budget_s, time.monotonic())
        self._failed: list[str] = []
        self._left: list[str] = []
        self._log = options.work / "log"
        self._log.mkdir(parents=True, exist_ok=True)
        self._sources = {name: parts.sha256(_GPU / name) for name in _SOURCES}

    def run(self) -> int:
        """Do it; gives the exit code."""
        try:
            self._environment = environment.prepare(self._options.work, self._options.wheels, self._log / "setup.log")
        except (SetupError, parts.PartsError) as exc:
            self._say(f"setup failed: {exc}")
            return FAILED
        self._say(f"setup: {self._environment.python}")
        self._base = fingerprint(
            {"wheels": self._environment.wheels, "gpu": _gpu(self._options.device), "scale": self._scale.depends()}
        )
        machine = self._inspect()
        if machine is not None:
            if "tests" in self._options.parts:
                self._tests()
            self._measure(machine)
            if "report" in self._options.parts:
                self._report(machine)
        return self._outcome()

    def _outcome(self) -> int:
        for name in self._failed:
            self._say(f"failed: {name}")
        if self._left:
            more = len(self._left) - _NAMED
            self._say(f"time is over; left: {', '.join(self._left[:_NAMED])}{f' and {more} more' if more > 0 else ''}")
            self._say(f"go on with the same command and: --work {shlex.quote(str(self._options.work))}")
            return OVER
        return FAILED if self._failed else DONE

    def _inspect(self) -> dict[str, Any] | None:
        depends = fingerprint({"base": self._base})
        if not self._state.final("inspect", depends) and "inspect" in self._options.parts:
            order = {"task": "inspect", "device": self._options.device, "quick": self._options.quick}
            self._do("inspect", "inspect", depends, lambda: next(self._task("inspect", "inspect", order)))
        found: dict[str, Any] | None = self._state.result("inspect", depends)
        if found is None and "inspect" not in self._options.parts:
            self._failed.append("inspect is not done: --parts must have it the first time")
        return found

    def _tests(self) -> None:
        depends = self._tests_depend()
        for path in suite.files():
            if not self._state.final(path.name, depends):
                self._do("tests", path.name, depends, functools.partial(self._run_tests, path))
        found = self._test_results()
        if found is not None:
            self._say(f"tests: {found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped")
            if found["failed"]:
                self._failed.append(f"tests: {', '.join(found['failures'])}")

    def _tests_depend(self) -> str:
        return fingerprint({"base": self._base, "tests": suite.depends()})

    def _test_results(self) -> dict[str, Any] | None:
        """Return the counts of all files; None while one is missing."""
        depends = self._tests_depend()
        found = [self._state.result(path.name, depends) for path in suite.files()]
        return None if None in found else suite.total(found)

    def _run_tests(self, path: Path) -> dict[str, Any]:
        junit, log = self._options.work / "junit.xml", self._log / "tests.log"
        junit.unlink(missing_ok=True)
        command = suite.command(self._environment.python, path, junit)
        limit_s = self._limit_s("tests")
        with started(command, self._environment.variables | suite.VARIABLES, log, cwd=suite.ROOT) as process:
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                raise TaskFailed(f"took more than {limit_s:.0f} s", late=True) from None
        if process.returncode not in (_PASSED, _FAILED_TESTS) or not junit.is_file():
            raise TaskFailed(f"pytest ended with {process.returncode}: {tail(log)}")
        return suite.summarise(junit)

    def _measure(self, machine: dict[str, Any]) -> None:
        jobs = max(1, machine["cores"] // _CORES_A_JOB)
        for step in steps(_runtimes(machine), self._scale, jobs):
            if not step.cells and "models" in self._options.parts:
                self._models([variant for variant in step.variants if self._wants(variant)], machine, jobs)
            if step.cells and "matrix" in self._options.parts:
                self._cells(step.variants[0], step.cells, machine)

    def _wants(self, variant: Variant) -> bool:
        """Whether the export is to be done: it never was, or its files are gone and some cell still needs them."""
        depends = self._depends(variant)
        entry = self._state.entry(model_name(variant), depends)
        if entry is None or entry["status"] == "failed":
            return True
        waits = any(not self._state.final(cell_name(variant, cell), depends) for cell in cells(self._scale))
        return entry["status"] == "done" and waits and not self._is_there(variant)

    def _is_there(self, variant: Variant) -> bool:
        return (self._repository(variant) / variant.name).is_dir()

    def _models(self, wanted: list[Variant], machine: dict[str, Any], jobs: int) -> None:
        waiting = {variant.name: variant for variant in wanted}
        if not waiting or not self._allows("models", map(model_name, wanted)):
            return
        self._say(f"export {', '.join(waiting)} …")
        order = {"task": "models", "variants": [asdict(variant) for variant in wanted], "jobs": jobs}
        order |= {
            "quick": self._options.quick,
            "device": machine["device"],
            "folder": str(self._options.work / "models"),
        }
        begun = time.monotonic()
        try:
            for answer in self._task("models", "models", order):
                variant = waiting.pop(answer["model"])
                name, depends, result = model_name(variant), self._depends(variant), answer["result"]
                if "error" in result:
                    self._trouble(
                        name, depends, TaskFailed(result["error"], refused=result["refused"]), answer["seconds"]
                    )
                else:
                    self._state.put(name, depends, "done", seconds=answer["seconds"], result=result)
                    self._say(f"{name}: done in {answer['seconds']:.0f} s")
        except TaskFailed as exc:
            for variant in waiting.values():
                self._trouble(model_name(variant), self._depends(variant), exc, time.monotonic() - begun)

    def _cells(self, variant: Variant, chosen: tuple[str, ...], machine: dict[str, Any]) -> None:
        depends = self._depends(variant)
        waiting = {cell: name for cell in chosen if not self._state.final(name := cell_name(variant, cell), depends)}
        model = self._state.entry(model_name(variant), depends)
        if not waiting or (model is not None and model["status"] == "refused"):
            return
        if model is None or model["status"] != "done" or not self._is_there(variant):
            if "models" not in self._options.parts:
                self._failed.append(f"{model_name(variant)} is not there: --parts must have models first")
            elif model is None:
                self._leave(waiting.values())  # its export is left, too
            return
        if not self._allows("cells", waiting.values()):
            return
        order = {"task": "cells", "variant": asdict(variant), "quick": self._options.quick, "cells": list(waiting)}
        order |= {"repository": str(self._repository(variant)), "device": machine["device"]}
        order |= {"uuid": machine.get("uuid"), "left_s": self._left_s()}
        started_at = time.monotonic()
        try:
            for answer in self._task("cells", f"cells {variant.name}", order):
                name, result = waiting.pop(answer["cell"]), answer["result"]
                if "error" in result:
                    self._trouble(name, depends, TaskFailed(result["error"]), answer["seconds"])
                else:
                    self._state.put(name, depends, "done", seconds=answer["seconds"], result=result)
                    self._say(f"{name}: {report.in_brief(result)}")
        except TaskFailed as exc:
            for name in waiting.values():
                self._trouble(name, depends, exc, time.monotonic() - started_at)
        else:
            self._leave(waiting.values())

    def _do(self, kind: str, name: str, depends: str, work: Callable[[], Any]) -> None:
        """Do one thing if there is time, and keep what came out."""
        if not self._allows(kind, [name]):
            return
        self._say(f"{name} …")
        begun = time.monotonic()
        try:
            result = work()
        except TaskFailed as exc:
            self._trouble(name, depends, exc, time.monotonic() - begun)
        except StopIteration:
            self._trouble(name, depends, TaskFailed("ended without an answer"), time.monotonic() - begun)
        else:
            seconds = time.monotonic() - begun
            self._state.put(name, depends, "done", seconds=seconds, result=result)
            self._say(f"{name}: done in {seconds:.0f} s")

    def _trouble(self, name: str, depends: str, exc: TaskFailed, seconds: float) -> None:
        if exc.late and self._left_s() <= 0:
            self._leave([name])
            return
        status = "refused" if exc.refused else "failed"
        self._state.put(name, depends, status, seconds=seconds, reason=str(exc))
        self._say(f"{name}: {status}: {exc}")
        if not exc.refused:
            self._failed.append(f"{name}: {exc}")

    def _task(self, kind: str, name: str, order: dict[str, Any]) -> Iterator[Any]:
        command = [str(self._environment.python), str(_GPU), "--task"]
        log = self._log / f"{name.replace(' ', '-')}.log"
        return answers(command, self._environment.variables, log, order, self._limit_s(kind))

    def _allows(self, kind: str, names: Any) -> bool:
        if self._budget.allows(_EXPECTED_S[kind] / (4 if self._options.quick else 1), time.monotonic()):
            return True
        self._leave(names)
        return False

    def _leave(self, names: Any) -> None:
        self._left.extend(names)

    def _left_s(self) -> float:
        return 1e9 if self._budget.until is None else self._budget.until - time.monotonic()

    def _limit_s(self, kind: str) -> float:
        return max(1.0, min(_LIMIT_S[kind], self._left_s() + _OVERTIME_S))

    def _repository(self, variant: Variant) -> Path:
        return self._options.work / "models" / variant.name

    def _depends(self, variant: Variant) -> str:
        return fingerprint({"base": self._base, "variant": asdict(variant), "sources": self._sources})

    def _report(self, machine: dict[str, Any]) -> None:
        found = report.assemble(
            machine=machine,
            scale=self._scale,
            tests=self._test_results(),
            entry=lambda name, variant: self._state.entry(name, self._depends(variant)),
            command=self._options.command,
        )
        for path in report.write(found, self._options.results):
            self._say(f"report: {path}")


def _runtimes(machine: dict[str, Any]) -> list[str]:
    return [name for name, reason in machine["runtimes"].items() if reason is None]


def _gpu(device: str) -> str:
    """Name the GPU and its driver, so that another machine's results are not taken for this one's."""
    if device == "cpu":
        return "cpu"
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def say(text: str) -> None:
    """Print a line at once; a reader who went away ends the printing and nothing else."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
