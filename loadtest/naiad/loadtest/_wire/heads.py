"""Header blocks and what they mean."""

from __future__ import annotations

from typing import Final

from naiad.loadtest._wire.hpack import FieldReader
from naiad.loadtest._wire.status import Head

__all__ = ["Heads"]

_MAX_HEADS: Final = 1_000


class Heads(dict[bytes, Head]):
    """The meaning of each header block. The same bytes mean the same until the table of fields changes."""

    def __init__(self) -> None:
        super().__init__()
        self._fields = FieldReader()
        self._changes = 0

    def __missing__(self, block: bytes) -> Head:
        head = Head.of(self._fields.read(block))
        if self._fields.num_changes != self._changes:
            self._changes = self._fields.num_changes
            self.clear()
            return head  # this block changed the table: again, it may mean something else
        if len(self) >= _MAX_HEADS:
            self.clear()
        self[block] = head
        return head
