"""Whether the journal is what was written, and whether it and the repository tell the same.

A chain of hashes shows entries that were edited, removed from the middle or put in between. It cannot show that its
end was cut off, nor that somebody computed all of it anew: for that, keep `Audit.head` elsewhere and give it back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from naiad.export._repository import journal as _journal


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """The outcome of a look at the whole journal."""

    num_entries: int
    head: str
    """The digest of the last entry; whoever keeps it elsewhere can tell later that nothing before was changed."""
    problems: tuple[str, ...]
    """One sentence for each entry that was changed, removed or put in, and for what the repository tells otherwise."""
    notes: tuple[str, ...] = ()
    """What is no sign of a change: torn lines, entries without a hash."""

    @property
    def ok(self) -> bool:
        """Whether nothing was changed, as far as can be told."""
        return not self.problems


@dataclass(frozen=True, kw_only=True, slots=True)
class Present:
    """What there is of one model now."""

    versions: tuple[int, ...]
    published: tuple[int, ...]
    """Those of its versions that an export made."""
    served: tuple[int, ...] | None
    """None where its configuration cannot be read."""


def audit(data: bytes, models: Mapping[str, Present], *, head: str = "") -> Audit:
    """Check a journal's bytes against their hashes, an earlier `head`, and what there is now."""
    lines = _journal.lines(data)
    known = tuple(_journal.states(lines))
    problems = [*_broken(lines, known), *_cut(known, head), *_disagreements(_journal.entries(data), models)]
    num_entries = sum(line.entry is not None for line in lines)
    return Audit(
        num_entries=num_entries, head=known[-1] if known else "", problems=tuple(problems), notes=tuple(_notes(lines))
    )


def _broken(lines: tuple[_journal.Line, ...], known: tuple[str, ...]) -> list[str]:
    problems, before, hashed = [], "", False
    for line, state in zip(lines, known, strict=True):
        entry = line.entry
        if entry is not None and entry.digest:
            if entry.digest != _journal.digest_of(line.text):
                problems.append(f"line {line.number} was edited: it does not have the hash that it states")
            if entry.previous != before:
                problems.append(
                    f"before line {line.number} entries were removed, put in or edited: the one that it follows is "
                    "not there"
                )
            hashed = True
        elif entry is not None and hashed:
            problems.append(f"line {line.number} was put in: it has no hash, and the ones before have")
        before = state
    return problems


def _cut(known: tuple[str, ...], head: str) -> list[str]:
    if not head or any(state.startswith(head) for state in known):
        return []
    return [f"no entry has the hash {head[:12]}…, which was the last one's: the end was cut off, or all was rewritten"]


def _notes(lines: tuple[_journal.Line, ...]) -> list[str]:
    torn = [line.number for line in lines if line.entry is None]
    bare = [line.number for line in lines if line.entry is not None and not line.entry.digest]
    notes = [f"line {number} is torn: a process was killed while it wrote it" for number in torn]
    if bare:
        notes.append(f"{len(bare)} entries have no hash of their own: an older version wrote them")
    return notes


def _disagreements(entries: tuple[_journal.Entry, ...], models: Mapping[str, Present]) -> list[str]:
    problems = []
    for model in sorted({entry.model for entry in entries} | models.keys()):
        own = tuple(entry for entry in entries if entry.model == model)
        if model not in models:
            problems.append(f"{model} is in the journal and not in the repository: it was removed by hand")
        else:
            problems += _of_model(model, own, models[model])
    return problems


def _of_model(model: str, entries: tuple[_journal.Entry, ...], present: Present) -> list[str]:
    told = {entry.version for entry in entries if entry.action == "publish"}
    pruned = {number for entry in entries for number in entry.removed}
    problems = [
        f"{model} has version {number}, and no entry tells of its publication"
        for number in present.published
        if number not in told
    ]
    problems += [
        f"version {number} of {model} is gone, and no entry tells who removed it"
        for number in sorted(told - pruned - set(present.versions) - {None}, key=str)
    ]
    last = _journal.last_served(entries)
    if last is not None and present.served is not None and last != present.served:
        problems.append(
            f"{model} serves {_words(present.served)}, and the last entry says {_words(last)}: "
            "its config.pbtxt was changed by hand, or a process was killed before it could tell"
        )
    return problems


def _words(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers)) or "none"
