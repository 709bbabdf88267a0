"""Requests whose tensors lie in memory that generator and server share, on the real Triton."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from arena_helpers import Regions, files, owner_of, process, until
from loadtest_data_helpers import save, write_lines
from loadtest_data_models import random_rows
from loadtest_helpers import expected
from naiad.loadtest import Connection, Files, Golden, InvalidPlan, LoadTest, Synthetic, Traffic, Users
from naiad.loadtest._data import codec
from naiad.loadtest._data.payloads import make_payloads
from naiad.loadtest._data.target import connect, describe
from naiad.loadtest._engine.group import EngineGroup
from naiad.loadtest._engine.messages import Drained, Failed, Interval


@pytest.fixture(scope="module")
def regions(sender):
    """What the server has registered."""
    seen = Regions(sender.connection.url)
    yield seen
    seen.close()


@pytest.fixture
def linear(tmp_path):
    """Traffic to a model, with what to expect."""
    x = random_rows(6, 8)
    path = save(tmp_path / "a.npz", **{"x": x, "output/y": expected(x)})
    return {"model": "linear", "data": Files(path=path), "check": True, "shared_memory": True}


def test_inputs_and_outputs_do_not_travel(sender, linear):
    """Neither the request nor the answer holds a tensor's bytes, and the answers are right."""
    with sender.payloads(**linear, batch=2) as payloads:
        for index, request in enumerate(payloads.requests):
            sent = service_pb2.ModelInferRequest.FromString(request + payloads.output_suffix(1))
            answer = sender(request, payloads.output_suffix(1))
            found = service_pb2.ModelInferResponse.FromString(answer)
            assert not sent.raw_input_contents
            assert not b"".join(found.raw_output_contents)
            assert payloads.check(index, answer, 1)


def test_requests_at_a_time_share_inputs_and_have_outputs_of_their_own(sender, linear):
    """Twenty slots, of which four were expected: the others are made when they are needed."""
    with sender.payloads(**linear) as payloads:
        order = [slot % payloads.num_samples for slot in range(20)]
        calls = [sender.future(payloads.requests[order[slot]], payloads.output_suffix(slot)) for slot in range(20)]
        answers = [call.result() for call in calls]
        assert all(payloads.check(order[slot], answers[slot], slot) for slot in range(20))
        assert not any(payloads.check((order[slot] + 1) % 6, answers[slot], slot) for slot in range(20))


def test_a_lost_slot_gets_other_memory(sender, linear):
    """Whatever the server still writes for a request that was given up does not meet the next one's outputs."""
    with sender.payloads(**linear) as payloads:
        before = payloads.output_suffix(2)
        payloads.lost(2)
        assert payloads.output_suffix(2) != before
        assert payloads.check(4, sender(payloads.requests[4], payloads.output_suffix(2)), 2)
        assert len({payloads.output_suffix(slot) for slot in range(8)}) == 8


def test_strings_go_through_shared_memory(sender, tmp_path):
    """Their sizes vary: there is room for the longest answer."""
    items = [{"inputs": {"text": text}, "outputs": {"text_out": text}} for text in ("a", "Grüße", "x" * 3000, "")]
    path = write_lines(tmp_path / "a.jsonl", *items)
    with sender.payloads("words", data=Files(path=path), check=True, shared_memory=True) as payloads:
        for index, request in enumerate(payloads.requests):
            assert payloads.check(index, sender(request, payloads.output_suffix(0)), 0)


def test_outputs_whose_size_depends_on_values_have_room_for_what_was_seen(sender, tmp_path):
    """Some requests are asked beforehand; an answer of more than twice the largest of those fails with the reason."""
    path = write_lines(tmp_path / "a.jsonl", *({"n": [n]} for n in (10, 4000, 7)))
    with sender.payloads("growing", data=Files(path=path), shared_memory=True) as payloads:
        for request in payloads.requests:
            sender(request, payloads.output_suffix(0))
        larger = codec.encode_inputs("growing", None, {"n": np.array([9000], np.int32)})
        with pytest.raises(grpc.RpcError, match="shared memory size specified with the request"):
            sender(larger, payloads.output_suffix(0))


def test_nothing_is_left_when_it_is_closed(sender, linear, regions):
    """Neither a region at the server nor a file here; closing twice does nothing."""
    with sender.payloads(**linear) as payloads:
        mine = {owner_of(name) for name in regions.names()}
        assert mine
    payloads.close()
    assert not regions.names()
    assert not {name for name in files() if owner_of(name) in mine}


