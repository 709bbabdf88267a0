"""What is told to one server, and what is concluded from its answers: conversations, played without a server."""

import logging

import pytest

from arena_helpers import until
from naiad.client._transport.arena import Arena
from naiad.client._transport.registry import Registry
from naiad.client._transport.seam import RpcFailed
from naiad.client.metadata import ServerMetadata

MIB = 1 << 20
TRITON = ServerMetadata(name="triton", version="2.51.0", extensions=("system_shared_memory",))
NOBODY = RpcFailed("DEADLINE_EXCEEDED", "Deadline Exceeded")
RESTRICTED = RpcFailed("UNAVAILABLE", "This protocol is restricted, expecting header 'triton-grpc-protocol-admin-key'")
ELSEWHERE = RpcFailed("INTERNAL", "Unable to open shared memory region: '/x'")
IN_USE = RpcFailed("INTERNAL", "Cannot unregister shared memory region 'x', it is currently in use.")


@pytest.fixture
def arena(tmp_path):
    arena = Arena(16 * MIB, tmp_path)
    arena.attach()
    yield arena
    arena.detach()


@pytest.fixture
def registry(arena):
    return Registry(arena, "somewhere")


def play(talk, *answers):
    """Answer a conversation; return the methods that it asked for, and what came of it."""
    asked = []
    left = list(answers)
    try:
        operation = next(talk)
        while True:
            asked.append(operation.method)
            answer = left.pop(0)
            operation = talk.throw(answer) if isinstance(answer, RpcFailed) else talk.send(answer)
    except StopIteration as end:
        assert not left
        return asked, end.value


def introduced(registry, slot):
    """Register a slot as the first of a server."""
    return play(registry.introduce(slot), TRITON, None, ())


def test_the_first_slot_is_preceded_by_a_question_and_followed_by_a_sweep(registry, arena):
    """Later ones are only registered."""
    first, second = arena.lease(MIB), arena.lease(MIB)
    asked, known = introduced(registry, first)
    assert asked == ["ServerMetadata", "SystemSharedMemoryRegister", "SystemSharedMemoryStatus"]
    assert known
    assert play(registry.introduce(second), None) == (["SystemSharedMemoryRegister"], True)
    assert registry.knows(first)
    assert registry.knows(second)


def test_while_one_gets_to_know_the_server_others_use_the_connection(registry, arena):
    """Nobody waits for somebody else's questions."""
    talk = registry.introduce(arena.lease(MIB))
    next(talk)
    assert play(registry.introduce(arena.lease(MIB))) == ([], False)
    talk.close()
    assert introduced(registry, arena.lease(MIB))[1]


@pytest.mark.parametrize("refusal", [RESTRICTED, ELSEWHERE])
def test_a_refusal_is_final_and_said_once(registry, arena, caplog, refusal):
    """The server is not asked again, and owes and is owed nothing."""
    with caplog.at_level(logging.INFO, "naiad.client"):
        assert play(registry.introduce(arena.lease(MIB)), TRITON, refusal)[1] is False
    assert registry.off
    assert play(registry.introduce(arena.lease(MIB))) == ([], False)
    assert len(caplog.records) == 1
    registry.owe_all()
    assert not registry.owing


def test_silence_is_no_refusal_and_may_have_been_a_registration(registry, arena):
    """The next request tries again; at the end it is unregistered, since the server may have it."""
    slot = arena.lease(MIB)
    assert play(registry.introduce(slot), NOBODY) == (["ServerMetadata"], False)
    assert play(registry.introduce(slot), TRITON, NOBODY)[1] is False
    assert not registry.off
    assert not registry.knows(slot)
    registry.owe_all()
    assert registry.owing
    assert play(registry.settle_all(), None) == (["SystemSharedMemoryUnregister"], True)
    assert not registry.owing


def test_a_name_that_the_server_has_already_is_ours(registry, arena):
    """It was told so at another of its addresses."""
    slot = arena.lease(MIB)
    already = RpcFailed("ALREADY_EXISTS", "shared memory region 'x' already in manager")
    assert play(registry.introduce(slot), TRITON, already, ())[1]
    assert registry.knows(slot)


def test_a_sweep_that_fails_harms_nothing(registry, arena):
    """The slot is registered all the same."""
    assert play(registry.introduce(arena.lease(MIB)), TRITON, None, RESTRICTED)[1]
    assert not registry.off


def test_what_is_in_use_stays_owed_and_others_have_their_turn(registry, arena):
    """Each is tried after a moment; a server that does not answer is not asked for the rest."""
    slots = [arena.lease(MIB) for _ in range(3)]
    introduced(registry, slots[0])
    for slot in slots[1:]:
        play(registry.introduce(slot), None)
    for slot in slots:
        arena.retire(slot)
    assert not registry.due
    assert play(registry.settle()) == ([], True)
    until(lambda: registry.due)
    assert play(registry.settle(), IN_USE, None) == (["SystemSharedMemoryUnregister"] * 2, True)
    assert arena.size_bytes == 2 * MIB
    assert play(registry.settle_all(), None, NOBODY)[1] is False
    assert arena.size_bytes == MIB
    assert play(registry.settle_all(), None)[1]
    assert arena.size_bytes == 0
    assert not registry.owing


def test_a_server_that_lost_its_regions_is_told_again(registry, arena):
    """Many requests may notice at once: that is one loss."""
    slots = [arena.lease(MIB) for _ in range(8)]
    introduced(registry, slots[0])
    for slot in slots[1:]:
        play(registry.introduce(slot), None)
    for slot in slots:
        registry.lost(slot)
    assert not registry.off
    assert not any(map(registry.knows, slots))
    for slot in slots:
        assert play(registry.introduce(slot), None)[1]


def test_a_server_that_loses_them_again_and_again_is_left_alone(registry, arena, caplog):
    """Several servers behind one address know nothing of each other's regions; an answer in between is a success."""
    slot = arena.lease(MIB)
    introduced(registry, slot)
    with caplog.at_level(logging.INFO, "naiad.client"):
        registry.lost(slot)
        registry.used()
        for _ in range(2):
            assert play(registry.introduce(slot), None)[1]
            registry.lost(slot)
        assert not registry.off
        assert play(registry.introduce(slot), None)[1]
        registry.lost(slot)
    assert registry.off
    assert "do several servers answer?" in caplog.text
