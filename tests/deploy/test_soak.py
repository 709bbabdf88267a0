"""The soak of a whole service: a short one takes place, and its rule for "flat" finds what grows."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOAK = Path(__file__).parents[1] / "soak" / "service.py"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SOAK.parent))
    spec = importlib.util.spec_from_file_location("soak_service", SOAK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "soak_service", module)
    spec.loader.exec_module(module)
    return module


def test_a_quarter_of_a_minute_passes_without_a_failed_request(tmp_path: Path) -> None:
    """Every process of the service is noted; at a third of the highest rate all requests are answered."""
    told = tmp_path / "soak.json"
    command = [sys.executable, str(SOAK), "--minutes", "0.25", "--share", "0.3", "--json", str(told)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert told.exists(), done.stderr
    found = json.loads(told.read_text())
    assert found["load"]["num_failed"] == 0, done.stdout
    assert found["load"]["num_requests"] > 100
    names = {"supervisor", "envoy", "main-0 triton", "main-0 stub 0", "main-1 triton", "main-1 stub 0"}
    assert set(found["series"]["processes"]) == names
    assert "NOT FLAT" in done.stdout or done.returncode == 0


def series(soak: ModuleType, memory_mib: list[float]) -> object:
    samples = [soak.Sample(pss_mib=mib, num_descriptors=10, num_threads=5) for mib in memory_mib]
    seconds = [float(second) for second in range(len(memory_mib))]
    return soak.Series(seconds=seconds, processes={"envoy": samples}, shm_mib=[1.0] * len(memory_mib))


def test_growth_in_the_warm_up_is_none(soak: ModuleType) -> None:
    """What is filled once, is filled at the beginning."""
    verdicts = soak.judge(series(soak, [10.0 * second for second in range(10)] + [100.0] * 90))
    assert all(verdict.flat for verdict in verdicts)


def test_a_process_that_goes_on_growing_is_found(soak: ModuleType) -> None:
    """What ends within the allowance is no growth; what goes on is."""
    verdicts = soak.judge(series(soak, [100.0 + second / 20 for second in range(100)]))
    assert all(verdict.flat for verdict in verdicts)
    verdicts = soak.judge(series(soak, [100.0 + second for second in range(100)]))
    assert [(verdict.name, verdict.what) for verdict in verdicts if not verdict.flat] == [("envoy", "MiB")]


def test_a_process_that_ended_is_not_flat(soak: ModuleType) -> None:
    """Nor is one that came in its place."""
    noted = series(soak, [100.0] * 100)
    noted.processes["envoy"][90:] = [None] * 10  # type: ignore[attr-defined]
    assert [verdict.what for verdict in soak.judge(noted) if not verdict.flat] == ["gone, or new"]
