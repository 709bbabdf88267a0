"""The file of API keys."""

import multiprocessing
import os
import resource
import signal
from datetime import UTC, datetime, timedelta

import pytest

from naiad.deploy import InvalidKeys, KeyFile, OutputNotWritable
from naiad.deploy.keys import hash_key

TODAY = datetime.now(UTC).date()
DIGEST = "ab" * 32


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / "api-keys")


def held(file):
    """Return the keys of the file, as they stand there now."""
    return KeyFile.keys(file)


def test_a_key_is_shown_once_and_only_its_hash_is_kept(file):
    """What lies in the file opens nothing."""
    key = file.add("vision", note="the batch's")
    (kept,) = held(file)
    assert (kept.identity, kept.sha256, kept.created, kept.note) == ("vision", hash_key(key), TODAY, "the batch's")
    assert key.startswith("naiad_")
    assert len(key) == 6 + 43
    assert key not in file.path.read_text()


def test_two_keys_of_an_identity_are_valid_at_a_time(file):
    """The second is for the change-over; a third would be one that nobody knows of."""
    first, second = file.add("vision"), file.add("vision")
    with pytest.raises(InvalidKeys, match=f"naiad deploy key revoke vision {hash_key(first)[:12]}"):
        file.add("vision")
    file.add("operator")
    file.revoke("vision", hash_key(first)[:12])
    assert held(file)[0].sha256 == hash_key(second)
    file.add("vision")


def test_a_key_ends_when_the_day_it_names_begins(file):
    """An expired one takes no place."""
    tomorrow = TODAY + timedelta(days=1)
    for _ in range(2):
        file.add("vision", expires=tomorrow)
    assert [(key.is_valid(), key.is_valid(tomorrow)) for key in held(file)] == [(True, False)] * 2
    with pytest.raises(InvalidKeys, match="expected a day after today"):
        file.add("vision", expires=TODAY)
    file.path.write_text(file.path.read_text().replace(f"expires={tomorrow}", f"expires={TODAY}"))
    file.add("vision")
    assert [key.is_valid() for key in held(file)] == [False, False, True]


def test_revoking_needs_to_name_one_key(file):
    """Or all of them; whatever is asked for, other identities keep theirs."""
    file.path.write_text(
        f"vision sha256:{'aa' * 32} created=2026-01-01\n"
        f"vision sha256:{'ab' * 32} created=2026-01-02\n"
        f"other sha256:{'ac' * 32} created=2026-01-03\n"
    )
    for which, words in (("a", "begins several"), ("ac", "it has aaaaaaaaaaaa, abababababab"), ("", "found ''")):
        with pytest.raises(InvalidKeys, match=words):
            file.revoke("vision", which)
    assert [key.id for key in file.revoke("vision", "ab")] == ["abababababab"]
    assert [key.id for key in file.revoke("vision", "all")] == ["aaaaaaaaaaaa"]
    assert [key.identity for key in held(file)] == ["other"]
    with pytest.raises(InvalidKeys, match="it has none"):
        file.revoke("vision", "all")


def test_comments_and_empty_lines_stay_where_they_are(file):
    """People write into this file, too."""
    text = f"# on duty\n\nvision sha256:{DIGEST} created=2026-01-01 expires=2099-01-01  # note\n# end\n"
    file.path.write_text(text)
    key = file.add("operator")
    assert file.path.read_text().startswith(text)
    file.revoke("operator", hash_key(key)[:12])
    assert file.path.read_text() == text


