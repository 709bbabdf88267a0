"""Streams of inferences: each message is checked, wherever the network cuts it."""

from collections.abc import Iterator

import pytest
from tritonclient.grpc import service_pb2 as pb

from recording_upstream import RecordingUpstream
from security_setting import SERVICE, Setting, infer, make_service, make_setting

REFUSED = "refused by the gateway: "


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A gateway that nobody changes."""
    with RecordingUpstream() as upstream:
        setting = make_setting(tmp_path_factory.mktemp("streams"), upstream, make_service())
        with setting.gateway:
            yield setting


def key(setting: Setting, identity: str = "reader") -> list[tuple[str, str]]:
    """The header with an identity's key."""
    return [("x-api-key", setting.keys[identity])]


def arrived(setting: Setting, before: int) -> list[pb.ModelInferRequest]:
    """The messages that came through since then."""
    return [pb.ModelInferRequest.FromString(arrival.body) for arrival in setting.upstream.arrivals[before:]]


def test_a_stream_that_changes_its_model_is_told_so_and_goes_on(setting: Setting) -> None:
    """In place of the forbidden message comes one whose model says why, with the same id."""
    before = len(setting.upstream.arrivals)
    models = ["digits", "other", "resnet50", "x/y", "digits"]
    answers = setting.stream("changing", [infer(model, id=f"n{i}") for i, model in enumerate(models)], key(setting))
    assert answers[::2] == ["digits", "resnet50", "digits"]
    assert answers[1] == f"{REFUSED}reader may not ask for inferences of the model other"
    assert answers[3].startswith(REFUSED)
    messages = arrived(setting, before)
    assert [message.id for message in messages] == [f"n{i}" for i in range(5)]
    assert "other" not in [message.model_name for message in messages]
    setting.logged("changing", identity="reader", denied="no-right")


def test_what_passes_is_not_changed(setting: Setting) -> None:
    """Small, large and many messages arrive byte for byte."""
    before = len(setting.upstream.arrivals)
    sizes = [0, 1, 100, 16_379, 16_384, 65_536, 1_000_000, 3, 2_000_000]
    messages = [infer("digits", id=str(size), raw_input_contents=[bytes([size % 251]) * size]) for size in sizes]
    setting.stream("large", messages, key(setting))
    assert [arrival.body for arrival in setting.upstream.arrivals[before:]] == messages
    setting.logged("large", identity="reader", model="digits", denied=None)


def test_a_region_of_shared_memory_is_refused_in_a_stream(setting: Setting) -> None:
    """As in single requests."""
    message = pb.ModelInferRequest(model_name="digits")
    message.inputs.add(name="x").parameters["shared_memory_region"].string_param = "r"
    (answer,) = setting.stream("region", [message.SerializeToString()], key(setting))
    assert "shared memory" in answer


def test_a_message_that_is_too_large_ends_the_stream(setting: Setting) -> None:
    """The caller hears it, and nothing of what follows passes."""
    before = len(setting.upstream.arrivals)
    large = infer("digits", raw_input_contents=[b"x" * 20_000])
    answers = setting.stream("too-large", [infer(), large, infer()], key(setting, "small"))
    assert answers[0] == "digits"
    assert answers[1].startswith(f"{REFUSED}a message of 20")
    assert [len(message.raw_input_contents) for message in arrived(setting, before)] == [0, 0]
    setting.logged("too-large", denied="too-large", identity="small")


def test_a_stream_without_a_key_does_not_begin(setting: Setting) -> None:
    """It is refused before its first message."""
    before = len(setting.upstream.arrivals)
    assert setting.grpc("no-key", "ModelStreamInfer", infer()) == "grpc 16"
    assert arrived(setting, before) == []


def _send_in_pieces(setting: Setting, agent: str, body: bytes, piece_bytes: int) -> None:
    """As a chunked HTTP/1.1 request, each chunk a piece, so that the gateway sees every boundary."""
    lines = [
        f"POST {SERVICE}ModelStreamInfer HTTP/1.1",
        "host: x",
        f"user-agent: {agent}",
        "content-type: application/grpc",
        "te: trailers",
        "transfer-encoding: chunked",
        "connection: close",
        f"x-api-key: {setting.keys['reader']}",
    ]
    with setting.connect() as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        for at in range(0, len(body), piece_bytes):
            piece = body[at : at + piece_bytes]
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        while connection.recv(65536):
            pass


def _frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 4, 5, 6, 7, 11, 1000])
def test_boundaries_between_pieces_change_nothing(setting: Setting, piece_bytes: int) -> None:
    """Frames cut at every byte are put together, and each message is checked."""
    before = len(setting.upstream.arrivals)
    body = b"".join(_frame(infer(model)) for model in ("digits", "other", "resnet1"))
    _send_in_pieces(setting, f"pieces-{piece_bytes}", body, piece_bytes)
    names = [message.model_name for message in arrived(setting, before)]
    assert names == ["digits", f"{REFUSED}reader may not ask for inferences of the model other", "resnet1"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("compressed", b"\x01" + _frame(infer())[1:]),
        ("unknown-flag", b"\x07" + _frame(infer())[1:]),
        ("half", _frame(infer())[:-1]),
        ("too-long", b"\0\xff\xff\xff\xff" + infer()),
        ("malformed", _frame(infer() + b"\x02\x01x")),
        ("two-models", _frame(infer() + b"\x0a\x05other")),
    ],
    ids=["compressed", "unknown-flag", "half", "too-long", "malformed", "two-models"],
)
def test_a_broken_stream_lets_nothing_through(setting: Setting, name: str, body: bytes) -> None:
    """What breaks the framing, or could be read in two ways, is replaced by a message that says so."""
    before = len(setting.upstream.arrivals)
    _send_in_pieces(setting, name, body, 1000)
    assert all(message.model_name.startswith(REFUSED) for message in arrived(setting, before))
    setting.logged(name, identity="reader")
