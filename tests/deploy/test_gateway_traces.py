"""Traces: the caller's decision is kept, spans reach a collector, and the log names the trace."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from gateway_helpers import channel, infer_message, log_lines, open_service, status_of
from launcher_helpers import eventually
from naiad.deploy.gateway import Gateway
from recording_upstream import RecordingUpstream

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
WANTED, UNWANTED = "4bf92f3577b34da6a3ce929d0e0e4736", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"


class Collector(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Keeps what is exported, as bytes."""

    def __init__(self) -> None:
        self.exported: list[bytes] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != EXPORT:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, _: self.exported.append(request) or b"")


@pytest.fixture
def collector() -> Iterator[tuple[Collector, int]]:
    found = Collector()
    server = grpc.server(ThreadPoolExecutor(2), handlers=(found,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield found, port
    server.stop(0).wait()


@pytest.mark.timeout(60)
def test_a_trace_that_the_caller_wants_reaches_the_collector(collector: tuple[Collector, int], tmp_path: Path) -> None:
    """With no share of its own the gateway records what a caller has chosen, passes it on, and logs its id."""
    found, port = collector
    log = tmp_path / "access.log"
    with (
        RecordingUpstream() as upstream,
        Gateway(
            open_service(trace_percent=0.0),
            endpoints={"main": [upstream.endpoint()]},
            access_log=log,
            collector=("127.0.0.1", port),
        ) as gateway,
        channel(gateway.grpc_url) as opened,
    ):
        for trace, flag in ((UNWANTED, "00"), (WANTED, "01")):
            metadata = [("traceparent", f"00-{trace}-00f067aa0ba902b7-{flag}"), ("x-request-id", trace)]
            assert status_of(opened, infer_message(), metadata=metadata) == "OK"
        eventually(lambda: any(bytes.fromhex(WANTED) in each for each in found.exported), "the span is exported", 30)
        assert not any(bytes.fromhex(UNWANTED) in each for each in found.exported)
        passed_on = [arrival.headers["traceparent"] for arrival in upstream.arrivals]
        eventually(lambda: len(log_lines(log)) == 2, "both lines", 20)
    assert [header.split("-")[1] for header in passed_on] == [UNWANTED, WANTED]
    assert passed_on[1].split("-")[2] != "00f067aa0ba902b7"
    logged = {line["request_id"]: line["trace_id"] for line in log_lines(log)}
    assert logged[WANTED] == WANTED
