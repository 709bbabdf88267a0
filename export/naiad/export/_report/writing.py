"""Writing the page where a user asked for it: of what was published, or of why nothing was."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from naiad.export._report.page import render
from naiad.export.errors import ExportError, InvalidExport, PrecisionRefused, VerificationFailed
from naiad.export.report import Report

_logger = logging.getLogger("naiad.export")


def check_place(path: str | os.PathLike[str] | None) -> Path | None:
    """Return where the page goes.

    Raises:
        InvalidExport: There is no such directory, or it is one itself.
    """
    if path is None:
        return None
    place = Path(path)
    if place.is_dir() or not place.absolute().parent.is_dir():
        reason = "is a directory" if place.is_dir() else "is in a directory that does not exist"
        raise InvalidExport(f"the report cannot be written: {place} {reason}; name a file such as report.html")
    return place


@contextlib.contextmanager
def on_refusal(place: Path | None, known: Mapping[str, Any]) -> Iterator[None]:
    """Write why an export was refused, with what is known by then."""
    try:
        yield
    except ExportError as exc:
        if place is not None:
            write(place, of_refusal(exc, known))
        raise


def write(place: Path, page: str) -> None:
    """Write a page; a disk that is full is no reason to fail what was already done."""
    try:
        place.write_text(page, encoding="utf-8")
    except OSError as exc:
        _logger.warning("the report could not be written to %s: %s", place, exc)


def of_refusal(error: ExportError, known: Mapping[str, Any]) -> str:
    """Return the page of an export that published nothing."""
    where = getattr(error, "divergence", None)
    failure = {"message": str(error).replace(f"; {where}", ""), "divergence": where}
    manifest = dict(known)
    measured = _measured(error)
    if measured is not None:
        manifest["report"] = measured.to_dict()
    return render(manifest, failure=failure)


def _measured(error: ExportError) -> Report | None:
    empty = Report(batches=(), num_cases=0, parity=(), latency=(), findings=(), size_bytes=0)
    values = asdict(empty)
    if isinstance(error, VerificationFailed) and (error.parity or error.metric):
        found: dict[str, Any] = {"parity": error.parity, "cases": error.cases, "metric": error.metric}
        if error.tolerance is not None:
            found["tolerance"] = error.tolerance
    elif isinstance(error, PrecisionRefused) and error.results:
        found = {"precision": error.results}
    else:
        return None
    plain = {name: _plain(value) for name, value in found.items()}
    return Report.from_dict(values | plain)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [asdict(item) for item in value]
    return None if value is None else asdict(value)
