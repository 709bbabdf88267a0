"""Runs tests/gpu, and counts what came out."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "gpu"
_PLUGINS = ("pytest_asyncio.plugin", "pytest_timeout", "naiad.pytest_client", "naiad.pytest_server")
_SHOWN = 10


def files() -> list[Path]:
    """Return the files of tests, each of which runs by itself: a call may end between two."""
    return sorted(FOLDER.glob("test_*.py"))


def total(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts of all files, from those of each."""
    counts = {name: sum(each[name] for each in found) for name in ("passed", "failed", "skipped")}
    failures = [name for each in found for name in each["failures"]]
    reasons = sorted({reason for each in found for reason in each["skip_reasons"]})
    return {**counts, "failures": failures, "skip_reasons": reasons}


def command(python: Path, path: Path, junit: Path) -> list[str]:
    """Return the command for one file; other plugins of the machine's Python stay out, see `VARIABLES`."""
    plugins = [word for plugin in _PLUGINS for word in ("-p", plugin)]
    return [str(python), "-m", "pytest", "-q", *plugins, "-p", "no:cacheprovider", f"--junit-xml={junit}", str(path)]


VARIABLES = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def depends() -> str:
    """Name the tests as they are."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def summarise(junit: Path) -> dict[str, Any]:
    """Count the results in a JUnit file; names the tests that failed, and why others were skipped."""
    cases = list(ElementTree.parse(junit).getroot().iter("testcase"))
    failed = [_name(case) for case in cases if case.find("failure") is not None or case.find("error") is not None]
    reasons = [skipped.get("message", "") for case in cases if (skipped := case.find("skipped")) is not None]
    return {
        "passed": len(cases) - len(failed) - len(reasons),
        "failed": len(failed),
        "skipped": len(reasons),
        "failures": failed[:_SHOWN],
        "skip_reasons": sorted(set(reasons))[:_SHOWN],
    }


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname', '')}::{case.get('name', '')}"
