"""Fuzz the reader of answers: `make fuzz`, or `python tests/fuzz/response.py [libFuzzer's options] [corpus]`.

Each input is read in every way the client has and by protobuf; see `wire_agreement` for what must agree. An input that
breaks this is written to `crash-*` in the working directory, and given to this program alone it breaks it again.
"""

import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np
from tritonclient.grpc import service_pb2 as pb

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["naiad.client"]):
    from wire_agreement import a_codec, check

BOUNDS = ("-max_len=1024", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1")
CODEC = a_codec()  # one for all: what an answer leaves in it must not change how the next one is read


def main() -> None:
    """Write the seeds to a folder that goes away afterwards, and run for as long as libFuzzer's options say."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds()):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *BOUNDS, *sys.argv[1:], corpus], lambda data: check(data, CODEC))
        atheris.Fuzz()


def seeds() -> list[bytes]:
    """Answers of every kind, as protobuf writes them: what the inputs are made from."""
    numbers = an_answer(("y", np.arange(6, dtype=np.float32).reshape(2, 3).tobytes(), "FP32", (2, 3)))
    two = an_answer(("y", b"\1\0", "BOOL", (2,)), ("z", bytes(8), "BF16", (1, 4, 1)))
    two.parameters["triton_final_response"].bool_param = True
    two.parameters["score"].double_param = -0.5
    two.outputs[1].parameters["k"].string_param = "v"
    words = an_answer(("s", b"\1\0\0\0a\1\0\0\0b", "BYTES", (2,)), ("t", b"\2\0\0\0ab\0\0\0\0", "BYTES", (2, 1)))
    placed = an_answer(("y", b"", "INT64", (3,)), ("n", b"", "INT8", (0, 7)))
    placed.outputs[0].parameters["shared_memory_region"].string_param = "r"
    placed.outputs[0].parameters["shared_memory_offset"].int64_param = 64
    typed = pb.ModelInferResponse(model_name="m", id="q")
    for datatype, field, values in (
        ("FP32", "fp32", [1.5, 2]),
        ("INT8", "int", [-1, 2]),
        ("BYTES", "bytes", [b"a", b""]),
    ):
        output = typed.outputs.add(name=field, datatype=datatype, shape=[2])
        getattr(output.contents, f"{field}_contents").extend(values)
    group = b"\x9b\6\x0a\1a\x9c\6"
    return [part.SerializeToString() for part in (numbers, two, words, placed, typed)] + [
        numbers.SerializeToString() + group,
        b"".join(part.SerializeToString() for part in (numbers, placed)),
    ]


def an_answer(*outputs: tuple[str, bytes, str, tuple[int, ...]]) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(model_name="m", model_version="1", id="id")
    for name, raw, datatype, shape in outputs:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_output_contents.append(raw)
    return message


if __name__ == "__main__":
    main()
