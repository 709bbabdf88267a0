"""A server in Triton's place that writes down everything that reaches it, and answers it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import grpc
from tritonclient.grpc import service_pb2 as pb

from naiad.deploy.place import Endpoint


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One request as it arrived, or one message of a stream."""

    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class RecordingUpstream:
    """Speaks gRPC and HTTP on ports of its own; health checks are answered and not written down."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self._grpc = grpc.server(
            ThreadPoolExecutor(16),
            handlers=(_Handler(self.arrivals),),
            options=[("grpc.max_receive_message_length", -1)],
        )
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _http_handler(self.arrivals))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._grpc.start()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._grpc.stop(0).wait()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def endpoint(self, name: str = "main-0") -> Endpoint:
        """Where it is."""
        return Endpoint(
            name=name, host="127.0.0.1", grpc_port=self.grpc_port, http_port=self._http.server_port, metrics_port=1
        )


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, arrivals: list[Arrival]) -> None:
        self._arrivals = arrivals

    def service(self, details: Any) -> Any:
        path, headers = details.method, dict(details.invocation_metadata)
        if path.endswith("/ModelStreamInfer"):
            return grpc.stream_stream_rpc_method_handler(self._stream(path, headers))
        return grpc.unary_unary_rpc_method_handler(self._unary(path, headers))

    def _unary(self, path: str, headers: dict[str, str]) -> Any:
        def answer(body: bytes, _context: Any) -> bytes:
            self._arrivals.append(Arrival(path=path, headers=headers, body=body))
            return b""

        return answer

    def _stream(self, path: str, headers: dict[str, str]) -> Any:
        def answer(bodies: Iterator[bytes], _context: Any) -> Iterator[bytes]:
            for body in bodies:
                self._arrivals.append(Arrival(path=path, headers=headers, body=body))
                yield pb.ModelStreamInferResponse(
                    error_message=pb.ModelInferRequest.FromString(body).model_name
                ).SerializeToString()

        return answer


def _http_handler(arrivals: list[Arrival]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self._chunks() if self.headers.get("transfer-encoding") else self._sized()
            if self.path != "/v2/health/ready" or self.headers.get("x-naiad-identity"):
                arrivals.append(Arrival(path=self.path, headers=dict(self.headers.items()), body=body))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def _sized(self) -> bytes:
            return self.rfile.read(int(self.headers.get("content-length") or 0))

        def _chunks(self) -> bytes:
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    return Handler
