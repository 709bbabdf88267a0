"""API keys: the file of their hashes, from which the gateway knows who calls.

One key a line: ``<identity> sha256:<64 hex digits> created=YYYY-MM-DD [expires=YYYY-MM-DD] [# note]``. A key is
256 random bits, so that a plain SHA-256 of it can be neither guessed nor reversed; slow hashes are for passwords. The
gateway reads the file again within seconds of a change, so that a new key needs no restart, and a revoked one is out.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from naiad.deploy._checks import IDENTITY
from naiad.deploy._secret_files import locked, write_secret
from naiad.deploy.errors import InvalidKeys

__all__ = ["KEYS_HEADER", "MAX_VALID_KEYS", "Key", "KeyFile", "hash_key"]

MAX_VALID_KEYS: Final = 2
"""Keys of one identity that are valid at a time: the old one and the new one while callers change over."""

_ID_CHARS: Final = 12
_LINE: Final = re.compile(
    r"(?P<identity>\S+)[ \t]+sha256:(?P<sha256>[0-9a-f]{64})[ \t]+created=(?P<created>\d{4}-\d\d-\d\d)"
    r"(?:[ \t]+expires=(?P<expires>\d{4}-\d\d-\d\d))?[ \t]*(?:#[ \t]*(?P<note>.*?)[ \t]*)?\Z"
)
KEYS_HEADER: Final = (
    "# Hashes of API keys, one a line; `naiad deploy key` changes this file, and the gateway follows within seconds.\n"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What the file says of a key; the key itself is nowhere."""

    identity: str
    sha256: str
    created: date
    expires: date | None = None
    """The day at whose beginning (UTC) it ends."""
    note: str = ""

    @property
    def id(self) -> str:
        """The first digits of the hash, by which it is revoked."""
        return self.sha256[:_ID_CHARS]

    def is_valid(self, day: date | None = None) -> bool:
        """Tell whether it opens anything on ``day``, by default today (UTC)."""
        return self.expires is None or (day or _today()) < self.expires

    def __str__(self) -> str:
        expires = f" expires={self.expires}" if self.expires else ""
        note = f" # {self.note}" if self.note else ""
        return f"{self.identity} sha256:{self.sha256} created={self.created}{expires}{note}"


