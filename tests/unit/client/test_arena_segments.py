"""Segments and their owners: processes that live, fork and are killed."""

import errno
import os
import stat
import subprocess

import pytest

from arena_helpers import files, process
from naiad.client._transport.segments import Owner, Segment, is_orphan, sweep

OWNER = """
import sys
from pathlib import Path
from naiad.client._transport.segments import Owner

owner = Owner(Path(sys.argv[1]))
segments = [owner.segment(8192) for _ in range(3)]
print(segments[0].name, flush=True)
sys.stdin.readline()
"""

FORKED = """
import os, sys
from pathlib import Path
from naiad.client._transport.segments import Owner

owner = Owner(Path(sys.argv[1]))
segment = owner.segment(8192)
ready, said = os.pipe()
child = os.fork()
if not child:
    if sys.argv[2] == "forgets":
        owner.forget()
    if sys.argv[2] == "execs":
        os.execlp("sleep", "sleep", "60")  # which closes the pipe
    os.write(said, b".")
    sys.stdin.readline()
    os._exit(0)
os.close(said)
os.read(ready, 1)
print(child, flush=True)
sys.stdin.readline()
"""


def test_a_segment_is_private_memory_that_has_all_its_pages(tmp_path):
    """Nobody else may read the file, and none of it can be missing later."""
    owner = Owner(tmp_path)
    segment = owner.segment(100_000)
    found = (tmp_path / segment.name).stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size == len(segment.memory) == segment.size_bytes == 100_000
    assert found.st_blocks * 512 >= 100_000
    segment.memory[:3] = b"abc"
    assert (tmp_path / segment.name).read_bytes()[:4] == b"abc\0"


def test_what_is_unlinked_and_closed_leaves_nothing(tmp_path):
    """Doing it twice does no harm; names are never used twice."""
    owner = Owner(tmp_path)
    first, second = owner.segment(4096), owner.segment(4096)
    assert first.name != second.name
    for _ in range(2):
        first.unlink()
        second.unlink()
        owner.close()
    assert files(tmp_path) == set()


def test_memory_stays_for_those_who_still_look_at_it(tmp_path):
    """Letting go of a segment takes nothing from a view of it."""
    segment = Owner(tmp_path).segment(4096)
    segment.memory[:2] = b"ok"
    view = segment.memory[:2]
    segment.unlink()
    segment.let_go()
    assert bytes(view) == b"ok"
    assert not segment.memory


def test_a_killed_owner_is_swept_up_and_a_living_one_is_not(tmp_path):
    """SIGKILL leaves the files; whoever sweeps next removes them."""
    with process(OWNER, str(tmp_path)) as alive, process(OWNER, str(tmp_path)) as dead:
        assert not is_orphan(dead.said, tmp_path)
        dead.kill()
        before = files(tmp_path)
        assert len(before) == 8
        assert is_orphan(dead.said, tmp_path)
        assert not is_orphan(alive.said, tmp_path)
        assert sweep(tmp_path) == 3
        assert files(tmp_path) == {name for name in before if name.startswith(alive.said[:29])}
        assert is_orphan(dead.said, tmp_path)
        assert alive.go_on() == 0
        assert sweep(tmp_path) == 3
        assert files(tmp_path) == set()


def test_an_owner_in_this_process_is_not_swept_up(tmp_path):
    """A second client in a process does not take the first one's memory away."""
    owner = Owner(tmp_path)
    segment = owner.segment(4096)
    assert sweep(tmp_path) == 0
    assert not is_orphan(segment.name, tmp_path)
    owner.close()


@pytest.mark.parametrize("child", ["forgets", "execs"])
def test_a_child_does_not_keep_a_killed_owner_alive(tmp_path, child):
    """A forked child that has let go, and a program that was started, do not hold the lock."""
    with process(FORKED, str(tmp_path), child) as owner:
        assert sweep(tmp_path) == 0
        owner.process.kill()
        owner.process.wait()
        try:
            assert sweep(tmp_path) == 1
            assert files(tmp_path) == set()
        finally:
            os.kill(int(owner.said), 9)


def test_a_child_that_holds_on_delays_the_sweep(tmp_path):
    """Sweeping errs on the side of those who may live."""
    with process(FORKED, str(tmp_path), "keeps") as owner:
        owner.process.kill()
        owner.process.wait()
        assert sweep(tmp_path) == 0
        os.kill(int(owner.said), 9)


def test_a_segment_whose_lock_is_gone_is_swept_up(tmp_path):
    """Nobody lives without a lock: an administrator has removed it."""
    owner = Owner(tmp_path)
    segment = owner.segment(4096)
    (tmp_path / f"{owner.name}.lock").unlink()
    assert is_orphan(segment.name, tmp_path)
    assert sweep(tmp_path) == 1
    assert files(tmp_path) == set()


@pytest.mark.parametrize("name", ["", "other", "naiad-client-xyz-1", "naiad-client-0123456789abcdef", "naiad_1_2"])
def test_other_names_are_nobodys_orphans(tmp_path, name):
    """Regions of other programs are left alone, and their files."""
    assert not is_orphan(name, tmp_path)
    if name:
        (tmp_path / name).write_bytes(b"")
        assert sweep(tmp_path) == 0
        assert (tmp_path / name).exists()


def test_owners_of_other_process_namespaces_are_judged_rightly(tmp_path):
    """In a container the same process numbers mean others; the lock does not care."""
    prefix = ("unshare", "--pid", "--fork", "--kill-child")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("this user may not make a PID namespace")
    with process(OWNER, str(tmp_path), prefix=prefix) as owner:
        assert sweep(tmp_path) == 0
        owner.kill()
        wait_for_the_lock(tmp_path, owner.said)
        assert sweep(tmp_path) == 3


def wait_for_the_lock(directory, name):
    """Wait until the kernel has ended the namespace's processes, which `unshare` does not wait for."""
    import fcntl

    with (directory / f"{name.rpartition('-')[0]}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


@pytest.fixture
def small_tmpfs(tmp_path):
    """A file system in memory of one mebibyte."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_memory_that_is_not_there_is_an_error_and_no_file(small_tmpfs):
    """A full file system is noticed when the segment is made, not by a signal when it is written."""
    with pytest.raises(OSError) as caught:
        Segment(small_tmpfs / "naiad-client-0123456789abcdef-1", 2 << 20)
    assert caught.value.errno == errno.ENOSPC
    assert files(small_tmpfs) == set()


def test_a_segment_leaves_most_of_what_is_free_to_others(small_tmpfs):
    """An eighth of it can be had: the server's own processes live from the same memory."""
    owner = Owner(small_tmpfs)
    with pytest.raises(OSError, match="more than 1/8 of what"):
        owner.segment(256 << 10)
    assert owner.segment(64 << 10).size_bytes == 64 << 10
