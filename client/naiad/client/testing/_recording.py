"""The file of a recording.

It begins with the line ``naiad recording 1``. Records follow, each written in one piece:

====================  =====================================================================
4 bytes               size of what follows the next field, little-endian
4 bytes               CRC-32 of what follows
JSON, one line        ``method``, ``model``, ``version``; ``status`` and ``details`` of the
                      answer; ``messages``: ``["request", size]`` and ``["response", size]``
                      in the order in which they went over the wire
the messages          their bytes, one after another
====================  =====================================================================

Headers are not recorded, and neither is anything that is a secret by what it is: the admin secret and credentials
travel in headers. What ends within a record, as after a kill, is read up to the record before.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Literal

from naiad.client.errors import InvalidInput

_MAGIC: Final = b"naiad recording 1\n"
_HEAD: Final = struct.Struct("<II")
Kind = Literal["request", "response"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One call: its messages in the order in which they went over the wire, and how it ended."""

    method: str
    model: str = ""
    version: str = ""
    status: str = "OK"
    details: str = ""
    messages: tuple[tuple[Kind, bytes], ...] = field(default=(), repr=False)

    def to_bytes(self) -> bytes:
        """Return the record as it stands in the file."""
        described = {name: getattr(self, name) for name in ("method", "model", "version", "status", "details")}
        described["messages"] = [[kind, len(data)] for kind, data in self.messages]
        body = b"".join((json.dumps(described).encode(), b"\n", *(data for _, data in self.messages)))
        return _HEAD.pack(len(body), zlib.crc32(body)) + body

    @classmethod
    def from_bytes(cls, body: bytes) -> Record:
        """Read a record without its size and checksum."""
        line, _, rest = body.partition(b"\n")
        described = json.loads(line)
        messages, at = list[tuple[Kind, bytes]](), 0
        for kind, size in described.pop("messages"):
            messages.append((kind, rest[at : at + size]))
            at += size
        return cls(**described, messages=tuple(messages))

    @property
    def requests(self) -> tuple[bytes, ...]:
        """The messages of the caller."""
        return tuple(data for kind, data in self.messages if kind == "request")


class RecordingWriter:
    """Appends records to a file, which may have some already; may be used by threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.num_records = 0
        """How many were written."""
        try:
            self._continue(path)
        except BaseException:
            self.close()
            raise

    def add(self, record: Record) -> None:
        """Write a record; without effect after :meth:`close`."""
        data = record.to_bytes()
        with self._lock:
            if self._file is not None:
                _write(self._file, data)
                self.num_records += 1

    def close(self) -> None:
        """Close the file. Closing twice does nothing."""
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _continue(self, path: Path) -> None:
        """Go on where the last complete record ends."""
        assert self._file is not None
        if os.fstat(self._file).st_size == 0:
            _write(self._file, _MAGIC)
            return
        with path.open("rb") as file:
            end = len(_MAGIC)
            for _, end in _bodies(file, path):  # noqa: B007  (the last one is what counts)
                pass
        os.truncate(self._file, end)


def read_recording(path: Path) -> Iterator[Record]:
    """Give the records of a file that are complete.

    Raises:
        InvalidInput: there is no such file, or it is no recording.
    """
    try:
        file = path.open("rb")
    except OSError as exc:
        raise InvalidInput(f"expected a recording at {path}, found {exc.strerror}") from exc
    with file:
        for body, _ in _bodies(file, path):
            yield Record.from_bytes(body)


def _bodies(file: BinaryIO, path: Path) -> Iterator[tuple[bytes, int]]:
    """Give each complete record's body, and where it ends."""
    found = file.read(len(_MAGIC))
    if found != _MAGIC:
        raise InvalidInput(f"expected a recording at {path}, found a file that begins with {found!r}")
    at = len(_MAGIC)
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        size, checksum = _HEAD.unpack(head)
        body = file.read(size)
        if len(body) < size or zlib.crc32(body) != checksum:
            return
        at += _HEAD.size + size
        yield body, at


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