@pytest.mark.parametrize(
    "line",
    [
        "vision naiad_secretsecretsecret",
        f"vision sha256:{DIGEST}",
        f"vision sha256:{DIGEST[:-1]} created=2026-01-01",
        f"vision sha256:{DIGEST.upper()} created=2026-01-01",
        f"vi/sion sha256:{DIGEST} created=2026-01-01",
        f"vision sha256:{DIGEST} created=2026-02-30",
        f"vision sha256:{DIGEST} expires=2027-01-01 created=2026-01-01",
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_changed(file, line):
    """The line is not repeated, for it may hold a key itself."""
    file.path.write_text(f"# keys\n{line}\n")
    for attempt in (file.keys, lambda: file.add("operator"), lambda: file.revoke("vision", "all")):
        with pytest.raises(InvalidKeys, match=r"api-keys:2: ") as caught:
            attempt()
        assert "secretsecret" not in str(caught.value)
    assert file.path.read_text() == f"# keys\n{line}\n"


def test_the_same_key_twice_is_refused(file):
    """One key is one identity."""
    file.path.write_text(f"a sha256:{DIGEST} created=2026-01-01\nb sha256:{DIGEST} created=2026-01-01\n")
    with pytest.raises(InvalidKeys, match=r"api-keys:2: expected each key once"):
        file.keys()


@pytest.mark.parametrize("identity", ["", "a b", "a\nb", "#a", "ä"])
def test_an_identity_that_would_not_fit_on_the_line_is_refused(file, identity):
    """Nothing that is typed can write a second line."""
    with pytest.raises(InvalidKeys, match="expected an identity"):
        file.add(identity)
    with pytest.raises(InvalidKeys, match="expected a note of one line"):
        file.add("vision", note="x\nroot sha256:…")
    assert not file.path.exists()


def test_only_the_owner_reads_a_new_file_and_an_old_one_keeps_its_mode(file):
    """A group that was let in on purpose stays in."""
    file.add("vision")
    assert file.path.stat().st_mode & 0o777 == 0o600
    file.path.chmod(0o640)
    file.add("vision")
    assert file.path.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_that_root_writes_belongs_to_the_directorys_owner(tmp_path):
    """The gateway in its container is that user, and has to read it."""
    os.chown(tmp_path, 1000, 1000)
    file = KeyFile(tmp_path / "api-keys")
    file.add("vision")
    file.add("vision")
    assert (file.path.stat().st_uid, file.path.stat().st_gid) == (1000, 1000)


def test_without_its_directory_the_message_says_what_makes_it(tmp_path):
    """Nobody should have to guess the order of commands."""
    file = KeyFile(tmp_path / "secrets" / "api-keys")
    assert file.keys() == ()
    with pytest.raises(OutputNotWritable, match="naiad deploy secrets"):
        file.add("vision")


def add_many(path, identity):
    file = KeyFile(path)
    for _ in range(10):
        key = file.add(identity)
        file.revoke(identity, hash_key(key))
    file.add(identity)


def test_processes_that_change_it_at_once_lose_nothing(file):
    """Each reads what the other wrote before it writes."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_many, args=(file.path, f"service-{number}")) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert sorted(key.identity for key in held(file)) == [f"service-{number}" for number in range(4)]


def change_for_ever(path, ready):
    file = KeyFile(path)
    while True:
        file.revoke("vision", hash_key(file.add("vision")))
        ready.set()


def test_a_process_that_is_killed_leaves_a_whole_file_and_no_lock(file):
    """Whatever it was doing, the others go on."""
    kept = file.add("operator")
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        ready = context.Event()
        worker = context.Process(target=change_for_ever, args=(file.path, ready))
        worker.start()
        assert ready.wait(10)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        assert hash_key(kept) in [key.sha256 for key in held(file)]
        for key in held(file):
            if key.identity == "vision":
                file.revoke("vision", key.id)


def add_without_room(path, queue):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        KeyFile(path).add("vision")
    except OutputNotWritable as exc:
        queue.put(str(exc))


def test_without_room_the_old_file_stays(file):
    """A file that cannot be written whole is not written at all."""
    file.add("operator")
    before = file.path.read_bytes()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    worker = context.Process(target=add_without_room, args=(file.path, queue))
    worker.start()
    worker.join()
    assert "expected to write" in queue.get()
    assert file.path.read_bytes() == before
    assert os.listdir(file.path.parent) == ["api-keys"]
