"""Whether, when and where a call is sent again."""

import time
from typing import Any

import pytest

from naiad.client import (
    AccessDenied,
    Balancing,
    Cancelled,
    ClientError,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    InvalidResponse,
    ModelNotFound,
    Overloaded,
    Retry,
    ServerUnavailable,
    Unsupported,
)
from naiad.client._protocol.operations import Operation
from naiad.client._routing.attempts import Attempts
from naiad.client._routing.budget import Budget
from naiad.client._routing.endpoint import Endpoint, directory_of
from naiad.client._routing.pool import Peer, Pool

AWAY = ServerUnavailable("away", unprocessed=True)
LOST = ServerUnavailable("the connection broke")
FULL = Overloaded("queue full", unprocessed=True)


class Unused:
    def forget(self) -> None:
        raise AssertionError("nothing is forgotten here")


def attempts_of(
    servers: str = "a:1", *, idempotent: bool = False, sequence: bool = False, tokens: float = 100.0, **options: Any
) -> Attempts:
    def connect(endpoint: Endpoint) -> Peer[Unused]:
        return Peer(endpoint, endpoint.target, Unused())

    pool = Pool(Balancing(policy="round_robin"), connect, servers)
    pool.update(directory_of(servers).lookup())
    timeout_s = options.pop("timeout_s", 10.0)
    attempt_s = options.pop("attempt_s", None)
    operation = Operation("ModelInfer", b"", bytes, "m", idempotent=idempotent, sequence=sequence)
    budget = Budget(0.2)
    budget._tokens = tokens
    return Attempts(operation, pool, Retry(**options), budget, timeout_s, time.monotonic() + timeout_s, attempt_s)


def fail(attempts: Attempts, error: ClientError) -> str:
    peer = attempts.pick()
    attempts.failed(peer, error)
    return peer.shown


@pytest.mark.parametrize(
    "error",
    [
        AccessDenied("no"),
        Cancelled("by the server"),
        DeadlineExceeded("late"),
        InferenceFailed("broken"),
        InvalidInput("wrong"),
        InvalidResponse("garbage"),
        ModelNotFound("what?"),
        Unsupported("never"),
    ],
)
def test_what_another_attempt_would_not_change_is_raised(error):
    """Neither another server nor an idempotent request makes a difference."""
    attempts = attempts_of("a:1,b:1", idempotent=True)
    fail(attempts, error)
    with pytest.raises(type(error)):
        attempts.pause_s(error)


def test_what_may_have_run_goes_to_every_server_once():
    """Then it is raised, even though attempts are left."""
    attempts = attempts_of("a:1,b:1,c:1", attempts=10)
    seen = [fail(attempts, LOST)]
    for _ in range(2):
        assert attempts.pause_s(LOST) == 0
        seen.append(fail(attempts, LOST))
    assert sorted(seen) == ["a:1", "b:1", "c:1"]
    with pytest.raises(ServerUnavailable):
        attempts.pause_s(LOST)


def test_a_server_that_may_have_run_it_is_avoided_even_after_other_failures():
    """The last failure alone does not decide."""
    attempts = attempts_of("a:1,b:1", attempts=10)
    lost = fail(attempts, LOST)
    for _ in range(5):
        attempts.pause_s(AWAY)
        assert fail(attempts, AWAY) != lost


def test_what_is_idempotent_goes_to_the_same_server_again():
    """After a pause."""
    attempts = attempts_of(idempotent=True, attempts=2, first_pause_s=0.5)
    fail(attempts, LOST)
    assert 0 <= attempts.pause_s(LOST) <= 0.5
    fail(attempts, LOST)
    with pytest.raises(ServerUnavailable):
        attempts.pause_s(LOST)


def test_what_did_not_run_goes_to_the_same_server_again():
    """A full queue may have room in a moment."""
    attempts = attempts_of(attempts=2)
    fail(attempts, FULL)
    attempts.pause_s(FULL)
    fail(attempts, FULL)
    with pytest.raises(Overloaded):
        attempts.pause_s(FULL)


