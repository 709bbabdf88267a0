"""The filter's own parsers, without a gateway, against the libraries that read the same bytes after it."""

import fnmatch
import hashlib
import json
import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from deploy_helpers import program
from naiad.deploy._gateway.lua import script
from naiad.deploy.place import Place
from naiad.deploy.service import Identity, Rights, Service

DRIVER = Path(__file__).parents[1] / "filter_driver.lua"
SERVICE = Service(identities=(Identity(name="fuzz", rights=Rights(infer=("digits", "resnet*"))),))


@pytest.fixture(scope="module")
def filter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program as the gateway gets it, and the driver after it."""
    path = tmp_path_factory.mktemp("filter") / "filter.lua"
    path.write_text(script(SERVICE, Place(config_dir="/c", secrets_dir="/s")) + DRIVER.read_text())
    return path


def drive(filter_file: Path, commands: Sequence[str]) -> list[str]:
    """The answers to all commands, in order."""
    done = subprocess.run(
        [program("luajit"), filter_file], input="\n".join(commands) + "\n", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == len(commands)
    return answers


def frame(message: bytes) -> bytes:
    """One message of gRPC."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def test_digests_are_those_of_the_standard(filter_file: Path) -> None:
    """SHA-256 of every length around the blocks, and of noise."""
    source = random.Random(1)
    texts = [source.randbytes(length) for length in [*range(200), 511, 512, 513, 4096]]
    answers = drive(filter_file, [f"sha256 {text.hex()}" for text in texts])
    assert answers == [hashlib.sha256(text).hexdigest() for text in texts]


def _request(source: random.Random) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(
        model_name=source.choice(["digits", "other", "resnet50", "", "x"]),
        model_version=source.choice(["", "1", "23"]),
        id="i" * source.choice([0, 1, 130, 600]),
    )
    for _ in range(source.randrange(3)):
        tensor = message.inputs.add(
            name="x" * source.choice([1, 200]), datatype="FP32", shape=[1, 2 ** source.randrange(40)]
        )
        if source.random() < 0.3:
            name = source.choice(["shared_memory_region", "binary_data_size", "shared_memory_regio"])
            tensor.parameters[name].string_param = "r"
        if source.random() < 0.3:
            tensor.contents.fp32_contents.extend([1.0] * source.choice([1, 300]))
    for _ in range(source.randrange(2)):
        parameters = message.outputs.add(name="y").parameters
        parameters[source.choice(["classification", "shared_memory_region"])].int64_param = 3
    message.raw_input_contents.extend(source.randbytes(source.choice([0, 10, 700])) for _ in range(source.randrange(3)))
    return message


