"""Two builds of the client: each is unpacked and put first on the path of the processes that call with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from naiad.loadtest._gate.subjects import RunValues, Side
from naiad.loadtest.errors import GateFailed, InvalidPlan
from naiad.loadtest.plan import Connection, Traffic
from naiad.loadtest.slo import Slo

__all__ = ["WheelSession", "WheelSubject", "wheel_metrics"]

Caller = Literal["sync", "asyncio"]
_SCRIPT: Final = Path(__file__).with_name("calling.py")
_CALL_TIMEOUT_S: Final = 60.0  # beyond the window: a start of Python, and a server that hangs
_MAX_SAMPLES: Final = 64
_MAX_ERROR_SHARE: Final = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class WheelSubject:
    """A build of ``naiad.client``, and the calls it is measured with. Both sides make the same calls."""

    path: Path
    """A wheel, or a folder that holds ``naiad/client``."""
    traffic: Traffic
    connection: Connection = field(default_factory=Connection)
    callers: tuple[Caller, ...] = ("sync",)
    """``sync`` calls from threads, ``asyncio`` from tasks; with both, metrics are named like ``p50@sync``."""
    in_flight: int = 8
    seed: int = 0
    """Of random inputs."""

    def __post_init__(self) -> None:
        if not self.callers or not set(self.callers) <= {"sync", "asyncio"}:
            raise InvalidPlan(f"callers are 'sync', 'asyncio' or both, found {', '.join(self.callers) or 'none'}")
        if not 1 <= self.in_flight <= 1024:
            raise InvalidPlan(f"in_flight is 1 to 1024 calls at a time, found {self.in_flight}")
        if self.connection.headers or self.connection.certificate or self.connection.ca:
            raise InvalidPlan("builds of the client are compared over plain connections, without headers or TLS files")

    @property
    def name(self) -> str:
        """The file's or folder's name."""
        return self.path.resolve().name

    @property
    def slos(self) -> tuple[Slo, ...]:
        """None: objectives are a server's."""
        return ()


def wheel_metrics(callers: tuple[Caller, ...], *names: str) -> tuple[str, ...]:
    """Return the metrics' names as runs of these callers have them."""
    return names if len(callers) == 1 else tuple(f"{name}@{caller}" for name in names for caller in callers)


class WheelSession:
    """Runs each side in a new process, so that neither warms the other's memory."""

    def __init__(self, baseline: WheelSubject, candidate: WheelSubject) -> None:
        self._subjects: dict[Side, WheelSubject] = {"baseline": baseline, "candidate": candidate}
        self._folder = tempfile.TemporaryDirectory(prefix="naiad-gate-")
        try:
            root = Path(self._folder.name)
            self._paths = {side: _unpacked(subject.path, root / side) for side, subject in self._subjects.items()}
            self._samples = _write_samples(baseline, root / "samples.npz")
        except BaseException:
            self.close()
            raise

    def measure(self, side: Side, *, window_s: float, settle_s: float) -> RunValues:
        """Run one side once."""
        subject, path = self._subjects[side], self._paths[side]
        plan = {
            "url": subject.connection.url,
            "model": subject.traffic.model,
            "version": subject.traffic.version,
            "samples": str(self._samples),
            "callers": list(subject.callers),
            "in_flight": subject.in_flight,
            "settle_s": settle_s,
            "window_s": window_s,
        }
        found = _run(plan, path, side, timeout_s=_CALL_TIMEOUT_S + len(subject.callers) * (window_s + settle_s))
        if not Path(found["file"]).resolve().is_relative_to(path.resolve()):
            raise GateFailed(f"expected the {side}'s client from {subject.path}, found another one at {found['file']}")
        return _values(found["runs"])

    def close(self) -> None:
        """Remove what was unpacked."""
        self._folder.cleanup()


def _unpacked(path: Path, folder: Path) -> Path:
    if path.is_dir():
        root = path
    elif zipfile.is_zipfile(path):
        root = folder
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(folder)
    else:
        raise InvalidPlan(f"expected a wheel or a folder with naiad/client in it, found {path}")
    if not (root / "naiad" / "client" / "__init__.py").is_file():
        raise InvalidPlan(
            f"expected naiad/client in {path}, found none: give a wheel of naiad, or a folder that has it"
        )
    return root


def _write_samples(subject: WheelSubject, path: Path) -> Path:
    from naiad.loadtest._data.payloads import check_traffic, make_samples
    from naiad.loadtest._data.target import connect, describe

    with connect(subject.connection) as client:
        signature = describe(client, subject.traffic).signature
    check_traffic(subject.traffic, signature)
    samples = make_samples(subject.traffic, signature, subject.seed).samples[:_MAX_SAMPLES]
    arrays = {f"{index}/{name}": array for index, sample in enumerate(samples) for name, array in sample.inputs.items()}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, **arrays)
    return path


def _run(plan: Mapping[str, Any], path: Path, side: Side, *, timeout_s: float) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(path.resolve())}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_SCRIPT)],
            input=json.dumps(plan),
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise GateFailed(f"the {side}'s calls did not end within {timeout_s:.0f} s") from exc
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise GateFailed(f"the {side}'s client could not call: {last}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _values(runs: Mapping[str, Mapping[str, Any]]) -> RunValues:
    values = {
        name if len(runs) == 1 else f"{name}@{caller}": value
        for caller, run in runs.items()
        for name, value in run.get("values", {}).items()
    }
    completed = min(run["completed"] for run in runs.values())
    failed = sum(sum(run["errors"].values()) for run in runs.values())
    total = failed + sum(run["completed"] for run in runs.values())
    example = next((str(run["example"]) for run in runs.values() if run["example"]), "")
    doubts = (f"{failed} of {total} calls failed, such as {example}",) if failed > _MAX_ERROR_SHARE * total else ()
    return RunValues(values=values, completed=completed, doubts=doubts, failure=example)
