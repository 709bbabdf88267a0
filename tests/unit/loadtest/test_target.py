"""Questions about the served model: who is let in, and what is learnt."""

from __future__ import annotations

import logging

import pytest
import trustme
from tritonclient.grpc import service_pb2

from naiad.client import InvalidInput, ModelNotFound, ServerUnavailable
from naiad.client.testing import FakeModel, FakeTriton, ServerTLS
from naiad.loadtest import Connection, Traffic
from naiad.loadtest._data import codec
from naiad.loadtest._data.payloads import make_payloads
from naiad.loadtest._data.target import connect, describe

MODELS = {
    name: FakeModel(lambda x: {"y": x}, inputs={"x": "FP32[-1,4]"}, outputs={"y": "FP32[-1,4]"}, max_batch_size=8)
    for name in ("linear", "linear_int8", "bert", "resnet50")
}


@pytest.fixture
def fake():
    with FakeTriton(MODELS, admin_secret="a secret") as server:
        yield server


def test_headers_go_with_every_question(fake):
    """Such as an API key that a gateway asks for."""
    with connect(Connection(url=fake.url, headers={"x-api-key": "k1"})) as client:
        describe(client, Traffic(model="linear"))
    asked = fake.calls(None)
    assert {"ModelConfig", "ModelMetadata", "ServerMetadata"} <= {request.method for request in asked}
    assert all(request.metadata["x-api-key"] == "k1" for request in asked)


def test_the_load_has_the_same_headers_and_the_urls_secret(fake):
    """What the wire sends with each request."""
    connection = Connection(url=fake.admin_url, headers={"x-api-key": "k1"})
    assert dict(codec.headers_of(connection)) == {"x-api-key": "k1", "triton-grpc-protocol-admin-key": "a secret"}
    assert dict(codec.headers_of(Connection(url=fake.url))) == {}
    with pytest.raises(InvalidInput, match="lower-case ASCII names"):
        codec.headers_of(Connection(url=fake.url, headers={"X-Key": "k"}))


def test_the_secret_is_never_shown(fake):
    """Reports have the address without it."""
    assert codec.without_secret(fake.admin_url) == fake.url


def test_a_certificate_of_ones_own_authority_is_trusted(tmp_path):
    """And where the server asks for one, the client's own is presented."""
    authority = trustme.CA()
    certificate, own = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("client.test")
    tls = ServerTLS(
        certificate_chain=certificate.cert_chain_pems[0].bytes(),
        private_key=certificate.private_key_pem.bytes(),
        client_authorities=authority.cert_pem.bytes(),
    )
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "own.pem")
    own.private_key_pem.write_to_path(tmp_path / "own.key")
    with FakeTriton(MODELS, tls=tls) as fake:
        known = Connection(
            url=fake.url, ca=tmp_path / "ca.pem", certificate=tmp_path / "own.pem", key=tmp_path / "own.key"
        )
        with connect(known) as client:
            assert describe(client, Traffic(model="linear")).signature.max_batch_size == 8
        for stranger in (Connection(url=fake.url), Connection(url=fake.url, ca=tmp_path / "ca.pem")):
            with connect(stranger) as client, pytest.raises(ServerUnavailable):
                describe(client, Traffic(model="linear"))


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("linear_int4", "linear_int8, linear, "),
        ("resnet", "resnet50, "),
        ("zzz", "bert, linear, linear_int8, resnet50"),
    ],
)
def test_an_unknown_model_is_answered_with_the_closest_names_first(fake, wanted, names):
    """Those who have no secret get the names as well."""
    with connect(Connection(url=fake.url)) as client, pytest.raises(ModelNotFound) as caught:
        describe(client, Traffic(model=wanted))
    assert f"no model '{wanted}' is served; these are: {names}" in str(caught.value)


def test_a_server_that_is_not_there_is_said_so():
    """Nobody listens on port 1."""
    with connect(Connection(url="grpc://127.0.0.1:1")) as client, pytest.raises(ServerUnavailable):
        describe(client, Traffic(model="linear"))


def test_outputs_for_which_there_is_no_memory_come_in_the_answers(fake, caplog, monkeypatch):
    """A run with more requests in flight than there is room for goes on, and says so once."""
    connection, traffic = Connection(url=fake.admin_url), Traffic(model="linear", shared_memory=True)
    with connect(connection) as client:
        signature = describe(client, traffic).signature
    with make_payloads(traffic, signature, seed=0, connection=connection, num_slots=2) as payloads:
        monkeypatch.setattr("naiad.loadtest._data.regions.Owner.segment", _no_room)
        with caplog.at_level(logging.WARNING, "naiad.loadtest"):
            suffixes = [payloads.output_suffix(slot) for slot in range(5)]
            payloads.lost(0)
    assert [bool(suffix) for suffix in suffixes] == [True, True, False, False, False]
    assert payloads.output_suffix(0) == suffixes[0]
    assert len(caplog.records) == 1
    assert "no shared memory for the outputs of more than 2 requests" in payloads.notes[-1]


def _no_room(*_):
    raise OSError("the test has taken it all")


def test_the_sizes_of_outputs_are_learnt_from_an_answer(fake):
    """The server is asked once before the run for each form of request."""
    connection, traffic = Connection(url=fake.admin_url), Traffic(model="linear", shared_memory=True, batch=3)
    with connect(connection) as client:
        signature = describe(client, traffic).signature
    with make_payloads(traffic, signature, seed=0, connection=connection) as payloads:
        assert [request.inputs["x"].shape for request in fake.calls()] == [(3, 4)]
        message = service_pb2.ModelInferRequest.FromString(payloads.output_suffix(0))
    assert [output.parameters["shared_memory_byte_size"].int64_param for output in message.outputs] == [3 * 4 * 4]
