"""The content of a report as JSON: written, and read back for pages, tables and comparisons."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from naiad.loadtest.errors import InvalidReport

__all__ = ["EMBEDDED", "SCHEMA_VERSION", "dump", "read_content", "to_text"]

SCHEMA_VERSION: Final = 2
EMBEDDED: Final = re.compile(r'<script type="application/json" id="content">(.*?)</script>', re.DOTALL)
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_PARTS: Final = ("kind", "results", "test", "verdict", "machine")
_GATE_PARTS: Final = ("metrics", "pairs", "verdict", "options", "machine")


def to_text(content: Mapping[str, Any]) -> str:
    """Return ``content`` as the text of a JSON file; numbers that JSON lacks would be an error."""
    return dump(content, indent=2) + "\n"


def dump(content: Mapping[str, Any], *, indent: int | None = None) -> str:
    """Return ``content`` as JSON; halves of surrogate pairs, which no UTF-8 file holds, are written as escapes."""
    separators = (",", ": " if indent else ":")
    text = json.dumps(content, indent=indent, separators=separators, ensure_ascii=False, allow_nan=False)
    if text.isascii() or not _SURROGATES.search(text):
        return text
    return json.dumps(content, indent=indent, separators=separators, allow_nan=False)


def read_content(path: Path) -> dict[str, Any]:
    """Read a ``report.json``, or the page that holds the same; or the result of a gate (kind ``gate``).

    Raises:
        InvalidReport: there is no such file, or it holds no report of this version.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as exc:
        raise InvalidReport(f"the report {path} cannot be read: {exc.strerror or exc}", path=str(path)) from exc
    except UnicodeDecodeError as exc:
        raise InvalidReport(
            f"expected a report in JSON at {path}, found something else: {exc}", path=str(path)
        ) from exc
    page = EMBEDDED.search(text)
    try:
        content = json.loads(text if page is None else page[1])
    except (ValueError, RecursionError) as exc:
        raise InvalidReport(
            f"expected a report in JSON at {path}, found something else ({exc}): write one with --json-report",
            path=str(path),
        ) from exc
    return _checked(content, path)


def _checked(content: Any, path: Path) -> dict[str, Any]:
    if isinstance(content, dict) and content.get("kind") == "gate" and all(part in content for part in _GATE_PARTS):
        return content
    if not isinstance(content, dict) or not all(part in content for part in _PARTS):
        raise InvalidReport(
            f"{path} is JSON, but no report of a load test: write one with --json-report", path=str(path)
        )
    if content.get("schema_version") != SCHEMA_VERSION:
        raise InvalidReport(
            f"expected a report of schema version {SCHEMA_VERSION} in {path}, found "
            f"{content.get('schema_version')!r}: measure again with this version of naiad",
            path=str(path),
        )
    return content
