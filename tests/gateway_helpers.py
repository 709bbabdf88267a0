"""Calls through a gateway, and what it has logged about them."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from naiad.deploy.service import Rights, Service

OPEN = Rights(infer=("*",), observe=("*",))
INFER = "/inference.GRPCInferenceService/ModelInfer"
_UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
Metadata = Sequence[tuple[str, str]]


def open_service(**fields: Any) -> Service:
    """A service that lets everybody in, without TLS unless it is asked for."""
    return Service(**{"tls": False, "anonymous": OPEN, **fields})


def infer_message(model: str = "identity", seconds: float = 0.0, *, extra_bytes: int = 0) -> bytes:
    """A request for the model of `launcher_helpers`; so many bytes more make it larger, and wrong."""
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    message.raw_input_contents.append(np.full((1, 2), seconds, np.float32).tobytes() + bytes(extra_bytes))
    return bytes(message.SerializeToString())


@contextmanager
def channel(url: str, credentials: grpc.ChannelCredentials | None = None) -> Iterator[grpc.Channel]:
    """A gRPC channel that neither retries nor limits anything."""
    address = url.partition("://")[2]
    opened = (
        grpc.secure_channel(address, credentials, options=_UNLIMITED)
        if credentials
        else grpc.insecure_channel(address, options=_UNLIMITED)
    )
    with opened:
        yield opened


def status_of(
    on: grpc.Channel, message: bytes, *, timeout_s: float = 20.0, method: str = INFER, metadata: Metadata = ()
) -> str:
    """The name of the status that a call ends with."""
    try:
        on.unary_unary(method)(message, timeout=timeout_s, metadata=metadata)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def outcomes(
    url: str,
    message: bytes,
    num_requests: int,
    *,
    midway: Callable[[], object],
    credentials: Callable[[], grpc.ChannelCredentials] | None = None,
    num_threads: int = 8,
    per_channel: int | None = None,
) -> Counter[str]:
    """Statuses of so many requests, sent by several threads; `midway` runs when a third of them has been sent.

    With `per_channel`, each thread takes a new connection after so many requests.
    """
    found: Counter[str] = Counter()
    lock = threading.Lock()
    numbers = iter(range(num_requests))

    def run_midway(number: int) -> None:
        if number == num_requests // 3:
            midway()

    def send() -> None:
        while True:
            with channel(url, credentials() if credentials else None) as opened:
                for _ in range(per_channel or num_requests):
                    with lock:
                        number = next(numbers, None)
                    if number is None:
                        return
                    run_midway(number)
                    status = status_of(opened, message)
                    with lock:
                        found[status] += 1

    threads = [threading.Thread(target=send) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def log_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of an access log that are complete."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