def test_what_a_killed_generator_left_is_removed_by_the_next(sender, data_models, regions):
    """Regions and files of a process that was killed with SIGKILL."""
    code = """
import sys
from pathlib import Path
from naiad.loadtest import Connection, Golden, Traffic
from naiad.loadtest._data.payloads import make_payloads
from naiad.loadtest._data.target import connect, describe
connection = Connection(url=sys.argv[1])
traffic = Traffic(model="linear", data=Golden(path=Path(sys.argv[2])), shared_memory=True)
with connect(connection) as client:
    signature = describe(client, traffic).signature
payloads = make_payloads(traffic, signature, seed=0, connection=connection)
print("there", flush=True)
sys.stdin.readline()
"""
    golden = data_models / "linear" / "1" / "golden.npz"
    with process(code, sender.connection.url, str(golden)) as generator:
        left = regions.names()
        generator.kill()
    owners = {owner_of(name) for name in left}
    assert left <= regions.names()
    assert {name for name in files() if owner_of(name) in owners}
    with sender.payloads("linear", data=Golden(path=golden), shared_memory=True):
        assert not left & regions.names()
        assert not {name for name in files() if owner_of(name) in owners}


def test_closing_while_a_request_runs_leaves_it_its_memory(sender, data_models, regions):
    """The server refuses to forget regions in use: they go with the next generator, and the server lives."""
    with sender.payloads("held", data=Synthetic(num_samples=1), shared_memory=False) as plain:
        (data_models / "held" / "go").touch()
        sender(plain.requests[0])
    with sender.payloads("held", data=Synthetic(num_samples=1), shared_memory=True) as payloads:
        for name in ("go", "runs"):
            (data_models / "held" / name).unlink()
        call = sender.future(payloads.requests[0], payloads.output_suffix(0))
        until((data_models / "held" / "runs").exists)
    (data_models / "held" / "go").touch()
    assert call.result() is not None
    with sender.payloads("linear", shared_memory=True):
        pass
    assert not regions.names()


def test_a_server_that_wants_a_secret_is_named(sender, linear):
    """What to give is in the message, the secret is not; nothing is left behind."""
    secret, _, address = sender.connection.url.partition("@")
    traffic = Traffic(**linear)
    before = files()
    with connect(sender.connection) as client:
        signature = describe(client, traffic).signature
    with pytest.raises(
        InvalidPlan, match=r"admin secret: give it with the address \(grpc://:SECRET@host:port\)"
    ) as caught:
        make_payloads(traffic, signature, seed=0, connection=Connection(url=f"grpc://{address}"))
    assert secret.removeprefix("grpc://:") not in str(caught.value)
    assert files() <= before


def test_more_than_there_is_is_refused(sender, linear):
    """The message says what to do, and nothing is left behind."""
    traffic = Traffic(**linear)
    before = files()
    with connect(sender.connection) as client:
        signature = describe(client, traffic).signature
    with pytest.raises(InvalidPlan, match="KiB of shared memory for requests or answers, could not have it"):
        make_payloads(traffic, signature, seed=0, connection=sender.connection, num_slots=1 << 44)
    assert files() <= before


@pytest.mark.parametrize(("transport", "stream"), [("http2", False), ("grpcio", False), ("http2", True)])
def test_engines_send_through_shared_memory(sender, linear, regions, transport, stream):
    """Every answer is compared with what to expect; two processes have memory of their own."""
    test = LoadTest(
        traffic=Traffic(**linear, batch=3, stream=stream),
        load=Users(users=8),
        connection=sender.connection,
        engines=2,
        transport=transport,
    )
    done, wrong, stopped = 0, {}, False
    with EngineGroup(test) as group:
        group.start()
        while True:
            message = group.next_message(60.0)
            assert message is not None
            assert not isinstance(message, Failed), message
            if isinstance(message, Drained):
                break
            if isinstance(message, Interval):
                done += message.latencies.count
                wrong |= message.errors
            if done > 200 and not stopped:
                group.stop()
                stopped = True
    assert wrong == {}
    assert not regions.names()


def test_large_tensors_come_back_whole(sender, tmp_path):
    """Rows of 256 KiB, in and out."""
    x = random_rows(3, 65536)
    path = save(tmp_path / "a.npz", **{"x": x, "output/y": x})
    with sender.payloads("fixed", data=Files(path=path), check=True, shared_memory=True, batch=3) as payloads:
        answer = sender(payloads.requests[0], payloads.output_suffix(3))
        assert max(len(answer), payloads.request_bytes) < 1000
        assert payloads.check(0, answer, 3)
