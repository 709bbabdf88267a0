"""The journal: who did what, when and why, in a chain in which a change shows."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from export_publisher import publish
from naiad.export import Audit, Repository

_PROMOTE = """
import sys
from naiad.export import Repository
repo = Repository(sys.argv[1])
for _ in range(10):
    repo.promote("some", int(sys.argv[2]), reason=f"process {sys.argv[2]}")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with five entries."""
    root = tmp_path / "models"
    publish(root)
    publish(root)
    repo = Repository(root)
    repo.promote("some", 1)
    repo.rollback("some", reason="it was right after all")
    repo.promote("some", 1, 2)
    return root


def audit(root: Path) -> Audit:
    return Repository(root).audit()


def lines(root: Path) -> list[str]:
    return (root / "journal.jsonl").read_text().splitlines()


def write(root: Path, new: list[str]) -> None:
    (root / "journal.jsonl").write_text("".join(f"{line}\n" for line in new))


def test_entries_say_who_what_and_why(root: Path) -> None:
    """Time, user, host, command and reason are in each entry; each names the one before by its hash."""
    entries = Repository(root).history("some")
    assert [entry.action for entry in entries] == ["publish", "publish", "promote", "rollback", "promote"]
    assert [entry.reason for entry in entries] == ["", "", "", "it was right after all", ""]
    assert all(entry.user and entry.host and entry.command and entry.time for entry in entries)
    assert entries[0].previous == ""
    assert [entry.previous for entry in entries[1:]] == [entry.digest for entry in entries[:-1]]
    assert audit(root) == Audit(num_entries=5, head=entries[-1].digest, problems=())


@pytest.mark.parametrize(("sudo", "user"), [(None, "service"), ("mia", "mia as service"), ("service", "service")])
def test_the_person_behind_a_shared_account_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, sudo: str | None, user: str
) -> None:
    """Who became another user with sudo is in the entry beside that user."""
    monkeypatch.setenv("LOGNAME", "service")
    monkeypatch.delenv("SUDO_USER", raising=False)
    if sudo is not None:
        monkeypatch.setenv("SUDO_USER", sudo)
    Repository(root).promote("some", 1)
    assert Repository(root).history("some")[-1].user == user


def test_an_edited_entry_is_found(root: Path) -> None:
    """Whoever changes a name in the middle, or in the last line, is found out."""
    original = lines(root)
    for index in (2, 4):
        edited = list(original)
        edited[index] = edited[index].replace('"user": "', '"user": "somebody else, not ')
        write(root, edited)
        (problem,) = audit(root).problems
        assert problem == f"line {index + 1} was edited: it does not have the hash that it states"


def test_an_edited_entry_with_a_new_hash_is_found(root: Path) -> None:
    """Computing the hash anew does not help, because the next entry has the old one."""
    from naiad.export._repository.journal import digest_of

    edited = lines(root)
    values = json.loads(edited[1]) | {"user": "somebody else"}
    values["digest"] = digest_of(json.dumps(values))
    edited[1] = json.dumps(values)
    write(root, edited)
    (problem,) = audit(root).problems
    assert problem.startswith("before line 3 entries were removed, put in or edited")


@pytest.mark.parametrize("index", [0, 1, 3])
def test_a_removed_entry_is_found(root: Path, index: int) -> None:
    """A line that is missing at the beginning or within is found; of a publication, its version shows it as well."""
    rest = lines(root)
    del rest[index]
    write(root, rest)
    problems = audit(root).problems
    assert problems[0].startswith(f"before line {index + 1} entries were removed")
    told = [problem for problem in problems if "no entry tells of its publication" in problem]
    assert len(told) == (1 if index < 2 else 0)


def test_swapped_and_invented_entries_are_found(root: Path) -> None:
    """Another order, a copy of an entry, and one without a hash among those with one."""
    original = lines(root)
    write(root, [original[0], original[2], original[1], *original[3:]])
    assert audit(root).problems
    write(root, [*original[:3], original[1], *original[3:]])
    assert audit(root).problems
    invented = {key: value for key, value in json.loads(original[2]).items() if key not in {"previous", "digest"}}
    write(root, [*original[:3], json.dumps(invented), *original[3:]])
    assert any("line 4 was put in: it has no hash" in problem for problem in audit(root).problems)


def test_a_cut_off_end_is_found_by_what_is_served_or_by_the_last_hash(root: Path) -> None:
    """The chain itself cannot show that its end is missing; the repository, and a hash kept elsewhere, do."""
    head = audit(root).head
    write(root, lines(root)[:-1])
    (problem,) = audit(root).problems
    assert problem.startswith("some serves 1, 2, and the last entry says 2")
    Repository(root).promote("some", 1, 2)  # covers it up
    assert audit(root).ok
    (problem,) = Repository(root).audit(head=head).problems
    assert "the end was cut off, or all was rewritten" in problem
    assert Repository(root).audit(head=audit(root).head[:16]).ok


def test_a_whole_journal_that_is_gone_is_found(root: Path) -> None:
    """Without any entry, the versions that were published have none."""
    (root / "journal.jsonl").unlink()
    assert audit(root).problems == (
        "some has version 1, and no entry tells of its publication",
        "some has version 2, and no entry tells of its publication",
    )


def test_what_was_removed_by_hand_is_found(root: Path) -> None:
    """A version, and a model, that the journal knows and the repository has no more."""
    (root / "some" / "1").rename(root.parent / "elsewhere")
    assert "version 1 of some is gone, and no entry tells who removed it" in audit(root).problems
    (root / "some").rename(root.parent / "some")
    assert audit(root).problems == ("some is in the journal and not in the repository: it was removed by hand",)


@pytest.mark.parametrize("torn", ['{"time": "2026-', "\x00\x00\x00", "[]", "17"])
def test_a_torn_line_is_no_change(root: Path, torn: str) -> None:
    """A process killed while it wrote leaves a piece of a line: it is noted, and the chain goes on around it."""
    with (root / "journal.jsonl").open("a") as journal:
        journal.write(torn)
    repo = Repository(root)
    repo.promote("some", 2)
    found = audit(root)
    assert found.problems == ()
    assert found.notes == ("line 6 is torn: a process was killed while it wrote it",)
    assert [entry.after for entry in repo.history("some")][-2:] == [(1, 2), (2,)]
    rest = lines(root)
    del rest[4]  # an entry removed before a torn line is found all the same
    write(root, rest)
    assert any("entries were removed" in problem for problem in audit(root).problems)


def test_entries_of_an_older_version_are_read_and_protected_from_then_on(root: Path) -> None:
    """Lines without hashes stay readable, can be rolled back to, and are part of the chain that begins after them."""
    plain = [json.loads(line) for line in lines(root)]
    old = ["time", "user", "action", "model", "version", "before", "after"]
    write(root, [json.dumps({key: entry[key] for key in old}) for entry in plain])
    repo = Repository(root)
    assert repo.rollback("some") == (2,)
    assert audit(root).problems == ()
    assert audit(root).notes == ("5 entries have no hash of their own: an older version wrote them",)
    edited = lines(root)
    edited[1] = edited[1].replace('"user": "', '"user": "x')
    write(root, edited)
    (problem,) = audit(root).problems
    assert problem.startswith("before line 6 entries were removed, put in or edited")


def test_unknown_fields_of_a_newer_version_are_passed_over(root: Path) -> None:
    """An entry with a field more is an entry, and its hash still covers all of it."""
    newer = json.loads(lines(root)[-1]) | {"ticket": "OPS-12"}
    write(root, [*lines(root)[:-1], json.dumps(newer)])
    assert len(Repository(root).history("some")) == 5
    assert audit(root).problems == ("line 5 was edited: it does not have the hash that it states",)


def test_two_processes_at_once_make_one_chain(root: Path) -> None:
    """Twenty promotions from two processes are twenty entries, each after the one before."""
    command = [sys.executable, "-c", _PROMOTE, str(root)]
    processes = [subprocess.Popen([*command, number]) for number in ("1", "2")]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    found = audit(root)
    assert found.problems == ()
    assert found.num_entries == 25
    entries = Repository(root).history("some")
    assert all(new.before == old.after for old, new in itertools.pairwise(entries))


def test_an_audit_waits_for_an_act_under_way(root: Path) -> None:
    """Between an act and its entry the repository and the journal tell otherwise; the audit looks again in peace."""
    repo = Repository(root)
    entry = lines(root)[-1]
    acting, done = threading.Event(), threading.Event()

    def act() -> None:
        with repo._store.locked():
            write(root, lines(root)[:-1])
            acting.set()
            while not (is_waiting(root) or done.is_set()):
                time.sleep(0.01)
            write(root, [*lines(root), entry])

    thread = threading.Thread(target=act)
    thread.start()
    acting.wait()
    found = audit(root)
    done.set()
    thread.join()
    assert found.problems == ()


def is_waiting(root: Path) -> bool:
    """Whether somebody waits for the repository's lock."""
    inode = (root / ".lock").stat().st_ino
    return any("-> FLOCK" in line and f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())


def test_a_long_command_is_cut(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line of a megabyte does not make a line of a megabyte."""
    monkeypatch.setattr(sys, "argv", ["naiad", "x" * 1_000_000])
    Repository(root).promote("some", 1)
    assert len(lines(root)[-1]) < 2000
    assert audit(root).ok
