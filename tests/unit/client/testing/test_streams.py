"""Streams and sequences of the client, on the fake and with its faults."""

from collections.abc import Iterator

import numpy as np
import pytest

from naiad.client import Client, ClientError, InferenceFailed, InvalidInput, InvalidResponse, ServerUnavailable
from naiad.client.testing import FakeModel, FakeSequence, FakeTriton, Recorder, Refusal, Replay, ServerTLS, http2


def parts(n: np.ndarray, fail_at: np.ndarray | None = None) -> Iterator[dict[str, np.ndarray]]:
    for number in range(int(n[0])):
        if fail_at is not None and number == fail_at[0]:
            raise Refusal(f"part {number} broke", "INTERNAL")
        yield {"i": np.array([number], np.int32)}


def total(x: np.ndarray, sequence: FakeSequence) -> dict[str, np.ndarray]:
    sequence.state["total"] = sequence.state.get("total", 0) + x
    return {"total": sequence.state["total"]}


@pytest.fixture
def fake() -> Iterator[FakeTriton]:
    models = {
        "parts": FakeModel(
            parts, inputs={"n": "INT32[1]", "fail_at": "INT32[1]"}, outputs={"i": "INT32[1]"}, optional=["fail_at"]
        ),
        "total": FakeModel(total, inputs={"x": "INT32[-1,1]"}, outputs={"total": "INT32[-1,1]"}, max_batch_size=4),
    }
    with FakeTriton(models) as server:
        yield server


@pytest.fixture
def client(fake) -> Iterator[Client]:
    with Client(fake.url) as client:
        yield client


def read(client: Client, n: int, **rest: object) -> list[int]:
    return [int(part["i"][0]) for part in client.model("parts").stream(n=[n], **rest)]


def test_a_stream_gives_all_parts(fake, client):
    """One after another, and none where there is none."""
    assert read(client, 5) == [0, 1, 2, 3, 4]
    assert read(client, 0) == []
    assert [request.status for request in fake.calls("ModelStreamInfer")] == ["OK", "OK"]


def test_a_model_that_breaks_in_the_middle_ends_its_stream(client):
    """The parts before are there."""
    got = []
    with pytest.raises(ClientError, match="part 2 broke"):
        for part in client.model("parts").stream(n=[5], fail_at=[2]):
            got.append(int(part["i"][0]))
    assert got == [0, 1]
    assert read(client, 2) == [0, 1]


def test_leaving_the_loop_closes_the_models_generator(fake, client):
    """The fake sees that nobody reads any more."""
    for _ in client.model("parts").stream(n=[1_000_000]):
        break
    (request,) = fake.calls("ModelStreamInfer")
    assert request.wait(20)
    assert read(client, 1) == [0]


def test_a_sequence_keeps_its_state(client):
    """On the fake as on a server."""
    with client.model("total").sequence() as sequence:
        assert [int(sequence(x=[[value]])["total"][0, 0]) for value in (1, 2, 3)] == [1, 3, 6]


FAULTS = {
    "refused": (lambda fake: fake.fail(1, status="INTERNAL", method="ModelStreamInfer"), InferenceFailed),
    "dropped on arrival": (lambda fake: fake.drop(1, method="ModelStreamInfer"), ServerUnavailable),
    "dropped at a part": (
        lambda fake: fake.drop(1, when="answer", every=3, method="ModelStreamInfer"),
        ServerUnavailable,
    ),
    "no message": (lambda fake: fake.answer_bytes(b"\xff\xff\xff", 1, method="ModelStreamInfer"), InvalidResponse),
    "half a message": (lambda fake: fake.truncate(1, every=2, method="ModelStreamInfer"), InvalidResponse),
    "half a part, then cut": (lambda fake: fake.half_answer(1, method="ModelStreamInfer"), ServerUnavailable),
    "half a part, then reset": (
        lambda fake: fake.half_answer(1, ending="reset", method="ModelStreamInfer"),
        InferenceFailed,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_stream_that_breaks_is_an_error(fake, client, until_well, fault):
    """Of the client's own kind, at the part where it breaks; the next stream is whole."""
    make, expected = FAULTS[fault]
    assert read(client, 1) == [0]
    struck = make(fake)
    with pytest.raises(expected):
        read(client, 5)
    assert struck.num_struck == 1

    def again() -> object:
        try:
            return read(client, 2)
        except ServerUnavailable as error:
            return error.status

    assert until_well(again) == [0, 1]


def test_a_stream_is_recorded_and_replayed_by_the_client(fake, tmp_path):
    """Every call has its own name; the recording does not care."""
    path = tmp_path / "answers.naiad"
    with Recorder(fake.url, path) as recorder, Client(recorder.url) as client:
        assert read(client, 3) == [0, 1, 2]
    with Replay(path) as replay, Client(replay.url) as client:
        assert read(client, 3) == [0, 1, 2]
        with pytest.raises(ClientError, match="input 'n' has 1 other values"):
            read(client, 4)


def test_frames_cannot_be_replaced_under_tls():
    """The line does not see them."""
    import trustme

    certificate = trustme.CA().issue_cert("localhost")
    tls = ServerTLS(
        certificate_chain=certificate.cert_chain_pems[0].bytes(), private_key=certificate.private_key_pem.bytes()
    )
    with FakeTriton(tls=tls) as fake:
        assert fake.url.startswith("grpcs://")
        for make in (fake.half_answer, fake.no_trailers, fake.endless_headers, fake.goaway):
            with pytest.raises(InvalidInput, match=r"TLS|plain"):
                make()


def test_frames_are_as_rfc_9113_has_them():
    """Lengths, flags and pieces of what is too long for one frame."""
    assert http2.goaway(3, 1, b"x") == bytes.fromhex("000009 07 00 00000000 00000003 00000001 78")
    assert http2.rst_stream(5, 8) == bytes.fromhex("000004 03 00 00000005 00000008")
    assert http2.message(b"ab", announced=9) == bytes.fromhex("00 00000009 6162")
    assert http2.headers(1, [("a", "b")], end=True) == bytes.fromhex("000005 01 05 00000001 00 01 61 01 62")
    long = http2.field_block([("n", "v" * 300)])
    assert long[:6] == bytes.fromhex("00 01 6e 7f ad 01")
    pieces = http2.headers(1, [("n", "v" * 40_000)])
    assert [pieces[at + 3] for at in (0, 9 + 16_384, 2 * (9 + 16_384))] == [http2.HEADERS] + 2 * [http2.CONTINUATION]
    assert pieces[2 * (9 + 16_384) + 4] == http2.END_HEADERS
    body = http2.data(1, bytes(16_385), end=True)
    assert (len(body), body[4], body[9 + 16_384 + 4]) == (2 * 9 + 16_385, 0, http2.END_STREAM)
