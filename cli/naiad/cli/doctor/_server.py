"""What the embedded Triton needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from naiad.cli.doctor._check import Check
from naiad.cli.doctor._packages import installed
from naiad.server import ServerError, checks

__all__ = ["check_server"]

_FETCHED = "fetched at the first start; where there is no network, name a Triton in NAIAD_TRITON_HOME"


def check_server() -> Iterator[Check]:
    """Whether `naiad serve` can start here."""
    yield _tried("machine", checks.machine)
    yield _tried("Triton", checks.triton, _FETCHED)
    yield _tried("numpy 1.26", checks.numpy, "fetched at the first start, for Triton's Python processes")
    yield _tried("Python stub", checks.stub, "comes with Triton")
    yield _onnxruntime()


def _tried(name: str, check: Callable[[], object], missing: str = "") -> Check:
    try:
        found = check()
    except ServerError as exc:
        return Check(name=name, state="broken", found="does not work", advice=str(exc))
    if found is None:
        return Check(name=name, state="missing", found="not in the cache", advice=missing)
    return Check(name=name, state="ok", found=str(found))


def _onnxruntime() -> Check:
    found = installed("onnxruntime-gpu", "onnxruntime")
    state = "ok" if found else "missing"
    advice = "" if found else "pip install 'naiad[server]', for models of the onnxruntime backend"
    return Check(name="onnxruntime", state=state, found=found or "not installed", advice=advice)  # type: ignore[arg-type]