class KeyFile:
    """The file ``api-keys``; several processes may change it at once, and comments in it stay."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def keys(self) -> tuple[Key, ...]:
        """Return all keys, in the order of the file; none where it is missing.

        Raises:
            InvalidKeys: the file cannot be read, or a line of it is none; says which.
        """
        return tuple(self._parse(self._lines()).values())

    def add(self, identity: str, *, expires: date | None = None, note: str = "") -> str:
        """Make a key for ``identity``, keep its hash, and return it: this is the only time that it is seen.

        Raises:
            InvalidKeys: the identity has two valid keys already, ``expires`` is past, or the file is wrong.
            OutputNotWritable: the file cannot be replaced.
        """
        _check_new(identity, expires, note)
        key = f"naiad_{secrets.token_urlsafe(32)}"
        entry = Key(identity=identity, sha256=hash_key(key), created=_today(), expires=expires, note=note)

        def with_entry(lines: list[str]) -> list[str]:
            self._check_room(identity, self._parse(lines).values())
            return [*(lines or [KEYS_HEADER.rstrip("\n")]), str(entry)]

        self._change(with_entry)
        return key

    def revoke(self, identity: str, which: str) -> tuple[Key, ...]:
        """Take out the key of ``identity`` whose id begins with ``which``, or ``all`` of them; return what went.

        Raises:
            InvalidKeys: there is no such key, or several begin so.
            OutputNotWritable: the file cannot be replaced.
        """
        gone: list[Key] = []

        def without(lines: list[str]) -> list[str]:
            keys = self._parse(lines)
            gone[:] = self._chosen(identity, which, keys.values())
            return [line for number, line in enumerate(lines) if keys.get(number) not in gone]

        self._change(without)
        return tuple(gone)

    def _change(self, change: Callable[[list[str]], list[str]]) -> None:
        with locked(self.path.parent):
            lines = change(self._lines())
            write_secret(self.path, "".join(f"{line}\n" for line in lines).encode())

    def _lines(self) -> list[str]:
        try:
            text = self.path.read_bytes().decode()
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise InvalidKeys(f"the API keys in {self.path} cannot be read: {exc.strerror or exc}") from exc
        except UnicodeDecodeError as exc:
            raise InvalidKeys(f"{self.path}: expected text in UTF-8, found other bytes") from exc
        return text.removesuffix("\n").split("\n") if text else []

    def _parse(self, lines: Iterable[str]) -> dict[int, Key]:
        """Return the keys by the place of their line."""
        found: dict[int, Key] = {}
        hashes: set[str] = set()
        for number, line in enumerate(lines):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            key = _parse_line(line.strip(), f"{self.path}:{number + 1}")
            if key.sha256 in hashes:
                raise InvalidKeys(f"{self.path}:{number + 1}: expected each key once, found one again: take it out")
            hashes.add(key.sha256)
            found[number] = key
        return found

    def _check_room(self, identity: str, keys: Iterable[Key]) -> None:
        valid = [key for key in keys if key.identity == identity and key.is_valid()]
        if len(valid) >= MAX_VALID_KEYS:
            ids = " and ".join(f"{key.id} of {key.created}" for key in valid)
            raise InvalidKeys(
                f"expected at most {MAX_VALID_KEYS} valid keys of {identity}, found {ids}: "
                f"revoke the one that nobody uses any more, `naiad deploy key revoke {identity} {valid[0].id}`"
            )

    def _chosen(self, identity: str, which: str, keys: Iterable[Key]) -> list[Key]:
        own = [key for key in keys if key.identity == identity]
        chosen = own if which == "all" else [key for key in own if which and key.sha256.startswith(which.lower())]
        ids = ", ".join(key.id for key in own) or "none"
        if not chosen:
            raise InvalidKeys(f"expected the id of a key of {identity}, found {which!r}: it has {ids}")
        if len(chosen) > 1 and which != "all":
            raise InvalidKeys(f"expected the id of one key of {identity}, {which!r} begins several: it has {ids}")
        return chosen


def hash_key(key: str) -> str:
    """Return the SHA-256 of a key as hexadecimal digits, as the file has it."""
    return hashlib.sha256(key.encode()).hexdigest()


def _parse_line(line: str, place: str) -> Key:
    match = _LINE.match(line)
    if match is None or not IDENTITY[0].match(match["identity"]):
        # The line is not repeated: somebody may have put the key itself there.
        raise InvalidKeys(
            f"{place}: expected `identity sha256:<64 hex digits> created=YYYY-MM-DD [expires=YYYY-MM-DD] [# note]`, "
            "found something else: correct it, or take it out and make a new key"
        )
    try:
        return Key(
            identity=match["identity"],
            sha256=match["sha256"],
            created=date.fromisoformat(match["created"]),
            expires=date.fromisoformat(match["expires"]) if match["expires"] else None,
            note=match["note"] or "",
        )
    except ValueError as exc:
        raise InvalidKeys(f"{place}: expected dates of the calendar: {exc}") from exc


def _check_new(identity: str, expires: date | None, note: str) -> None:
    if not IDENTITY[0].match(identity):
        raise InvalidKeys(f"expected an identity of {IDENTITY[1]}, found {identity!r}")
    if expires is not None and expires <= _today():
        raise InvalidKeys(f"expected a day after today, {_today()}, found {expires}")
    if not note.isprintable() or len(note) > 200:
        raise InvalidKeys(f"expected a note of one line and at most 200 characters, found {note!r}")


def _today() -> date:
    return datetime.now(UTC).date()
