"""The bench of failures behind the gateway, with fewer requests: no caller notices anything."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "benchmarks" / "ha.py"
NUM_REQUESTS = 1_000
ROWS = ("kill", "term", "rolling", "promote", "reload", "rotate", "stub")
LARGE_ROWS = ("kill", "rolling")

pytestmark = pytest.mark.timeout(300)


def run(folder: Path, size: str, rows: tuple[str, ...]) -> dict[str, Any]:
    """The results of these rows, by name."""
    told = folder / "results.json"
    command = [sys.executable, str(BENCH), "--requests", str(NUM_REQUESTS), "--sizes", size]
    command += ["--rows", ",".join(rows), "--json", str(told)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert told.exists(), done.stderr
    return {result["row"]: result | {"said": done.stdout} for result in json.loads(told.read_text())["results"]}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("small"), "4KiB", ROWS)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("large"), "600KB", LARGE_ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_no_caller_notices(small: dict[str, Any], row: str) -> None:
    """Of requests that are not sent again by their callers none fails, and every answer is right."""
    assert small[row]["num_failed"] == 0, small[row]["said"]
    assert small[row]["num_requests"] >= NUM_REQUESTS


@pytest.mark.parametrize("row", LARGE_ROWS)
def test_no_caller_with_large_requests_notices(large: dict[str, Any], row: str) -> None:
    """Also requests that are larger than what is kept by default are sent again to the other replica."""
    assert large[row]["num_failed"] == 0, large[row]["said"]


def test_both_versions_answered_while_one_was_promoted(small: dict[str, Any]) -> None:
    """The row was no row without anything happening."""
    assert set(small["promote"]["factors"]) == {"1.0", "2.0"}
