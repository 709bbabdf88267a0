"""Which server gets the next call."""

from collections import Counter
from typing import Any

import pytest

from naiad.client import (
    Balancing,
    ClientError,
    DeadlineExceeded,
    InferenceFailed,
    InvalidInput,
    Overloaded,
    ServerUnavailable,
)
from naiad.client._routing import pool as pool_module
from naiad.client._routing.endpoint import Endpoint, directory_of
from naiad.client._routing.pool import Peer, Pool

AWAY = ServerUnavailable("away", unprocessed=True)


class Unused:
    def forget(self) -> None:
        raise AssertionError("nothing is forgotten here")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(pool_module, "time", found)
    return found


def pool_of(servers: str, **options: Any) -> Pool[Unused]:
    def connect(endpoint: Endpoint) -> Peer[Unused]:
        return Peer(endpoint, endpoint.target, Unused())

    pool = Pool(Balancing(**options), connect, servers)
    pool.update(directory_of(servers).lookup())
    return pool


def answer(pool: Pool[Unused]) -> str:
    peer = pool.pick()
    pool.answered(peer)
    return peer.shown


def fail(pool: Pool[Unused], shown: str, error: ClientError) -> None:
    (peer,) = (peer for peer in pool.peers if peer.shown == shown)
    pool.take(peer)
    pool.failed(peer, error)


@pytest.mark.parametrize("policy", ["round_robin", "least_outstanding"])
def test_idle_servers_get_the_same_number_of_calls(policy):
    """Ties are broken in turn."""
    pool = pool_of("a:1,b:1,c:1", policy=policy)
    assert set(Counter(answer(pool) for _ in range(300)).values()) == {100}


@pytest.mark.parametrize("policy", ["power_of_two", "least_outstanding"])
def test_a_server_that_does_not_answer_gets_fewer_calls(policy):
    """The calls that it has count against it."""
    pool = pool_of("a:1,b:1,c:1", policy=policy)
    for _ in range(5):
        pool.take(pool.peers[0])
    counts = Counter(answer(pool) for _ in range(300))
    assert counts["a:1"] < 30
    assert counts["b:1"] > 60


def test_two_random_servers_are_compared():
    """All get calls."""
    pool = pool_of("a:1,b:1,c:1", policy="power_of_two")
    assert min(Counter(answer(pool) for _ in range(600)).values()) > 60


def test_a_server_that_is_away_gets_no_calls_until_its_time_is_over(clock):
    """Then one call at a time, and all of them after an answer."""
    pool = pool_of("a:1,b:1", eject_s=1.0)
    fail(pool, "a:1", AWAY)
    assert {answer(pool) for _ in range(10)} == {"b:1"}
    clock.now += 1.01
    while (trial := pool.pick()).shown != "a:1":
        pool.answered(trial)
    assert {answer(pool) for _ in range(10)} == {"b:1"}
    pool.answered(trial)
    assert {answer(pool) for _ in range(10)} == {"a:1", "b:1"}


def test_each_failed_trial_doubles_the_time_up_to_a_limit(clock):
    """1, 2, 4, 4 seconds."""
    pool = pool_of("a:1,b:1", eject_s=1.0, max_eject_s=4.0)
    for seconds in (1, 2, 4, 4):
        fail(pool, "a:1", AWAY)
        assert pool.states()[0].ejected_s == pytest.approx(seconds)
        clock.now += seconds


def test_failures_of_calls_that_left_before_the_ejection_do_not_prolong_it(clock):
    """Sixteen calls that fail together are one failure of the server."""
    pool = pool_of("a:1,b:1", eject_s=1.0)
    for _ in range(16):
        fail(pool, "a:1", AWAY)
    assert pool.states()[0].ejected_s == pytest.approx(1.0)


@pytest.mark.parametrize("error", [InferenceFailed("broken"), DeadlineExceeded("slow")])
def test_a_server_that_answers_badly_is_ejected_after_several_failures_in_a_row(error):
    """An answer in between begins the count again."""
    pool = pool_of("a:1,b:1", eject_after=3)
    for _ in range(2):
        fail(pool, "a:1", error)
    pool.take(pool.peers[0])
    pool.answered(pool.peers[0])
    for _ in range(2):
        fail(pool, "a:1", error)
    assert pool.states()[0].ejected_s == 0
    fail(pool, "a:1", error)
    assert {answer(pool) for _ in range(10)} == {"b:1"}


@pytest.mark.parametrize("error", [InvalidInput("wrong"), Overloaded("full")])
def test_a_refusal_does_not_speak_against_the_server(error):
    """It answers, after all."""
    pool = pool_of("a:1,b:1", eject_after=1)
    fail(pool, "a:1", error)
    assert pool.states()[0].num_failures == 0


def test_when_all_are_ejected_one_is_tried_all_the_same():
    """Better than to fail without having tried."""
    pool = pool_of("a:1,b:1")
    fail(pool, "a:1", AWAY)
    fail(pool, "b:1", AWAY)
    assert answer(pool) in {"a:1", "b:1"}


@pytest.mark.parametrize("servers", ["a:1", "a:1,b:1"])
def test_an_open_circuit_refuses_and_closes_after_a_trial(clock, servers):
    """With `all_ejected="refuse"` nothing is sent while all are ejected."""
    pool = pool_of(servers, all_ejected="refuse", eject_s=1.0)
    for peer in pool.peers:
        fail(pool, peer.shown, AWAY)
    with pytest.raises(ServerUnavailable, match=r"all failed, the next is tried in 1\.0 s") as caught:
        pool.pick()
    assert caught.value.unprocessed
    clock.now += 1.01
    assert answer(pool) in {peer.shown for peer in pool.peers}
    assert sum(state.ejected_s == 0 for state in pool.states()) >= 1


def test_a_server_that_was_not_tried_goes_before_one_that_was_even_if_ejected():
    """The last resort is not the first failure again."""
    pool = pool_of("a:1,b:1")
    fail(pool, "b:1", AWAY)
    assert pool.pick(tried=[pool.peers[0]]).shown == "b:1"


def test_a_barred_server_is_never_chosen():
    """It may have run the request already."""
    pool = pool_of("a:1,b:1")
    assert {pool.pick(barred=[pool.peers[0]]).shown for _ in range(5)} == {"b:1"}
    with pytest.raises(ServerUnavailable):
        pool.pick(barred=pool.peers)


def test_servers_come_and_go_and_those_that_stay_keep_their_state():
    """The caller gets those that are gone, to close them."""
    pool = pool_of("a:1,b:1")
    stays = pool.peers[1]
    gone = pool.update(directory_of("b:1,c:1").lookup())
    assert [peer.shown for peer in gone] == ["a:1"]
    assert [peer.shown for peer in pool.peers] == ["b:1", "c:1"]
    assert pool.peers[0] is stays
