"""All files that a service's description becomes, for containers: those of Compose, the gateway and the monitoring."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from naiad.deploy._files import write_all
from naiad.deploy._gateway import render_gateway
from naiad.deploy._gateway._document import HEAD
from naiad.deploy.compose import compose_place, render_compose
from naiad.deploy.errors import OutputNotWritable
from naiad.deploy.monitoring import Targets, render_monitoring
from naiad.deploy.service import Service

__all__ = ["GATEWAY", "MONITORING", "Difference", "compare", "render", "write"]

GATEWAY: Final = "deploy/gateway"
MONITORING: Final = "deploy/monitoring"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How what lies there differs from what the description says, by paths from the project's root."""

    missing: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    """Files that say something else."""
    left_over: tuple[str, ...] = ()
    """Files that an earlier description made, and this one does not."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.stale or self.left_over)

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.missing, *self.stale, *self.left_over)


def render(service: Service) -> dict[str, str]:
    """Return the text of every file, by its path from the project's root; the same service gives the same text."""
    place = compose_place(service)
    gateway = render_gateway(service, place)
    monitoring = render_monitoring(service, Targets.in_containers(place))
    return {
        **{f"{GATEWAY}/{name}": text for name, text in gateway.items()},
        **{f"{MONITORING}/{name}": text for name, text in monitoring.items()},
        **render_compose(service),
    }


def compare(service: Service, root: str | Path) -> Difference:
    """Return what :func:`write` would change below ``root``."""
    return _difference(render(service), Path(root))


def write(service: Service, root: str | Path) -> Difference:
    """Write what differs below ``root``, each file in one step, and return what that was.

    A running gateway takes up its files at once. What an earlier description made is taken away, if it still says so
    of itself; everything else stays.

    Raises:
        OutputNotWritable: a file cannot be written; each file is the old one or the new one.
    """
    root, files = Path(root), render(service)
    found = _difference(files, root)
    try:
        write_all(root, files)
        for path in found.left_over:
            (root / path).unlink(missing_ok=True)
    except OSError as exc:
        name = os.path.relpath(exc.filename, root) if exc.filename else root
        raise OutputNotWritable(f"expected to write {name} below {root}: {exc.strerror or exc}") from exc
    return found


def _difference(files: dict[str, str], root: Path) -> Difference:
    there = {path: _read(root / path) for path in files}
    return Difference(
        missing=tuple(path for path in files if there[path] is None),
        stale=tuple(path for path, text in files.items() if there[path] not in (None, text.encode())),
        left_over=tuple(_left_over(files, root)),
    )


def _left_over(files: dict[str, str], root: Path) -> list[str]:
    below = [path for folder in (GATEWAY, MONITORING) for path in sorted((root / folder).rglob("*.y*ml"))]
    names = {path.relative_to(root).as_posix(): path for path in below if not path.is_symlink()}
    return [name for name, path in names.items() if name not in files and _is_ours(path)]


def _is_ours(path: Path) -> bool:
    return (_read(path) or b"").startswith(HEAD.encode())


def _read(path: Path) -> bytes | None:
    with suppress(OSError):
        return path.read_bytes()
    return None