def test_pauses_grow_and_are_jittered():
    """Drawn from [0, bound], and the bound doubles up to its limit."""
    longest = []
    for number in range(1, 5):
        pauses = []
        for _ in range(200):
            attempts = attempts_of(idempotent=True, attempts=99, first_pause_s=0.1, max_pause_s=0.4)
            attempts.num_attempts = number
            attempts.tried = attempts.pool.peers
            pauses.append(attempts.pause_s(LOST))
        assert min(pauses) < max(pauses) / 4
        longest.append(max(pauses))
    for pause, bound in zip(longest, [0.1, 0.2, 0.4, 0.4], strict=True):
        assert bound * 0.9 < pause <= bound


def test_a_pause_beyond_the_deadline_is_not_made():
    """The error comes at once instead."""
    attempts = attempts_of(idempotent=True, timeout_s=0.0005)
    fail(attempts, LOST)
    with pytest.raises(ServerUnavailable):
        attempts.pause_s(LOST)


def test_a_call_looks_for_a_server_while_all_are_away():
    """Among several, without counting, but not for ever."""
    attempts = attempts_of("a:1,b:1", attempts=2, patience_s=5.0, timeout_s=60.0, tokens=0.0)
    for _ in range(10):
        fail(attempts, AWAY)
        assert attempts.pause_s(AWAY) <= 0.2
    attempts.deadline -= 5.0  # as if it had begun earlier
    with pytest.raises(ServerUnavailable):
        attempts.pause_s(AWAY)


def test_a_single_server_that_is_away_is_an_error_soon():
    """Nobody else could take the call."""
    attempts = attempts_of(attempts=2)
    fail(attempts, AWAY)
    attempts.pause_s(AWAY)
    fail(attempts, AWAY)
    with pytest.raises(ServerUnavailable):
        attempts.pause_s(AWAY)


@pytest.mark.parametrize("error", [AWAY, LOST, FULL])
def test_a_request_of_a_sequence_is_not_sent_again(error):
    """Not even to another server, unless that was asked for and it surely did not run."""
    attempts = attempts_of("a:1,b:1", sequence=True)
    fail(attempts, error)
    with pytest.raises(ServerUnavailable):
        attempts.pause_s(error)
    asked = attempts_of("a:1,b:1", sequence=True, sequences=True)
    fail(asked, error)
    if error.unprocessed:
        asked.pause_s(error)
    else:
        with pytest.raises(ServerUnavailable):
            asked.pause_s(error)


def test_an_attempt_that_took_too_long_goes_to_another_server():
    """Where the attempt has a limit of its own, and the call has time left."""
    late = DeadlineExceeded("late")
    attempts = attempts_of("a:1,b:1", attempt_s=0.1)
    assert attempts.remaining_s() == 0.1
    fail(attempts, late)
    assert attempts.pause_s(late) == 0
    fail(attempts, late)
    with pytest.raises(DeadlineExceeded):
        attempts.pause_s(late)


def test_an_exhausted_budget_ends_retries():
    """A failing service does not get a multiple of its load."""
    attempts = attempts_of(idempotent=True, tokens=0.5)
    fail(attempts, LOST)
    with pytest.raises(ServerUnavailable):
        attempts.pause_s(LOST)


def test_a_budget_fills_with_calls_and_with_time(monkeypatch):
    """A fifth of a token a call, ten a second."""
    now = 1000.0
    monkeypatch.setattr("naiad.client._routing.budget.time.monotonic", lambda: now)
    budget = Budget(0.2)
    while budget.withdraw():
        pass
    for _ in range(5):
        budget.deposit()
    assert [budget.withdraw(), budget.withdraw()] == [True, False]
    now += 0.5
    assert [budget.withdraw() for _ in range(6)] == [True] * 5 + [False]
