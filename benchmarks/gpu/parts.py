"""Files divided into folders of a limited size, and put together again: for channels that carry so much at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_BLOCK = 1 << 20
_RESERVED = 1 << 16  # of every part, for the manifest


class PartsError(Exception):
    """What was carried over is not all there, or not what was sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One file of a part: a whole file, or a stretch of one."""

    name: str
    file: str
    offset: int
    size: int


def divide(sizes: dict[str, int], part_size: int) -> list[list[Piece]]:
    """Distribute files of these sizes (bytes) to parts of at most `part_size`; larger ones are cut.

    Raises: `ValueError` for a part size that leaves no room.
    """
    room = part_size - _RESERVED
    if room < 1:
        raise ValueError(f"expected a part size above {_RESERVED} bytes, found {part_size}")
    pieces = [piece for file, size in sizes.items() for piece in _cut(file, size, room)]
    parts: list[list[Piece]] = []
    free: list[int] = []
    for piece in sorted(pieces, key=lambda piece: (-piece.size, piece.name)):
        fitting = next((place for place, left in enumerate(free) if left >= piece.size), None)
        if fitting is None:
            fitting = len(parts)
            parts.append([])
            free.append(room)
        parts[fitting].append(piece)
        free[fitting] -= piece.size
    return parts


def _cut(file: str, size: int, room: int) -> list[Piece]:
    if size <= room:
        return [Piece(name=file, file=file, offset=0, size=size)]
    offsets = range(0, size, room)
    return [
        Piece(name=f"{file}.{number:03}", file=file, offset=offset, size=min(room, size - offset))
        for number, offset in enumerate(offsets, 1)
    ]


def write(files: dict[Path, str], folder: Path, part_size: int) -> list[Path]:
    """Write `files` (path and role) below `folder` as part-1, part-2, …; gives the parts.

    Every part has the manifest of all of them, so that a part that is missing can be named.
    """
    by_name = {path.name: path for path in files}
    parts = divide({name: path.stat().st_size for name, path in by_name.items()}, part_size)
    manifest = {
        "files": [
            {"name": name, "role": files[path], "size": path.stat().st_size, "sha256": sha256(path)}
            for name, path in sorted(by_name.items())
        ],
        "parts": [[asdict(piece) for piece in part] for part in parts],
    }
    folders = []
    for number, part in enumerate(parts, 1):
        target = folder / f"part-{number}"
        target.mkdir(parents=True)
        for piece in part:
            _copy(by_name[piece.file], piece, target / piece.name)
        (target / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        folders.append(target)
    return folders


def _copy(source: Path, piece: Piece, target: Path) -> None:
    with open(source, "rb") as read, open(target, "wb") as write_to:
        read.seek(piece.offset)
        left = piece.size
        while left:
            block = read.read(min(_BLOCK, left))
            write_to.write(block)
            left -= len(block)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of the parts in `folder`. Raises: `PartsError` where there is none, or two that differ."""
    found = sorted(folder.glob(f"*/{MANIFEST}")) or sorted(folder.glob(MANIFEST))
    if not found:
        raise PartsError(f"expected part-1, part-2, … from `gpu.sh wheels` in {folder}, found no {MANIFEST}")
    texts = {path.read_text() for path in found}
    if len(texts) > 1:
        raise PartsError(f"expected parts of one `gpu.sh wheels` in {folder}, found {len(texts)}; carry all anew")
    manifest: dict[str, Any] = json.loads(texts.pop())
    return manifest


def join(folder: Path, target: Path) -> dict[str, Any]:
    """Put the files of the parts in `folder` together in `target`, each checked by its SHA-256; gives the manifest.

    A file that is there already, complete, is kept. Raises: `PartsError` naming the parts that are missing.
    """
    manifest = read_manifest(folder)
    target.mkdir(parents=True, exist_ok=True)
    places = {name: Piece(**piece) for part in manifest["parts"] for piece in part for name in [piece["name"]]}
    waiting = [entry for entry in manifest["files"] if not _complete(target / entry["name"], entry)]
    wanted = {entry["name"] for entry in waiting}
    _require(folder, manifest["parts"], wanted)
    for entry in waiting:
        pieces = sorted((piece for piece in places.values() if piece.file == entry["name"]), key=lambda p: p.offset)
        partial = target / f".{entry['name']}"
        with open(partial, "wb") as output:
            for piece in pieces:
                with open(_find(folder, piece.name), "rb") as source:
                    shutil.copyfileobj(source, output, _BLOCK)
        found = sha256(partial)
        if found != entry["sha256"]:
            partial.unlink()
            raise PartsError(f"expected {entry['name']} with SHA-256 {entry['sha256']}, found {found}; carry it anew")
        partial.replace(target / entry["name"])
    return manifest


def _complete(path: Path, entry: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == entry["size"] and sha256(path) == entry["sha256"]


def _require(folder: Path, parts: Iterable[list[dict[str, Any]]], wanted: set[str]) -> None:
    missing = [
        f"part-{number}"
        for number, part in enumerate(parts, 1)
        if any(piece["file"] in wanted and not _whole(folder, piece) for piece in part)
    ]
    if missing:
        raise PartsError(f"expected all parts in {folder}, found {', '.join(missing)} missing or cut short")


def _whole(folder: Path, piece: dict[str, Any]) -> bool:
    path = _find(folder, piece["name"])
    return path.is_file() and path.stat().st_size == piece["size"]


def _find(folder: Path, name: str) -> Path:
    return next(folder.glob(f"*/{name}"), folder / name)


def sha256(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
