"""What installed packages say about themselves, without importing them: some are heavy, and one may be broken."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from naiad.cli.doctor._check import Check

__all__ = ["built_for", "installed", "package"]


def package(distribution: str, extra: str, *, use: str = "", essential: bool = False) -> Check:
    """A package, the extra of Naiad that brings it, if one does, and what it is for."""
    found = installed(distribution)
    if found:
        return Check(name=distribution, state="ok", found=found, essential=essential)
    install = f"pip install 'naiad[{extra}]'" if extra else f"pip install {distribution}"
    advice = f"{use}: {install}" if use else install
    return Check(name=distribution, state="missing", found="not installed", advice=advice, essential=essential)


def installed(*distributions: str) -> str:
    """The version of the first of them that is installed; "" where none is."""
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def built_for(module: str, file: str, variable: str) -> str:
    """The CUDA version that a package writes as `variable` into one of its files; "" where it is built for the CPU."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return ""
    path = Path(found.origin).parent / file
    text = path.read_text() if path.is_file() else ""
    written = re.search(rf"^{variable}\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return written[1] if written else ""
