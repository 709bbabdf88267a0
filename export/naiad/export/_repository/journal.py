"""The append-only record of what was published and served when, and by whom: `<repository>/journal.jsonl`.

A plain file at the root is ignored by Triton and travels with the repository. An entry is written after the act it
tells of; a process killed in between leaves an act without an entry, which `previous` takes into account.

Each line ends with the SHA-256 of all that is before it in the line, and names that of the line before, so that an
entry that was edited, removed or put in between is found (`audit.py`). Lines of older versions have neither.
"""

import getpass
import hashlib
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from naiad.export._repository.store import Store

Action = Literal["publish", "promote", "rollback", "prune", "sign", "configure"]
NAME = "journal.jsonl"
_MAX_COMMAND = 500
_SERVING = ("publish", "promote", "rollback")
_TUPLES = ("before", "after", "removed")
_OPTIONAL = frozenset({"removed", "reason", "key", "settings", "replaced", "digest"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One act on one model."""

    time: str
    """UTC, ISO 8601."""
    user: str
    action: Action
    model: str
    version: int | None = None
    """The version that was published or signed; None for the other acts."""
    before: tuple[int, ...] = ()
    """The versions served until then."""
    after: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()
    """The versions that were pruned."""
    host: str = ""
    command: str = ""
    """The command line, cut at 500 characters."""
    reason: str = ""
    """As the user gave it."""
    key: str = ""
    """The id of the key that signed."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the configuration that were set, with their values."""
    replaced: Mapping[str, Any] = field(default_factory=dict)
    """What they were before; None for those that were not there."""
    previous: str = ""
    """The digest of the entry before; empty for the first one."""
    digest: str = ""
    """SHA-256 of the entry's line without this field; empty in entries of older versions."""


class Line(NamedTuple):
    """A line of the journal; `entry` is None where it cannot be read, because a crash tore it."""

    number: int
    text: str
    entry: Entry | None


def entry_of(
    action: Action,
    model: str,
    *,
    version: int | None = None,
    before: tuple[int, ...],
    after: tuple[int, ...],
    removed: tuple[int, ...] = (),
    reason: str = "",
    key: str = "",
    settings: Mapping[str, Any] | None = None,
    replaced: Mapping[str, Any] | None = None,
) -> Entry:
    """Return an entry of now, by this user, on this machine, with this command."""
    return Entry(
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        user=_user(),
        action=action,
        model=model,
        version=version,
        before=before,
        after=after,
        removed=removed,
        host=socket.gethostname(),
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_MAX_COMMAND],
        reason=reason,
        key=key,
        settings=settings or {},
        replaced=replaced or {},
    )


def line(before: bytes, entry: Entry) -> bytes:
    """Return the line, without its end, that adds an entry to a journal that has the bytes `before`.

    The repository's lock must be held from reading `before` until the line is written.
    """
    values = {name: value for name, value in asdict(entry).items() if value or name not in _OPTIONAL}
    values["previous"] = state(lines(before))
    body = json.dumps(values)
    return f'{body[:-1]}, "digest": "{_sha256(body)}"}}'.encode()


def entries(data: bytes, model: str | None = None) -> tuple[Entry, ...]:
    """Return the entries of a model, or all, oldest first; a torn line is skipped."""
    found = (line.entry for line in lines(data))
    return tuple(entry for entry in found if entry is not None and model in (None, entry.model))


def lines(data: bytes) -> tuple[Line, ...]:
    """Return every line that is not empty, numbered from 1."""
    texts = enumerate(data.decode(errors="replace").split("\n"), start=1)
    return tuple(Line(number, text, _parse(text)) for number, text in texts if text.strip())


def state(journal: tuple[Line, ...]) -> str:
    """Return what the next entry names as the one before: the last digest; lines without one are hashed into it."""
    return next(reversed(tuple(states(journal))), "")


def states(journal: tuple[Line, ...]) -> Iterator[str]:
    """Yield the state after each line, torn ones too, which do not change it."""
    found = ""
    for line in journal:
        if line.entry is not None:
            found = line.entry.digest or _sha256(found + line.text)
        yield found


def digest_of(text: str) -> str:
    """Return the digest that the entry on a line should have."""
    values = json.loads(text)
    del values["digest"]
    return _sha256(json.dumps(values))


def previous(entries: tuple[Entry, ...], served: tuple[int, ...], known: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the versions that a rollback would serve, or None where no earlier state is known, or is there still.

    Of the earlier states it is the last one whose versions are all among the `known` ones, which exist.
    """
    states = earlier(entries, served)
    return next((state for state in states if state != served and set(state) <= set(known)), None)


def earlier(entries: tuple[Entry, ...], served: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the states before the current one, the last one first.

    Every change pushes the state it replaced, and a rollback pops down to the one it went to, so that two rollbacks go
    back two steps.
    """
    stack: list[tuple[int, ...]] = []
    current: tuple[int, ...] = ()
    for entry in entries:
        if entry.action not in _SERVING:
            continue
        if entry.action == "rollback":
            if entry.after in stack:
                while stack.pop() != entry.after:
                    pass
        elif entry.before and entry.before != entry.after:
            stack.append(entry.before)
        current = entry.after
    if current and current != served:  # changed by hand, or by a process killed before it could tell
        stack.append(current)
    return tuple(reversed(stack))


def last_served(entries: tuple[Entry, ...]) -> tuple[int, ...] | None:
    """Return what the journal says is served, or None where it does not say."""
    return next((entry.after for entry in reversed(entries) if entry.action in _SERVING), None)


def _parse(text: str) -> Entry | None:
    try:
        values = json.loads(text)
        known = {name: values[name] for name in Entry.__dataclass_fields__ if name in values}
        return Entry(**{name: _plain(name, value) for name, value in known.items()})
    except (ValueError, KeyError, TypeError):
        return None


def _plain(name: str, value: Any) -> Any:
    return tuple(value) if name in _TUPLES else value


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _user() -> str:
    """Return the login name; behind sudo the person's, too."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    person = os.environ.get("SUDO_USER", user)
    return user if person == user else f"{person} as {user}"


def append(store: Store, action: Action, model: str, **values: Any) -> None:
    """Add an entry to the journal of a repository whose lock is held."""
    store.append(NAME, lambda before: line(before, entry_of(action, model, **values)))


def read(store: Store, model: str | None = None) -> tuple[Entry, ...]:
    """Return a model's entries, or all, oldest first."""
    return entries(store.read(NAME) or b"", model)
