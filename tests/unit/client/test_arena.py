"""Slots: lent to one at a time, bounded, and gone when nobody is left who could use them."""

import logging
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from arena_helpers import files, process
from naiad.client._transport.arena import Arena, slot_size
from naiad.client._transport.registry import Registry, is_local

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def arena(tmp_path):
    arena = Arena(4 * MIB, tmp_path)
    arena.attach()
    yield arena
    arena.detach()
    assert files(tmp_path) == set()


@pytest.mark.parametrize("size", [1, 256 * KIB, 256 * KIB + 1, 588 * KIB, MIB, MIB + 1, 12_000_000, 64_000_000])
def test_sizes_are_rounded_up_by_a_quarter_at_most(size):
    """Few sizes, so that slots fit other requests, and little waste; whole pages."""
    rounded = slot_size(size)
    assert size <= rounded <= max(size * 1.25, 256 * KIB)
    assert rounded % 4096 == 0
    assert slot_size(rounded) == rounded


def test_a_slot_that_is_given_back_is_lent_again(arena, tmp_path):
    """Its memory is made once."""
    slot = arena.lease(300 * KIB)
    arena.give_back(slot)
    assert arena.lease(290 * KIB) is slot
    assert len(files(tmp_path)) == 2


def test_a_slot_is_lent_to_one_at_a_time(arena):
    """Another request gets another slot."""
    first, second = arena.lease(300 * KIB), arena.lease(300 * KIB)
    assert first is not second
    assert first.name != second.name


def test_a_small_request_does_not_get_a_large_slot(arena):
    """Large ones stay for those who need them."""
    large = arena.lease(2 * MIB)
    arena.give_back(large)
    assert arena.lease(300 * KIB) is not large
    assert arena.lease(3 * MIB // 2) is large


def test_no_more_is_lent_than_there_may_be(arena):
    """Whoever finds nothing gets nothing, and does not wait."""
    slots = [arena.lease(MIB) for _ in range(5)]
    assert slots[4] is None
    assert arena.size_bytes == 4 * MIB
    assert Arena(MIB).lease(MIB + 1) is None


def test_unused_slots_make_room_for_another_size(arena, tmp_path):
    """The one that was used the longest ago goes first."""
    slots = [arena.lease(MIB) for _ in range(4)]
    for slot in slots:
        arena.give_back(slot)
    assert arena.lease(2 * MIB) is not None
    assert slots[0].name not in files(tmp_path)
    assert slots[3].name in files(tmp_path)


def test_a_retired_slot_is_never_lent_again(arena, tmp_path):
    """Its name goes at once. It counts as long as a server has it registered."""
    registry = Registry(arena, "somewhere")
    slot, unknown = arena.lease(MIB), arena.lease(MIB)
    talk = registry._register(slot)
    next(talk)
    with pytest.raises(StopIteration):
        talk.send(None)
    arena.retire(slot)
    arena.retire(unknown)
    arena.give_back(slot)
    assert files(tmp_path) == {name for name in files(tmp_path) if name.endswith(".lock")}
    assert arena.size_bytes == MIB
    assert registry.owing
    talk = registry.settle_all()
    assert next(talk).method == "SystemSharedMemoryUnregister"
    with pytest.raises(StopIteration):
        talk.send(None)
    assert arena.size_bytes == 0
    assert arena.lease(MIB) not in (slot, unknown)


def test_a_finalizer_may_give_up_a_slot_at_any_moment(arena, tmp_path):
    """Also while the thread that it runs in has the arena's lock: it only leaves word."""
    slot = arena.lease(MIB)
    with arena._lock:
        arena.retire_later(slot)
    assert slot.name in files(tmp_path)
    assert arena.lease(MIB) is not slot
    assert slot.name not in files(tmp_path)


def test_threads_never_share_a_slot(tmp_path):
    """What one of 16 threads writes is there until it gives the slot back."""
    arena = Arena(16 * MIB, tmp_path)
    arena.attach()

    def work(mark: int) -> int:
        missed = 0
        for turn in range(300):
            slot = arena.lease(MIB)
            if slot is None:
                missed += 1
                continue
            memory = slot.segment.memory
            memory[0] = memory[MIB - 1] = mark
            time.sleep(0)  # lets others run
            assert memory[0] == memory[MIB - 1] == mark
            arena.retire(slot) if mark % 5 == 0 and turn % 50 == 0 else arena.give_back(slot)
        return missed

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(work, range(16))) == 0
    assert arena.size_bytes <= 16 * MIB
    arena.detach()
    assert files(tmp_path) == set()


def test_the_files_go_with_the_last_user(tmp_path):
    """Connections come and go; what is lent then stays readable for the one who has it."""
    arena = Arena(4 * MIB, tmp_path)
    arena.attach()
    arena.attach()
    slot = arena.lease(MIB)
    memory = slot.segment.memory
    arena.detach()
    assert slot.name in files(tmp_path)
    arena.detach()
    assert files(tmp_path) == set()
    memory[0] = 1
    arena.give_back(slot)
    arena.attach()
    assert arena.lease(MIB) is not slot
    arena.detach()


FORK = """
import os, sys
from pathlib import Path
from naiad.client._transport.arena import Arena

directory = Path(sys.argv[1])
arena = Arena(4 << 20, directory)
arena.attach()
slot = arena.lease(1 << 20)
arena.give_back(slot)
before = set(os.listdir(directory))
child = os.fork()
if not child:
    arena.forget()
    arena.attach()
    own = arena.lease(1 << 20)
    made = set(os.listdir(directory)) - before
    arena.give_back(own)
    arena.detach()
    os._exit(0 if own.name in made and set(os.listdir(directory)) == before else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(status, set(os.listdir(directory)) == before, arena.lease(1 << 20) is slot, flush=True)
arena.detach()
"""


def test_a_forked_child_has_none_of_its_parents_slots(tmp_path):
    """It makes its own, and what it removes at its end is its own; the parent goes on with what it has."""
    with process(FORK, str(tmp_path)) as parent:
        assert parent.said == "0 True True"
        assert parent.go_on() == 0
    assert files(tmp_path) == set()


def test_without_a_place_for_files_there_are_no_slots(tmp_path, caplog):
    """It is said once, and nothing fails."""
    arena = Arena(4 * MIB, tmp_path / "nowhere")
    with caplog.at_level(logging.INFO, "naiad.client"):
        assert [arena.lease(MIB), arena.lease(MIB)] == [None, None]
    assert len(caplog.records) == 1
    assert "No such file or directory" in caplog.text


def test_a_full_file_system_is_said_once(tmp_path, caplog):
    """Requests go on over the connection; slots come back when there is memory again."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    arena = Arena(64 * MIB, tmp_path)
    try:
        with caplog.at_level(logging.INFO, "naiad.client"):
            assert [arena.lease(2 * MIB) for _ in range(3)] == [None] * 3
            assert arena.lease(MIB) is not None
        assert len(caplog.records) == 1
    finally:
        arena.remove_files()
        subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:8001", True),
        ("127.8.0.1:8001", True),
        ("[::1]:8001", True),
        ("localhost:8001", True),
        ("unix:/run/triton.sock", True),
        ("10.0.0.7:8001", False),
        ("[fe80::1]:8001", False),
        ("localhost.example:8001", False),
        ("gpu1:8001", False),
    ],
)
def test_loopback_addresses_are_this_machine(target, local):
    """Others may be too, and are asked only on request."""
    assert is_local(target) is local
