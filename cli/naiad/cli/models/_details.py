"""One version in rows of a label and a text, as `naiad models show` prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from naiad.cli.models._common import join
from naiad.cli.models._words import age, size, time

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUM_ENTRIES = 5


def rows(details: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what there is to say about a version, the most asked for first."""
    manifest = details["manifest"]
    yield "path", details["path"]
    yield "versions", f"{join(details['versions'])}; served: {join(details['served'])}"
    yield from _tensors(manifest)
    yield from _steps(manifest)
    yield from _measured(manifest.get("report", {}))
    yield from _made(manifest)
    for name, file in manifest.get("files", {}).items():
        yield f"file {name}", f"{size(file['size_bytes'])}, SHA-256 {file['sha256'][:12]}…"
    yield "signed by", ", ".join(details["signed_by"]) or "nobody"
    for entry in details["history"][-_NUM_ENTRIES:]:
        yield entry["action"], _entry(entry)


def _tensors(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for kind in ("inputs", "outputs"):
        for tensor in manifest.get(kind, []):
            yield kind.removesuffix("s"), f"{tensor['name']}: {tensor['dtype']} [{join(tensor['shape'])}]"
    if "max_batch_size" in manifest:
        yield "largest batch", str(manifest["max_batch_size"])
    if "precision" in manifest:
        yield "precision", str(manifest["precision"])


def _steps(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for step in manifest.get("pipeline", {}).get("steps", []):
        needs = f", needs {', '.join(step['requirements'])}" if step.get("requirements") else ""
        yield f"step {step['step']}", f"{step['model']} version {step['version']} ({step.get('kind', 'model')}{needs})"
    if "step" in manifest:
        yield "step of", str(manifest["step"]["pipeline"])


def _measured(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for parity in report.get("parity", []):
        relative = f" ({parity['max_rel_error']:.2g} of the largest value)"
        yield f"parity of {parity['output']}", f"largest error {parity['max_abs_error']:.2g}{relative}"
    for latency in report.get("latency", []):
        label = f"latency of batch {latency['batch']}" if latency["batch"] else "latency"
        yield label, f"{latency['median_ms']:.3g} ms on one thread"
    for finding in report.get("findings", []):
        yield finding["check"], finding["message"]


def _made(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    created = manifest.get("created")
    when = f"{age(created)} ({time(created)} UTC)" if created else "by hand"
    yield "made", f"{when} {manifest.get('command', '')}".rstrip()
    revision = manifest.get("source", {}).get("git_revision")
    if revision:
        yield "git revision", str(revision)
    versions = manifest.get("versions", {})
    if versions:
        yield "made with", ", ".join(f"{name} {number}" for name, number in versions.items())


def _entry(entry: dict[str, Any]) -> str:
    what = f"version {entry['version']}, " if entry["version"] is not None else ""
    why = f": {entry['reason']}" if entry["reason"] else ""
    return f"{what}serves {join(entry['served'])}, {time(entry['time'])} UTC, {entry['user']}{why}"