def _mutated(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(source.choice([0, 1, 1, 2, 5])):
        at = source.randrange(len(changed) + 1)
        match source.randrange(4):
            case 0:
                changed[at:at] = source.randbytes(source.choice([1, 2, 5]))
            case 1:
                del changed[at : at + source.choice([1, 2, 9])]
            case 2 if at < len(changed):
                changed[at] = source.choice([0, 1, 8, 10, 0x7F, 0x80, 0x8A, 0xFF, source.randrange(256)])
            case _:
                piece = source.randrange(len(changed) + 1)
                changed[at:at] = changed[piece : piece + 12]
    return bytes(changed)


def _regions(message: pb.ModelInferRequest) -> bool:
    tensors = [*message.inputs, *message.outputs]
    return any("shared_memory_region" in tensor.parameters for tensor in tensors)


def test_what_passes_is_what_triton_will_read(filter_file: Path) -> None:
    """Of 20,000 requests, most of them damaged: one that passes names an allowed model, and no shared memory."""
    source = random.Random(2)
    messages = [_mutated(_request(source).SerializeToString(), source) for _ in range(20_000)]
    answers = drive(filter_file, [f"infer {frame(message).hex()}" for message in messages])
    num_passed = 0
    for message, answer in zip(messages, answers, strict=True):
        assert not answer.startswith("fault"), (answer, message.hex())
        if answer.startswith("refuse"):
            continue
        num_passed += 1
        try:
            read = pb.ModelInferRequest.FromString(message)
        except DecodeError:
            continue  # Triton refuses it as well
        assert read.model_name == bytes.fromhex(answer.split()[1]).decode(), message.hex()
        assert read.model_name in ("digits", "resnet50") or read.model_name.startswith("resnet"), message.hex()
        assert not _regions(read), message.hex()
    assert num_passed > 1000


def test_sound_requests_pass(filter_file: Path) -> None:
    """What protobuf itself writes is refused only for its model or its shared memory."""
    source = random.Random(3)
    messages = [_request(source) for _ in range(2000)]
    answers = drive(filter_file, [f"infer {frame(message.SerializeToString()).hex()}" for message in messages])
    for message, answer in zip(messages, answers, strict=True):
        allowed = message.model_name in ("digits", "resnet50") and not _regions(message)
        assert answer.startswith("pass") == allowed, (answer, message)


def test_pieces_of_a_stream_do_not_matter(filter_file: Path) -> None:
    """However a stream is cut, the same bytes come out; and each message is one that Triton may see."""
    source = random.Random(4)
    commands = []
    for _ in range(300):
        body = b"".join(frame(_mutated(_request(source).SerializeToString(), source)) for _ in range(4))
        if source.random() < 0.3:
            body = _mutated(body, source)
        cuts = [" ".join(str(source.choice([1, 2, 3, 5, 8, 300])) for _ in range(count)) for count in (0, 5, 400)]
        commands += [f"stream {body.hex()} {sizes}" for sizes in cuts]
    answers = drive(filter_file, commands)
    for whole, *cut in zip(answers[::3], answers[1::3], answers[2::3], strict=True):
        assert cut == [whole, whole]
        for read in _readable(bytes.fromhex(whole)):
            assert read.model_name.startswith(("digits", "resnet", "refused by the gateway: "))
            assert not _regions(read)


def _readable(data: bytes) -> Iterator[pb.ModelInferRequest]:
    """The messages in whole frames; those that are none, Triton refuses as well."""
    while data:
        assert data[0] == 0
        size = int.from_bytes(data[1:5], "big")
        assert len(data) >= 5 + size
        with suppress(DecodeError):
            yield pb.ModelInferRequest.FromString(data[5 : 5 + size])
        data = data[5 + size :]


def test_no_spelling_of_shared_memory_passes_as_json(filter_file: Path) -> None:
    """Each letter may be escaped, and the name may lie on the boundary of what is read at once."""
    name = "shared_memory_region"
    spellings = [name, *(f"{name[:i]}\\u{ord(name[i]):04x}{name[i + 1 :]}" for i in range(len(name)))]
    bodies = [
        json.dumps({"inputs": [{"parameters": {"SPELLING": "r"}}]}).replace("SPELLING", each) for each in spellings
    ]
    for spelling in spellings[:2]:
        bodies += [f'{{"id": "{"x" * (65536 - shift)}", "{spelling}": 1}}' for shift in range(60)]
    for body in bodies:
        assert name in str(json.loads(body))
    answers = drive(filter_file, [f"json {body.encode().hex()}" for body in bodies])
    assert [answer for answer in answers if not answer.startswith("refuse")] == []


def test_a_body_of_backslashes_takes_no_longer_than_another(filter_file: Path) -> None:
    """The search for escapes is linear: two megabytes of what makes patterns slow are read in no time."""
    bodies = ["\\" * 2_000_000, "\\u00" * 400_000, "\\\\u0061" * 200_000, '{"id": "C:\\\\u0061"}']
    answers = drive(filter_file, [f"json {body.encode().hex()}" for body in bodies])
    assert answers[3] == "pass"
    assert [answer.split()[0] for answer in answers[:2]] == ["pass", "pass"]


def test_patterns_of_models_are_those_of_the_shell(filter_file: Path) -> None:
    """With any number of `*`, against Python's own."""
    source = random.Random(5)
    pairs = [
        (
            "".join(source.choices("ab*", k=source.randrange(1, 7))),
            "".join(source.choices("ab", k=source.randrange(1, 9))),
        )
        for _ in range(20_000)
    ]
    pairs = [(pattern, name) for pattern, name in pairs if "*" in pattern]
    answers = drive(filter_file, [f"fits {f'{pattern}{chr(10)}{name}'.encode().hex()}" for pattern, name in pairs])
    expected = [str(fnmatch.fnmatchcase(name, pattern)).lower() for pattern, name in pairs]
    assert answers == expected
    assert 0.1 < expected.count("true") / len(expected) < 0.9
